# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the project's checks in stages, each in its own log, none stopping the next; then a table and one last line with the sums.

    python3 scripts/test.py                      all stages (this is `make test`)
    python3 scripts/test.py lint unit            some of them
    python3 scripts/test.py unit -- -k verdict   the words behind `--` go to pytest
    python3 scripts/test.py --build-only         only make the artifact

A stage counts single tests where its tool tells them (pytest cases, sanity tests, targets, linters). What this machine can't run is
counted as skipped, with the reason and the command that would change it. MLOPS_TEST_JOBS says how many unit test runs go side by side (2).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import nodes
import setup
from house import (
    BUILD,
    PYTHONS,
    ROOT,
    Problem,
    ask,
    find_tool,
    install_command,
    interpreters,
    main_wrapper,
    packages_for,
    run,
    say,
)

LOGS = BUILD / "logs"
SECOND_TRIES = 10  # more failures than this in one run are no accident
CORE_TESTS = "tests/unit/plugins/module_utils/_core"
# Public content needs these and nothing else; a surprise in the artifact is a failure.
ARTIFACT_TOP = {
    "CHANGELOG.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "bindep.txt",
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
}
ARTIFACT_TOP |= {"requirements.txt", "roles", "CONTRIBUTING.md"}


@dataclasses.dataclass
class Result:
    """What a stage found: counts, and for everything that did not pass one line that says what and why."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def judge(self, name: str, good: bool, why: str = "") -> bool:
        """Count one test."""
        if good:
            self.passed += 1
        else:
            self.failed += 1
            self.notes.append(f"failed: {name}{': ' + why if why else ''}")
        return good

    def skip(self, name: str, why: str, count: int = 1) -> None:
        """Count what can't run here."""
        self.skipped += count
        self.notes.append(f"skipped: {name}: {why}")

    @property
    def word(self) -> str:
        return (
            "FAILED"
            if self.failed
            else "passed"
            if self.passed
            else "skipped"
            if self.skipped
            else "nothing to do"
        )


class Stage:
    """One stage: runs commands into its log and collects the counts."""

    def __init__(self, name: str, extra: list[str]) -> None:
        self.name, self.extra, self.result = name, extra, Result()
        LOGS.mkdir(parents=True, exist_ok=True)
        self.path = LOGS / f"{name}.log"
        self.turn = threading.Lock()
        self.log = self.path.open("w", encoding="utf-8", errors="replace")

    def command(self, argv: list, live: bool = True, **options) -> subprocess.CompletedProcess:
        """Run a command; its output goes to the log and is returned too. Not `live`: to the log in one piece at the end, for side-by-side runs."""
        argv = [str(part) for part in argv]
        options.setdefault("cwd", ROOT)
        options.setdefault("env", environment())
        options.update(
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        start, lines = time.monotonic(), [f"\n$ {shlex.join(argv)}\n"]
        with subprocess.Popen(argv, **options) as process:
            for line in process.stdout:
                lines.append(line)
                if live:
                    self.write(lines[-2:] if len(lines) == 2 else [line])
        end = f"[{process.returncode} after {time.monotonic() - start:.1f} s]\n"
        self.write([end] if live and len(lines) > 1 else [*lines, end])
        return subprocess.CompletedProcess(argv, process.returncode, "".join(lines[1:]), "")

    def write(self, lines: list[str]) -> None:
        """Put lines into the log, together."""
        with self.turn:
            self.log.writelines(lines)
            self.log.flush()

    def check(self, name: str, argv: list, **options) -> bool:
        """Run a command that is one test: its exit code is the verdict."""
        done = self.command(argv, **options)
        last = next(
            (line for line in reversed(done.stdout.strip().splitlines()) if line.strip()),
            "no output",
        )
        return self.result.judge(name, done.returncode == 0, last.strip()[:200])

    def pytest(self, name: str, python: Path, arguments: list, **options) -> list[str]:
        """Run pytest and count its cases from the JUnit file it writes; returns the node ids of those that failed."""
        code, cases = self.cases(name, python, arguments, **options)
        if cases is None:
            self.result.judge(name, False, f"pytest ended with {code} and no report, see the log")
            return []
        with self.turn:
            self.count(name, code, cases)
        return [node_id(case) for case in cases if trouble_of(case) is not None]

    def second_try(
        self, name: str, python: Path, arguments: list, ids: list[str], **options
    ) -> None:
        """Run tests that failed once more; a failure whose test passes now is taken back, with a note."""
        _code, cases = self.cases(f"{name}-again", python, [*arguments, *ids], **options)
        for case in cases or []:
            title = title_of(name, case)
            told = next(
                (note for note in self.result.notes if note.startswith(f"failed: {title}")), None
            )
            if (
                told
                and node_id(case) in ids
                and trouble_of(case) is None
                and case.find("skipped") is None
            ):
                self.result.notes[self.result.notes.index(told)] = (
                    f"second try: {told.removeprefix('failed: ')}"
                )
                self.result.failed -= 1
                self.result.passed += 1

    def cases(self, name: str, python: Path, arguments: list, **options) -> tuple[int, list | None]:
        """Run pytest; returns its exit code and the cases of its JUnit report, None without one."""
        report = LOGS / f"{self.name}-{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.xml"
        report.unlink(missing_ok=True)
        argv = [
            python,
            "-m",
            "pytest",
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
            "-q",
            "-ra",
            "--override-ini=junit_family=xunit1",  # names the file of each case
            f"--junitxml={report}",
            *arguments,
            *self.extra,
        ]
        done = self.command(argv, **options)
        return done.returncode, list(
            ElementTree.parse(report).getroot().iter("testcase")
        ) if report.exists() else None

    def count(self, name: str, code: int, cases: list) -> None:
        """Take the cases of a JUnit report into the counts."""
        before = self.result.failed
        for case in cases:
            title, trouble = title_of(name, case), trouble_of(case)
            if trouble is not None:
                self.result.judge(
                    title,
                    False,
                    (trouble.get("message") or "").splitlines()[0][:160]
                    if trouble.get("message")
                    else "",
                )
            elif case.find("skipped") is not None:
                self.result.skip(title, case.find("skipped").get("message") or "")
            else:
                self.result.judge(title, True)
        if code not in (0, 5) and self.result.failed == before:
            self.result.judge(name, False, f"pytest ended with {code}, see the log")
        elif code == 5 and not cases:
            self.result.skip(name, "no tests there")


def title_of(name: str, case: ElementTree.Element) -> str:
    """A case of a JUnit report in words: the run it belongs to, its module and name."""
    return f"{name}: {case.get('classname')}::{case.get('name')}"


def trouble_of(case: ElementTree.Element) -> ElementTree.Element | None:
    """What went wrong in a case of a JUnit report, None where nothing did."""
    failure = case.find("failure")
    return failure if failure is not None else case.find("error")


def node_id(case: ElementTree.Element) -> str:
    """What pytest calls a case on its command line."""
    file = case.get("file") or ""
    inner = (
        (case.get("classname") or "")
        .removeprefix(file.removesuffix(".py").replace("/", "."))
        .strip(".")
    )
    return "::".join([file, *filter(None, inner.split(".")), case.get("name") or ""])


def environment(**more: str) -> dict[str, str]:
    """The environment of every check: this checkout's collections path only, our tools first, no leftovers of an outer shell."""
    env = setup.clean_environment()
    env = {key: value for key, value in env.items() if not key.startswith("ANSIBLE_")}
    env["PATH"] = os.pathsep.join(
        [
            str(BUILD / "dev" / "bin"),
            env.get("PATH", ""),
            "/usr/sbin",
            "/sbin",
            str(BUILD / "tools" / "usr" / "bin"),
        ]
    )
    env.update(
        ANSIBLE_COLLECTIONS_PATH=str(setup.COLLECTIONS),
        ANSIBLE_NOCOLOR="1",
        ANSIBLE_LOCALHOST_WARNING="False",
        PYTHONDONTWRITEBYTECODE="1",
    )
    env.update(ANSIBLE_HOME=str(BUILD / "ansible-home"), LC_ALL="C.UTF-8")
    return {**env, **more}


def venv(name: str) -> Path:
    """The bin folder of an environment, made when missing."""
    return setup.ensure(name).parent


def project_files() -> list[str]:
    """What belongs to the project: files that git knows or would add."""
    names = ask(
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
    ).split("\0")
    return [name for name in names if name and (ROOT / name).exists()]


def copy_project(folder: Path) -> Path:
    """A copy of the project's files as FOLDER/ansible_collections/mlops/fleet inside a git repository of its own; returns its path.

    ansible-test wants exactly that, and a copy keeps what tests write out of the checkout.
    """
    target = folder / "ansible_collections" / "mlops" / "fleet"
    shutil.rmtree(folder, ignore_errors=True)
    for name in project_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    run(["git", "init", "--quiet", target], capture=True)
    run(["git", "-C", target, "add", "--all"], capture=True)
    return target


def ansible_test_environment() -> dict[str, str]:
    """A home of its own for ansible-test, with the pip bootstrap scripts it would otherwise download from a fixed host.

    The user's own ~/.ansible stays untouched; pip and pyenv still find the machine's settings.
    """
    home = BUILD / "ansible-test-home"
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("get_pip_24_2.py", "get_pip_25_2.py"):
        (cache / name).write_text("import ensurepip\n\nensurepip.bootstrap()\n", encoding="utf-8")
    env = environment()
    real = Path.home()
    for name in (".pip", ".config/pip", ".gitconfig"):
        link = home / name
        if (real / name).exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(real / name)
    env.update(HOME=str(home), PYENV_ROOT=os.environ.get("PYENV_ROOT") or str(real / ".pyenv"))
    env.pop("ANSIBLE_HOME")
    env.pop("PYTHONNOUSERSITE")
    return env


# --- stages -----------------------------------------------------------------------------------------------------------------------------------------


def lint(stage: Stage) -> None:
    """Style and types."""
    dev = venv("dev")
    setup.link_collection()
    stage.check("ruff check", [dev / "ruff", "check", "."])
    stage.check("ruff format", [dev / "ruff", "format", "--check", "."])
    stage.check("mypy on _core", [dev / "mypy"])
    stage.check("yamllint", [dev / "yamllint", "--strict", "."])
    stage.check("ansible-lint, profile production", [dev / "ansible-lint", "--strict", "--nocolor"])
    scripts = [
        name
        for name in project_files()
        if name.endswith(".sh") or name == ".ci/run" or is_shell(ROOT / name)
    ]
    if not find_tool("shellcheck"):
        stage.result.skip("shellcheck", install_command(["shellcheck"]))
    elif scripts:
        stage.check("shellcheck", [find_tool("shellcheck"), *scripts])


def is_shell(path: Path) -> bool:
    """Whether a file starts as a shell script."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as handle:
        first = handle.readline(80)
    return bool(re.match(rb"#!\s*/(usr/)?bin/(env\s+)?(ba|da|k)?sh\b", first))


def sanity(stage: Stage) -> None:
    """ansible-test sanity, every test, without an ignore file."""
    ignores = [
        name for name in project_files() if re.fullmatch(r"tests/sanity/ignore-.*\.txt", name)
    ]
    stage.result.judge("no ignore files", not ignores, ", ".join(ignores))
    copy = copy_project(BUILD / "sanity")
    for name in ("dev", "core221"):
        try:
            binary = venv(name) / "ansible-test"
        except setup.Unavailable as reason:
            stage.result.skip(f"sanity on .build/{name}", str(reason))
            continue
        core = ask([binary, "--version"]).split()[-1]
        version = ask(
            [
                setup.environment_python(name),
                "-c",
                "import sys; print('%d.%d' % sys.version_info[:2])",
            ]
        )
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
        done = stage.command([*argv, *stage.extra], cwd=copy, env=ansible_test_environment())
        title = f"sanity (core {core}, Python {version})"
        ran = list(dict.fromkeys(re.findall(r'^Running sanity test "([^"]+)"', done.stdout, re.M)))
        broken = re.search(
            r"sanity test\(s\) listed below \(out of \d+\) failed[^\n]*\n((?:(?!\[).)*)",
            done.stdout,
            re.S,
        )
        failed = sorted(
            {
                line.split()[0]
                for line in (broken.group(1) if broken else "").splitlines()
                if line.strip()
            }
            & {t.split()[0] for t in ran}
        )
        failed += sorted(
            {
                test.split()[0]
                for test in re.findall(r"^ERROR: Found \d+ (\S+) issue", done.stdout, re.M)
            }
            - set(failed)
        )
        for test in ran:
            if test.split()[0] in failed:
                stage.result.judge(f"{title}: {test}", False, "see the log")
            else:
                stage.result.judge(f"{title}: {test}", True)
        broken_off = re.search(r"^FATAL: (?!The \d+ sanity)(.*)$", done.stdout, re.M)
        if broken_off or not ran or (done.returncode != 0 and not failed):
            stage.result.judge(
                title,
                False,
                f"ended early: {broken_off.group(1)[:150] if broken_off else done.returncode}",
            )
        for test, why in re.findall(
            r'^WARNING: Skipping sanity test "?([a-z0-9-]+)"? (.*)$', done.stdout, re.M
        ):
            stage.result.skip(f"{title}: {test}", why)


def unit(stage: Stage) -> None:
    """All unit tests on both ansible-core lines, and those of _core on every Python that targets run."""
    setup.link_collection()
    wanted: list[tuple[str, str, list[str]]] = []
    for name in ("dev", "core221"):
        try:
            venv(name)
            # The core knows no Ansible: on the second line only what stands above it runs again.
            tests = ["tests/unit"] if name == "dev" else ["tests/unit", f"--ignore={CORE_TESTS}"]
            wanted.append((f"all, {describe(name)}", name, tests))
        except setup.Unavailable as reason:
            stage.result.skip(f"unit on .build/{name}", str(reason))
    found = interpreters()
    done = {
        describe(name).rsplit(" ", 1)[1] for _title, name, _tests in wanted if name == "dev"
    }  # the first run has the core's tests, too
    for version in PYTHONS:
        if version in done:
            continue
        if version in found:
            venv(f"unit-{version}")
            wanted.append((f"_core, Python {version}", f"unit-{version}", [CORE_TESTS]))
        else:
            stage.result.skip(f"_core, Python {version}", "no such interpreter here")
    # Most of these tests wait (for servers, time-outs, children): two runs side by side fit on two cores.
    with concurrent.futures.ThreadPoolExecutor(
        max_workers=int(os.environ.get("MLOPS_TEST_JOBS") or 2)
    ) as pool:
        runs = [(one, pool.submit(unit_run, stage, *one)) for one in wanted]
    for (title, name, tests), done in runs:
        failed = done.result()
        # Deadlines can be missed beside another run: what failed gets a second try alone, and the summary says so.
        if 0 < len(failed) <= SECOND_TRIES:
            unit_run(stage, title, name, tests, failed)


def unit_run(
    stage: Stage, title: str, name: str, tests: list[str], again: list[str] | None = None
) -> list[str]:
    """One pytest run with temporary files and lock folders of its own, so that runs beside it don't meet it.

    Returns the node ids of the tests that failed; with `again`, runs only those and takes their failures back where they pass.
    """
    scratch = Path(
        tempfile.mkdtemp(prefix="mlops-unit-")
    )  # a short path: sockets are made below it
    (scratch / "run").mkdir(mode=0o700)
    env = environment(
        XDG_RUNTIME_DIR=str(scratch / "run"), MLOPS_FLEET_LOCK_DIR=str(scratch / "lock")
    )
    python, place = setup.environment_python(name), [f"--basetemp={scratch / 't'}"]
    try:
        if again is None:
            return stage.pytest(title, python, [*place, *tests], live=False, env=env)
        stage.second_try(title, python, place, again, env=env)
        return []
    finally:
        run(
            ["rm", "-rf", scratch], check=False
        )  # shutil.rmtree gives up on the very deep trees that some tests make


def describe(name: str) -> str:
    """An environment in words: its ansible-core and Python."""
    code = "import sys, ansible.release; print('core %s, Python %d.%d' % (ansible.release.__version__, *sys.version_info[:2]))"
    return ask([setup.environment_python(name), "-c", code])


def readers(stage: Stage) -> None:
    """Other people's GPU readers and ours must read the same from the simulated GPUs."""
    if not find_tool("gcc") and not find_tool("cc"):
        stage.result.skip(
            "third-party readers",
            f"no C compiler for the simulated GPUs ({install_command(packages_for(['gcc']))})",
        )
        return
    setup.link_collection()
    env = environment(
        MLOPS_READERS_VENV=str(BUILD / "readers"), MLOPS_DEV_VENV=str(venv("dev").parent)
    )
    stage.pytest("readers", venv("readers") / "python", ["tests/third_party"], env=env)


def integration(stage: Stage) -> None:
    """The playbooks over several hosts, then every integration target under ansible-test, from a copy, one after the other."""
    setup.link_collection()
    stage.pytest("playbooks", venv("dev") / "python", ["tests/playbooks"])
    names = sorted(
        path.parent.parent.name for path in ROOT.glob("tests/integration/targets/*/tasks/main.yml")
    )
    targets = [name for name in names if not name.startswith(("setup_", "prepare_"))]
    if not targets:
        stage.result.skip("integration", "no targets there")
        return
    binary = venv("dev") / "ansible-test"
    copy = copy_project(BUILD / "integration")
    version = ask(
        [setup.environment_python("dev"), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    )
    env = ansible_test_environment()
    for name in targets:
        argv = [
            binary,
            "integration",
            "--local",
            "--python",
            version,
            "--color",
            "no",
            "--allow-root",
            "--allow-unsupported",
            *stage.extra,
            name,
        ]
        done = stage.command(argv, cwd=copy, env=env)
        excluded = re.search(
            r"^WARNING: Excluding target tests marked (.*?):[^:]*$", done.stdout, re.M
        )
        if done.returncode == 0 and "All targets skipped." in done.stdout:
            stage.result.skip(name, f"marked {excluded.group(1)}" if excluded else "see the log")
            continue
        last = re.findall(r"^(?:fatal|\[ERROR\]|FATAL|ERROR).*$", done.stdout, re.M)
        stage.result.judge(
            name, done.returncode == 0, (last[0] if last else f"ended with {done.returncode}")[:200]
        )


def build_artifact(stage: Stage) -> Path:
    """Build the collection from a clean copy into .build/artifact; returns the file."""
    output = BUILD / "artifact"
    shutil.rmtree(output, ignore_errors=True)
    copy = copy_project(BUILD / "artifact-source")
    galaxy = venv("dev") / "ansible-galaxy"
    stage.check("collection build", [galaxy, "collection", "build", copy, "--output-path", output])
    files = list(output.glob("mlops-fleet-*.tar.gz"))
    if not files:
        raise Problem(f"no artifact was built, see {stage.path}")
    return files[0]


def artifact(stage: Stage) -> None:
    """Build, install into an empty collections path, use it from there; then what Galaxy checks on an upload."""
    built = build_artifact(stage)
    with tarfile.open(built) as archive:
        top = {name.split("/")[0] for name in archive.getnames()}
        junk = [
            name
            for name in archive.getnames()
            if "__pycache__" in name or name.endswith((".pyc", ".gitkeep", ".retry"))
        ]
    stage.result.judge(
        "only what users need",
        top <= ARTIFACT_TOP and not junk,
        f"also holds {sorted(top - ARTIFACT_TOP) + junk[:3]}",
    )

    installed = BUILD / "installed"
    shutil.rmtree(installed, ignore_errors=True)
    env = environment(ANSIBLE_COLLECTIONS_PATH=str(installed))
    dev = venv("dev")
    installs = [
        dev / "ansible-galaxy",
        "collection",
        "install",
        built,
        "--collections-path",
        installed,
        "--no-deps",
    ]
    if not stage.check("install into an empty path", installs, env=env):
        return
    stage.check(
        "documentation of everything",
        [dev / "ansible-doc", "--metadata-dump", "mlops.fleet"],
        env=env,
    )
    for playbook in sorted((installed / "ansible_collections/mlops/fleet/playbooks").glob("*.yml")):
        name = f"mlops.fleet.{playbook.stem}"
        stage.check(
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
    if stage.check("the sample run (make run) with the installed collection", argv):
        for pattern in (
            "reports/maintenance-*.html",
            "reports/maintenance-*.json",
            "backups/models_backup_*.tar.gz",
        ):
            stage.result.judge(
                f"the sample run left {pattern}", any(sample.glob(pattern)), "nothing there"
            )

    try:
        python = venv("importer") / "python"
    except setup.Unavailable as reason:
        stage.result.skip("galaxy-importer", str(reason))
        return
    config = BUILD / "galaxy-importer.cfg"
    config.write_text(
        "[galaxy-importer]\nRUN_ANSIBLE_TEST = False\nRUN_FLAKE8 = False\nCHECK_CHANGELOG = True\n",
        encoding="utf-8",
    )
    env = environment(GALAXY_IMPORTER_CONFIG=str(config))
    env["PATH"] = os.pathsep.join([str(python.parent), env["PATH"]])
    work = BUILD / "importer-work"
    work.mkdir(exist_ok=True)
    done = stage.command([python, "-m", "galaxy_importer.main", built], cwd=work, env=env)
    stage.result.judge(
        "galaxy-importer takes it",
        done.returncode == 0,
        done.stdout.strip().splitlines()[-1][:200] if done.stdout.strip() else "",
    )
    complaints = re.findall(r"^(?:WARNING|ERROR): .*$", done.stdout, re.M)
    stage.result.judge(
        "galaxy-importer has no complaint", not complaints, "; ".join(complaints)[:300]
    )


def molecule(stage: Stage) -> None:
    """The maintenance run over booted nodes, reached over SSH."""
    reason = nodes.obstacle()
    if reason:
        stage.result.skip("molecule", reason)
        return
    binaries = venv("molecule")
    setup.link_collection()
    scratch = BUILD / "molecule-run"
    shutil.rmtree(scratch, ignore_errors=True)
    env = environment(MOLECULE_EPHEMERAL_DIRECTORY=str(scratch))
    env["PATH"] = os.pathsep.join([str(binaries), env["PATH"]])
    for scenario in sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")):
        done = stage.command(
            [binaries / "molecule", "test", "--scenario-name", scenario, *stage.extra], env=env
        )
        plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        steps = re.findall(r"^\S+ ➜ (\w+): Executed: (\w+)", plain.partition("DETAILS")[2], re.M)
        for step, word in steps:
            if (
                word != "Missing"
            ):  # a playbook that the scenario does not have, run by molecule's own clean-up
                stage.result.judge(
                    f"{scenario}: {step}", word == "Successful", f"{word}, see the log"
                )
        cases = re.findall(r"=+ (?:.*?(\d+) failed)?.*?(\d+) passed.*? in ", plain)
        if cases:
            stage.result.passed += int(cases[-1][1])
            stage.result.failed += int(cases[-1][0] or 0)
        again = re.search(r"(\d+) rerun\b", plain)
        if again:
            stage.result.notes.append(
                f"second try: {scenario}: {again.group(1)} of its tests, see the log"
            )
        if done.returncode != 0 and not stage.result.failed:
            stage.result.judge(
                scenario, False, f"molecule ended with {done.returncode}, see the log"
            )


STAGES: dict[str, Callable[[Stage], None]] = {
    "lint": lint,
    "sanity": sanity,
    "unit": unit,
    "readers": readers,
    "integration": integration,
    "artifact": artifact,
    "molecule": molecule,
}


def run_stage(name: str, extra: list[str]) -> Result:
    """Run one stage, whatever happens in it."""
    stage = Stage(name, extra)
    start = time.monotonic()
    say(
        f"== {name} ({(STAGES[name].__doc__ or '').strip().splitlines()[0]}) log: {os.path.relpath(stage.path)}"
    )
    try:
        STAGES[name](stage)
    except setup.Unavailable as reason:
        stage.result.skip(name, str(reason))
    except (Problem, OSError, ValueError, subprocess.SubprocessError) as problem:
        stage.result.judge(name, False, str(problem))
    result = stage.result
    result.seconds = time.monotonic() - start
    for note in result.notes:
        stage.log.write(f"{note}\n")
    stage.log.close()
    for note in [one for one in result.notes if one.startswith(("failed", "second try"))][
        :20
    ] + summarized_skips(result.notes):
        say(f"   {note}")
    say(
        f"   {result.word}: {result.passed} passed, {result.failed} failed, {result.skipped} skipped in {result.seconds:.0f} s"
    )
    return result


def summarized_skips(notes: list[str]) -> list[str]:
    """The skip notes with equal reasons folded into one line each."""
    reasons: dict[str, list[str]] = {}
    for note in notes:
        if note.startswith("skipped: "):
            title, _sign, why = note[len("skipped: ") :].rpartition(": ")
            reasons.setdefault(why, []).append(title)
    return [
        f"skipped: {titles[0]}{f' and {len(titles) - 1} more' if len(titles) > 1 else ''}: {why}"
        for why, titles in reasons.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stage", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)} (default: all)"
    )
    parser.add_argument("--build-only", action="store_true", help="only build the artifact")
    own, extra = sys.argv[1:], []
    if "--" in own:
        own, extra = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    unknown = [name for name in given.stage if name not in STAGES]
    if unknown:
        raise Problem(f"unknown stage: {', '.join(unknown)}. Choose from {', '.join(STAGES)}")
    os.chdir(ROOT)
    if given.build_only:
        say(str(build_artifact(Stage("build", extra))))
        return 0
    chosen = given.stage or list(STAGES)
    if not given.stage:
        setup.system_tools(setup.TOOLS_FOR_TESTS)
    results = {name: run_stage(name, extra) for name in chosen}
    say()
    say(f"{'stage':<14}{'result':<15}{'passed':>7}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for name, result in results.items():
        say(
            f"{name:<14}{result.word:<15}{result.passed:>7}{result.failed:>8}{result.skipped:>9}{result.seconds:>9.0f}"
        )
    passed, failed, skipped = (
        sum(getattr(result, field) for result in results.values())
        for field in ("passed", "failed", "skipped")
    )
    say()
    say(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not (passed or skipped) else 0


if __name__ == "__main__":
    main_wrapper(main)
