# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that the command prints and logs."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from .._core.ports import Progress


def silence(stream: TextIO) -> None:
    """Discard all further output of a stream that can't be written: the interpreter would try again
    at its end, and complain.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tell(text: str) -> None:
    """Write to stderr. Nobody may be there to read it; the work goes on nevertheless."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


class Terminal:
    """Everything that is printed: results on stdout, notes and progress on stderr, the same in the
    log file.
    """

    def __init__(self, json_only: bool, log_file: str | None) -> None:
        self.json_only = json_only
        if json_only:
            # JSON is UTF-8 whatever the terminal's character set.
            sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.live = sys.stderr.isatty() and not json_only
        self.log_file = log_file
        self.log_failed = False
        self.unwritten = ""
        self.drawn = False
        self.last = (time.monotonic(), -1)  # short work shows no progress

    def say(self, *lines: str) -> None:
        """Print lines of the human output; nothing with --json."""
        self.clear()
        if not self.json_only:
            self._print(*lines)

    def account(self, lines: Sequence[str], every: bool, limit: int = 20) -> None:
        """Print what was done, by name, a line each; a long account is cut unless ``every`` line is
        wanted.
        """
        if every or len(lines) <= limit:
            self.say(*lines)
        else:
            self.say(*lines[:limit], f"and {len(lines) - limit} more (--verbose lists all)")

    def note(self, message: str) -> None:
        """Print a message for the person at the terminal or in the journal."""
        self.clear()
        tell(f"mlfleet: {message}\n")

    def data(self, document: Any) -> None:
        """Print the JSON document, the only thing on stdout with --json."""
        if self.json_only:
            self._print(json.dumps(document, indent=1, ensure_ascii=False, sort_keys=False))

    def _print(self, *lines: str) -> None:
        """Write to stdout.

        A reader that has gone away is no error, and keeps no job from ending and logging as it
        should.
        """
        if self.unwritten:
            return
        try:
            for line in lines:
                print(line)
            sys.stdout.flush()
        except OSError as error:
            self.unwritten = error.strerror or str(error)
            silence(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                self.note(f"the result could not be written to standard output: {self.unwritten}")

    def log(self, level: str, message: str) -> None:
        """Append one line to the log file: local time, level, message.

        A log that can't be written is reported once.
        """
        if not self.log_file:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{level}] {' '.join(message.split())}\n"
        try:
            # Neither through a link to somewhere else nor into a pipe that nobody reads.
            fd = os.open(
                self.log_file,
                os.O_WRONLY
                | os.O_APPEND
                | os.O_CREAT
                | os.O_NOFOLLOW
                | os.O_NONBLOCK
                | os.O_CLOEXEC,
                0o640,
            )
            try:
                os.write(fd, line.encode("utf-8", "replace"))
            finally:
                os.close(fd)
        except OSError as error:
            reason = error.strerror
            if error.errno == errno.ELOOP:
                reason = "it is a symbolic link, which is not followed"
            # Reported once, but tried again with the next line: logrotate may be between its rename
            # and its new file.
            if not self.log_failed:
                self.note(
                    f"no log is written: {self.log_file}: {reason} (choose another with --log-file)"
                )
            self.log_failed = True

    def progress(self, step: Progress) -> None:
        """Show progress: a bar on a terminal, otherwise a plain line whenever another tenth is
        done, at most every 5 s.
        """
        share = 0.0
        if step.total:
            share = step.done / step.total
        now = time.monotonic()
        if self.live:
            if now - self.last[0] < 0.1 and share < 1:
                return
            filled = int(share * 30)
            amount = f"{share:4.0%}" if step.total else f"{step.done}"
            tell(
                f"\r\033[K{step.phase:<10} [{'#' * filled}{'.' * (30 - filled)}] {amount}"
                f" {step.subject[-40:]}"
            )
            self.drawn = True
            self.last = (now, 0)
        elif step.total and now - self.last[0] >= 5 and int(share * 10) != self.last[1]:
            tell(f"{step.phase}: {share:.0%} of {step.total} {step.unit}\n")
            self.last = (now, int(share * 10))

    def clear(self) -> None:
        """Remove the progress bar."""
        if self.drawn:
            tell("\r\033[K")
            self.drawn = False
