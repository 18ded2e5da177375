# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the controller keeps the runs: a directory, a bucket or a Git repository.

Only for the controller.
"""

from __future__ import annotations

import os
import secrets
import typing as t
from urllib.parse import urlsplit

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import api as backup
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    OptionError,
    StoreError,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import history
from ansible_collections.mlops.fleet.plugins.plugin_utils.git_store import GitStore

_TYPES = {"json": "application/json", "html": "text/html; charset=utf-8", "md": "text/markdown"}


def open_store(place: str, s3: t.Mapping[str, t.Any] | None = None) -> history.Store:
    """Return the store that a text names: ``s3://BUCKET/PREFIX``, ``git+REPOSITORY`` or a
    directory.

    :param s3: connection options of a bucket, as the modules for backups take them.
    :raises OptionError: the text names no store. :raises FleetError: the store can't be used.
    """
    if place.startswith("s3://"):
        return S3Store(place, s3 or {})
    if place.startswith("git+"):
        return GitStore(place[len("git+") :])
    if "://" in place:
        raise OptionError(
            f"{history.without_secrets(place)} names no place for the history.",
            "Give a directory, s3://BUCKET/PREFIX, or git+ and the URL or path of a repository.",
            "history",
        )
    return history.Directory(os.path.expanduser(place))


class S3Store:
    """A prefix of a bucket. Objects have the names of the files in a directory; implements
    history.Store.

    The name of a run ends with a random number: controllers that write at the same time need no
    lock.
    """

    def __init__(self, place: str, given: t.Mapping[str, t.Any]) -> None:
        parts = urlsplit(place)
        if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
            raise OptionError(
                "The place of the history begins with s3:// but is not s3://BUCKET/PREFIX.",
                "Give keys and server in s3, not in the URL.",
                "history",
            )
        options = {key: value for key, value in given.items() if value not in (None, "")}
        options.update(bucket=parts.netloc, prefix=parts.path.strip("/"))
        self._bucket = backup.open_bucket(options)
        self._sizes: dict[str, int] = {}

    @property
    def place(self) -> str:
        return self._bucket.url("").rstrip("/")

    def names(self) -> list[str]:
        self._sizes = self._bucket.sizes()
        return list(self._sizes)

    def load(self, name: str) -> t.Any:
        if self._sizes.get(name, 0) > history.SIZE_LIMIT:
            raise history.Damaged("larger than 256 MiB")
        try:
            raw = self._bucket.get(name)
        except StoreError as error:
            if backup.is_missing_object(error):
                raise FileNotFoundError(name) from error
            raise
        return history.parse(raw)

    def add(
        self, texts: t.Mapping[str, str], now: float, keep: int, keep_days: float | None
    ) -> dict[str, str]:
        stem = f"maintenance-{history.stamp(now)}-{secrets.randbelow(10**9) + 1}"
        for name_of in (f"{stem}.{{}}".format, "latest.{}".format):
            for kind, text in texts.items():
                data = text.encode("utf-8", "replace")
                self._bucket.put(name_of(kind), data, {}, _TYPES[kind])
        names = self.names()
        for name in history.files_of(names, history.outdated(names, stem, keep, keep_days, now)):
            self._bucket.delete(name)
        return {kind: self._bucket.url(f"{stem}.{kind}") for kind in texts}
