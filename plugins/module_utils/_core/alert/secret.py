# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets: where they come from, and how texts are kept free of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ..errors import NotUsable
from ..ports import World

if TYPE_CHECKING:
    from .options import AlertOptions

#: Start of a path in the directory of systemd's credentials, which has another name in every unit.
CREDENTIALS = "$CREDENTIALS_DIRECTORY/"
_LARGEST = 64 * 1024
#: Shorter texts are not hidden: that would garble every message and protect nothing.
_SHORTEST = 6


class SecretSource(NamedTuple):
    """The three places that an option's secret can come from; at most one is set.

    :param name: the option. :param value: the secret itself. :param file: a path. :param variable:
        of the environment.
    """

    name: str
    value: str | None = None
    file: str | None = None
    variable: str | None = None

    @property
    def given(self) -> list[str]:
        """The names of the options that are set."""
        places = {
            self.name: self.value,
            f"{self.name}_file": self.file,
            f"{self.name}_env": self.variable,
        }
        return [option for option, place in places.items() if place]


def read(source: SecretSource, world: World) -> str | None:
    """Return the secret, None when no source is given.

    :raises NotUsable: the file is missing, empty, no regular file, another user's or readable by
        others; the variable is unset; the content is not one line of UTF-8 text.
    """
    if source.value:
        return source.value
    if source.variable:
        return _from_variable(source.variable, source.name, world)
    if source.file:
        return _from_file(source.file, source.name, world)
    return None


def _from_variable(variable: str, name: str, world: World) -> str:
    if not world.environ.get(variable):
        raise NotUsable(
            f"The environment variable {variable} ({name}_env) is not set.",
            "Set it, or use another source.",
            variable,
        )
    secret = world.environ[variable].strip()
    if not secret.isprintable():  # bytes that are no UTF-8 arrive as lone surrogates
        raise NotUsable(
            f"The environment variable {variable} ({name}_env) is not one line of UTF-8 text.",
            "Correct it.",
            variable,
        )
    return secret


def _from_file(path: str, name: str, world: World) -> str:
    if path.startswith(CREDENTIALS):
        directory = world.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise NotUsable(
                f"{path} ({name}_file) names a credential, but systemd gave this process none.",
                "Only jobs that systemd starts have it (schedule_credentials, LoadCredential=).",
                path,
            )
        path = os.path.join(directory, path[len(CREDENTIALS) :])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotUsable(
            f"Can't read {path} ({name}_file): {error.strerror}.",
            "Check path and permissions.",
            path,
        ) from error
    try:
        _check_permissions(os.fstat(fd), path, name, world)
        data = os.read(fd, _LARGEST)
    finally:
        os.close(fd)
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise NotUsable(
            f"{path} ({name}_file) is not UTF-8 text.", "Write it again.", path
        ) from None
    if not text.isprintable():
        raise NotUsable(
            f"{path} ({name}_file) is not one line of text.",
            "Keep nothing in it but the secret.",
            path,
        )
    if not text:
        raise NotUsable(f"{path} ({name}_file) is empty.", "", path)
    return text


def _check_permissions(status: os.stat_result, path: str, name: str, world: World) -> None:
    """Check that only root or this user can read and write a secret's file.

    :raises NotUsable: others can.
    """
    if not stat.S_ISREG(status.st_mode):
        raise NotUsable(f"{path} ({name}_file) is not a regular file.", "", path)
    allowed = 0
    credentials = world.environ.get("CREDENTIALS_DIRECTORY", "")
    if credentials and os.path.dirname(os.path.abspath(path)) == os.path.normpath(credentials):
        # systemd makes credentials readable for the group where an access list names the service's
        # user.
        allowed = 0o440
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 & ~allowed:
        raise NotUsable(
            f"{path} ({name}_file) has mode {mode:04o}: others can read it.",
            f"Run: chmod 0600 {path}",
            path,
        )
    if status.st_uid not in (0, os.geteuid()):
        raise NotUsable(
            f"{path} ({name}_file) belongs to another user.",
            "It must belong to root or to the user who sends.",
            path,
        )


def of_url(url: str) -> set[str]:
    """Return the parts of an URL that give access, as they are and decoded.

    These are its path, segments of it that look like tokens, user, password, and the values of its
    query.
    """
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    secrets = {url}
    if parts.path.count("/") > 1 and len(parts.path) > 16:
        secrets.add(parts.path)
    pieces = [
        piece for piece in (parts.username, parts.password, parts.query, parts.fragment) if piece
    ]
    pieces += [pair.partition("=")[2] for pair in parts.query.split("&")]
    # A segment of small letters ("services", "incoming") is no token.
    pieces += [
        segment
        for segment in parts.path.split("/")
        if len(segment) >= 16
        or (len(segment) >= 8 and not (segment.isalpha() and segment.islower()))
    ]
    for piece in pieces:
        secrets |= {piece, unquote(piece)}
    if parts.username:
        secrets.add(parts.netloc.rpartition("@")[0])
    return {secret for secret in secrets if len(secret) >= _SHORTEST}


def forms(secret: str, user: str = "") -> set[str]:
    """Return a secret and the forms in which protocols carry it (URL-encoded, base64)."""
    if not secret:
        return set()
    import base64
    from urllib.parse import quote

    encoded = {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}
    for login in (f"\0{user}\0{secret}", f"{user}:{secret}"):
        encoded.add(base64.b64encode(login.encode()).decode())
    return {form for form in encoded if len(form) >= _SHORTEST}


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with every secret replaced by ``********``, longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "********")
    return text


def touches(text: str, secrets: Iterable[str], length: int = 8) -> bool:
    """Return whether ``text`` has any ``length`` consecutive characters of a secret (a server may
    echo only a part).

    Of an URL only what comes after the host counts, or no answer with a link in it could be shown.
    """
    for secret in secrets:
        if secret.startswith(("http://", "https://")) and secret.count("/") > 2:
            secret = secret.split("/", 3)[3]  # noqa: PLW2901
        if len(secret) < _SHORTEST:
            continue
        for start in range(max(1, len(secret) - length + 1)):
            if secret[start : start + length] in text:
                return True
    return False


def all_forms(options: AlertOptions, world: World) -> set[str]:
    """Return every secret of the options with its derived forms; the channels report sources that
    can't be read.
    """
    secrets: set[str] = set()
    for hook in options.webhooks or []:
        for header in (hook.headers or {}).values():
            secrets |= forms(str(header)) | {part for part in str(header).split() if len(part) >= 8}
        url = _readable(hook.url_source, world)
        try:
            secrets |= of_url(url) if url else set()
        except ValueError:  # no valid address
            pass
        for source in (hook.routing_key_source, hook.api_key_source):
            secrets |= forms(_readable(source, world))
    if options.email:
        secrets |= forms(_readable(options.email.password_source, world), options.email.user or "")
    return secrets


def _readable(source: SecretSource, world: World) -> str:
    try:
        return read(source, world) or ""
    except NotUsable:
        return ""
