# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run nox sessions, none stopping another, each in its own log; then print a table and one last
line with the sums.

    python3 scripts/checks.py                      every session of SESSIONS (this is `make test`)
    python3 scripts/checks.py lint unit            some of them
    python3 scripts/checks.py unit -- -k verdict   after `--`: arguments for the session's tool

The sessions are in noxfile.py; this module starts them, two at a time. What can't run on this
machine counts as skipped, with the reason and the command that changes it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import setup
from common import BUILD, ROOT, main_wrapper, say
from session import LEFTOVERS_EXPECTED, RESULTS, Result, report, unexpected

# In the order in which they start: the longest, quick feedback, then from long to short, so that
# both workers end at about the same time.
SESSIONS = (
    "molecule",
    "lint",
    "typing",
    "docs",
    "system",
    "unit",
    "integration",
    "sanity",
    "importer",
    "readers",
)
# These use the machine's own lock directory, so that no two of them may run at the same time. The
# nodes of molecule have lock directories of their own.
EXCLUSIVE = {"integration", "importer"}
WORKERS = 2
STATE = "/var/lib/mlops-fleet"
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


def state_files() -> set[str]:
    """The files of the agent's state directory, which tests leave alone."""
    return {str(path) for path in Path(STATE).rglob("*")}


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
    """Return the session to start next, None when all that wait must go on waiting."""
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
            f"{', '.join(SESSIONS)}, or any other session of noxfile.py (default: the ones named"
            " here)"
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
