# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a verdict document, or a plain message, to what may have to be told: one sighting per host, check and subject."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from .. import verdict
from ..errors import OptionError

ALERT = "alert"
RECOVERY = "recovery"
TEST = "test"
#: Name of the check for a message that names none.
MESSAGE = "message"
LEVELS = {verdict.PASS: -1, "info": 0, verdict.WARNING: 1, verdict.CRITICAL: 2}
_LONGEST = 1000
#: What only one part's document holds. Both judge GPUs, with limits of their own.
_PARTS = {"gpus": "gpu", "recommendation": "node"}


@dataclass(frozen=True)
class Event:
    """One thing to tell about one host, check and subject.

    C(status) is the check's own status, C(severity) what it counts as (C(critical) C(warning) C(info), C(pass) for a recovery).
    C(since) and C(time) are seconds since the epoch: when the state began, when it was judged. C(key) is the deduplication key,
    C(incident) the key of the incident it belongs to at PagerDuty and the like (its own, or that of a digest). C(previous) are
    the severities told before, which services that count the severity as part of an alert's identity must close. C(only) are the
    marks of the recipients who still have to get it; empty: all. C(source) is the part that judged, where the document shows it.
    """

    key: str
    host: str
    check: str
    subject: str
    status: str
    severity: str
    message: str
    time: float
    since: float
    kind: str = ALERT
    incident: str = ""
    value: str = ""
    unit: str = ""
    action: str = "none"
    reason: str = ""
    previous: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    source: str = ""

    @property
    def level(self) -> int:
        """Rank of the severity: -1 pass, 0 info, 1 warning, 2 critical."""
        return LEVELS[self.severity]

    @property
    def has_end(self) -> bool:
        """Whether a recovery can follow: not for information, nor for a text that nothing will ever take back."""
        return self.severity != "info" and self.check != MESSAGE

    @property
    def label(self) -> str:
        """Check and subject in one: C(disk_space /data)."""
        return f"{self.check} {self.subject}".strip()

    @property
    def word(self) -> str:
        """The one word a headline begins with."""
        return {RECOVERY: "RECOVERED", TEST: "TEST"}.get(self.kind, self.severity.upper())

    @property
    def title(self) -> str:
        """One line for people."""
        return f"{self.word} {self.host}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain data (also the form in which undelivered events are kept)."""
        return {**asdict(self), "previous": list(self.previous), "only": list(self.only)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Event:
        """Rebuild an event. :raises ValueError: the data is not an event."""
        known = {f.name: f.type for f in fields(cls)}
        values = {name: given[name] for name in known if name in given}
        for name, kind in known.items():
            value = values.get(name)
            if kind == "str" and name in values and not isinstance(value, str):
                raise ValueError(name)
            if kind == "float" and (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value < 253402300799
            ):
                raise ValueError(name)
        previous, only = values.get("previous", ()), values.get("only", ())
        if (
            not isinstance(previous, (list, tuple))
            or values.get("severity") not in LEVELS
            or any(one not in list(LEVELS) for one in previous)
        ):
            raise ValueError("severity")
        if not isinstance(only, (list, tuple)) or not all(isinstance(one, str) for one in only):
            raise ValueError("only")
        try:
            return cls(**{**values, "previous": tuple(previous), "only": tuple(only)})
        except TypeError as error:
            raise ValueError(str(error)) from error


def one_line(text: Any, longest: int = _LONGEST) -> str:
    """Return C(text) as one printable line: control and bidirectional override characters become blanks, too long is cut."""
    clean = re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+", " ", str(text)
    ).strip()
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def key_of(host: str, check: str, subject: str) -> str:
    """Return the stable deduplication key: readable, free of characters that mean something in URLs, at most 140 long."""
    digest = hashlib.sha256(
        "\0".join((host, check, subject)).encode("utf-8", "replace")
    ).hexdigest()[:16]
    slug = [re.sub(r"[^A-Za-z0-9_-]+", "-", word)[:60].strip("-") or "x" for word in (host, check)]
    return ".".join((*slug, digest))


def digest_key(host: str) -> str:
    """Return the key of the one incident that a flood on C(host) opens."""
    return key_of(host, "digest", "")


def from_message(
    message: str,
    severity: str | None,
    check: str | None,
    subject: str | None,
    host: str,
    now: float,
) -> Event:
    """Return the sighting of a plain message.

    Without C(check) the text itself says what it is about: the same text is the same thing, another text another.
    """
    text = one_line(message) or "(empty message)"
    about = one_line(subject or "", 200)
    name = one_line(check, 200) if check else MESSAGE
    key = key_of(host, name, about if check else f"{about}\0{message}")
    status = severity or verdict.WARNING
    counts_as = verdict.WARNING if status == verdict.UNKNOWN else status
    return Event(
        key=key,
        host=host,
        check=name,
        subject=about,
        status=status,
        severity=counts_as,
        message=text,
        time=now,
        since=now,
    )


def from_document(
    document: Mapping[str, Any], host: str, now: float
) -> tuple[list[Event], list[str]]:
    """Return the sightings of a verdict document and what in it could not be used.

    A sighting with severity C(pass) says that the thing is well, absent or judged not to exist. Unknown keys are ignored.
    C(unknown) counts as critical where the document's summary counted it so, a status that is no status counts as C(unknown). Several
    checks of one name and subject become one, the worst.

    :raises OptionError: it is no verdict document.
    """
    checks = document.get("checks")
    if not isinstance(checks, (list, tuple)):
        if document.get("skipped") is True:
            return [], []
        why, todo = (
            "",
            "Register the result of gpu_health or node_health, or give severity and message.",
        )
        if isinstance(document.get("results"), (list, tuple)):
            why, todo = (
                " It is the result of a loop.",
                "Give one entry of its results, in a loop of its own.",
            )
        elif document.get("msg") and (
            document.get("failed") is True or document.get("unreachable") is True
        ):
            why = f" The task that should have judged failed: {one_line(document['msg'])}."
        raise OptionError(f"The document has no list of checks.{why}", todo, "document")
    host = one_line(document.get("hostname") or host, 255)
    source = next((part for key, part in _PARTS.items() if key in document), "")
    usable = [
        one
        for one in checks
        if isinstance(one, Mapping) and isinstance(one.get("check"), str) and one["check"]
    ]
    problems = (
        []
        if len(usable) == len(checks)
        else [f"{len(checks) - len(usable)} of {len(checks)} checks have no name and were ignored."]
    )
    odd = sum(one.get("status") not in verdict.STATUSES for one in usable)
    if odd:
        problems.append(f"{odd} of {len(checks)} checks have no known status and count as unknown.")
        usable = [
            one if one.get("status") in verdict.STATUSES else {**one, "status": verdict.UNKNOWN}
            for one in usable
        ]
    unknown_as = _unknown_as(document, usable)
    found: dict[str, Event] = {}
    for one in usable:
        status: str = one["status"]
        severity = {verdict.UNKNOWN: unknown_as, verdict.SKIPPED: verdict.PASS}.get(status, status)
        check, subject = (
            one_line(one["check"], 200),
            one_line("" if one.get("subject") is None else one["subject"], 200),
        )
        event = Event(
            key=key_of(host, check, subject),
            host=host,
            check=check,
            subject=subject,
            status=status,
            severity=severity,
            message=one_line(one.get("message") or check),
            time=now,
            since=_epoch(one.get("since"), now),
            value="" if one.get("value") is None else one_line(one["value"], 200),
            unit=one_line(one.get("unit") or "", 40),
            action=one_line(one.get("action") or "none", 40),
            source=source,
        )
        if event.key not in found or found[event.key].level < event.level:
            found[event.key] = event
    return list(found.values()), problems


def _unknown_as(document: Mapping[str, Any], checks: Iterable[Mapping[str, Any]]) -> str:
    """A check does not carry what its C(unknown) counts as; the summary does: more criticals than checks that say so."""
    summary = document.get("summary")
    failed = summary.get("failed") if isinstance(summary, Mapping) else None
    critical = sum(one["status"] == verdict.CRITICAL for one in checks)
    return verdict.CRITICAL if isinstance(failed, int) and failed > critical else verdict.WARNING


def _epoch(since: Any, now: float) -> float:
    if isinstance(since, str):
        try:
            # Python before 3.11 does not know the Z.
            found = datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp()
        except (ValueError, OverflowError):
            return now
        return found if 0 < found <= now else now
    return now


def merge(old: Event, new: Event) -> Event:
    """Return the newer of two events of one key, remembering which severities a service may still show."""
    earlier = dict.fromkeys((*old.previous, old.severity, *new.previous))
    return replace(
        new, previous=tuple(one for one in earlier if one not in (new.severity, verdict.PASS))
    )
