# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of every removal: one line for each unit in a log file and in the journal, written at the moment it is gone."""

from __future__ import annotations

import os
import socket
import time
from types import TracebackType

from ..system.files import write_all
from ..system.text import display_path, one_line
from .removals import Removal

#: Where the agent's jobs log; logrotate takes care of it on nodes that have the agent.
LOG = "/var/log/ml-cleanup.log"
#: Where journald receives entries (systemd.journal-fields(7), "native protocol").
JOURNAL = "/run/systemd/journal/socket"
IDENTIFIER = "mlops-cleanup"
#: Seconds after which a journal that accepts nothing gets nothing more.
PATIENCE = 1.0

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def fields(removal: Removal) -> dict[str, str]:
    """Return what is recorded of a removal, by name; every value is one line."""
    return {
        "target": one_line(removal.target),
        "path": display_path(removal.path),
        "kind": removal.kind,
        "size": str(removal.size),
        "age_days": "unknown" if removal.age is None else f"{removal.age / 86400:.3f}",
        "reason": one_line(removal.reason),
    }


def message(values: dict[str, str], action: str = "removed") -> str:
    """Return the line of a removal."""
    return (
        f"{action} {values['path']} (target {values['target']}, {values['size']} B,"
        f" age {values['age_days']} days): {values['reason']}"
    )


class Recorder:
    """Records removals in the log file ``log`` (None: no file) and in the journal. A context manager.

    A record that can't be written never stops a cleanup; ``problems`` says why one is missing.

    :param create: whether the log file is made when it does not exist.
    :param journal: socket of the journal; a missing one is no problem.
    """

    def __init__(self, log: str | None, create: bool = False, journal: str = JOURNAL) -> None:
        self.problems: list[str] = []
        self._log, self._create, self._journal = log, create, journal
        self._fd = -1
        self._socket: socket.socket | None = None

    def __enter__(self) -> Recorder:
        if self._log is not None:
            try:
                # Neither through a link to somewhere else nor into a pipe that nobody reads.
                self._fd = os.open(self._log, _FLAGS | (os.O_CREAT if self._create else 0), 0o640)
            except FileNotFoundError:
                if self._create:
                    self.problems.append(f"{self._log}: its directory does not exist")
            except OSError as error:
                self.problems.append(f"{self._log}: {error.strerror}")
        if os.path.exists(self._journal):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(PATIENCE)
            try:
                self._socket.connect(self._journal)
            except OSError as error:
                self._lose_journal(error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __call__(self, removal: Removal, action: str = "removed") -> None:
        """Record one removal, or what else was done with a unit."""
        if self._fd < 0 and self._socket is None:
            return
        values = fields(removal)
        text = message(values, action)
        if self._fd >= 0:
            line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [INFO] {text}\n"
            try:
                write_all(self._fd, line.encode("utf-8", "replace"))
            except OSError as error:
                self.problems.append(f"{self._log}: {error.strerror}")
                os.close(self._fd)
                self._fd = -1
        if self._socket is not None:
            entry = {"MESSAGE": text, "PRIORITY": "6", "SYSLOG_IDENTIFIER": IDENTIFIER}
            entry["MLOPS_ACTION"] = action
            entry.update((f"MLOPS_{name.upper()}", value) for name, value in values.items())
            data = "".join(f"{name}={value}\n" for name, value in entry.items())
            try:
                self._socket.send(data.encode("utf-8", "replace"))
            except OSError as error:
                self._lose_journal(error)

    def _lose_journal(self, error: OSError) -> None:
        self.problems.append(f"the journal: {error.strerror or 'it accepts nothing'}")
        if self._socket is not None:
            self._socket.close()
            self._socket = None
