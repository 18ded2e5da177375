# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installing the node agent: versioned directories, a C(current) link that is switched atomically,
one older version kept.

Layout below the install directory::

    versions/0.1.0-1f2e3d4c5b6a/mlops_fleet/   the package: mlfleet/, _core/, VERSION, compiled
    current -> versions/0.1.0-1f2e3d4c5b6a
    previous -> the version before, for a rollback

A running job resolves C(current) once, at its start, so an upgrade never mixes two versions in one
process.
"""

from __future__ import annotations

import compileall
import contextlib
import errno
import io
import os
import re
import shutil
import stat
import tarfile
from typing import Any

from .errors import NotUsable, Refused, VerificationFailed
from .ports import CommandRunner
from .system.files import atomic_write, fsync_directory
from .system.locks import lock
from .system.roots import refuse_dangerous

PACKAGE = "mlops_fleet"
_VERSION = re.compile(r"^[0-9A-Za-z][0-9A-Za-z.+_-]*-[0-9a-f]{12}$")
_MEMBER = re.compile(r"^(?:[A-Za-z0-9_]+/)*(?:[A-Za-z0-9_]+\.py|VERSION)$")

_COMMAND = """#!{interpreter} -I
# Installed by mlops.fleet.agent; changes are lost.
import os
import sys

sys.path.insert(0, os.path.realpath({current!r}))
os.environ.setdefault("MLFLEET_CONFIG", {config!r})
os.environ.setdefault("MLFLEET_ENVIRONMENT_FILE", {environment_file!r})
from {package}.mlfleet import main

sys.exit(main())
"""


def _link(directory: str, name: str) -> str:
    """Return the version a link of ours names, or the empty text."""
    try:
        return os.path.basename(os.readlink(os.path.join(directory, name)))
    except OSError:
        return ""


def _point(directory: str, name: str, version: str) -> None:
    """Let a link name a version: made beside it and renamed over it, so that it never is
    missing.
    """
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(os.path.join("versions", version), temporary)
    os.replace(temporary, os.path.join(directory, name))
    fsync_directory(directory)


def installed(directory: str) -> dict[str, Any]:
    """Return C(current), C(previous) (names or empty) and C(versions) (list) of an install
    directory.
    """
    try:
        versions = sorted(
            name for name in os.listdir(os.path.join(directory, "versions")) if _VERSION.match(name)
        )
    except OSError:
        versions = []
    return {
        "current": _link(directory, "current"),
        "previous": _link(directory, "previous"),
        "versions": versions,
    }


def _unpack(directory: str, version: str, bundle: bytes) -> None:
    """Unpack the bundle into its version directory, compile it, and only then give it its name."""
    final = os.path.join(directory, "versions", version)
    temporary = os.path.join(directory, "versions", f".{version}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    package = os.path.join(temporary, PACKAGE)
    os.makedirs(package, mode=0o755)
    try:
        with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:gz") as archive:
            for member in archive:
                if not member.isreg() or not _MEMBER.match(member.name):
                    raise VerificationFailed(
                        f"The agent bundle holds {member.name!r}, which does not belong there.",
                        "",
                        member.name,
                    )
                stream = archive.extractfile(member)
                path = os.path.join(package, member.name)
                os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
                atomic_write(path, stream.read() if stream else b"", mode=0o644)
    except (tarfile.TarError, EOFError, OSError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise NotUsable(
            f"Can't unpack the agent into {temporary}: {error}.", "Check the free space.", directory
        ) from error
    # Compiled for everyone now: users without write access would compile at each start.
    compileall.compile_dir(package, quiet=2)
    for path, _directories, _files in os.walk(temporary):
        fsync_directory(path)
    os.rename(temporary, final)
    fsync_directory(os.path.dirname(final))


def check_interpreter(run: CommandRunner, interpreter: str) -> None:
    """Make sure that the Python that will run the command is there and new enough.

    :raises CommandFailed: it is not there. :raises NotUsable: it is no Python, or older than 3.9.
    """
    todo = "Name a Python 3.9 or later (agent_python, or interpreter of the module)."
    done = run([interpreter, "-I", "-c", "import sys; print(*sys.version_info[:2])"], timeout=30)
    found = re.match(r"(\d+) (\d+)\s*$", done.stdout)
    if done.returncode or not found:
        raise NotUsable(
            f"{interpreter} is not a Python that works:"
            f" {(done.stderr.strip() or done.stdout.strip())[-200:]}.",
            todo,
            interpreter,
        )
    if (int(found[1]), int(found[2])) < (3, 9):
        raise NotUsable(f"{interpreter} is Python {found[1]}.{found[2]}.", todo, interpreter)


def _check_names(version: str, interpreter: str) -> None:
    """:raises Refused: no version name, or an interpreter that no script can begin with."""
    if not _VERSION.match(version):
        raise Refused(f"{version!r} is not a version name.", "", version)
    blank = any(character.isspace() for character in interpreter)
    if not os.path.isabs(interpreter) or len(interpreter) > 120 or blank:
        raise Refused(
            f"The interpreter {interpreter!r} can't stand in a script's first line.",
            "Give a short absolute path.",
            interpreter,
        )


def install(
    directory: str,
    bin_dir: str,
    interpreter: str,
    version: str,
    bundle: bytes,
    check: bool = False,
    config: str = "/etc/mlops-fleet/config.json",
    environment_file: str = "/etc/ml-automation.conf",
) -> dict[str, Any]:
    """Install C(version) (C(RELEASE-DIGEST)) from the bundle (gzipped tar of the package's files)
    and make it current.

    :param interpreter: absolute path for the command's first line; at most 120 characters, no
        blanks.
    :param config: the configuration that the command reads when no other is named.
    :param environment_file: the file with the old scripts' variables, likewise.
    :return: C(changed), C(before) and C(after) as of C(installed). With C(check) nothing is
        written.
    :raises Refused: dangerous directory or unusable interpreter. :raises VerificationFailed: the
        bundle holds foreign files.
    """
    directory = refuse_dangerous(directory, "install directory")
    _check_names(version, interpreter)
    before = installed(directory)
    command = os.path.join(bin_dir, "mlfleet")
    script = _COMMAND.format(
        interpreter=interpreter,
        current=os.path.join(directory, "current"),
        package=PACKAGE,
        config=config,
        environment_file=environment_file,
    )
    current = before["current"] == version and version in before["versions"]
    written = _read(command) == script and _mode(command) == 0o755
    if check or (current and written):
        after = before
        if not current:
            after = {
                "current": version,
                "previous": before["current"],
                "versions": sorted({*before["versions"], version}),
            }
        return {"changed": not (current and written), "before": before, "after": after}
    old_umask = os.umask(0o022)  # the command is for every user of the node
    try:
        os.makedirs(os.path.join(directory, "versions"), mode=0o755, exist_ok=True)
        _make_writable(bin_dir, command)
        with lock(os.path.join(directory, ".lock"), "installation of the agent"):
            if version not in installed(directory)["versions"]:
                _unpack(directory, version, bundle)
            if before["current"] and before["current"] != version:
                _point(directory, "previous", before["current"])
            _point(directory, "current", version)
            atomic_write(command, script, mode=0o755)
            _forget_old(directory)
    finally:
        os.umask(old_umask)
    return {"changed": True, "before": before, "after": installed(directory)}


def _make_writable(bin_dir: str, command: str) -> None:
    """Create the command's directory where it is missing.

    :raises NotUsable: it is on a read-only file system, as ``/usr`` of an immutable distribution.
    """
    try:
        os.makedirs(bin_dir, mode=0o755, exist_ok=True)
        read_only = bool(os.statvfs(bin_dir).f_flag & os.ST_RDONLY)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        read_only = True
    if read_only:
        raise NotUsable(
            f"Can't write {command}: {bin_dir} is on a read-only file system.",
            "Set agent_bin_dir (bin_dir of the module) to a directory that can be written to, such"
            " as /opt/bin.",
            bin_dir,
        )


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return 0


def roll_back(directory: str, check: bool = False) -> dict[str, Any]:
    """Make the previous version current again (and the current one the previous).

    :raises NotUsable: there is no previous version.
    """
    before = installed(directory)
    if not before["previous"] or before["previous"] not in before["versions"]:
        raise NotUsable(
            f"There is no previous version in {directory} to roll back to.",
            "Install the wanted version instead.",
            directory,
        )
    if not check:
        with lock(os.path.join(directory, ".lock"), "installation of the agent"):
            _point(directory, "current", before["previous"])
            _point(directory, "previous", before["current"])
    after = {**before, "current": before["previous"], "previous": before["current"]}
    return {"changed": True, "before": before, "after": after}


def remove(directory: str, bin_dir: str, check: bool = False) -> dict[str, Any]:
    """Remove what C(install) made and nothing else: our versions, links, lock and command;
    directories only when empty then.
    """
    directory = refuse_dangerous(directory, "install directory")
    before = installed(directory)
    command = os.path.join(bin_dir, "mlfleet")
    ours = "Installed by mlops.fleet.agent" in _read(command)
    unfinished = _unfinished(directory)
    changed = bool(
        before["versions"] or before["current"] or before["previous"] or ours or unfinished
    )
    after: dict[str, Any] = {"current": "", "previous": "", "versions": []}
    if check or not changed:
        return {"changed": changed, "before": before, "after": after}
    if ours:
        os.unlink(command)
    for name in ("current", "previous", ".lock"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))
    for version in [*before["versions"], *unfinished]:
        shutil.rmtree(os.path.join(directory, "versions", version))
    for path in (os.path.join(directory, "versions"), directory):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    return {"changed": True, "before": before, "after": after}


def _unfinished(directory: str) -> list[str]:
    """Return the directories of installations that were killed, by their names below
    C(versions).
    """
    try:
        names = os.listdir(os.path.join(directory, "versions"))
    except OSError:
        return []
    return [
        name
        for name in names
        if name.startswith(".") and name.endswith(".tmp") and _VERSION.match(name[1:-4])
    ]


def _forget_old(directory: str) -> None:
    found = installed(directory)
    for name in [*found["versions"], *_unfinished(directory)]:
        if name not in (found["current"], found["previous"]):
            shutil.rmtree(os.path.join(directory, "versions", name), ignore_errors=True)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError):
        return ""
