# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CommandRunner port of the node command: starts programs, never waits for them beyond a
deadline.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .._core.errors import CommandFailed
from .._core.ports import CommandResult

if TYPE_CHECKING:
    import subprocess

#: Bytes that a program may print; more is no answer.
MOST_OUTPUT = 64 << 20


def run_command(
    argv: Sequence[str],
    timeout: float = 30.0,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> CommandResult:
    """Run a program in a process group of its own, killed as a whole at the deadline.

    See CommandRunner.
    """
    import shutil
    import subprocess

    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    program = shutil.which(argv[0], path=path)
    if program is None:
        raise CommandFailed.missing(argv[0])
    try:
        child = subprocess.Popen(
            [program, *argv[1:]],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(
            f"{argv[0]} could not be run: {error.strerror}.", "", argv[0]
        ) from error
    try:
        out, err = _converse(child, (stdin or "").encode(), time.monotonic() + timeout)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        if isinstance(error, TimeoutError):
            raise CommandFailed.timed_out(argv[0], timeout) from None
        if isinstance(error, OverflowError):
            raise CommandFailed(
                f"{argv[0]} printed more than {MOST_OUTPUT >> 20} MiB and was killed.", "", argv[0]
            ) from None
        raise
    finally:
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
    return CommandResult(
        child.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
    )


def _converse(
    child: subprocess.Popen[bytes], given: bytes, deadline: float
) -> tuple[bytearray, bytearray]:
    """Feed a program, read all it prints and wait for its end.

    :raises TimeoutError: the deadline passed. :raises OverflowError: it prints without end.
    """
    import selectors
    import subprocess

    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as ready:
        for stream, received in ((child.stdout, out), (child.stderr, err)):
            if stream is not None:
                ready.register(stream, selectors.EVENT_READ, received)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            ready.register(child.stdin, selectors.EVENT_WRITE)
        while ready.get_map():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            for key, _events in ready.select(remaining):
                if key.data is None:
                    given = _feed(key.fd, given)
                    if not given and child.stdin is not None:
                        ready.unregister(key.fileobj)
                        child.stdin.close()
                    continue
                piece = os.read(key.fd, 65536)
                key.data.extend(piece)
                if not piece:
                    ready.unregister(key.fileobj)
                if len(out) + len(err) > MOST_OUTPUT:
                    raise OverflowError
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return out, err


def _feed(fd: int, given: bytes) -> bytes:
    """Write what the program takes now; return what remains, nothing when it reads no more."""
    try:
        return given[os.write(fd, given[:65536]) :]
    except BrokenPipeError:
        return b""
