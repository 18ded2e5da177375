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

#: The state of the node, in the agent's state directory.
NODE = "alert"
#: Seconds that a run waits for another one to finish sending.
LOCK_SECONDS = 150.0


def default_directory(world: World) -> str:
    """Return the node's state directory for root and the user that the agent's state belongs to;
    other users have one in their own state directory.
    """
    if os.geteuid() == 0 or _owner(world) == os.geteuid():
        return world.state(NODE)
    return _users_directory(world)


def belongs_to_others(world: World) -> bool:
    """Return whether the alerts of this node are another user's business: they keep its state."""
    return os.geteuid() != 0 and _owner(world) not in (None, 0, os.geteuid())


def _owner(world: World) -> int | None:
    """Return who the node's state belongs to: the owner of its directory, or of the one it will be
    made in.
    """
    for path in (world.state(NODE), os.path.dirname(world.state(NODE))):
        try:
            return os.lstat(path).st_uid
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def _users_directory(world: World) -> str:
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
        self._lock = os.path.join(directory, "lock")
        mark = hashlib.sha256(os.path.abspath(directory).encode()).hexdigest()[:12]
        runtime = world.environ.get("XDG_RUNTIME_DIR", "")
        if os.geteuid() == 0:
            runtime = world.path("/run")
        self.spare = os.path.join(runtime, f"mlops-fleet-alert-{mark}.json") if runtime else ""
        self._saved = 0
        self._give_to = -1

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
        if os.geteuid() == 0:
            self._share()
        elif status.st_uid not in (os.geteuid(), 0):
            raise Refused(
                f"The state directory {self.directory} belongs to another user.",
                "Run as that user, or name another state_dir.",
                self.directory,
            )

        self._adopt_users_state()

    def _share(self) -> None:
        """Let root keep the state that belongs to the agent's user, so that a node has one state.

        That user could exchange the directory for a link at any moment: root opens it once. A link
        where only root may put one is root's own choice.
        """
        parent = os.stat(os.path.dirname(self.directory))
        if os.path.islink(self.directory) and parent.st_uid == 0 and not parent.st_mode & 0o022:
            return
        try:
            fd = os.open(
                self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except OSError as error:
            raise Refused(
                f"The state directory {self.directory} can't be opened: {error.strerror}.",
                "Name the directory itself, not a link to it.",
                self.directory,
            ) from error
        owner = os.fstat(fd).st_uid
        if owner == 0 and self.directory == self.world.state(NODE):
            # Made by root before the agent's user had anything to say.
            owner = os.stat(os.path.dirname(self.directory)).st_uid
        if owner == 0:
            os.close(fd)
            return
        base = f"/proc/self/fd/{fd}"  # open until this process ends
        self.path, self._lock = f"{base}/state.json", f"{base}/lock"
        with contextlib.suppress(OSError):
            os.fchown(fd, owner, -1)
        for path in (self.path, self._lock):
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            # Without the state file there is no state: only the lock is made.
            if path == self._lock:
                flags |= os.O_CREAT
            with contextlib.suppress(OSError):
                file = os.open(path, flags, 0o600)
                try:
                    if os.fstat(file).st_nlink == 1:
                        os.fchown(file, owner, -1)
                finally:
                    os.close(file)
        self._give_to = owner

    def _adopt_users_state(self) -> None:
        """Take over what this user kept in a directory of its own before nodes had one state."""
        earlier = os.path.join(_users_directory(self.world), "state.json")
        if os.geteuid() == 0 or self.directory != self.world.state(NODE):
            return
        if os.path.exists(earlier) and not os.path.exists(self.path):
            with contextlib.suppress(OSError):
                os.rename(earlier, self.path)

    @contextlib.contextmanager
    def locked(self, wait: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the directory's lock while the body runs; wait for another run to finish.

        :raises LockBusy: it did not within ``wait`` seconds.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.lock(self._lock, "alert run", wait))
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
        if newest.salt:
            return newest
        return newest._replace(salt=os.urandom(16).hex())

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
            problem = self._readable(error.message)
        except RecursionError:
            problem = f"{path} is nested too deeply."
        kept = ""
        if repair:
            kept = f"; the file is kept as {path}.broken"
        self.world.warn(f"{problem} What was sent before is unknown now{kept}.")
        if repair:
            with contextlib.suppress(OSError):
                os.replace(path, path + ".broken")
        return None

    def _readable(self, message: str) -> str:
        return message.replace(os.path.dirname(self.path), self.directory)

    def save(self, memory: Memory) -> bool:
        """Write the state whole or not at all;

        False (and a warning) when neither place takes it.
        """
        self._saved += 1
        content = memory._replace(saved=self._saved).to_dict()
        text = json.dumps(content, ensure_ascii=True, sort_keys=True) + "\n"
        try:
            files.atomic_write(self.path, text, mode=0o600)
            if self._give_to >= 0:
                with contextlib.suppress(OSError):
                    os.chown(self.path, self._give_to, -1, follow_symlinks=False)
        except FleetError as error:
            return self._save_spare(text, self._readable(error.message))
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
