# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and end of the command: standard streams, signals, errors, exit status."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TextIO, cast

from .._core.errors import FleetError
from .._core.outcome import GAVE_WAY, NOT_RUN, exit_code, of_error
from . import parser
from .context import Context
from .terminal import silence, tell


class Stopped(BaseException):
    """A signal asked this process to end: everything half-made is removed on the way out, as on any
    error.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the tidying up
    raise Stopped(number)


def _prepare() -> None:
    """Open the standard streams that the caller closed; turn the signals that end a process into
    exceptions.
    """
    for fd, stream_name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            # Takes the lowest free number, so that no file of ours ever becomes stdout.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, stream_name) is None:
            stream = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, stream_name, stream)
    for output in (sys.stdout, sys.stderr):
        # A file name may hold any bytes.
        cast(TextIO, output).reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and so do we then
            signal.signal(number, _stop)


def run(context: Context) -> int:
    """Run the subcommand, report what went wrong, and return the exit status."""
    terminal = context.terminal
    try:
        return context.command.run(context)
    except FleetError as error:
        status = exit_code(context.command.name, error, context.command.waits and context.scheduled)
        _report(context, error, "WARNING" if status == GAVE_WAY else "ERROR")
        return status
    except KeyboardInterrupt:
        terminal.note("interrupted")
        terminal.log("ERROR", f"{context.command.name} interrupted")
        return 130
    except Stopped as error:
        terminal.note(f"stopped by {error}")
        terminal.log("ERROR", f"{context.command.name} stopped by {error}")
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is: one line, and the way to more
        _report(context, _unexpected(context, error))
        return NOT_RUN


def _report(context: Context, error: FleetError, level: str = "ERROR") -> None:
    context.terminal.note(f"warning: {error}" if level == "WARNING" else str(error))
    context.terminal.log(level, str(error))
    context.terminal.data({"error": error.to_dict()})
    context.outcome = of_error(error)
    context.message = error.message
    if not getattr(context.arguments, "dry_run", False):
        from .._core.maintenance.plan import PHASES

        if context.command.name in PHASES.names:
            context.results[context.command.name] = {"failed": True, "msg": str(error)}


def _unexpected(context: Context, error: Exception) -> FleetError:
    if context.environ.get("MLFLEET_DEBUG"):
        import traceback

        tell(traceback.format_exc())
    reason = " ".join(str(error).split())
    return FleetError(
        f"{context.command.name} ended unexpectedly: {type(error).__name__}: {reason}.",
        "This is a fault of mlfleet; run it again with MLFLEET_DEBUG=1 in the environment for the"
        " traceback.",
        context.command.name,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    _prepare()
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except Stopped as error:
        # End by the signal itself: systemd and shells tell a stop from a failure by that.
        signal.signal(error.number, signal.SIG_DFL)
        os.kill(os.getpid(), error.number)
        return 128 + error.number


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = parser.parse(argv)
    except SystemExit as leaving:
        try:
            sys.stdout.flush()
        except OSError:  # the reader of --help has gone away
            silence(sys.stdout)
        if leaving.code in (None, 0):
            return 0
        return NOT_RUN
    context = Context(arguments)
    try:
        status = run(context)
    except Stopped as error:
        context.message = f"stopped by {error}"
        context.keep_end(128 + error.number)
        raise
    context.keep_end(status)
    context.keep_results()
    context.report_outcome()
    unwritten = context.terminal.unwritten
    if unwritten and unwritten != os.strerror(errno.EPIPE):
        return max(status, NOT_RUN)
    return status
