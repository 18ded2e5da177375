# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the backup part: making, listing and verifying, restoring."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import OptionError
from ..options import OptionSet, option
from .codecs import CODECS

#: Where the old scripts looked and wrote.
SOURCE = "/opt/ml/models"
DESTINATION = "/backup/models"
#: One archive, or one per top-level entry of the source.
SINGLE, PER_MODEL = "single", "per_model"
#: Where drills restore to unless another directory is named; not in memory on most systems.
SCRATCH = "/var/tmp"
#: A backup that the drill draws by lot.
RANDOM = "random"
#: What can make backups; each has its entry in ``engines``. The first one is the default.
ENGINE_NAMES = ("archive", "restic")
#: What to do about symbolic links that point out of the source.
WARN, FAIL, FOLLOW = "warn", "fail", "follow"
#: Storage classes from which objects can be read back at once; others are stored but need to be
#: thawed first.
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


_RATE = re.compile(r"([0-9]+(?:[.][0-9]+)?)([KMG]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: A limit below this, in bytes per second, would keep single requests from ending in time.
_LOWEST_RATE = 16 << 10


def _parse_rate(text: str) -> int:
    """Return bytes per second. :raises ValueError: it is none."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _rate_problem(text: str) -> str | None:
    try:
        rate = _parse_rate(text)
    except ValueError:
        return "it must be a number of bytes per second, like 20M"
    return None if rate >= _LOWEST_RATE else "it must be at least 16K"


class S3Connection(OptionSet):
    """Object storage that holds copies."""

    bucket: str | None = option(env=("S3_BUCKET",), help="Name of the bucket; it must exist.")
    prefix: str = option(
        default="", help="Put before the object names, followed by a slash; one per host."
    )
    endpoint_url: str | None = option(
        help="Base URL of an S3-compatible server; Amazon's when it is not set."
    )
    region: str | None = option(help="Region of the bucket.")
    access_key: str | None = option(
        secret=True, help="Access key; when it is not set, the node's own credentials are used."
    )
    secret_key: str | None = option(secret=True, help="Secret key that belongs to the access key.")
    session_token: str | None = option(secret=True, help="Token of temporary credentials.")
    ca_bundle: str | None = option(
        type="path", help="File with the certificates of the authorities to trust."
    )

    parallel: int = option(
        type="int",
        default=4,
        minimum=1,
        maximum=32,
        help="Parts of an archive that are sent or read at the same time.",
    )
    bandwidth_limit: str | None = option(
        check=_rate_problem,
        help="Most bytes per second, all connections together: a number, or with K, M or G.",
    )

    @property
    def bytes_per_second(self) -> int | None:
        """The bandwidth limit, None where there is none."""
        return None if self.bandwidth_limit is None else _parse_rate(self.bandwidth_limit)

    def check_together(self) -> None:
        """:raises OptionError: options contradict each other, or the endpoint can't be used."""
        if bool(self.access_key) != bool(self.secret_key):
            raise OptionError(
                "Options s3.access_key and s3.secret_key belong together; only one is set.",
                "Set both or neither.",
                "s3.access_key",
            )
        if self.session_token and not self.access_key:
            raise OptionError(
                "Option s3.session_token needs s3.access_key and s3.secret_key.",
                "Set all three.",
                "s3.session_token",
            )
        if self.endpoint_url:
            _check_endpoint(self.endpoint_url)
        if any(part in (".", "..") for part in self.prefix.split("/")):
            raise OptionError(
                f"Option s3.prefix is {self.prefix!r}, but must not hold '.' or '..'.",
                "",
                "s3.prefix",
            )


class S3Copies(S3Connection):
    """Object storage to which copies are written."""

    storage_class: str = option(
        default="STANDARD",
        choices=STORAGE_CLASSES,
        env=("S3_STORAGE_CLASS",),
        help="Storage class of the archives.",
    )
    prune: bool = option(
        type="bool", default=False, help="Apply the retention rules to the copies too."
    )


def _check_endpoint(url: str) -> None:
    """:raises OptionError: it is no http(s) URL, or holds credentials, which are not repeated."""
    try:
        parts = urlsplit(url)
        hostname = parts.hostname
    except ValueError:
        raise OptionError(
            "Option s3.endpoint_url is not a URL.",
            "Write it like https://s3.example.com:9000.",
            "s3.endpoint_url",
        ) from None
    if "@" in parts.netloc:
        raise OptionError(
            "Option s3.endpoint_url holds credentials.",
            "Set s3.access_key and s3.secret_key instead.",
            "s3.endpoint_url",
        )
    if parts.scheme not in ("http", "https") or not hostname:
        raise OptionError(
            "Option s3.endpoint_url must begin with http:// or https:// and name a host.",
            "",
            "s3.endpoint_url",
        )


_Connection = TypeVar("_Connection", bound=S3Connection)


def check_s3(connection: _Connection | None) -> _Connection | None:
    """Return the S3 options, None when no bucket is named: then no object storage is used.

    :raises OptionError: other options of the connection without a bucket, or options that
        contradict each other.
    """
    if connection is None:
        return None
    if not connection.bucket:
        given = connection.given()
        pointless = [
            entry.name
            for entry in S3Connection.TABLE
            if given[entry.name] and given[entry.name] != entry.default
        ]
        if pointless:
            raise OptionError(
                f"Option s3.bucket is missing, but s3.{pointless[0]} is set.",
                "Name the bucket.",
                "s3.bucket",
            )
        return None
    connection.check_together()
    return connection


def url_secrets(given: Mapping[str, Any]) -> set[str]:
    """Return user names and passwords in the endpoint URL and in the URL of a repository.

    Such an endpoint is refused; a shell must still keep them out of what it prints.
    """
    secrets: set[str] = set()
    for section, name in (("s3", "endpoint_url"), ("restic", "repository")):
        url = str((given.get(section) or {}).get(name) or "")
        userinfo = url.rpartition("@")[0].rpartition("/")[2]
        secrets.update(secret for secret in (userinfo, *userinfo.split(":", 1)) if secret)
    return secrets


def _keep(what: str) -> int:
    """Declare one of the rules that keep a number of backups."""
    rule: int = option(
        type="int", default=0, minimum=0, help=f"Keep {what}, whatever their age; 0 = no such rule."
    )
    return rule


class ResticOptions(OptionSet):
    """What restic needs to know."""

    repository: str | None = option(
        help="Repository as restic names it; by default in the bucket of s3, else the directory."
    )
    password: str | None = option(secret=True, help="Password of the repository.")
    password_file: str | None = option(
        type="path", help="File on the node that holds the password."
    )
    shared: bool = option(
        type="bool",
        default=False,
        help="Use a repository although it holds backups of other hosts only.",
    )


def _engine() -> Any:
    return option(default="archive", choices=ENGINE_NAMES, help="What makes the backups.")


def _restic() -> Any:
    return option(
        type="dict", suboptions=ResticOptions, help="What restic needs to know (engine=restic)."
    )


def check_engine(engine: str, restic: ResticOptions | None) -> None:
    """:raises OptionError: the engine restic lacks a password, or another one has settings for
    it.
    """
    if engine != "restic":
        return
    given = [] if restic is None else [restic.password, restic.password_file]
    if sum(bool(value) for value in given) != 1:
        raise OptionError(
            "Option engine is restic, which needs either restic.password or restic.password_file.",
            "Set one of them.",
            "restic.password_file",
        )


class RetentionOptions(OptionSet):
    """Which backups are kept; retention.rules makes the rules of them."""

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


class BackupOptions(RetentionOptions):
    """Making backups."""

    source: str = option(
        type="path", default=SOURCE, env=("MODEL_DIR",), help="Directory to back up."
    )
    destination: str = option(
        type="path",
        default=DESTINATION,
        env=("BACKUP_DIR",),
        help="Directory that holds the backups; made when missing (0750).",
    )
    compression: str = option(
        default="gzip", choices=CODECS.names, help="Compression of the archive."
    )
    compression_level: int | None = option(
        type="int",
        minimum=min(compression.levels[0] for compression in CODECS),
        maximum=max(compression.levels[1] for compression in CODECS),
        env=("COMPRESSION_LEVEL",),
        help="1 (fast) to 9 (small); when it is not set, 6 for gzip and 3 for zstd.",
    )
    workers: int = option(
        type="int",
        default=0,
        minimum=0,
        maximum=64,
        help="Compressing threads; 0 = one per CPU, at most 8.",
    )
    layout: str = option(
        default=SINGLE,
        choices=(SINGLE, PER_MODEL),
        help="One archive, or one per top-level entry; unchanged ones are kept.",
    )
    verify: bool = option(
        type="bool",
        default=True,
        env=("VERIFY_BACKUP",),
        help="Read the archive back and compare every file before it counts.",
    )
    force: bool = option(
        type="bool", default=False, help="Make a backup even though nothing has changed."
    )
    exclude: list[str] = option(
        type="list",
        elements="str",
        default=[],
        help="Patterns of names or relative paths to leave out.",
    )
    engine: str = _engine()
    restic: ResticOptions | None = _restic()
    outside_links: str = option(
        default=WARN,
        choices=(WARN, FAIL, FOLLOW),
        help="What to do about symbolic links that point out of the source.",
    )
    s3: S3Copies | None = option(
        type="dict", suboptions=S3Copies, help="Object storage that holds copies."
    )

    def check_together(self) -> None:
        # Another spelling is no other directory; "//x" means "/x" on Linux.
        self.source = os.path.normpath("/" + self.source.lstrip("/"))
        self.destination = os.path.normpath("/" + self.destination.lstrip("/"))
        self.s3 = check_s3(self.s3)
        check_engine(self.engine, self.restic)
        lowest, highest = CODECS[self.compression].levels
        if not lowest <= self.level <= highest:
            raise OptionError(
                f"Option compression_level is {self.level}, but {self.compression} has "
                f"levels {lowest} to {highest}.",
                "",
                "compression_level",
            )

    @property
    def level(self) -> int:
        """The level to compress with: the option, or the default of the compression."""
        if self.compression_level is None:
            return CODECS[self.compression].default_level
        return self.compression_level


class InfoOptions(OptionSet):
    """Listing and verifying backups."""

    path: str = option(
        type="path",
        default=DESTINATION,
        env=("BACKUP_DIR",),
        help="Directory that holds the backups, or one archive.",
    )
    verify: str = option(
        default="none",
        choices=("none", "quick", "full"),
        help="How thoroughly to check each backup.",
    )
    engine: str = _engine()
    restic: ResticOptions | None = _restic()
    s3: S3Connection | None = option(
        type="dict", suboptions=S3Connection, help="Object storage that holds copies."
    )

    def check_together(self) -> None:
        self.s3 = check_s3(self.s3)
        check_engine(self.engine, self.restic)


def _check_partial(options: RestoreOptions) -> None:
    """:raises OptionError: only a part is to be restored, and cannot be with these options."""
    for name in ("files", "model"):
        if getattr(options, name) and options.mode == "replace":
            raise OptionError(
                f"Options {name} and mode=replace contradict each other: replacing swaps the whole "
                "directory, so what is not restored would be lost.",
                f"Restore the {name} into a new directory.",
                name,
            )
    if options.model is not None and (options.model in ("", ".", "..") or "/" in options.model):
        raise OptionError(
            f"Option model is {options.model!r}, but must be the name of a top-level entry.",
            "",
            "model",
        )


class RestoreOptions(OptionSet):
    """Restoring a backup."""

    backup: str = option(
        default="latest",
        help="latest, random (drill only), a backup's file name, or an archive's path.",
    )
    path: str = option(
        type="path",
        default=DESTINATION,
        env=("BACKUP_DIR",),
        help="Directory in which names are looked up.",
    )
    destination: str | None = option(
        type="path", help="Directory to restore into; required unless drill is true."
    )
    files: list[str] = option(
        type="list",
        elements="str",
        default=[],
        help="Patterns of what to restore; everything by default.",
    )
    model: str | None = option(help="Name of the only model to restore: a top-level entry.")
    verify: bool = option(
        type="bool", default=True, help="Compare every file with the manifest while writing it."
    )
    mode: str = option(
        default="new",
        choices=("new", "replace"),
        help="Whether an existing directory may be replaced.",
    )
    allow_outside_links: bool = option(
        type="bool", default=False, help="Restore symbolic links that point out of the directory."
    )
    engine: str = _engine()
    restic: ResticOptions | None = _restic()
    drill: bool = option(
        type="bool",
        default=False,
        help="Restore into a scratch directory, compare, remove it, record the proof.",
    )
    scratch: str = option(
        type="path",
        default=SCRATCH,
        help="Directory in which a drill makes its scratch directory.",
    )
    s3: S3Connection | None = option(
        type="dict", suboptions=S3Connection, help="Object storage that holds copies."
    )

    def check_together(self) -> None:
        self.s3 = check_s3(self.s3)
        check_engine(self.engine, self.restic)
        if self.drill:
            self._check_drill()
        elif not self.destination:
            raise OptionError(
                "Option destination is required.",
                "Name the directory to restore to.",
                "destination",
            )
        elif self.backup == RANDOM:
            raise OptionError(
                "Option backup is random, which only a drill takes.",
                "Set drill to true, or name a backup.",
                "backup",
            )
        _check_partial(self)
        backup = self.backup
        if not backup:
            raise OptionError(
                "Option backup is empty.",
                "Set it to latest, a backup's name or an archive's path.",
                "backup",
            )
        if "/" in backup and not backup.startswith("/"):
            raise OptionError(
                f"Option backup is {backup!r}, but must be latest, a file name, or an absolute"
                " path.",
                "",
                "backup",
            )
        if self.s3 and "/" in backup:
            raise OptionError(
                f"Option backup is {backup!r}, but a copy in S3 is named by its file name.",
                "",
                "backup",
            )

    @property
    def target(self) -> str:
        """The directory to restore into; a drill sets it to one in its scratch directory."""
        return self.destination or ""

    def _check_drill(self) -> None:
        """:raises OptionError: an option that a drill has no use for is set."""
        pointless = {
            "destination": bool(self.destination),
            "files": bool(self.files),
            "mode": self.mode != "new",
            "verify": not self.verify,
        }
        for name, is_set in pointless.items():
            if is_set:
                raise OptionError(
                    f"Options drill and {name} contradict each other: a drill restores all of a "
                    "backup into a scratch directory and compares every file.",
                    f"Remove {name}; the option scratch says where the directory is made.",
                    name,
                )
