# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed errors. Each says what was tried, on what, why it failed and what to do; shells only format
them.

Whoever has to tell failures apart reads the type, ``code`` or another field, never the message: it
may be reworded.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any


def _restore(kind: type[FleetError], args: tuple[Any, ...], state: dict[str, Any]) -> FleetError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class FleetError(Exception):
    """Base of all errors the core raises on purpose.

    :param message: what was tried, on what, and why it failed; one line, ends with a full stop.
    :param todo: what the user can do about it; one sentence, or empty.
    :param subject: the path, host, GPU, option... the error is about.
    """

    #: Exit code of the node command for this error (3 = could not run).
    exit_code = 3
    #: Tells failures of one type apart, for programs; empty where the type says it all.
    code = ""

    def __init__(self, message: str, todo: str = "", subject: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo
        self.subject = subject

    def __str__(self) -> str:
        return f"{self.message} {self.advice()}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take other arguments; an isolated child sends its error to the parent pickled,
        # without its cause.
        state, cause = dict(self.__dict__), self.os_error()
        if cause is not None:
            state["_os_error"] = cause
        return _restore, (type(self), self.args, state)

    def advice(self) -> str:
        """Return what to do: what the shell knows about this place (advise_by), otherwise
        ``todo``.
        """
        return (_adviser(self) if _adviser is not None else "") or self.todo

    def os_error(self) -> OSError | None:
        """Return the error of the operating system that caused this one, None when there was
        none.
        """
        cause: BaseException | None = self
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        return cause or self.__dict__.get("_os_error")

    def to_dict(self) -> dict[str, str]:
        """Return kind, message, todo, and subject and code where they are set (messages never hold
        secrets).
        """
        fields = {"kind": type(self).__name__, "message": self.message, "todo": self.advice()}
        if self.subject is not None:
            fields["subject"] = self.subject
        if self.code:
            fields["code"] = self.code
        return fields


#: Gives better advice about an error than its ``todo``, or the empty text.
_adviser: Callable[[FleetError], str] | None = None


def advise_by(adviser: Callable[[FleetError], str] | None) -> None:
    """Let a shell that knows where this process runs advise what to do about errors."""
    global _adviser  # noqa: PLW0603
    _adviser = adviser


class OptionError(FleetError):
    """An option has a value that can't be used. Raised before anything was changed."""


#: Python library -> package name, the same on Debian and Red Hat.
_PACKAGES = {"psutil": "python3-psutil", "boto3": "python3-boto3"}


def install_command(library: str) -> str:
    """Return the command that installs a Python library for this interpreter.

    The distribution's own Python gets the distribution's package: newer releases refuse pip there
    (PEP 668).
    """
    if sys.prefix == sys.base_prefix == "/usr" and library in _PACKAGES:
        for tool in ("apt-get", "dnf", "zypper"):
            if os.path.exists("/usr/bin/" + tool):
                return f"{tool} install {_PACKAGES[library]}"
    pip = f"{sys.executable or 'python3'} -m pip install"
    if sys.prefix == sys.base_prefix and _closed_to_pip():
        return (
            f"{pip} --break-system-packages {library} (this Python is closed to pip;"
            " the agent can use a virtual environment: agent_dependencies=venv)"
        )
    return f"{pip} {library}"


def _closed_to_pip() -> bool:
    """Return whether this interpreter refuses pip (PEP 668)."""
    import sysconfig

    return os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED"))


class MissingLibrary(FleetError):
    """A Python library is not importable in this interpreter.

    :param library: name in the package index (``nvidia-ml-py``).
    :param reason: what the library is needed for.
    :param traceback: the text of the import error.
    """

    def __init__(self, library: str, reason: str, traceback: str = "") -> None:
        super().__init__(
            f"Missing Python library {library} for {sys.executable}, needed {reason}.",
            f"Install it with: {install_command(library)}",
        )
        self.library = library
        self.reason = reason
        self.traceback = traceback


class LockBusy(FleetError):
    """Another run holds the lock; nothing was done.

    :param purpose: what the holder does (``backup``).
    :param path: the lock file.
    :param holder: process ID of the holder, None when it is unknown.
    :param command: what the holder runs, empty when it is unknown.
    :param since: since when it holds the lock, in seconds since the epoch.
    """

    code = "lock_busy"

    def __init__(
        self,
        purpose: str,
        path: str,
        holder: int | None = None,
        command: str = "",
        since: float | None = None,
    ) -> None:
        process = "unknown" if holder is None else holder
        message = f"Another {purpose} is running (process {process} holds {path})"
        if command:
            message += f": {command}"
        if since is not None:
            message += time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(since))
        super().__init__(f"{message}.", "Wait for it to end, then run again.", path)
        self.purpose = purpose
        self.path = path
        self.command = command
        self.since = since
        self.holder = holder


class NotUsable(FleetError):
    """A path, file or service that was named does not exist or can't be used."""


class NotPermitted(NotUsable):
    """A path that was named can't be read by this user, so nothing is known about what is there: it
    is not absent.
    """


class Refused(FleetError):
    """The request is understood but dangerous, so nothing was done (roots, brakes, mount
    points).
    """


class CommandFailed(FleetError):
    """An external program is missing, did not end in time, or failed.

    :param code: which of the three it was: ``MISSING``, ``TIMED_OUT`` or ``FAILED``.
    """

    MISSING = "missing"
    TIMED_OUT = "timed_out"
    FAILED = "failed"

    def __init__(
        self, message: str, todo: str = "", subject: str | None = None, code: str = FAILED
    ) -> None:
        super().__init__(message, todo, subject)
        self.code = code

    @classmethod
    def missing(cls, program: str) -> CommandFailed:
        """Return the error for a program that is not installed."""
        return cls(
            f"The program {program} is not installed on this host.",
            f"Install {program}.",
            program,
            cls.MISSING,
        )

    @classmethod
    def timed_out(cls, program: str, seconds: float) -> CommandFailed:
        """Return the error for a program that was killed at its deadline."""
        return cls(
            f"{program} did not answer within {seconds:g} s and was killed.",
            "",
            program,
            cls.TIMED_OUT,
        )


class WriteFailed(FleetError):
    """Writing a file failed (full disk, permission); what was there before is untouched."""


class VerificationFailed(FleetError):
    """Data was read and is not what it claims to be."""

    exit_code = 2


class StoreError(FleetError):
    """The object store refused or failed a request."""


class ColdStorage(StoreError):
    """An object must be restored from cold storage before it can be read: it may be perfect."""

    code = "cold_storage"
