# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets: where they come from, and how texts are kept free of them."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..errors import NotUsable
from ..ports import World
from .options import CREDENTIALS

_LARGEST = 64 * 1024
#: Shorter texts are not looked for: hiding them would garble every message and protect nothing.
_SHORTEST = 6


def read(values: Mapping[str, Any], name: str, world: World) -> str | None:
    """Return the secret C(name) of a channel's options: given directly, from its file, or from its environment variable.

    :raises NotUsable: the file is missing, empty, no regular file, someone else's or readable by others; the variable is unset.
    """
    if values.get(name):
        return str(values[name])
    if values.get(name + "_env"):
        variable = values[name + "_env"]
        if not world.environ.get(variable):
            raise NotUsable(
                f"The environment variable {variable} ({name}_env) is not set.",
                "Set it, or use another source.",
                variable,
            )
        found = world.environ[variable].strip()
        if not found.isprintable():  # what is no UTF-8 arrives as lone surrogates
            raise NotUsable(
                f"The environment variable {variable} ({name}_env) is not one line of UTF-8 text.",
                "Correct it.",
                variable,
            )
        return found
    if values.get(name + "_file"):
        return _from_file(values[name + "_file"], name, world)
    return None


def _from_file(path: str, name: str, world: World) -> str:
    if path.startswith(CREDENTIALS):
        folder = world.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise NotUsable(
                f"{path} ({name}_file) names a credential, but systemd gave this process none.",
                "Only jobs that systemd starts have it (schedule_credentials, LoadCredential=).",
                path,
            )
        path = os.path.join(folder, path[len(CREDENTIALS) :])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotUsable(
            f"Can't read {path} ({name}_file): {error.strerror}.",
            "Check path and permissions.",
            path,
        ) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotUsable(f"{path} ({name}_file) is not a regular file.", "", path)
        # systemd's credentials are group-readable where an access list names the service's user.
        credentials = world.environ.get("CREDENTIALS_DIRECTORY", "")
        allowed = (
            0o440
            if credentials
            and os.path.dirname(os.path.abspath(path)) == os.path.normpath(credentials)
            else 0
        )
        if stat.S_IMODE(found.st_mode) & 0o077 & ~allowed:
            raise NotUsable(
                f"{path} ({name}_file) has mode {stat.S_IMODE(found.st_mode):04o}: others can read it.",
                f"Run: chmod 0600 {path}",
                path,
            )
        if found.st_uid not in (0, os.geteuid()):
            raise NotUsable(
                f"{path} ({name}_file) belongs to another user.",
                "It must belong to root or to the user who sends.",
                path,
            )
        data = os.read(fd, _LARGEST)
    finally:
        os.close(fd)
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise NotUsable(
            f"{path} ({name}_file) is not UTF-8 text.", "Write it anew.", path
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


def of_url(url: str) -> set[str]:
    """Return the parts of an URL that give access: path, its token-like segments, user info, query values; also decoded."""
    parts = urlsplit(url)
    found = {url}
    if parts.path.count("/") > 1 and len(parts.path) > 16:
        found.add(parts.path)
    words = [part for part in (parts.username, parts.password, parts.query, parts.fragment) if part]
    words += [pair.partition("=")[2] for pair in parts.query.split("&")]
    # A word of small letters ("services", "incoming") is no token.
    words += [
        one
        for one in parts.path.split("/")
        if len(one) >= 16 or (len(one) >= 8 and not (one.isalpha() and one.islower()))
    ]
    for word in words:
        found |= {word, unquote(word)}
    if parts.username:
        found.add(parts.netloc.rpartition("@")[0])
    return {word for word in found if len(word) >= _SHORTEST}


def forms(secret: str, user: str = "") -> set[str]:
    """Return a secret and the forms in which protocols carry it (URL-encoded, base64)."""
    found = {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}
    for login in (f"\0{user}\0{secret}", f"{user}:{secret}"):
        found.add(base64.b64encode(login.encode()).decode())
    return {word for word in found if len(word) >= _SHORTEST}


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return C(text) with every secret replaced by C(********), longest first."""
    for word in sorted(secrets, key=len, reverse=True):
        text = text.replace(word, "********")
    return text


def touches(text: str, secrets: Iterable[str], length: int = 8) -> bool:
    """Say whether C(text) holds any C(length) consecutive characters of a secret (a server may echo only a part).

    Of an URL only what comes after the host counts, or no answer with a link in it could be shown.
    """
    words = [
        word.split("/", 3)[3]
        if word.startswith(("http://", "https://")) and word.count("/") > 2
        else word
        for word in secrets
    ]
    found = (
        word[start : start + length]
        for word in words
        if len(word) >= _SHORTEST
        for start in range(max(1, len(word) - length + 1))
    )
    return any(piece in text for piece in found)


def all_words(options: Any, world: World) -> set[str]:
    """Return every secret of the options with its derived forms; unreadable sources are left to the channels to report."""
    found: set[str] = set()
    sources = [(options.email, "password")] if options.email else []
    for hook in options.webhooks or []:
        sources += [(hook, "url"), (hook, "routing_key"), (hook, "api_key")]
        for value in (hook["headers"] or {}).values():
            found |= forms(str(value)) | {word for word in str(value).split() if len(word) >= 8}
    for values, name in sources:
        try:
            secret = read(values, name, world)
            if secret:
                found |= (
                    of_url(secret) if name == "url" else forms(secret, values.get("user") or "")
                )
        except (NotUsable, ValueError):
            continue
    return found
