# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which settings of a bucket are to be changed. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import NotUsable, Refused
from .. import catalogue, retention
from ..catalogue import DAY, Backup
from .facts import Facts
from .options import KEEP, BucketOptions

#: Our lifecycle rules begin like this; rules with other names are left alone.
OURS = "mlops.fleet "
#: Longest time between two days, weeks, months and years of which a rule keeps a backup, in days.
_PERIODS = (("keep_daily", 1), ("keep_weekly", 7), ("keep_monthly", 31), ("keep_yearly", 366))
#: Days for which Amazon charges at least, by storage class (S3 pricing, "minimum storage
#: duration").
MINIMUM_DAYS = {
    "STANDARD_IA": 30,
    "ONEZONE_IA": 30,
    "GLACIER_IR": 90,
    "GLACIER": 90,
    "DEEP_ARCHIVE": 180,
}


@dataclass(frozen=True)
class Plan:
    """What is to be changed; ``after`` are the settings that the bucket has then.

    A setting in ``changes`` is written, in this order; ``create`` comes before all of them.
    """

    create: bool
    changes: tuple[str, ...]
    before: dict[str, Any]
    after: dict[str, Any]
    lifecycle: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def decide(options: BucketOptions, facts: Facts) -> Plan:
    """Compare settings and options.

    :raises Refused: the lifecycle would remove backups that the retention rules keep.
    :raises NotUsable: the server does not have a setting that is wanted.
    """
    wanted = _wanted(options)
    lifecycle = (*(rule for rule in facts.lifecycle if not _is_ours(rule)), *rules(options))
    _check_supported(facts, wanted)
    _check_retention(options, facts, lifecycle)
    before = _settings(options, facts)
    after = {**before, **wanted, "exists": True, "lifecycle": _described(lifecycle)}
    changes = tuple(name for name in _ORDER if before.get(name) != after.get(name))
    return Plan(not facts.exists, changes, before, after, lifecycle, _notes(options, facts))


#: Encryption and public access first: no object is ever stored without them.
_ORDER = ("block_public_access", "encryption", "versioning", "lifecycle")


def rules(options: BucketOptions) -> list[dict[str, Any]]:
    """Return our lifecycle rules as S3 takes them."""
    prefix = "/".join(part for part in options.s3.prefix.split("/") if part)
    prefix = prefix + "/" if prefix else ""
    made: list[dict[str, Any]] = []

    def add(purpose: str, actions: dict[str, Any], larger_than: int = 0) -> None:
        within: dict[str, Any] = {"Prefix": prefix}
        if larger_than:
            within = {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": larger_than}}
        name = f"{OURS}{purpose}" + (f" {prefix}" if prefix else "")
        made.append({"ID": name, "Status": "Enabled", "Filter": within, **actions})

    if options.transition_days:
        move = {"Days": options.transition_days, "StorageClass": options.transition_class}
        add("move", {"Transitions": [move]}, options.transition_larger_than)
    if options.expire_days:
        add("expire", {"Expiration": {"Days": options.expire_days}})
    if options.noncurrent_days:
        versions: dict[str, Any] = {
            "NoncurrentVersionExpiration": {"NoncurrentDays": options.noncurrent_days},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        }
        add("versions", versions)
    if options.abort_incomplete_days:
        days = {"DaysAfterInitiation": options.abort_incomplete_days}
        add("uploads", {"AbortIncompleteMultipartUpload": days})
    return made


def _is_ours(rule: dict[str, Any]) -> bool:
    return str(rule.get("ID", "")).startswith(OURS)


def _wanted(options: BucketOptions) -> dict[str, Any]:
    """Return the settings other than the lifecycle that the options ask for."""
    wanted: dict[str, Any] = {}
    if options.versioning:
        wanted["versioning"] = "Enabled"
    if options.encryption != KEEP:
        wanted["encryption"] = _algorithm(options.encryption, options.kms_key_id)
    if options.block_public_access:
        wanted["block_public_access"] = True
    return wanted


def _algorithm(algorithm: str, key: str | None) -> str:
    return f"{algorithm} {key}" if key else algorithm


def _settings(options: BucketOptions, facts: Facts) -> dict[str, Any]:
    """Return the settings that were found, as far as the options are about them."""
    current: dict[str, Any] = {"exists": facts.exists, "lifecycle": _described(facts.lifecycle)}
    if options.versioning:
        current["versioning"] = facts.versioning or "off"
    if options.encryption != KEEP:
        # A key that nobody asked for is no difference: aws:kms without one means the account's.
        key = facts.kms_key_id if options.kms_key_id else None
        current["encryption"] = _algorithm(facts.encryption, key) or "none"
    if options.block_public_access:
        current["block_public_access"] = facts.public_access_blocked
    return current


def _described(lifecycle: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Return rules in a form that two spellings of the same rule share, sorted by name."""
    described = []
    for rule in lifecycle:
        kept = {key: value for key, value in rule.items() if value not in (None, [], {})}
        if "Prefix" in kept and "Filter" not in kept:  # the old form
            kept["Filter"] = {"Prefix": kept.pop("Prefix")}
        kept.setdefault("Filter", {"Prefix": ""})
        described.append(kept)
    return sorted(described, key=lambda rule: str(rule.get("ID", "")))


def _check_supported(facts: Facts, wanted: dict[str, Any]) -> None:
    todo = {
        "versioning": "Set versioning to false.",
        "encryption": "Set encryption to keep, and encrypt the server's disks.",
        "block_public_access": "Set block_public_access to false, and see who may read the bucket.",
    }
    for name in todo:
        if name in facts.unsupported and name in wanted:
            raise NotUsable(
                f"This server has no setting {name}; nothing was changed.", todo[name], name
            )
    if "lifecycle" in facts.unsupported:
        raise NotUsable(
            "This server has no lifecycle rules; nothing was changed.",
            "Let the backups remove old copies themselves (s3.prune of model_backup).",
            "lifecycle",
        )


def _check_retention(
    options: BucketOptions, facts: Facts, lifecycle: tuple[dict[str, Any], ...]
) -> None:
    """:raises Refused: a rule, ours or another, removes what the retention rules keep."""
    for rule in lifecycle:
        days = _expires_after(rule, facts.now)
        if days is None or not _touches(rule, options.s3.prefix):
            continue
        for name, needed in _needed(options):
            if days < needed:
                raise Refused(
                    f"Lifecycle rule {rule.get('ID', '')!r} removes objects after {days:g} days, "
                    f"but {name}={getattr(options, name)} keeps backups for up to {needed} days; "
                    "nothing was changed.",
                    _todo(rule, "or change that option"),
                    str(rule.get("ID", "")),
                )
        for prefix, backups in facts.aged:
            if _touches(rule, prefix):
                _check_backups(options, facts, rule, days, prefix, backups)


def _check_backups(
    options: BucketOptions,
    facts: Facts,
    rule: dict[str, Any],
    days: float,
    prefix: str,
    backups: tuple[Backup, ...],
) -> None:
    """:raises Refused: a rule removes a backup under the prefix, or an archive that a set names.

    :param days: after how many days the rule removes objects.
    """
    todo = "or make a newer backup there, or remove that one yourself"
    for decision in _kept(options, backups, facts.now):
        backup = decision.backup
        if facts.now - backup.created >= days * DAY:
            age = (facts.now - backup.created) / DAY
            raise Refused(
                f"Lifecycle rule {rule.get('ID', '')!r} would remove {backup.path}, "
                f"which is {age:.0f} days old and kept: {decision.reason}; nothing was changed.",
                _todo(rule, todo),
                backup.path,
            )
        # Sets share the archives of models that did not change, so these can be older than the set.
        until = max(facts.now, backup.created + options.retention_days * DAY - DAY)
        for archive in backup.archives:
            key = "/".join(part for part in (prefix, archive["name"]) if part)
            removed = facts.uploaded.get(key, facts.now) + days * DAY
            if removed < until:
                raise Refused(
                    f"Lifecycle rule {rule.get('ID', '')!r} would remove {key} "
                    f"{max(0.0, removed - facts.now) / DAY:.0f} days from now, but {backup.path} "
                    f"names it and is kept: {decision.reason}; nothing was changed.",
                    _todo(rule, "or let backups remove old copies themselves (s3.prune)"),
                    key,
                )


def _todo(rule: dict[str, Any], otherwise: str) -> str:
    if _is_ours(rule):
        return f"Raise expire_days, {otherwise}."
    return f"Remove or change that rule of the bucket, {otherwise}."


def _needed(options: BucketOptions) -> list[tuple[str, int]]:
    """Return for how many days each retention option keeps backups while they are made as
    planned.
    """
    needed = [("retention_days", options.retention_days)]
    needed += [(name, getattr(options, name) * days) for name, days in _PERIODS]
    return [(name, days) for name, days in needed if days]


def _kept(
    options: BucketOptions, backups: tuple[Backup, ...], now: float
) -> Iterator[retention.Decision]:
    """Give the backups that the retention rules keep."""
    groups = [
        catalogue.of_source(backups, source) for source in sorted(catalogue.sources(backups))
    ] or [list(backups)]
    for group in groups:
        for decision in retention.decide(group, retention.rules(options), now):
            if decision.keep:
                yield decision


def _expires_after(rule: dict[str, Any], now: float) -> float | None:
    """Return after how many days a rule removes objects, None when it does not."""
    if rule.get("Status") != "Enabled":
        return None
    expiration = rule.get("Expiration", {})
    if "Days" in expiration:
        return float(expiration["Days"])
    date = expiration.get("Date")
    if isinstance(date, datetime.datetime):  # everything that exists then goes
        return max(0.0, (date.timestamp() - now) / DAY)
    return None


def _touches(rule: dict[str, Any], prefix: str) -> bool:
    """Say whether a rule is about objects under our prefix. Our objects have no tags."""
    within = rule.get("Filter", {})
    both = within.get("And", within)
    if both.get("Tag") or both.get("Tags"):
        return False
    other = both.get("Prefix", rule.get("Prefix", "")) or ""
    ours = prefix.strip("/")
    return ours.startswith(other.rstrip("/")) or other.startswith(ours)


def _notes(options: BucketOptions, facts: Facts) -> tuple[str, ...]:
    notes = []
    shortest = MINIMUM_DAYS.get(options.transition_class, 0)
    stay = options.expire_days - options.transition_days
    if options.transition_days and options.expire_days and stay < shortest:
        notes.append(
            f"Amazon charges {shortest} days of {options.transition_class} at least; "
            f"archives stay there for {stay} days."
        )
    if any(backup.is_set for dummy, backups in facts.aged for backup in backups):
        notes.append(
            f"Archives of models that do not change are removed {options.expire_days} days after"
            " they were sent, although newer sets name them (layout: per_model). With expire_days:"
            " 0 and s3.prune backups remove old copies themselves."
        )
    return tuple(notes)
