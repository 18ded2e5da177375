# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the artifact of the collection, use it, and check it as Galaxy does."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import project
import setup
from common import BUILD, ROOT, Problem
from session import Checks

# Public content needs these and nothing else; anything else in the artifact is a failure.
TOP = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "bindep.txt",
    "requirements.txt",
}
TOP |= {"changelogs", "docs", "meta", "playbooks", "plugins", "roles"}
TOP |= {"CODE_OF_CONDUCT.md", "MAINTAINING.md", "SECURITY.md"}


def build(checks: Checks) -> Path:
    """Build the collection from a clean copy into .build/artifact; return the file."""
    output = BUILD / "artifact"
    shutil.rmtree(output, ignore_errors=True)
    copy = project.copy(BUILD / "artifact-source")
    argv = [
        setup.environment_bin("dev") / "ansible-galaxy",
        "collection",
        "build",
        copy,
        "--output-path",
        output,
    ]
    checks.check("collection build", argv)
    files = list(output.glob("mlops-fleet-*.tar.gz"))
    if not files:
        raise Problem(f"no artifact was built, see {checks.log_path}")
    return files[0]


def use_installed(checks: Checks, artifact: Path) -> bool:
    """Install the artifact into an empty collections path and use everything from there; return
    whether it could be installed.
    """
    installed = BUILD / "installed"
    shutil.rmtree(installed, ignore_errors=True)
    env, dev = (
        checks.environment(ANSIBLE_COLLECTIONS_PATH=str(installed)),
        setup.environment_bin("dev"),
    )
    argv = [
        dev / "ansible-galaxy",
        "collection",
        "install",
        artifact,
        "--collections-path",
        installed,
        "--no-deps",
    ]
    if not checks.check("install into an empty path", argv, env=env):
        return False
    checks.check(
        "documentation of everything",
        [dev / "ansible-doc", "--metadata-dump", "mlops.fleet"],
        env=env,
    )
    for playbook in sorted((installed / "ansible_collections/mlops/fleet/playbooks").glob("*.yml")):
        name = f"mlops.fleet.{playbook.stem}"
        checks.check(
            f"syntax of {name}",
            [dev / "ansible-playbook", "--syntax-check", "--inventory", "localhost,", name],
            env=env,
        )
    run_sample(checks, installed)
    return True


def run_sample(checks: Checks, installed: Path) -> None:
    """Run the maintenance on a sample with the installed collection, as `make run` does."""
    sample = BUILD / "run-sample"
    shutil.rmtree(sample, ignore_errors=True)
    argv = [
        sys.executable,
        ROOT / "scripts" / "run.py",
        "--directory",
        sample,
        "--collections",
        installed,
    ]
    if checks.check("the sample run (make run) with the installed collection", argv):
        for pattern in (
            "reports/maintenance-*.html",
            "reports/maintenance-*.json",
            "backups/models_backup_*.tar.gz",
        ):
            checks.result.record(
                f"the sample run left {pattern}", any(sample.glob(pattern)), "nothing there"
            )


def galaxy_importer(checks: Checks, artifact: Path) -> None:
    """Run what Galaxy runs on an upload; a warning is a failure, too."""
    try:
        binaries = setup.environment_bin("importer")
    except setup.Unavailable as reason:
        checks.result.skip("galaxy-importer", str(reason))
        return
    config = BUILD / "galaxy-importer.cfg"
    config.write_text(
        "[galaxy-importer]\nRUN_ANSIBLE_TEST = False\nRUN_FLAKE8 = False\nCHECK_CHANGELOG = True\n",
        encoding="utf-8",
    )
    env = checks.environment(GALAXY_IMPORTER_CONFIG=str(config))
    env["PATH"] = os.pathsep.join([str(binaries), env["PATH"]])
    work = BUILD / "importer-work"
    work.mkdir(exist_ok=True)
    done = checks.command(
        [binaries / "python", "-m", "galaxy_importer.main", artifact], cwd=work, env=env
    )
    last = done.stdout.strip().splitlines()[-1:] or ["no output"]
    checks.result.record("galaxy-importer accepts it", done.returncode == 0, last[0][:200])
    complaints = re.findall(r"^(?:WARNING|ERROR): .*$", done.stdout, re.M)
    checks.result.record(
        "galaxy-importer has no complaint", not complaints, "; ".join(complaints)[:300]
    )
