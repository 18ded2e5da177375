# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run nox sessions, none stopping another, each in its own log; then print a table and one last
line with the sums.

    python3 scripts/checks.py                      every session of SESSIONS (this is `make test`)
    python3 scripts/checks.py lint unit            some of them
    python3 scripts/checks.py unit -- -k verdict   after `--`: arguments for the session's tool

The sessions are in noxfile.py; this module starts them, two at a time, and gives them `Checks`,
which runs commands into .build/logs/SESSION.log and counts single results: pytest cases, sanity
tests, targets, linters. What can't run on this machine counts as skipped, with the reason and the
command that changes it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import setup
from common import BUILD, ROOT, Problem, main_wrapper, run, say

LOGS = BUILD / "logs"
RESULTS = BUILD / "results"
# In the order in which they start: quick feedback first, then what takes longest, so that both
# workers end at about the same time.
SESSIONS = (
    "molecule",
    "lint",
    "typing",
    "docs",
    "integration",
    "importer",
    "system",
    "unit",
    "sanity",
    "readers",
)
# These use the machine's own lock directory, so that no two of them may run at the same time.
EXCLUSIVE = {"molecule", "integration", "importer"}
WORKERS = 2
STATE = "/var/lib/mlops-fleet"
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
NOT_OURS = (
    "tmp*",
    "bash_*",
    "systemd-private-*",
    "hsperfdata_*",
    "ssh-*",
    ".*",
    "pip-*",
    "ansible*",
    "seaweedfs-*.sock",  # the S3 server's, which puts its socket there whatever TMPDIR says
    # The lock directory of a user without a runtime directory: never removed, by design.
    "mlops-fleet-[0-9]*",
    *LEFTOVERS_EXPECTED,
)  # in /tmp itself


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
            self.notes.append(f"failed: {title}{': ' + why if why else ''}")
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
        run(
            ["rm", "-rf", self.temporary], check=False
        )  # shutil.rmtree gives up on the very deep trees that some tests make
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
        env = {
            key: value
            for key, value in setup.clean_environment().items()
            if not key.startswith(("ANSIBLE_", "NOX_"))
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
            PYTHONDONTWRITEBYTECODE="1",
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
            trouble = trouble if trouble is not None else case.find("error")
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


def state_files() -> set[str]:
    """The files of the agent's state directory, which tests leave alone."""
    return {str(path) for path in Path(STATE).rglob("*")}


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


def run_session(name: str, arguments: list[str]) -> Result:
    """Run one nox session in a process of its own; a session that ends without a result has
    failed.
    """
    start = time.monotonic()
    (RESULTS / f"{name}.json").unlink(missing_ok=True)
    argv = [BUILD / "dev" / "bin" / "nox", "--noxfile", ROOT / "noxfile.py", "--session", name]
    done = subprocess.run(
        [str(part) for part in [*argv, *(["--", *arguments] if arguments else [])]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
    )
    try:
        result = Result(**json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
        say(done.stdout.rstrip())
    except (OSError, ValueError):
        result = Result(seconds=time.monotonic() - start)
        result.record(name, False, f"nox ended with {done.returncode} and no result")
        say(f"{done.stdout}{done.stderr}".rstrip())
        report(name, result)
    return result


def next_session(waiting: list[str], running: set[str]) -> str | None:
    """Return the session to start next, None when each one that waits has to wait longer."""
    for name in waiting:
        if name not in EXCLUSIVE or not running & EXCLUSIVE:
            return name
    return None


def run_sessions(
    names: list[str], start: Callable[[str], Result], workers: int = WORKERS
) -> dict[str, Result]:
    """Run sessions side by side; return their results in the order of SESSIONS."""
    waiting = [name for name in SESSIONS if name in names]
    results: dict[str, Result] = {}
    futures: dict[concurrent.futures.Future[Result], str] = {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=workers) as pool:
        while waiting or futures:
            name = None
            if len(futures) < workers:
                name = next_session(waiting, set(futures.values()))
            if name is not None:
                waiting.remove(name)
                futures[pool.submit(start, name)] = name
                continue
            ended = concurrent.futures.wait(
                futures, return_when=concurrent.futures.FIRST_COMPLETED
            ).done
            for future in ended:
                results[futures.pop(future)] = future.result()
    return {name: results[name] for name in SESSIONS if name in results}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "session",
        nargs="*",
        help=(
            f"{', '.join(SESSIONS)}, or any other session of noxfile.py (default: the ones named here)"
        ),
    )
    own, arguments = sys.argv[1:], []
    if "--" in own:
        own, arguments = own[: own.index("--")], own[own.index("--") + 1 :]
    chosen = parser.parse_args(own).session
    os.chdir(ROOT)
    before, state_before = set(os.listdir("/tmp")), state_files()
    start = time.monotonic()
    if not chosen:
        setup.system_tools(setup.TOOLS_FOR_TESTS)
    setup.ensure("dev")
    setup.link_collection()
    results = run_sessions(chosen or [*SESSIONS], lambda name: run_session(name, arguments))
    results.update({name: run_session(name, arguments) for name in chosen if name not in SESSIONS})
    if not chosen:
        # Sessions have temporary directories of their own: what is new in /tmp was written by a
        # path that ignores TMPDIR.
        left = unexpected([name for name in os.listdir("/tmp") if name not in before], NOT_OURS)
        results["leftovers"] = Result()
        results["leftovers"].record("nothing left in /tmp", not left, ", ".join(left[:10]))
        kept = sorted(state_files() - state_before)
        results["leftovers"].record(f"nothing left in {STATE}", not kept, ", ".join(kept[:10]))
        report("leftovers", results["leftovers"])
    say()
    say(f"{'session':<14}{'result':<15}{'passed':>7}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for name, result in results.items():
        say(
            f"{name:<14}{result.summary:<15}{result.passed:>7}{result.failed:>8}{result.skipped:>9}{result.seconds:>9.0f}"
        )
    passed, failed, skipped = (
        sum(counts) for counts in zip(*((r.passed, r.failed, r.skipped) for r in results.values()))
    )
    seconds = time.monotonic() - start
    say(f"{'together':<14}{'':<15}{passed:>7}{failed:>8}{skipped:>9}{seconds:>9.0f}")
    say()
    say(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    if failed or not (passed or skipped):
        return 1
    return 0


if __name__ == "__main__":
    main_wrapper(main)
