# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's checks as nox sessions.

    make lint · make unit · ...                  set up what is missing, then run the session
    .build/dev/bin/nox --list                    all sessions
    .build/dev/bin/nox -s unit -- -k verdict     arguments after `--`: for the session's tool

Sessions have no virtual environments of nox's own: scripts/setup.py makes those under .build/, with
the fingerprint of their requirements, and they stay between runs and are shared by sessions. That
keeps a warm start at about a second, and one environment serves lint, unit tests and sanity.
antsibull-nox is not used for the same reason: its sessions install their tools themselves, and its
ansible-test sessions want containers.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import sys
import tarfile
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).resolve().parent / "scripts"))
import artifact
import integration_targets
import nodes
import project
import sanity_tests
import scenario
import setup
from common import (
    BUILD,
    ROOT,
    find_tool,
    install_command,
    interpreters,
    packages_for,
)
from session import Checks
from versions import ANSIBLE_LINES, TARGET_PYTHONS

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "typing", "unit"]

CORE = "plugins/module_utils/_core"
# Tests of tests/system above _core that use no ansible-core: they run once, not for each line.
WITHOUT_ANSIBLE = (
    "tests/system/nvml_double",
    "tests/system/roles/test_gpu_history.py",
    "tests/system/roles/test_mlfleet_failures.py",
    "tests/system/roles/test_mlfleet_help.py",
    "tests/system/test_recipes.py",
)

# The tests of tests/fleet import their conftest.
FLEET_OPTIONS = ["--confcutdir=tests/fleet", "--import-mode=prepend", "--timeout=900"]


def start(session: nox.Session) -> Checks:
    """The checks of a session, with the collection linked where its tools look for it."""
    setup.link_collection()
    return Checks(session.name, list(session.posargs))


def finish(session: nox.Session, checks: Checks) -> None:
    """Fail the session where a check failed."""
    if not checks.good:
        session.error(f"{checks.result.failed} failed, see {checks.log_path}")


@nox.session
def lint(session: nox.Session) -> None:
    """Style: ruff, yamllint, ansible-lint, shellcheck, codespell, generated files."""
    with start(session) as checks:
        dev = setup.environment_bin("dev")
        checks.check("ruff check", [dev / "ruff", "check", "."])
        checks.check("ruff format", [dev / "ruff", "format", "--check", "."])
        checks.check("yamllint", [dev / "yamllint", "--strict", "."])
        checks.check(
            "ansible-lint, profile production", [dev / "ansible-lint", "--strict", "--nocolor"]
        )
        checks.check("codespell", [dev / "codespell", *project.files()])
        generate = [dev / "python", ROOT / "scripts" / "generate.py", "--check"]
        checks.check("scripts/generate.py --check", generate)
        for script in ("wordlist.py", "limits.py"):
            checks.check(f"scripts/{script}", [dev / "python", ROOT / "scripts" / script])
        shell = [
            path
            for path in project.files()
            if path.endswith(".sh") or project.is_shell(ROOT / path)
        ]
        if not find_tool("shellcheck"):
            checks.result.skip("shellcheck", install_command(["shellcheck"]))
        elif shell:
            checks.check("shellcheck", [find_tool("shellcheck"), *shell])
    finish(session, checks)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy: core, node command, Ansible side, scripts."""
    with start(session) as checks:
        mypy = setup.environment_bin("dev") / "mypy"
        checks.check("mypy: the core", [mypy, "--config-file", "mypy.ini"])
        # On a node the command and the core are one package, whose name is the version.
        package = BUILD / "typing" / "agent"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        for name, source in (("_core", CORE), ("mlfleet", "roles/agent/files/mlfleet")):
            link = package / name
            link.unlink(missing_ok=True)
            link.symlink_to(ROOT / source)
        checks.check(
            "mypy: node command",
            [mypy, "--config-file", "mypy.ini", "--package", "agent.mlfleet"],
            env=checks.environment(MYPYPATH=str(package.parent)),
        )
        collection = "ansible_collections.mlops.fleet.plugins"
        argv = [mypy, "--config-file", "mypy.ini"]
        for package_name in ("action", "filter", "modules"):
            argv += ["--package", f"{collection}.{package_name}"]
        argv += ["--module", f"{collection}.module_utils._shell"]
        collections = str(setup.link_collection())
        env = checks.environment(MYPYPATH=collections)
        checks.check("mypy: modules, action plugins, filters", argv, env=env)
        scripts = [*sorted((ROOT / "scripts").glob("*.py")), ROOT / "noxfile.py"]
        env = checks.environment(MYPYPATH=f"{collections}:{ROOT / 'scripts'}")
        checks.check("mypy: scripts", [mypy, "--config-file", "mypy.ini", *scripts], env=env)
    finish(session, checks)


@nox.session
def docs(session: nox.Session) -> None:
    """Check documentation with antsibull-docs, and changelog fragments."""
    with start(session) as checks:
        dev = setup.environment_bin("dev")
        copy = project.copy(BUILD / "docs")
        env = checks.environment(ANSIBLE_COLLECTIONS_PATH=str(BUILD / "docs"))
        argv = [
            dev / "antsibull-docs",
            "lint-collection-docs",
            "--plugin-docs",
            "--skip-rstcheck",
            ".",
        ]
        checks.check("antsibull-docs lint-collection-docs", argv, cwd=copy, env=env)
        checks.check(
            "antsibull-changelog lint", [dev / "antsibull-changelog", "lint"], cwd=copy, env=env
        )
    finish(session, checks)


@nox.session
def unit(session: nox.Session) -> None:
    """Run tests/unit on both ansible-core lines, that of _core on every Python of targets."""
    with start(session) as checks:
        covered = set()
        for name, (_line, version) in ANSIBLE_LINES.items():
            try:
                setup.environment_bin(name)
            except setup.Unavailable as reason:
                checks.result.skip(f"unit on .build/{name}", str(reason))
                continue
            covered.add(version)
            title = f"all, {setup.describe(name)}"
            checks.pytest_in_parallel(title, name, ["tests/unit"], "2", 60)
        for version in TARGET_PYTHONS:
            if version in covered:
                continue
            if version not in interpreters():
                checks.result.skip(f"_core, Python {version}", "no such interpreter here")
                continue
            setup.environment_bin(f"unit-{version}")
            checks.pytest_in_parallel(
                f"_core, Python {version}",
                f"unit-{version}",
                [f"tests/unit/{CORE}"],
                "2",
                60,
            )
    finish(session, checks)


@nox.session
def system(session: nox.Session) -> None:
    """Run tests/system on the oldest and the newest Python.

    What uses ansible-core runs on both of its lines.
    """
    with start(session) as checks:
        oldest, newest = TARGET_PYTHONS[0], ANSIBLE_LINES["core221"][1]
        without = (f"tests/system/{CORE}", *WITHOUT_ANSIBLE)
        above = ["tests/system", *(f"--ignore={path}" for path in without)]
        wanted = [
            (f"_core, Python {oldest}", f"unit-{oldest}", [f"tests/system/{CORE}"]),
            (f"all, Python {newest}", "core221", ["tests/system", "tests/situations"]),
            ("what uses ansible-core, its older line", "dev", above),
        ]
        for title, name, tests in wanted:
            try:
                setup.environment_bin(name)
            except setup.Unavailable as reason:
                checks.result.skip(title, str(reason))
                continue
            # They wait more than they compute.
            checks.pytest_in_parallel(title, name, tests, "4", 300)
    finish(session, checks)


@nox.session
def mutation(session: nox.Session) -> None:
    """Mutate plans, guards and limits and see whether their tests notice."""
    with start(session) as checks:
        argv = [
            setup.environment_bin("dev") / "python",
            ROOT / "scripts" / "mutation.py",
            *session.posargs,
        ]
        checks.check("mutation score", argv)
    finish(session, checks)


@nox.session
def libraries(session: nox.Session) -> None:
    """Nightly: clean checkpoints and caches that real libraries made, and read what stays."""
    with start(session) as checks:
        home = BUILD / "libraries"
        python = home / "bin" / "python"
        if not python.exists():
            argv = [setup.environment_bin("dev") / "python", "-m", "venv", home]
            checks.check("environment of the libraries", argv)
        wanted = ROOT / "tests" / "libraries" / "requirements.txt"
        argv = [python, "-m", "pip", "install", "--quiet", "--requirement", wanted]
        checks.check("libraries from the package index", argv)
        argv = [python, "-m", "pytest", "-q", "-rs", "--noconftest", "--import-mode=importlib"]
        argv += ["tests/libraries", *session.posargs]
        env = checks.environment(PYTHONPATH=str(setup.link_collection()))
        checks.check("trees of real libraries", argv, env=env)
    finish(session, checks)


@nox.session
def sanity(session: nox.Session) -> None:
    """Run every test of ansible-test sanity on both ansible-core lines, without an ignore file."""
    with start(session) as checks:
        ignores = [str(path) for path in ROOT.glob("tests/sanity/ignore-*.txt")]
        checks.result.record("no ignore files", not ignores, ", ".join(ignores))
        binaries = {}
        for name in ANSIBLE_LINES:
            try:
                binaries[name] = setup.environment_bin(name) / "ansible-test"
            except setup.Unavailable as reason:
                checks.result.skip(f"sanity on .build/{name}", str(reason))
        copies = {name: project.copy(BUILD / "sanity" / name) for name in binaries}
        env = sanity_tests.environment(checks)

        def on_line(name: str) -> None:
            sanity_tests.run(checks, name, binaries[name], copies[name], env)

        # Most of it is pylint on a single processor.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for future in [pool.submit(on_line, name) for name in binaries]:
                future.result()
    finish(session, checks)


@nox.session
def readers(session: nox.Session) -> None:
    """Compare other projects' GPU readers with ours on the simulated GPUs."""
    with start(session) as checks:
        if not find_tool("gcc") and not find_tool("cc"):
            checks.result.skip(
                "third-party readers",
                f"no C compiler for the simulated GPUs ({install_command(packages_for(['gcc']))})",
            )
        else:
            env = checks.environment(
                MLOPS_READERS_VENV=str(BUILD / "readers"),
                MLOPS_DEV_VENV=str(setup.environment_bin("dev").parent),
            )
            checks.pytest(
                "readers",
                setup.environment_bin("readers") / "python",
                ["tests/third_party"],
                env=env,
            )
    finish(session, checks)


def run_on_other_lines(checks: Checks) -> None:
    """Run the playbooks on the other ansible-core lines, and under ansible-runner."""
    core_lines = ["--timeout=600", "tests/playbooks/test_core_lines.py"]
    survey = [*FLEET_OPTIONS, "tests/fleet/test_survey_answers.py"]
    for title, name, arguments in (
        ("playbooks, core 2.18", "core218", core_lines),
        ("playbooks, core 2.21", "core221", core_lines),
        ("under ansible-runner", "fleet", survey),
    ):
        try:
            python = setup.environment_bin(name) / "python"
        except setup.Unavailable as reason:
            checks.result.skip(title, str(reason))
            continue
        checks.pytest(title, python, arguments)


@nox.session
def integration(session: nox.Session) -> None:
    """Run the playbooks over several hosts, then every integration target of ansible-test."""
    with start(session) as checks:
        dev = setup.environment_bin("dev")
        checks.pytest("playbooks", dev / "python", ["--timeout=600", "tests/playbooks"])
        run_on_other_lines(checks)
        binary = dev / "ansible-test"
        copy, env = project.copy(BUILD / "integration"), sanity_tests.environment(checks)
        for target in integration_targets.names():
            integration_targets.run(checks, target, binary, copy, env)
    finish(session, checks)


@nox.session
def build(session: nox.Session) -> None:
    """Only build the collection's artifact, into .build/artifact."""
    with start(session) as checks:
        session.log(str(artifact.build(checks)))
    finish(session, checks)


@nox.session
def importer(session: nox.Session) -> None:
    """Build, install into an empty path, use it from there; then Galaxy's own checks."""
    with start(session) as checks:
        built = artifact.build(checks)
        with tarfile.open(built) as archive:
            members = archive.getnames()
        surprises = sorted({name.split("/")[0] for name in members} - artifact.TOP)
        surprises += [
            name
            for name in members
            if "__pycache__" in name or name.endswith((".pyc", ".gitkeep", ".retry"))
        ][:3]
        checks.result.record("only what users need", not surprises, f"also holds {surprises}")
        if artifact.use_installed(checks, built):
            artifact.galaxy_importer(checks, built)
    finish(session, checks)


@nox.session
def molecule(session: nox.Session) -> None:
    """Run the collection over booted nodes, reached over SSH."""
    with start(session) as checks:
        reason = nodes.obstacle()
        if reason:
            checks.result.skip("molecule", reason)
        else:
            binaries = setup.environment_bin("molecule")
            scratch = BUILD / "molecule-run"
            shutil.rmtree(scratch, ignore_errors=True)
            env = checks.environment(MOLECULE_EPHEMERAL_DIRECTORY=str(scratch))
            env["PATH"] = os.pathsep.join([str(binaries), env["PATH"]])
            for name in sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")):
                argv: list[str | Path] = [binaries / "molecule", "test", "--scenario-name", name]
                scenario.run(checks, name, [*argv, *session.posargs], env)
    finish(session, checks)


@nox.session
def fleet(session: nox.Session) -> None:
    """Nightly: maintain twelve booted nodes with troubles, as users and as AWX do it."""
    with start(session) as checks:
        reason = nodes.obstacle()
        if reason:
            checks.result.skip("fleet", reason)
        else:
            python = setup.environment_bin("fleet") / "python"
            checks.pytest("fleet", python, [*FLEET_OPTIONS, "tests/fleet"])
    finish(session, checks)


@nox.session
def bench(session: nox.Session) -> None:
    """Run every benchmark in tests/benchmarks, against an empty module and other tools."""
    with start(session) as checks:
        argv = [
            setup.environment_bin("dev") / "python",
            ROOT / "tests" / "benchmarks" / "bench.py",
            *session.posargs,
        ]
        done = checks.command(argv)
        session.log(done.stdout)
        checks.result.record("benchmarks", done.returncode == 0, f"ended with {done.returncode}")
    finish(session, checks)
