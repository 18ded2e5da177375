# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole maintenance on this machine, with a small sample instead of real models (this is `make
run`).

Health and GPU checks read the real machine; backup and cleanup work on the sample. Everything that
is written is below one directory: MLOPS_RUN_DIR, by default ./mlops-fleet-run, and the virtual
environment in .build/venv.

    python3 scripts/run.py [--directory DIR] [--collections PATH] [-- words for ansible-playbook]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import setup
from common import ROOT, Problem, main_wrapper, say

MARK = ".mlops-fleet-run"


def open_directory(directory: Path) -> None:
    """Make the working directory, or take that of an earlier run; anything else that is not empty
    is somebody's data.
    """
    if directory.exists() and not directory.is_dir():
        raise Problem(f"{directory} is a file. Name another directory with MLOPS_RUN_DIR.")
    if directory.exists() and any(directory.iterdir()) and not (directory / MARK).exists():
        raise Problem(
            f"{directory} holds things that no earlier run made."
            " Name an empty or a new directory with MLOPS_RUN_DIR."
        )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).write_text(
        "made by `make run`; this directory may be removed\n", encoding="utf-8"
    )


def lay_out(directory: Path, python: Path) -> None:
    """Lay out the sample again, but keep models that are there: unchanged models need no new
    backup, and a second run shows that.
    """
    for name in ("experiments", "checkpoints", "logs"):
        shutil.rmtree(directory / "sample" / name, ignore_errors=True)
    subprocess.run(
        [str(python), str(ROOT / "scripts" / "sample.py"), str(directory / "sample")],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def variables(directory: Path) -> dict[str, Any]:
    """What differs from the roles' defaults: every path is inside the directory, and only the
    sample is backed up and cleaned.
    """
    sample = directory / "sample"
    return {
        "maintenance_model_dir": str(sample / "models"),
        "maintenance_backup_dir": str(directory / "backups"),
        "maintenance_gpu_metrics_csv": str(directory / "state" / "gpu-metrics.csv"),
        "maintenance_health_state_file": str(directory / "state" / "health.json"),
        # A ctime can't be set back, so fresh sample data is never old by it: here the modification
        # time decides.
        "maintenance_cleanup_targets": [
            {
                "name": "experiments",
                "path": str(sample / "experiments"),
                "retention_days": 30,
                "age_by": "mtime",
            },
            {
                "name": "checkpoints",
                "path": str(sample / "checkpoints"),
                "retention_days": 7,
                "age_by": "mtime",
            },
            {
                "name": "logs",
                "path": str(sample / "logs"),
                "pattern": "ml-*",
                "retention_days": 14,
                "age_by": "mtime",
            },
        ],
        "maintenance_cleanup_report_path": str(directory / "state" / "cleanup.json"),
        "fleet_report_dir": str(directory / "reports"),
        # A laptop that is low on disk is worth a line in the report, not a failed demonstration.
        "fleet_report_gate": False,
    }


def write_inventory(directory: Path, python: Path) -> None:
    """Write vars.json, and inventory.json with this machine as the only host."""
    (directory / "vars.json").write_text(
        json.dumps(variables(directory), indent=2) + "\n", encoding="utf-8"
    )
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(python),
        "ansible_remote_tmp": str(directory / "tmp"),
    }
    inventory = {"all": {"hosts": {"localhost": host}}}
    (directory / "inventory.json").write_text(
        json.dumps(inventory, indent=2) + "\n", encoding="utf-8"
    )


def environment(directory: Path, collections: Path, python: Path) -> dict[str, str]:
    """Return the environment of ansible-playbook; modules run on this machine inherit it."""
    env = {
        key: value
        for key, value in setup.clean_environment().items()
        if not key.startswith("ANSIBLE_")
    }
    env.update(
        ANSIBLE_COLLECTIONS_PATH=str(collections),
        ANSIBLE_HOME=str(directory / "tmp"),
        ANSIBLE_LOCAL_TEMP=str(directory / "tmp"),
    )
    env["MLOPS_FLEET_LOCK_DIR"] = str(
        directory / "state" / "lock"
    )  # modules run on this machine inherit it
    env["MLOPS_FLEET_STATE_DIR"] = str(directory / "state")
    env.update(
        PYTHONDONTWRITEBYTECODE="1",
        ANSIBLE_LOCALHOST_WARNING="False",
        ANSIBLE_FORCE_COLOR="1" if sys.stdout.isatty() else "0",
    )
    env["PATH"] = os.pathsep.join([str(python.parent), env.get("PATH", "")])
    return env


def report(directory: Path) -> None:
    """Print where the newest report and backup are."""
    say()
    for title, pattern in (
        ("report (page)", "reports/*.html"),
        ("report (data)", "reports/*.json"),
        ("backup", "backups/models_backup_*.tar.gz"),
    ):
        newest = max(
            directory.glob(pattern),
            key=lambda path: (path.stat().st_mtime, -len(path.name)),
            default=None,
        )
        say(f"{title:<15} {newest or 'none was written'}")
    say(f"{'sample':<15} {directory / 'sample'}")


def main() -> int:
    own, extra = sys.argv[1:], []
    if "--" in own:
        own, extra = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(os.environ.get("MLOPS_RUN_DIR") or "mlops-fleet-run")
    )
    parser.add_argument(
        "--collections",
        type=Path,
        help="a collections path that holds an installed mlops.fleet, instead of this checkout",
    )
    given = parser.parse_args(own)
    directory = given.directory.expanduser().absolute()
    try:
        python = setup.ensure("venv")
    except setup.Unavailable as reason:
        raise Problem(str(reason)) from reason
    collections = given.collections.absolute() if given.collections else setup.link_collection()
    open_directory(directory)
    lay_out(directory, python)
    (directory / "state").mkdir(exist_ok=True)
    write_inventory(directory, python)
    env = environment(directory, collections, python)
    argv = [
        str(python.parent / "ansible-playbook"),
        "--inventory",
        str(directory / "inventory.json"),
        "--extra-vars",
        f"@{directory / 'vars.json'}",
    ]
    done = subprocess.run(
        [*argv, "mlops.fleet.maintenance", *extra], env=env, cwd=directory, check=False
    )
    shutil.rmtree(directory / "tmp", ignore_errors=True)
    report(directory)
    if done.returncode != 0:
        say(f"The run ended with {done.returncode}: something above failed.")
    return done.returncode


if __name__ == "__main__":
    main_wrapper(main)
