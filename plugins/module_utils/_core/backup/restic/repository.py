# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of restic: where the repository is, how the password gets there, and what went wrong.

Neither password nor repository is among the arguments, which every user can list: the password goes
to the standard input, or restic reads it from a file, and the repository, which may hold a password
too, is in the environment.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
from collections.abc import Sequence
from typing import Any, Union

from ...errors import CommandFailed, LockBusy, NotPermitted, NotUsable, StoreError
from ...ports import CommandResult, World
from .. import catalogue
from ..catalogue import Backup
from ..options import (
    BackupOptions,
    InfoOptions,
    ResticOptions,
    RestoreOptions,
    S3Connection,
)
from ..source import DIRECTORY, FILE, LINK
from . import head

Options = Union[BackupOptions, InfoOptions, RestoreOptions]

#: Marks our snapshots; others in the same repository are never listed or removed.
TAG = "mlops-fleet"
#: Longest time that a call may take, in seconds: the jobs' own time-outs end them.
_LONG = 7 * 86400.0
_PERMISSION = re.compile(r"permission denied", re.IGNORECASE)
_ABSENT = re.compile(r"no such file|does not exist|not found|\b404\b|NoSuchKey", re.IGNORECASE)
_LOCKED = re.compile(r"already locked(?: exclusively)? by (?:PID (\d+) on (\S+))?")
_KINDS = {"file": FILE, "dir": DIRECTORY, "symlink": LINK}
_ANNOUNCED = "reading repository password"
#: Variables of the administrator's own that would contradict ours.
_OTHERS = ("RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND")


class Repository:
    """A repository as the options name it.

    ``local`` is its directory, None where it is elsewhere; ``url`` names it in messages, without
    credentials.
    """

    def __init__(self, options: Options, directory: str, world: World) -> None:
        """:param directory: the one of the backups, which holds the repository by default."""
        self._settings = options.restic or ResticOptions.from_mapping({})
        self._world = world
        self._arguments: list[str] = []
        self._environ = {**dict.fromkeys(_OTHERS, ""), "RESTIC_REPOSITORY_FILE": ""}
        location = self._settings.repository
        if options.s3 is not None:
            self._use_s3(options.s3)
            bucket = f"{options.s3.bucket}/{options.s3.prefix.strip('/')}".rstrip("/")
            endpoint = (options.s3.endpoint_url or "https://s3.amazonaws.com").rstrip("/")
            location = location or f"s3:{endpoint}/{bucket}"
        location = location or directory
        self._environ["RESTIC_REPOSITORY"] = location
        self.local = location if location.startswith("/") else None
        self.url = re.sub(r"://[^/@]*@", "://", location)
        if self.local is not None:
            self._arguments.append("--no-cache")  # it would be a second copy beside the first
        if self._settings.password_file:
            self._arguments += ["--password-file", self._settings.password_file]

    def _use_s3(self, s3: S3Connection) -> None:
        given = {
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_SESSION_TOKEN": s3.session_token,
            "AWS_DEFAULT_REGION": s3.region,
        }
        self._environ.update({name: value for name, value in given.items() if value})
        if s3.ca_bundle:
            self._arguments += ["--cacert", s3.ca_bundle]
        self._arguments += ["-o", f"s3.connections={s3.parallel}"]
        if s3.bytes_per_second:
            rate = str(max(1, s3.bytes_per_second >> 10))
            self._arguments += ["--limit-upload", rate, "--limit-download", rate]

    def call(self, *arguments: str, directory: str | None = None) -> CommandResult:
        """Run restic; its exit status is left to the caller.

        :param directory: where it runs. :raises CommandFailed: restic is missing.
        :raises NotUsable: there is no password file, or this user may not read it.
        """
        if self._settings.password_file:
            _require_password_file(self._settings.password_file)
        argv = ["restic", *self._arguments, *arguments]
        if directory is not None:
            argv = ["env", "-C", directory, *argv]
        stdin = "" if self._settings.password is None else f"{self._settings.password}\n"
        return self._world.run(argv, timeout=_LONG, env=self._environ, stdin=stdin)

    def run(self, *arguments: str, directory: str | None = None) -> str:
        """Run restic and return its output. :raises FleetError: it failed."""
        result = self.call(*arguments, directory=directory)
        if result.returncode:
            raise self.error(arguments[0], result)
        # restic announces on its standard output that it reads the password.
        lines = result.stdout.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(_ANNOUNCED))

    def error(self, command: str, result: CommandResult) -> Exception:
        """Return the error for a call that failed."""
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        text = "; ".join(line for line in lines if not line.startswith(_ANNOUNCED))[:500]
        code = result.returncode
        if code == 12 or "wrong password" in text:
            return StoreError(
                f"The password of the restic repository {self.url} is wrong.",
                "Check restic.password or restic.password_file.",
                self.url,
            )
        locked = _LOCKED.search(text)
        if code == 11 or locked:
            return self._busy(locked)
        if _PERMISSION.search(text):
            return NotPermitted(
                f"Can't use the restic repository {self.url}: permission denied ({text}).",
                catalogue.TODO,
                self.url,
            )
        return StoreError(
            f"restic {command} failed for {self.url}: {text or f'exit code {code}'}.",
            "Run the same restic command by hand to see more.",
            self.url,
        )

    def _busy(self, locked: re.Match[str] | None) -> LockBusy:
        holder = int(locked[1]) if locked and locked[1] else None
        error = LockBusy("restic run on this repository", self.url, holder)
        host = f" on {locked[2]}" if locked and locked[2] else ""
        error.todo = (
            f"Wait for it to end, then run again. If it does not run any more{host}: "
            f"restic -r {self.url} unlock."
        )
        return error

    def exists(self) -> bool:
        """Say whether there is a repository. :raises FleetError: that is unknown."""
        self.require_program()
        if self.local is not None:
            try:
                os.stat(os.path.join(self.local, "config"))
            except (FileNotFoundError, NotADirectoryError):
                return False
            except OSError as error:
                raise NotPermitted(
                    f"Can't look at {self.local}: {error.strerror}.", catalogue.TODO, self.local
                ) from error
            return True
        result = self.call("cat", "config")
        if result.returncode == 0:
            return True
        missing = "Is there a repository" in result.stderr and _ABSENT.search(result.stderr)
        if result.returncode == 10 or missing:
            return False
        raise self.error("cat", result)

    def require(self) -> None:
        """:raises NotUsable: there is no repository."""
        if not self.exists():
            raise NotUsable(
                f"There is no restic repository {self.url}.",
                "Check the repository; no backup may have been made yet.",
                self.url,
            )

    def require_program(self) -> None:
        """:raises CommandFailed: restic is not installed."""
        try:
            self._world.run(["restic", "version"])
        except CommandFailed as error:
            if error.code == CommandFailed.MISSING:
                raise CommandFailed(
                    "The program restic is not installed on this host, but engine is restic.",
                    "Install it (apt-get install restic), or set engine to archive.",
                    "restic",
                    CommandFailed.MISSING,
                ) from error
            raise

    def snapshots(self) -> list[Backup]:
        """Return our snapshots of all hosts, the newest first."""
        documents = json.loads(self.run("snapshots", "--json", "--tag", TAG) or "null") or []
        return catalogue.newest_first(self._backup(document) for document in documents)

    def _backup(self, snapshot: dict[str, Any]) -> Backup:
        tags = dict(tag.partition("=")[::2] for tag in snapshot.get("tags") or ())
        created = _seconds(str(snapshot["time"]))
        document = head.of_snapshot(
            name=str(snapshot["short_id"]),
            created=created,
            hostname=str(snapshot.get("hostname", "")),
            source=str((snapshot.get("paths") or [""])[0]),
            identifier=str(snapshot["id"]),
            tags=tags,
        )
        return Backup(
            document["name"],
            f"{self.url.rstrip('/')}/{document['name']}",
            created,
            document["archive"]["size"],
            sha256=document["archive"]["sha256"],
            manifest=document,
        )

    def entries(self, identifier: str) -> list[dict[str, Any]]:
        """Return what a snapshot holds: path, type, mode, size, mtime_ns."""
        entries = []
        for line in self.run("ls", "--json", identifier).splitlines():
            node = json.loads(line)
            if node.get("struct_type") != "node" or node.get("type") not in _KINDS:
                continue
            entries.append(
                {
                    "path": str(node["path"]).lstrip("/"),
                    "type": _KINDS[node["type"]],
                    "mode": f"{int(node.get('mode', 0)) & 0o777:04o}",
                    "uid": int(node.get("uid", 0)),
                    "gid": int(node.get("gid", 0)),
                    "mtime_ns": _nanoseconds(str(node["mtime"])),
                    "size": int(node.get("size", 0)),
                }
            )
        return entries

    def check(self, full: bool) -> list[str]:
        """Return what restic says is wrong with the repository.

        :param full: read all data. :raises FleetError: it could not look.
        """
        result = self.call("check", *(["--read-data"] if full else []))
        if result.returncode == 0:
            return []
        error = self.error("check", result)
        if isinstance(error, (LockBusy, NotPermitted)) or "password" in str(error):
            raise error
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        return [line for line in lines if not line.startswith(_ANNOUNCED)][:20]

    def forget(self, identifiers: Sequence[str]) -> None:
        """Remove snapshots and the data that no other needs."""
        self.run("forget", "--prune", *identifiers)


def _require_password_file(path: str) -> None:
    """:raises NotPermitted: this user may not read it. :raises NotUsable: there is none."""
    reason, denied = os.strerror(errno.EACCES), True
    try:
        os.stat(path)
        if os.access(path, os.R_OK, effective_ids=True):
            return
    except OSError as error:
        reason, denied = str(error.strerror), isinstance(error, PermissionError)
    message = f"Can't read the password file {path} of the restic repository: {reason}."
    if denied:
        raise NotPermitted(message, "Run this as root or as a user who may read it.", path)
    raise NotUsable(message, "Check restic.password_file.", path)


def _seconds(text: str) -> float:
    return float(_nanoseconds(text) // 1_000_000_000)


def _nanoseconds(text: str) -> int:
    """Return a time like ``2026-11-28T10:28:04.954732837Z`` in nanoseconds since the epoch."""
    match = re.fullmatch(r"(.{19})(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise StoreError(f"restic reports the time {text!r}, which is none.", "", text)
    zone = "+00:00" if match[3] == "Z" else match[3]
    moment = datetime.datetime.fromisoformat(match[1] + zone)
    return int(moment.timestamp()) * 1_000_000_000 + int((match[2] or "0").ljust(9, "0"))
