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
import re
import shutil
import sys
import tarfile
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).resolve().parent / "scripts"))
import nodes
import setup
from checks import Checks
from common import (
    BUILD,
    ROOT,
    Problem,
    ask,
    find_tool,
    install_command,
    interpreters,
    packages_for,
    run,
)
from versions import ANSIBLE_LINES, TARGET_PYTHONS

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "typing", "unit"]

CORE = "plugins/module_utils/_core"
# Public content needs these and nothing else; anything else in the artifact is a failure.
ARTIFACT_TOP = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "bindep.txt",
    "requirements.txt",
}
ARTIFACT_TOP |= {"changelogs", "docs", "meta", "playbooks", "plugins", "roles"}
ARTIFACT_TOP |= {"CODE_OF_CONDUCT.md", "MAINTAINING.md", "SECURITY.md"}
# A deadline can be missed on a busy machine: a failed test runs twice more before it counts as
# failed, and the summary says so.
RERUNS = ["--reruns=2", "--reruns-delay=2"]
WORKERS = os.environ.get("MLOPS_TEST_WORKERS", "")
# Tests of tests/system above _core that use no ansible-core: they run once, not for each line.
WITHOUT_ANSIBLE = (
    "tests/system/nvml_double",
    "tests/system/roles/test_gpu_history.py",
    "tests/system/roles/test_mlfleet_failures.py",
    "tests/system/roles/test_mlfleet_help.py",
    "tests/system/test_recipes.py",
)


def environment_bin(name: str) -> Path:
    """The directory of an environment's programs; made when missing."""
    return setup.ensure(name).parent


def start(session: nox.Session) -> Checks:
    """The checks of a session, with the collection linked where its tools look for it."""
    setup.link_collection()
    return Checks(session.name, list(session.posargs))


def finish(session: nox.Session, checks: Checks) -> None:
    """Fail the session where a check failed."""
    if not checks.good:
        session.error(f"{checks.result.failed} failed, see {checks.log_path}")


def describe(name: str) -> str:
    """An environment's ansible-core and Python."""
    code = (
        "import sys, ansible.release; print('core %s, Python %d.%d' % (ansible.release.__version__,"
        " *sys.version_info[:2]))"
    )
    return ask([setup.environment_python(name), "-c", code])


def project_files() -> list[str]:
    """The files that git knows or would add."""
    listing = ask(
        [
            "git",
            "-c",
            "safe.directory=*",
            "-C",
            ROOT,
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]
    )
    return [path for path in listing.split("\0") if path and (ROOT / path).exists()]


def copy_project(directory: Path) -> Path:
    """Copy the project's files to DIRECTORY/ansible_collections/mlops/fleet, a git repository of
    its own; return that path.

    ansible-test wants exactly that, and a copy keeps what tests write out of the checkout.
    """
    target = directory / "ansible_collections" / "mlops" / "fleet"
    shutil.rmtree(directory, ignore_errors=True)
    for path in project_files():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target / path, follow_symlinks=False)
    run(["git", "init", "--quiet", target], capture=True)
    run(["git", "-C", target, "add", "--all"], capture=True)
    return target


def ansible_test_environment(checks: Checks) -> dict[str, str]:
    """A home of its own for ansible-test, with the pip bootstrap scripts that it would otherwise
    download from a fixed host.

    The user's own ~/.ansible stays untouched; pip and pyenv still find the machine's settings.
    """
    home, real = BUILD / "ansible-test-home", Path.home()
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("get_pip_24_2.py", "get_pip_25_2.py"):
        (cache / name).write_text("import ensurepip\n\nensurepip.bootstrap()\n", encoding="utf-8")
    for name in (".pip", ".config/pip", ".gitconfig"):
        link = home / name
        if (real / name).exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(real / name)
    env = checks.environment(
        HOME=str(home), PYENV_ROOT=os.environ.get("PYENV_ROOT") or str(real / ".pyenv")
    )
    for name in ("ANSIBLE_HOME", "PYTHONNOUSERSITE"):
        env.pop(name)
    return env


def is_shell(path: Path) -> bool:
    """Whether a file starts as a shell script."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as handle:
        first = handle.readline(80)
    return bool(re.match(rb"#!\s*/(usr/)?bin/(env\s+)?(ba|da|k)?sh\b", first))


@nox.session
def lint(session: nox.Session) -> None:
    """Style: ruff, yamllint, ansible-lint, shellcheck, codespell, generated files."""
    with start(session) as checks:
        dev = environment_bin("dev")
        checks.check("ruff check", [dev / "ruff", "check", "."])
        checks.check("ruff format", [dev / "ruff", "format", "--check", "."])
        checks.check("yamllint", [dev / "yamllint", "--strict", "."])
        checks.check(
            "ansible-lint, profile production", [dev / "ansible-lint", "--strict", "--nocolor"]
        )
        checks.check("codespell", [dev / "codespell", *project_files()])
        generate = [dev / "python", ROOT / "scripts" / "generate.py", "--check"]
        checks.check("scripts/generate.py --check", generate)
        for script in ("wordlist.py", "limits.py"):
            checks.check(f"scripts/{script}", [dev / "python", ROOT / "scripts" / script])
        shell = [path for path in project_files() if path.endswith(".sh") or is_shell(ROOT / path)]
        if not find_tool("shellcheck"):
            checks.result.skip("shellcheck", install_command(["shellcheck"]))
        elif shell:
            checks.check("shellcheck", [find_tool("shellcheck"), *shell])
    finish(session, checks)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy: core, node command, Ansible side, scripts."""
    with start(session) as checks:
        mypy = environment_bin("dev") / "mypy"
        checks.check("mypy: the core", [mypy, "--config-file", "mypy.ini"])
        # On a node the command and the core lie in one package, whose name is the version.
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
    """Check the documentation: modules, roles and docsite with antsibull-docs, changelog
    fragments.
    """
    with start(session) as checks:
        dev = environment_bin("dev")
        copy = copy_project(BUILD / "docs")
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
    """Run tests/unit: all of it on both ansible-core lines, that of _core on every Python that
    targets run.
    """
    with start(session) as checks:
        covered = set()
        for name, (_line, version) in ANSIBLE_LINES.items():
            try:
                environment_bin(name)
            except setup.Unavailable as reason:
                checks.result.skip(f"unit on .build/{name}", str(reason))
                continue
            covered.add(version)
            run_pytest(checks, f"all, {describe(name)}", name, ["tests/unit"], "2", 60)
        for version in TARGET_PYTHONS:
            if version in covered:
                continue
            if version not in interpreters():
                checks.result.skip(f"_core, Python {version}", "no such interpreter here")
                continue
            environment_bin(f"unit-{version}")
            run_pytest(
                checks,
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
                environment_bin(name)
            except setup.Unavailable as reason:
                checks.result.skip(title, str(reason))
                continue
            run_pytest(checks, title, name, tests, "4", 300)  # they wait more than they compute
    finish(session, checks)


def run_pytest(
    checks: Checks, title: str, name: str, tests: list[str], workers: str, seconds: int
) -> None:
    """Run tests with pytest-xdist, with runtime and lock directories of their own."""
    runtime = checks.temporary / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    env = checks.environment(XDG_RUNTIME_DIR=str(runtime))
    options = [f"-n{WORKERS or workers}", "--dist=worksteal", f"--timeout={seconds}", *RERUNS]
    checks.pytest(title, setup.environment_python(name), [*options, *tests], env=env)
    shutil.rmtree(runtime, ignore_errors=True)


@nox.session
def mutation(session: nox.Session) -> None:
    """Mutate plans, guards and limits and see whether their tests notice."""
    with start(session) as checks:
        argv = [
            environment_bin("dev") / "python",
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
            argv = [environment_bin("dev") / "python", "-m", "venv", home]
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
        ignores = [
            path for path in project_files() if re.fullmatch(r"tests/sanity/ignore-.*\.txt", path)
        ]
        checks.result.record("no ignore files", not ignores, ", ".join(ignores))
        binaries = {}
        for name in ANSIBLE_LINES:
            try:
                binaries[name] = environment_bin(name) / "ansible-test"
            except setup.Unavailable as reason:
                checks.result.skip(f"sanity on .build/{name}", str(reason))
        copies = {name: copy_project(BUILD / "sanity" / name) for name in binaries}
        env = ansible_test_environment(checks)

        def on_line(name: str) -> None:
            run_sanity(checks, name, binaries[name], copies[name], env)

        # Most of it is pylint on a single processor.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for future in [pool.submit(on_line, name) for name in binaries]:
                future.result()
    finish(session, checks)


def run_sanity(checks: Checks, name: str, binary: Path, copy: Path, env: dict[str, str]) -> None:
    """Run the sanity tests with one ansible-core and count them from what ansible-test prints."""
    version = ANSIBLE_LINES[name][1]
    argv = [
        binary,
        "sanity",
        "--local",
        "--requirements",
        "--python",
        version,
        "--color",
        "no",
        "-v",
    ]
    done = checks.command([*argv, *checks.arguments], live=False, cwd=copy, env=env)
    title = f"sanity ({describe(name)})"
    ran = list(dict.fromkeys(re.findall(r'^Running sanity test "([^"]+)"', done.stdout, re.M)))
    summary = re.search(
        r"sanity test\(s\) listed below \(out of \d+\) failed[^\n]*\n((?:(?!\[).)*)",
        done.stdout,
        re.S,
    )
    failed = {
        line.split()[0]
        for line in (summary.group(1) if summary else "").splitlines()
        if line.strip()
    } & {t.split()[0] for t in ran}
    failed |= {
        test.split()[0] for test in re.findall(r"^ERROR: Found \d+ (\S+) issue", done.stdout, re.M)
    }
    for test in ran:
        checks.result.record(f"{title}: {test}", test.split()[0] not in failed, "see the log")
    fatal = re.search(r"^FATAL: (?!The \d+ sanity)(.*)$", done.stdout, re.M)
    if fatal or not ran or (done.returncode != 0 and not failed):
        checks.result.record(
            title, False, f"ended early: {fatal.group(1)[:150] if fatal else done.returncode}"
        )
    for test, why in re.findall(
        r'^WARNING: Skipping sanity test "?([a-z0-9-]+)"? (.*)$', done.stdout, re.M
    ):
        checks.result.skip(f"{title}: {test}", why)


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
                MLOPS_DEV_VENV=str(environment_bin("dev").parent),
            )
            checks.pytest(
                "readers", environment_bin("readers") / "python", ["tests/third_party"], env=env
            )
    finish(session, checks)


@nox.session
def integration(session: nox.Session) -> None:
    """Run the playbooks over several hosts, then every integration target under ansible-test, from
    a copy.
    """
    with start(session) as checks:
        dev = environment_bin("dev")
        checks.pytest("playbooks", dev / "python", ["--timeout=600", "tests/playbooks"])
        targets = sorted(
            path.parent.parent.name
            for path in ROOT.glob("tests/integration/targets/*/tasks/main.yml")
        )
        copy, env = copy_project(BUILD / "integration"), ansible_test_environment(checks)
        argv = [
            dev / "ansible-test",
            "integration",
            "--local",
            "--python",
            ANSIBLE_LINES["dev"][1],
            "--color",
            "no",
        ]
        argv += ["--allow-root", "--allow-unsupported", *session.posargs]
        for target in targets:
            if target.startswith(("setup_", "prepare_")):
                continue
            done = checks.command([*argv, target], cwd=copy, env=env)
            excluded = re.search(
                r"^WARNING: Excluding target tests marked (.*?):[^:]*$", done.stdout, re.M
            )
            if done.returncode == 0 and "All targets skipped." in done.stdout:
                checks.result.skip(
                    target, f"marked {excluded.group(1)}" if excluded else "see the log"
                )
                continue
            errors = re.findall(r"^(?:fatal|\[ERROR\]|FATAL|ERROR).*$", done.stdout, re.M)
            checks.result.record(
                target,
                done.returncode == 0,
                (errors[0] if errors else f"ended with {done.returncode}")[:200],
            )
    finish(session, checks)


def build_artifact(checks: Checks) -> Path:
    """Build the collection from a clean copy into .build/artifact; return the file."""
    output = BUILD / "artifact"
    shutil.rmtree(output, ignore_errors=True)
    copy = copy_project(BUILD / "artifact-source")
    argv = [
        environment_bin("dev") / "ansible-galaxy",
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


@nox.session
def build(session: nox.Session) -> None:
    """Only build the collection's artifact, into .build/artifact."""
    with start(session) as checks:
        session.log(str(build_artifact(checks)))
    finish(session, checks)


@nox.session
def importer(session: nox.Session) -> None:
    """Build, install into an empty path and use the collection from there; then run Galaxy's own
    checks of an upload.
    """
    with start(session) as checks:
        artifact = build_artifact(checks)
        with tarfile.open(artifact) as archive:
            members = archive.getnames()
        surprises = sorted({name.split("/")[0] for name in members} - ARTIFACT_TOP)
        surprises += [
            name
            for name in members
            if "__pycache__" in name or name.endswith((".pyc", ".gitkeep", ".retry"))
        ][:3]
        checks.result.record("only what users need", not surprises, f"also holds {surprises}")
        if use_installed(checks, artifact):
            galaxy_importer(checks, artifact)
    finish(session, checks)


def use_installed(checks: Checks, artifact: Path) -> bool:
    """Install the artifact into an empty collections path and use everything from there; return
    whether it could be installed.
    """
    installed = BUILD / "installed"
    shutil.rmtree(installed, ignore_errors=True)
    env, dev = checks.environment(ANSIBLE_COLLECTIONS_PATH=str(installed)), environment_bin("dev")
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
    sample = BUILD / "run-sample"
    shutil.rmtree(sample, ignore_errors=True)
    argv = [
        sys.executable,
        ROOT / "scripts" / "run.py",
        "--folder",
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
    return True


def galaxy_importer(checks: Checks, artifact: Path) -> None:
    """Run what Galaxy runs on an upload; a warning is a failure, too."""
    try:
        binaries = environment_bin("importer")
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


@nox.session
def molecule(session: nox.Session) -> None:
    """Run the collection over booted nodes, reached over SSH."""
    with start(session) as checks:
        reason = nodes.obstacle()
        if reason:
            checks.result.skip("molecule", reason)
        else:
            binaries = environment_bin("molecule")
            scratch = BUILD / "molecule-run"
            shutil.rmtree(scratch, ignore_errors=True)
            env = checks.environment(MOLECULE_EPHEMERAL_DIRECTORY=str(scratch))
            env["PATH"] = os.pathsep.join([str(binaries), env["PATH"]])
            for scenario in sorted(
                path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")
            ):
                run_scenario(
                    checks,
                    scenario,
                    [binaries / "molecule", "test", "--scenario-name", scenario, *session.posargs],
                    env,
                )
    finish(session, checks)


def run_scenario(
    checks: Checks, scenario: str, argv: list[str | Path], env: dict[str, str]
) -> None:
    """Run one molecule scenario and count its steps and the tests of its verify step."""
    done = checks.command(argv, env=env)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    failed_before = checks.result.failed
    for step, outcome in re.findall(
        r"^\S+ ➜ (\w+): Executed: (\w+)", plain.partition("DETAILS")[2], re.M
    ):
        if (
            outcome != "Missing"
        ):  # a playbook that the scenario does not have, run by molecule's own clean-up
            checks.result.record(
                f"{scenario}: {step}", outcome == "Successful", f"{outcome}, see the log"
            )
    cases = re.findall(r"=+ (?:.*?(\d+) failed)?.*?(\d+) passed.*? in ", plain)
    if cases:
        checks.result.passed += int(cases[-1][1])
        checks.result.failed += int(cases[-1][0] or 0)
    reruns = re.search(r"(\d+) rerun\b", plain)
    if reruns:
        checks.result.notes.append(
            f"rerun: {scenario}: {reruns.group(1)} of its tests, see the log"
        )
    if done.returncode != 0 and checks.result.failed == failed_before:
        checks.result.record(scenario, False, f"molecule ended with {done.returncode}, see the log")


@nox.session
def bench(session: nox.Session) -> None:
    """Run every benchmark in tests/benchmarks, against an empty module and other tools."""
    with start(session) as checks:
        argv = [
            environment_bin("dev") / "python",
            ROOT / "tests" / "benchmarks" / "bench.py",
            *session.posargs,
        ]
        done = checks.command(argv)
        session.log(done.stdout)
        checks.result.record("benchmarks", done.returncode == 0, f"ended with {done.returncode}")
    finish(session, checks)
