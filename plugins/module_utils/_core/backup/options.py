# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the backup part: making, listing and verifying, restoring."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..errors import OptionError
from ..options import Option, OptionSet, option

#: Where the old scripts looked and wrote.
SOURCE = "/opt/ml/models"
DESTINATION = "/backup/models"
#: Storage classes from which objects can be read back at once; others are stored but need to be thawed first.
STORAGE_CLASSES = (
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
    "REDUCED_REDUNDANCY",
)

_CONNECTION = (
    Option("bucket", env=("S3_BUCKET",), help="Name of the bucket; it must exist."),
    Option(
        "prefix", default="", help="Put before the object names, a slash follows it; one per host."
    ),
    Option("endpoint_url", help="Base URL of an S3-compatible server; without it Amazon's."),
    Option("region", help="Region of the bucket."),
    Option("access_key", secret=True, help="Access key; without it the node's own credentials."),
    Option("secret_key", secret=True, help="Secret key that belongs to the access key."),
    Option("session_token", secret=True, help="Token of temporary credentials."),
    Option(
        "ca_bundle", type="path", help="File with the certificates of the authorities to trust."
    ),
)
_UPLOAD = (
    Option(
        "storage_class",
        default="STANDARD",
        choices=STORAGE_CLASSES,
        env=("S3_STORAGE_CLASS",),
        help="Storage class of the archives.",
    ),
    Option(
        "prune", type="bool", default=False, help="Apply the retention rules to the copies too."
    ),
)


def check_s3(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the S3 options, None when no bucket is named.

    :raises OptionError: other S3 options without a bucket, half a key pair, an endpoint that is no http(s) URL or holds credentials.
    """
    if given is None:
        return None
    if not given.get("bucket"):
        told = [
            name
            for name in (
                "prefix",
                "endpoint_url",
                "region",
                "access_key",
                "secret_key",
                "session_token",
                "ca_bundle",
            )
            if given.get(name)
        ]
        if told:
            raise OptionError(
                f"Option s3.bucket is missing, but s3.{told[0]} is set.",
                "Name the bucket.",
                "s3.bucket",
            )
        return None
    if bool(given.get("access_key")) != bool(given.get("secret_key")):
        raise OptionError(
            "Options s3.access_key and s3.secret_key belong together; only one is set.",
            "Give both or neither.",
            "s3.access_key",
        )
    if given.get("session_token") and not given.get("access_key"):
        raise OptionError(
            "Option s3.session_token needs s3.access_key and s3.secret_key.",
            "Give all three.",
            "s3.session_token",
        )
    if given.get("endpoint_url"):
        try:
            parts = urlsplit(given["endpoint_url"])
            hostname = parts.hostname
        except ValueError:
            raise OptionError(
                "Option s3.endpoint_url is not a URL.",
                "Write it like https://s3.example.com:9000.",
                "s3.endpoint_url",
            ) from None
        # The value is not shown: it may hold a password.
        if "@" in parts.netloc:
            raise OptionError(
                "Option s3.endpoint_url holds credentials.",
                "Give them as s3.access_key and s3.secret_key.",
                "s3.endpoint_url",
            )
        if parts.scheme not in ("http", "https") or not hostname:
            raise OptionError(
                "Option s3.endpoint_url must begin with http:// or https:// and name a host.",
                "",
                "s3.endpoint_url",
            )
    if any(part in (".", "..") for part in given["prefix"].split("/")):
        raise OptionError(
            f"Option s3.prefix is {given['prefix']!r}, but must not hold '.' or '..'.",
            "",
            "s3.prefix",
        )
    return given


def url_secrets(given: Mapping[str, Any]) -> set[str]:
    """Return user name and password in an endpoint URL, which is refused; a shell must still keep them out of what it shows."""
    url = (given.get("s3") or {}).get("endpoint_url") or ""
    userinfo = url.rpartition("@")[0].rpartition("/")[2]
    return {word for word in (userinfo, *userinfo.split(":", 1)) if word}


def _s3_option(*more: Option) -> Any:
    return option(
        type="dict", suboptions=_CONNECTION + more, help="Object storage that holds copies."
    )


def _keep(what: str) -> Any:
    return option(
        type="int", default=0, minimum=0, help=f"Keep {what}, whatever their age; 0 = no such rule."
    )


class BackupOptions(OptionSet):
    """Making backups."""

    source: str = option(type="path", default=SOURCE, env=("MODEL_DIR",), help="Folder to back up.")
    destination: str = option(
        type="path",
        default=DESTINATION,
        env=("BACKUP_DIR",),
        help="Folder that holds the backups; made when missing (0750).",
    )
    compression: str = option(
        default="gzip", choices=("gzip", "zstd", "none"), help="Compression of the archive."
    )
    compression_level: int = option(
        type="int",
        default=6,
        minimum=1,
        maximum=9,
        env=("COMPRESSION_LEVEL",),
        help="1 (fast) to 9 (small).",
    )
    workers: int = option(
        type="int",
        default=0,
        minimum=0,
        maximum=64,
        help="Compressing threads; 0 = one per CPU, at most 8.",
    )
    verify: bool = option(
        type="bool",
        default=True,
        env=("VERIFY_BACKUP",),
        help="Read the archive back and compare every file before it counts.",
    )
    retention_days: int = option(
        type="int",
        default=30,
        minimum=0,
        env=("RETENTION_DAYS",),
        help="Keep backups up to this age in days; 0 = no such rule.",
    )
    keep_last: int = _keep("this many newest backups")
    keep_daily: int = _keep("the newest backup of each of this many days")
    keep_weekly: int = _keep("the newest backup of each of this many weeks")
    keep_monthly: int = _keep("the newest backup of each of this many months")
    keep_yearly: int = _keep("the newest backup of each of this many years")
    force: bool = option(
        type="bool", default=False, help="Make a backup even though nothing has changed."
    )
    exclude: list[str] = option(
        type="list",
        elements="str",
        default=[],
        help="Patterns of names or relative paths to leave out.",
    )
    s3: dict[str, Any] | None = _s3_option(*_UPLOAD)

    def check_together(self) -> None:
        # Another spelling is no other directory; "//x" means "/x" on Linux.
        self.source = os.path.normpath("/" + self.source.lstrip("/"))
        self.destination = os.path.normpath("/" + self.destination.lstrip("/"))
        self.s3 = check_s3(self.s3)


class InfoOptions(OptionSet):
    """Listing and verifying backups."""

    path: str = option(
        type="path",
        default=DESTINATION,
        env=("BACKUP_DIR",),
        help="Folder that holds the backups, or one archive.",
    )
    verify: str = option(
        default="none", choices=("none", "quick", "full"), help="How deep to look at each backup."
    )
    s3: dict[str, Any] | None = _s3_option()

    def check_together(self) -> None:
        self.s3 = check_s3(self.s3)


class RestoreOptions(OptionSet):
    """Restoring a backup."""

    backup: str = option(
        default="latest", help="C(latest), a backup's file name, or the path of an archive."
    )
    path: str = option(
        type="path",
        default=DESTINATION,
        env=("BACKUP_DIR",),
        help="Folder in which names are looked up.",
    )
    destination: str = option(type="path", required=True, help="Folder to restore into.")
    files: list[str] = option(
        type="list",
        elements="str",
        default=[],
        help="Patterns of what to restore; everything by default.",
    )
    verify: bool = option(
        type="bool", default=True, help="Compare every file with the manifest while writing it."
    )
    mode: str = option(
        default="new",
        choices=("new", "replace"),
        help="Whether an existing folder may be replaced.",
    )
    allow_outside_links: bool = option(
        type="bool", default=False, help="Restore symbolic links that point out of the folder."
    )
    s3: dict[str, Any] | None = _s3_option()

    def check_together(self) -> None:
        self.s3 = check_s3(self.s3)
        if self.files and self.mode == "replace":
            raise OptionError(
                "Options files and mode=replace contradict each other: replacing swaps the whole folder, so what is not restored would be lost.",
                "Restore the files into a new folder.",
                "files",
            )
        backup = self.backup
        if not backup:
            raise OptionError(
                "Option backup is empty.",
                "Say latest, a backup's name or an archive's path.",
                "backup",
            )
        if "/" in backup and not backup.startswith("/"):
            raise OptionError(
                f"Option backup is {backup!r}, but must be latest, a file name, or an absolute path.",
                "",
                "backup",
            )
        if self.s3 and "/" in backup:
            raise OptionError(
                f"Option backup is {backup!r}, but a copy in S3 is named by its file name.",
                "",
                "backup",
            )
