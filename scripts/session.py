# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a session of noxfile.py runs and counts.

`Checks` runs commands into .build/logs/SESSION.log and counts single results: pytest cases, sanity
tests, targets, linters.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import setup
from common import BUILD, ROOT, Problem, run, say

LOGS = BUILD / "logs"
RESULTS = BUILD / "results"
# A deadline can be missed on a busy machine: a failed test runs twice more before it counts as
# failed, and the summary says so.
RERUNS = ["--reruns=2", "--reruns-delay=2"]
WORKERS = os.environ.get("MLOPS_TEST_WORKERS", "")
# Compiled files of all sessions: none is written beside a source, and no process compiles what
# another one has compiled.
BYTECODE = BUILD / "bytecode"
LEFTOVERS_EXPECTED = (  # in the temporary directory of a session
    "containers-*",  # podman's, which keeps it between calls
    "podman-run-*",
    "storage-run-*",
    "api_load.tar*",  # podman's, of an image that was loaded through its socket
    "pyright-*",
    "node-compile-cache",
    "pytest-of-*",  # pytest's own, which keeps the last three
    "*cacert.pem",  # certifi's, where a library is imported from an archive
)


@dataclasses.dataclass
class Result:
    """What a session found: counts, and for everything that did not pass a line with what and
    why.
    """

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def record(self, title: str, good: bool, why: str = "") -> bool:
        """Count one check."""
        if good:
            self.passed += 1
        else:
            self.failed += 1
            self.notes.append(": ".join(part for part in ("failed", title, why) if part))
        return good

    def skip(self, title: str, why: str) -> None:
        """Count a check that can't run here."""
        self.skipped += 1
        self.notes.append(f"skipped: {title}: {why}")

    @property
    def summary(self) -> str:
        if self.failed:
            return "FAILED"
        if self.passed:
            return "passed"
        if self.skipped:
            return "skipped"
        return "nothing to do"


class Checks:
    """One session: runs commands into its log and collects the counts.

    As a context manager it gives the session a temporary directory of its own, reports what is left
    in it as a failure, and writes the result to .build/results/SESSION.json. Problems inside become
    failures; `good` is for nox.
    """

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name, self.arguments, self.result = name, arguments, Result()
        self.lock = threading.Lock()
        for directory in (LOGS, RESULTS):
            directory.mkdir(parents=True, exist_ok=True)
        self.log_path = LOGS / f"{name}.log"
        self.result_path = RESULTS / f"{name}.json"
        self.result_path.unlink(missing_ok=True)
        self.start = time.monotonic()

    def __enter__(self) -> Checks:
        self.log = self.log_path.open("w", encoding="utf-8", errors="replace")
        self.temporary = Path(
            tempfile.mkdtemp(prefix="mlops-", dir="/tmp")
        )  # a short path: sockets are made below it
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, setup.Unavailable):
            self.result.skip(self.name, str(error))
        elif isinstance(error, (Problem, OSError, ValueError, subprocess.SubprocessError)):
            self.result.record(self.name, False, str(error))
        left = unexpected(os.listdir(self.temporary), LEFTOVERS_EXPECTED)
        self.result.record(
            "nothing left in the temporary directory", not left, ", ".join(left[:10])
        )
        # shutil.rmtree gives up on the very deep trees that some tests make
        compiled = BYTECODE / self.temporary.relative_to("/")
        run(["rm", "-rf", self.temporary, compiled], check=False)
        self.result.seconds = time.monotonic() - self.start
        self.log.writelines(f"{note}\n" for note in self.result.notes)
        self.log.close()
        self.result_path.write_text(
            json.dumps(dataclasses.asdict(self.result), indent=1) + "\n", encoding="utf-8"
        )
        report(self.name, self.result)
        return error is None or isinstance(
            error, (Problem, OSError, ValueError, subprocess.SubprocessError, setup.Unavailable)
        )

    @property
    def good(self) -> bool:
        return not self.result.failed

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of every command: this checkout's collections path only, our tools first,
        nothing of an outer shell's set-up.
        """
        outer = ("ANSIBLE_", "NOX_", "PYTHONDONTWRITEBYTECODE")
        env = {
            key: value
            for key, value in setup.clean_environment().items()
            if not key.startswith(outer)
        }
        tools = [
            str(BUILD / "dev" / "bin"),
            env.get("PATH", ""),
            "/usr/sbin",
            "/sbin",
            str(BUILD / "tools" / "usr" / "bin"),
        ]
        env.update(
            PATH=os.pathsep.join(tools),
            TMPDIR=str(self.temporary),
            LC_ALL="C.UTF-8",
            PYTHONPYCACHEPREFIX=str(BYTECODE),
        )
        env.update(
            ANSIBLE_COLLECTIONS_PATH=str(setup.COLLECTIONS),
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_LOCALHOST_WARNING="False",
        )
        env.update(ANSIBLE_HOME=str(BUILD / "ansible-home"))
        return {**env, **more}

    def command(
        self, argv: list[Any], live: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and return its output, which goes to the log too.

        Without `live` the log gets it in one piece at the end, for commands that run side by side.
        """
        argv = [str(part) for part in argv]
        options.setdefault("cwd", ROOT)
        options.setdefault("env", self.environment())
        options.update(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        options.update(text=True, encoding="utf-8", errors="replace")
        start, lines = time.monotonic(), [f"\n$ {shlex.join(argv)}\n"]
        if live:
            self.write(lines)
        with subprocess.Popen(argv, **options) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if live:
                    self.write([line])
        end = f"[{process.returncode} after {time.monotonic() - start:.1f} s]\n"
        self.write([end] if live else [*lines, end])
        return subprocess.CompletedProcess(argv, process.returncode, "".join(lines[1:]), "")

    def write(self, lines: list[str]) -> None:
        """Put lines into the log, together."""
        with self.lock:
            self.log.writelines(lines)
            self.log.flush()

    def check(self, title: str, argv: list[Any], **options: Any) -> bool:
        """Run a command that is one check: its exit code decides."""
        done = self.command(argv, **options)
        last = next(
            (line for line in reversed(done.stdout.strip().splitlines()) if line.strip()),
            "no output",
        )
        return self.result.record(title, done.returncode == 0, last.strip()[:200])

    def pytest(self, title: str, python: Path, arguments: list[Any], **options: Any) -> None:
        """Run pytest and count its cases from the JUnit file it writes; a rerun that passed is
        reported.
        """
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", title)
        report_path = LOGS / f"{self.name}-{slug}.xml"
        report_path.unlink(missing_ok=True)
        options.setdefault("env", self.environment())
        base = Path(options["env"]["TMPDIR"]) / slug[-24:].strip("-")
        argv = [
            python,
            "-m",
            "pytest",
            "-q",
            "-raR",
            "--durations=15",
            f"--junitxml={report_path}",
            f"--basetemp={base}",
        ]
        done = self.command([*argv, *arguments, *self.arguments], **options)
        run(["rm", "-rf", base], check=False)
        if not report_path.exists():
            self.result.record(
                title, False, f"pytest ended with {done.returncode} and no report, see the log"
            )
            return
        self.count(title, done.returncode, report_path)
        for test in sorted(set(re.findall(r"^RERUN (\S.*?)(?: - .*)?$", done.stdout, re.M))):
            self.result.notes.append(f"rerun: {title}: {test}")

    def pytest_in_parallel(
        self, title: str, name: str, tests: list[str], workers: str, seconds: int
    ) -> None:
        """Run tests in an environment, with runtime and lock directories of their own.

        :param workers: how many run at once. :param seconds: limit of one test.
        """
        runtime = self.temporary / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        env = self.environment(XDG_RUNTIME_DIR=str(runtime))
        options = [f"-n{WORKERS or workers}", "--dist=worksteal", f"--timeout={seconds}", *RERUNS]
        self.pytest(title, setup.environment_python(name), [*options, *tests], env=env)
        run(["rm", "-rf", runtime], check=False)

    def count(self, title: str, code: int, report_path: Path) -> None:
        """Take the cases of a JUnit report into the counts; of a test that ran again, the last
        attempt.
        """
        cases = {
            (case.get("classname"), case.get("name")): case
            for case in ElementTree.parse(report_path).getroot().iter("testcase")
        }
        before = self.result.failed
        for (module, test), case in cases.items():
            trouble, skipped = case.find("failure"), case.find("skipped")
            if trouble is None:
                trouble = case.find("error")
            name = f"{title}: {module}::{test}"
            if trouble is not None:
                self.result.record(
                    name, False, ((trouble.get("message") or "").splitlines() or [""])[0][:160]
                )
            elif skipped is not None:
                self.result.skip(name, skipped.get("message") or "")
            else:
                self.result.record(name, True)
        if code not in (0, 5) and self.result.failed == before:
            self.result.record(title, False, f"pytest ended with {code}, see the log")
        elif code == 5 and not cases:
            self.result.skip(title, "no tests there")


def unexpected(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The names that no pattern allows, sorted."""
    return sorted(
        name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    )


def report(name: str, result: Result) -> None:
    """Print a session's outcome: failures and reruns one by one, skipped checks with equal reasons
    in one line.
    """
    say(f"== {name}: log in {os.path.relpath(LOGS / f'{name}.log')}")
    for note in [note for note in result.notes if note.startswith(("failed", "rerun"))][
        :30
    ] + fold_skips(result.notes):
        say(f"   {note}")
    say(
        f"   {result.summary}: {result.passed} passed, {result.failed} failed, {result.skipped}"
        f" skipped in {result.seconds:.0f} s"
    )


def fold_skips(notes: list[str]) -> list[str]:
    """The skip notes, those with equal reasons folded into one line."""
    reasons: dict[str, list[str]] = {}
    for note in notes:
        if note.startswith("skipped: "):
            title, _sign, why = note[len("skipped: ") :].rpartition(": ")
            reasons.setdefault(why, []).append(title)
    return [
        f"skipped: {titles[0]}{f' and {len(titles) - 1} more' if len(titles) > 1 else ''}: {why}"
        for why, titles in reasons.items()
    ]
