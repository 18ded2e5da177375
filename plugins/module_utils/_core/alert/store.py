# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state file: where it is, its lock, and a copy for when its directory takes no more.

The file (``state.json``, mode 0600) is written twice per run that has something to send: before
sending, with the new events queued, and after, without those that arrived. A crash in between
therefore loses nothing and repeats at most what that run sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any

from ..errors import FleetError, NotUsable, Refused, WriteFailed
from ..ports import World
from ..system import files, locks
from .memory import VERSION, Memory

#: Seconds that a run waits for another one to finish sending.
LOCK_SECONDS = 150.0


def default_directory(world: World) -> str:
    """Return the state directory of this user: in ``/var/lib`` for root, else in the user's own
    state directory.
    """
    if os.geteuid() == 0:
        return world.path("/var/lib/mlops-fleet/alert")
    home = world.environ.get("XDG_STATE_HOME") or os.path.join(
        world.environ.get("HOME") or os.path.expanduser("~"), ".local", "state"
    )
    return os.path.join(home, "mlops-fleet", "alert")


class Store:
    """The state file in its directory, or a spare copy on the runtime file system when that is full
    or read-only.

    :param directory: made with mode 0700 by ``prepare``.
    :param world: its ``warn`` receives what went wrong without stopping the run.
    """

    def __init__(self, directory: str, world: World) -> None:
        self.directory = directory
        self.world = world
        self.path = os.path.join(directory, "state.json")
        mark = hashlib.sha256(os.path.abspath(directory).encode()).hexdigest()[:12]
        runtime = world.environ.get("XDG_RUNTIME_DIR", "")
        if os.geteuid() == 0:
            runtime = world.path("/run")
        self.spare = os.path.join(runtime, f"mlops-fleet-alert-{mark}.json") if runtime else ""
        self._saved = 0

    @property
    def exists(self) -> bool:
        """Whether there is a state file."""
        return any(os.path.exists(path) for path in (self.path, self.spare) if path)

    def prepare(self) -> None:
        """Make the directory (0700).

        :raises Refused: others may write to it. :raises WriteFailed: it can't be made.
        """
        try:
            os.makedirs(os.path.dirname(self.directory), mode=0o755, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.directory, 0o700)
            status = os.stat(self.directory)
        except OSError as error:
            raise WriteFailed(
                f"Can't make the state directory {self.directory}: {error.strerror}.",
                "Name another in state_dir.",
                self.directory,
            ) from error
        if not stat.S_ISDIR(status.st_mode):
            raise Refused(
                f"The state directory {self.directory} is not a directory.",
                "Remove what is there, or name another state_dir.",
                self.directory,
            )
        if status.st_mode & 0o022:
            raise Refused(
                f"The state directory {self.directory} is writable by others.",
                f"Run: chmod 0700 {self.directory}",
                self.directory,
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise Refused(
                f"The state directory {self.directory} belongs to another user.",
                "Run as that user, or name another state_dir.",
                self.directory,
            )

    @contextlib.contextmanager
    def locked(self, wait: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the directory's lock while the body runs; wait for another run to finish.

        :raises LockBusy: it did not within ``wait`` seconds.
        """
        with contextlib.ExitStack() as stack:
            path = os.path.join(self.directory, "lock")
            try:
                stack.enter_context(locks.lock(path, "alert run", wait))
            except WriteFailed:
                spare = os.path.basename(self.spare or "mlops-fleet-alert") + ".lock"
                path = os.path.join(locks.lock_directory(), spare)
                stack.enter_context(locks.lock(path, "alert run", wait))
            yield

    def load(self, repair: bool = True) -> Memory:
        """Return the newer of file and spare copy.

        What is damaged is reported, set aside (``repair``), and replaced by nothing.
        """
        memories = []
        for path in (self.path, self.spare):
            content = self._read(path, repair) if path else None
            if content is not None:
                memories.append(Memory.from_dict(content))
        newest = max(memories, key=lambda memory: memory.saved, default=Memory())
        self._saved = newest.saved
        return newest if newest.salt else newest._replace(salt=os.urandom(16).hex())

    def _read(self, path: str, repair: bool) -> dict[str, Any] | None:
        """Return the content of a state file, None when there is none that can be used."""
        try:
            content = files.read_json(path)
            if content is None:
                return None
            if isinstance(content, dict) and content.get("version") == VERSION:
                return content
            problem = f"{path} is not an alert state file of this version."
        except NotUsable as error:
            problem = error.message
        except RecursionError:
            problem = f"{path} is nested too deeply."
        kept = f"; the file is kept as {path}.broken" if repair else ""
        self.world.warn(f"{problem} What was sent before is unknown now{kept}.")
        if repair:
            with contextlib.suppress(OSError):
                os.replace(path, path + ".broken")
        return None

    def save(self, memory: Memory) -> bool:
        """Write the state whole or not at all;

        False (and a warning) when neither place takes it.
        """
        self._saved += 1
        content = memory._replace(saved=self._saved).to_dict()
        text = json.dumps(content, ensure_ascii=True, sort_keys=True) + "\n"
        try:
            files.atomic_write(self.path, text, mode=0o600)
        except FleetError as error:
            return self._save_spare(text, error.message)
        if self.spare:
            with contextlib.suppress(OSError):
                os.unlink(self.spare)
        return True

    def _save_spare(self, text: str, problem: str) -> bool:
        try:
            if not self.spare:
                raise WriteFailed(problem)
            files.atomic_write(self.spare, text, mode=0o600)
        except FleetError:
            self.world.warn(
                f"{problem} The cooldown can't be kept: the next run may repeat these messages."
            )
            return False
        self.world.warn(f"{problem} The state is kept in {self.spare} until the next boot.")
        return True
