# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files written as a whole or not at all, and JSON documents read with errors that say where."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any

from ..errors import NotUsable, WriteFailed


def fsync_directory(path: str) -> None:
    """Make renames inside the directory C(path) durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte of C(data) to C(fd); raise OSError when the device takes no more."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def atomic_write(path: str, data: bytes | str, mode: int = 0o640, durable: bool = True) -> None:
    """Replace the file C(path) by C(data) whole or not at all: temporary file beside it, fsync,
    rename, fsync of the directory.

    The temporary name starts with a dot and is random; it is opened exclusively, so a link planted
    in the directory is never followed. An existing file's owner is kept when we may (root), unless
    others may write to the directory and so may have made the file.

    :param mode: permission bits of the new file, independent of the umask.
    :raises WriteFailed: any step failed; the old file is untouched and the temporary one is gone.
    """
    raw = data.encode("utf-8") if isinstance(data, str) else data
    directory = os.path.dirname(path) or "."
    if os.path.exists(path) and not os.path.isfile(
        path
    ):  # the rename would put a file in its place, /dev/null's too
        raise WriteFailed(f"Can't write {path}: it is not a file.", "Name another one.", path)
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{os.urandom(6).hex()}.tmp")
    try:
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise WriteFailed(
            f"Can't write {path}: {error.strerror}.",
            f"Check that {directory} exists and is writable.",
            path,
        ) from error
    try:
        try:
            write_all(fd, raw)
            _keep_owner(fd, path)
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise WriteFailed(
                f"Can't write {path}: {error.strerror}.",
                "Nothing was changed; check space and permissions.",
                path,
            ) from error
        raise
    if durable:
        fsync_directory(directory)


def _keep_owner(fd: int, path: str) -> None:
    """Give the new file the old one's owner.

    A service user's file that root wrote once stays the service user's.
    """
    with contextlib.suppress(OSError):
        old, new = os.lstat(path), os.fstat(fd)
        shared = os.stat(os.path.dirname(path) or ".").st_mode & 0o022
        if (
            stat.S_ISREG(old.st_mode)
            and not shared
            and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid)
        ):
            os.fchown(fd, old.st_uid, old.st_gid)


def read_json(path: str) -> Any:
    """Return the parsed content of a JSON file, None when it does not exist.

    :raises NotUsable: it can't be read or is not JSON; the message gives line and column.
    """
    try:
        with open(
            path, encoding="utf-8-sig"
        ) as stream:  # editors of some systems begin a file with a byte order mark
            return json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotUsable(
            f"Can't read {path}: {error}.", "Check its permissions and encoding.", path
        ) from error
    except ValueError as error:
        raise NotUsable(
            f"{path} is not valid JSON: {error}.", "Correct or remove it.", path
        ) from error
