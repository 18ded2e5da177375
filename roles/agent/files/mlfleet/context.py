# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of the command: its arguments, configuration, terminal and ports."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from .._core import config, environment, errors
from .._core.options import OptionSet
from .._core.outcome import PATIENCE, REPORT_OUTCOME, SCHEDULED, Outcome
from .._core.ports import World
from . import parser
from .commands import Command
from .runner import run_command
from .terminal import Terminal, tell

#: Until this time (seconds since the epoch) cleanups are only rehearsed. A time, so that one that
#: is left behind prevents no cleanup for good.
REHEARSE_UNTIL = "MLFLEET_REHEARSE_CLEANUP_UNTIL"

_Set = TypeVar("_Set", bound=OptionSet)


class Context:
    """What every subcommand gets."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.command: Command = arguments.command
        self.given_environ = dict(os.environ)
        self.read_environment(environment.default_path(self.given_environ))
        log_file = getattr(arguments, "log_file", None)
        if not log_file and self.command.name == "maintenance":
            log_file = self.environ.get("LOG_FILE")
        self.terminal = Terminal(getattr(arguments, "json", False), log_file or self.command.log)
        self.note_environment()
        self.world = World(run=run_command, warn=self.terminal.note)
        if "INVOCATION_ID" in self.environ:
            self._advise_about_sandbox()
        #: What a trial run gets to know about this one.
        self.outcome = Outcome()
        #: What the error says that ended this run.
        self.message = ""
        #: Results by phase; those of scheduled runs are kept for whoever looks at this node later.
        self.results: dict[str, dict[str, Any]] = {}
        # Read once, at the start: a backup of hours may come before the cleanup.
        until = self.environ.get(REHEARSE_UNTIL, "")
        self.rehearses_cleanup = until.isdigit() and int(until) > time.time()
        self._configuration: config.Configuration | None = None

    def read_environment(self, path: str) -> None:
        """Read the file of the old scripts' variables; it completes the environment of this
        process.
        """
        self.environment = environment.read(path)
        self.environ, lines = self.environment.complete(self.given_environ)
        for variable in lines:
            # As bytes: the locale may know fewer characters than the file holds.
            os.environb[variable.encode()] = self.environ[variable].encode()
        self._configuration = None

    def note_environment(self) -> None:
        """Note why the file of variables, or a line of it, is not in force."""
        # In a unit, systemd has read the file for a user who may not.
        if "INVOCATION_ID" not in self.environ and self.environment.unreadable:
            self.terminal.note(config.unreadable(self.environment))
        for line in self.environment.lines(ignored_only=True):
            self.terminal.note(line)

    @property
    def configuration(self) -> config.Configuration:
        """The configuration of this call; it is noted when a file that was named does not exist."""
        if self._configuration is None:
            path = str(self.arguments.config)
            self._configuration = config.Configuration(path, self.given_environ, self.environment)
            if path != parser.CONFIG and not os.path.exists(path):
                self.terminal.note(f"there is no configuration {path!r}: defaults are in force")
        return self._configuration

    @property
    def flags(self) -> dict[str, Any]:
        """The options that were given as flags."""
        return parser.flags_given(self.arguments)

    def merged(self, part: str, flags: Mapping[str, Any] | None = None) -> config.Merged:
        """Return the values of a part; flags are those of the command line by default."""
        return self.configuration.merged(part, self.flags if flags is None else flags)

    def options(
        self,
        part: str,
        kind: type[_Set],
        flags: Mapping[str, Any] | None = None,
        **forced: Any,
    ) -> _Set:
        """Return the checked options of a part. :raises OptionError: one can't be used."""
        flags = self.flags if flags is None else flags
        merged = self.merged(part, flags)
        merged.values.update(forced)
        asked = getattr(self.arguments, "s3_sync", False) or "s3" in flags
        if part == "backup" and not asked and "s3" not in self.configuration.file.get(part, {}):
            # As before, the bucket of the environment is used only when --s3-sync asks for it.
            merged.values.pop("s3", None)
        return self.configuration.checked(kind, merged)

    @contextlib.contextmanager
    def job_lock(self) -> Iterator[None]:
        """Let no two jobs that change this node overlap: they share one lock.

        Rehearsals need none.
        """
        if self.arguments.dry_run:
            yield
            return
        from .._core.system import job_lock

        wait = self.arguments.wait
        if wait is None:
            wait = 0.0
            if self.scheduled:
                wait = PATIENCE

        def waiting(holder: job_lock.Holder) -> None:
            text = f"waiting up to {wait:g} s for {holder.text()}"
            self.terminal.note(text)
            self.terminal.log("INFO", text)

        with job_lock.hold(f"mlfleet {self.command.name}", wait, _agents_group(), waiting):
            yield

    def _advise_about_sandbox(self) -> None:
        """In a unit, let errors say when the sandbox is their reason, and which variable widens
        it.
        """

        def advice(error: errors.FleetError) -> str:
            from .._core import sandbox  # only an error needs it

            return sandbox.advice(error, self.world)

        errors.advise_by(advice)

    @property
    def scheduled(self) -> bool:
        """Whether a timer or cron of the schedule role started this run."""
        if self.environ.get(SCHEDULED):
            return True
        if "INVOCATION_ID" not in self.environ:
            return False
        from .._core.jobs import JOBS
        from .._core.system.unit import current_unit

        return current_unit(self.world) in [f"{job.unit}.service" for job in JOBS]

    def keep_results(self) -> None:
        """Keep the results of a scheduled run; those of a call by hand may be of a few checks
        only.
        """
        if self.results and self.scheduled:
            from .._core import last

            problem = last.keep_all(self.results, self.world.clock.now(), self.world.state("last"))
            if problem:
                self.terminal.log("WARNING", problem)

    def keep_end(self, status: int) -> None:
        """Keep how a run that cron started ended: ``mlfleet status`` has no unit to ask."""
        if not self.environ.get(SCHEDULED):
            return
        from .._core import last
        from .._core.jobs import JOBS

        job = self.command.name
        if getattr(self.arguments, "drill", False):
            job = "restore_drill"
        if job in JOBS.names:
            end = {last.job_phase(job): {"exit_code": status, "message": self.message}}
            problem = last.keep_all(end, self.world.clock.now(), self.world.state("last"))
            if problem:
                self.terminal.log("WARNING", problem)

    def report_outcome(self) -> None:
        """Tell a trial run how this one ended; nothing unless it asks."""
        if self.environ.get(REPORT_OUTCOME):
            tell(self.outcome.line() + "\n")


def _agents_group() -> int | None:
    """Return the group that the agent role gave the configuration's directory to: its members run
    jobs too.
    """
    with contextlib.suppress(OSError):
        status = os.stat(os.path.dirname(parser.CONFIG))
        if status.st_uid == 0 and status.st_mode & 0o050:
            return status.st_gid
    return None
