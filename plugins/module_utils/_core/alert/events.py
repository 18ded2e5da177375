# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events: what a verdict document or a plain message reports, one event per host, check and
subject.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
#: Key that only one part's document has -> that part. Both check GPUs, with limits of their own.
_PARTS = {"gpus": "gpu", "recommendation": "node"}


@dataclass(frozen=True)
class Event:
    """The state of one check and subject on one host.

    ``status`` is the check's own status, ``severity`` what it counts as (``critical`` ``warning``
    ``info``, ``pass`` for a recovery). ``since`` and ``time`` are seconds since the epoch: when the
    state began, when it was checked. ``key`` is the deduplication key, ``incident`` the key of the
    incident it belongs to at PagerDuty and similar services (its own, or that of a digest).
    ``previous`` are the severities sent before, which services that count the severity as part of
    an alert's identity must close. ``only`` are the marks of the recipients who still have to get
    it; empty: all. ``source`` is the part that checked it, where the document shows it.
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
        """Whether a recovery can follow: never for information, nor for a text without the name of
        a check.
        """
        return self.severity != "info" and self.check != MESSAGE

    @property
    def label(self) -> str:
        """Check and subject together: ``disk_space /data``."""
        return f"{self.check} {self.subject}".strip()

    @property
    def wanted_action(self) -> str:
        """What has to be done, empty where that is nothing."""
        if self.action == "none":
            return ""
        return self.action

    @property
    def headline(self) -> str:
        """The first word of a title."""
        return {RECOVERY: "RECOVERED", TEST: "TEST"}.get(self.kind, self.severity.upper())

    @property
    def title(self) -> str:
        """One line for people."""
        return f"{self.headline} {self.host}: {self.message}"

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
            or any(severity not in list(LEVELS) for severity in previous)
        ):
            raise ValueError("severity")
        if not isinstance(only, (list, tuple)) or not all(isinstance(mark, str) for mark in only):
            raise ValueError("only")
        try:
            return cls(**{**values, "previous": tuple(previous), "only": tuple(only)})
        except TypeError as error:
            raise ValueError(str(error)) from error


def one_line(text: Any, longest: int = _LONGEST) -> str:
    """Return ``text`` as one printable line of at most ``longest`` characters.

    Control characters and bidirectional overrides become blanks.
    """
    clean = re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+", " ", str(text)
    ).strip()
    if len(clean) <= longest:
        return clean
    return clean[: longest - 1] + "…"


def key_of(host: str, check: str, subject: str) -> str:
    """Return the stable deduplication key: readable, without reserved characters of URLs, at most
    140 long.
    """
    import hashlib

    digest = hashlib.sha256(
        "\0".join((host, check, subject)).encode("utf-8", "replace")
    ).hexdigest()[:16]
    readable = [
        re.sub(r"[^A-Za-z0-9_-]+", "-", part)[:60].strip("-") or "x" for part in (host, check)
    ]
    return ".".join((*readable, digest))


def digest_key(host: str) -> str:
    """Return the key of the single incident for all problems of a digest of ``host``."""
    return key_of(host, "digest", "")


def from_message(
    message: str,
    severity: str | None,
    check: str | None,
    subject: str | None,
    host: str,
    now: float,
) -> Event:
    """Return the event of a plain message.

    Without ``check`` the text is its own subject: the same text is the same event, another text
    another.
    """
    text = one_line(message) or "(empty message)"
    about = one_line(subject or "", 200)
    if check:
        check_name = one_line(check, 200)
        key = key_of(host, check_name, about)
    else:
        check_name = MESSAGE
        key = key_of(host, check_name, f"{about}\0{message}")
    status = severity or verdict.WARNING
    return Event(
        key=key,
        host=host,
        check=check_name,
        subject=about,
        status=status,
        severity=verdict.WARNING if status == verdict.UNKNOWN else status,
        message=text,
        time=now,
        since=now,
    )


def test_message(text: str, host: str, now: float) -> Event:
    """Return the event of a test message."""
    event = from_message(text, "info", "alert_test", str(int(now)), host, now)
    return replace(event, kind=TEST, reason="test", incident=event.key)


def from_document(
    document: Mapping[str, Any], host: str, now: float
) -> tuple[list[Event], list[str]]:
    """Return the events of a verdict document and what in it could not be used.

    An event with severity ``pass`` says that the check passed or was skipped. Unknown keys are
    ignored. ``unknown`` counts as critical where the document's summary counted it so; a status
    that does not exist counts as ``unknown``. Several checks of one name and subject become one
    event, the worst.

    :raises OptionError: it is no verdict document.
    """
    checks = document.get("checks")
    if not isinstance(checks, (list, tuple)):
        if document.get("skipped") is True:
            return [], []
        raise _no_verdict(document)
    host = one_line(document.get("hostname") or host, 255)
    source = next((part for key, part in _PARTS.items() if key in document), "")
    usable, problems = _usable_checks(checks)
    unknown_as = _unknown_as(document, usable)
    events: dict[str, Event] = {}
    for check in usable:
        event = _from_check(check, host, unknown_as, source, now)
        if event.key not in events or events[event.key].level < event.level:
            events[event.key] = event
    return list(events.values()), problems


def _no_verdict(document: Mapping[str, Any]) -> OptionError:
    """Return the error for a document without checks, with what it seems to be instead."""
    why = ""
    todo = "Register the result of gpu_health or node_health, or give severity and message."
    if isinstance(document.get("results"), (list, tuple)):
        why = " It is the result of a loop."
        todo = "Give one entry of its results, in a loop of its own."
    elif document.get("msg") and (
        document.get("failed") is True or document.get("unreachable") is True
    ):
        why = f" The task that should have returned it failed: {one_line(document['msg'])}."
    return OptionError(f"The document has no list of checks.{why}", todo, "document")


def _usable_checks(checks: Sequence[Any]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return the checks that have a name, each with a status that exists, and what was wrong with
    others.
    """
    usable = [
        check
        for check in checks
        if isinstance(check, Mapping) and isinstance(check.get("check"), str) and check["check"]
    ]
    problems = []
    nameless = len(checks) - len(usable)
    if nameless:
        problems.append(f"{nameless} of {len(checks)} checks have no name and were ignored.")
    invalid = sum(check.get("status") not in verdict.STATUSES for check in usable)
    if invalid:
        problems.append(
            f"{invalid} of {len(checks)} checks have no known status and count as unknown."
        )
    return [_with_status(check) for check in usable], problems


def _with_status(check: Mapping[str, Any]) -> Mapping[str, Any]:
    if check.get("status") in verdict.STATUSES:
        return check
    return {**check, "status": verdict.UNKNOWN}


def _text(value: object) -> str:
    if value is None:
        return ""
    return one_line(value, 200)


def _from_check(
    check: Mapping[str, Any], host: str, unknown_as: str, source: str, now: float
) -> Event:
    status: str = check["status"]
    check_name = one_line(check["check"], 200)
    subject = _text(check.get("subject"))
    return Event(
        key=key_of(host, check_name, subject),
        host=host,
        check=check_name,
        subject=subject,
        status=status,
        severity={verdict.UNKNOWN: unknown_as, verdict.SKIPPED: verdict.PASS}.get(status, status),
        message=one_line(check.get("message") or check_name),
        time=now,
        since=_epoch(check.get("since"), now),
        value=_text(check.get("value")),
        unit=one_line(check.get("unit") or "", 40),
        action=one_line(check.get("action") or "none", 40),
        source=source,
    )


def _unknown_as(document: Mapping[str, Any], checks: Iterable[Mapping[str, Any]]) -> str:
    """Return what ``unknown`` counts as: critical where the summary has more criticals than the
    checks.
    """
    summary = document.get("summary")
    failed = summary.get("failed") if isinstance(summary, Mapping) else None
    critical = sum(check["status"] == verdict.CRITICAL for check in checks)
    if isinstance(failed, int) and failed > critical:
        return verdict.CRITICAL
    return verdict.WARNING


def _epoch(since: Any, now: float) -> float:
    if isinstance(since, str):
        try:
            # Python before 3.11 does not know the Z.
            epoch = datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp()
        except (ValueError, OverflowError):
            return now
        if 0 < epoch <= now:
            return epoch
        return now
    return now


def merge(old: Event, new: Event) -> Event:
    """Return the newer of two events of one key, with the severities that a service may still
    show.
    """
    earlier = dict.fromkeys((*old.previous, old.severity, *new.previous))
    return replace(
        new, previous=tuple(level for level in earlier if level not in (new.severity, verdict.PASS))
    )
