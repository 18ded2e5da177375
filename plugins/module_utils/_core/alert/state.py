# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was told and what could not be: the decision when to speak, and the file that survives restarts.

The file (C(state.json), mode 0600) is committed twice per run that has something to send: before sending, with the new events
among the undelivered ones, and after, without those that arrived. A crash in between therefore loses nothing and repeats at most what
that one run sent.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import hmac
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .. import verdict
from ..errors import FleetError, NotUsable, Refused, WriteFailed
from ..ports import World
from ..system import files, locks, text
from .events import LEVELS, RECOVERY, Event, digest_key, merge

#: Undelivered events are tried for a day, and at most this many per channel are kept (the newest).
QUEUE_SECONDS = 86400.0
QUEUE_LENGTH = 200
#: Entries nothing was heard of for so long are forgotten.
FORGET_SECONDS = 30 * 86400.0
#: What one part judged bad counts for so long against another part that judges the same better.
OPINION_SECONDS = 6 * 3600.0
ENTRIES = 5000
#: A second run waits this long for the first one to finish sending.
LOCK_SECONDS = 150.0
#: The year 9999; nothing can be written as a date after it.
_LAST_SECOND = 253402300799
_EMPTY: dict[str, Any] = {"version": 1, "saved": 0, "salt": "", "entries": {}, "pending": {}}


def default_folder(world: World) -> str:
    """Return the state folder for this user: below C(/var/lib) for root, else below the user's own state folder."""
    if os.geteuid() == 0:
        return world.path("/var/lib/mlops-fleet/alert")
    home = world.environ.get("XDG_STATE_HOME") or os.path.join(
        world.environ.get("HOME") or os.path.expanduser("~"), ".local", "state"
    )
    return os.path.join(home, "mlops-fleet", "alert")


class Store:
    """The state file in its folder; when the folder takes no more (full, read-only), a copy on the runtime file system.

    :param folder: made with mode 0700 by C(prepare). :param world: C(warn) hears what went wrong without stopping the run.
    """

    def __init__(self, folder: str, world: World) -> None:
        self.folder = folder
        self.world = world
        self.path = os.path.join(folder, "state.json")
        mark = hashlib.sha256(os.path.abspath(folder).encode()).hexdigest()[:12]
        base = world.path("/run") if os.geteuid() == 0 else world.environ.get("XDG_RUNTIME_DIR", "")
        self.spare = os.path.join(base, f"mlops-fleet-alert-{mark}.json") if base else ""
        self.data: dict[str, Any] = copy.deepcopy(_EMPTY)

    def prepare(self) -> None:
        """Make the folder (0700). :raises Refused: others may write in it. :raises WriteFailed: it can't be made."""
        try:
            os.makedirs(os.path.dirname(self.folder), mode=0o755, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            found = os.stat(self.folder)
        except OSError as error:
            raise WriteFailed(
                f"Can't make the state folder {self.folder}: {error.strerror}.",
                "Name another one in state_dir.",
                self.folder,
            ) from error
        if not stat.S_ISDIR(found.st_mode):
            raise Refused(
                f"The state folder {self.folder} is not a folder.",
                "Remove what is there, or name another state_dir.",
                self.folder,
            )
        if found.st_mode & 0o022:
            raise Refused(
                f"The state folder {self.folder} is writable by others.",
                f"Run: chmod 0700 {self.folder}",
                self.folder,
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise Refused(
                f"The state folder {self.folder} belongs to another user.",
                "Run as that user, or name another state_dir.",
                self.folder,
            )

    @contextlib.contextmanager
    def locked(self, patience: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the folder's lock while deciding and sending; wait for another run to finish.

        :raises LockBusy: it did not within C(patience) seconds.
        """
        with contextlib.ExitStack() as stack:
            path = os.path.join(self.folder, "lock")
            try:
                stack.enter_context(locks.lock(path, "alert run", patience))
            except WriteFailed:
                spare = os.path.basename(self.spare or "mlops-fleet-alert") + ".lock"
                path = os.path.join(locks.lock_directory(), spare)
                stack.enter_context(locks.lock(path, "alert run", patience))
            yield

    def load(self, repair: bool = True) -> None:
        """Read the newer of file and spare copy. What is damaged is set aside (C(repair)), reported and replaced by nothing."""
        newest: dict[str, Any] | None = None
        for path in (self.path, self.spare):
            try:
                found = files.read_json(path) if path else None
                if found is not None and not (
                    isinstance(found, dict) and found.get("version") == 1
                ):
                    raise NotUsable(f"{path} is not an alert state file of this version.", "", path)
            except (NotUsable, RecursionError) as error:
                why = (
                    error.message
                    if isinstance(error, NotUsable)
                    else f"{path} is nested too deeply."
                )
                kept = f"; the file is kept as {path}.broken" if repair else ""
                self.world.warn(f"{why} What was told before is not known any more{kept}.")
                if repair:
                    with contextlib.suppress(OSError):
                        os.replace(path, path + ".broken")
                continue
            if found is not None and (
                newest is None or _number(found.get("saved")) > _number(newest.get("saved"))
            ):
                newest = found
        self.data = _clean(newest or {})

    def save(self) -> bool:
        """Write the state whole or not at all; False (and a warning) when neither place takes it."""
        self.data["saved"] = int(self.data["saved"]) + 1
        text = json.dumps(self.data, ensure_ascii=True, sort_keys=True) + "\n"
        try:
            files.atomic_write(self.path, text, mode=0o600)
        except FleetError as error:
            problem = error.message
        else:
            if self.spare:
                with contextlib.suppress(OSError):
                    os.unlink(self.spare)
            return True
        try:
            if not self.spare:
                raise WriteFailed(problem)
            files.atomic_write(self.spare, text, mode=0o600)
        except FleetError:
            self.world.warn(
                f"{problem} The cooldown can't be kept: the next run may repeat these messages."
            )
            return False
        self.world.warn(f"{problem} The state is kept in {self.spare} until the next boot.")
        return True

    def identity(self, secret: str) -> str:
        """Return a short name for a channel from which its URL can't be read back (keyed hash, 48 bits)."""
        if not self.data["salt"]:
            self.data["salt"] = os.urandom(16).hex()
        return hmac.new(
            str(self.data["salt"]).encode(), secret.encode("utf-8", "replace"), "sha256"
        ).hexdigest()[:12]

    def expire(
        self,
        now: float,
        cooldown: float,
        seen: Collection[str] = (),
        ran: Collection[tuple[str, str]] = (),
    ) -> int:
        """Forget old entries and undelivered events; return how many undelivered ones were given up.

        What this run speaks of (C(seen) keys, C(ran) as in decide) is not forgotten: after weeks of repair its end is still to be told.
        """
        lost = 0
        entries = self.data["entries"]
        for key, entry in list(entries.items()):
            if key in seen or (entry["host"], entry["check"]) in ran:
                entry["seen_at"] = now
            entry["seen_at"] = min(entry["seen_at"], now)
            if now - entry["seen_at"] > (
                FORGET_SECONDS if entry["open"] else max(86400.0, cooldown)
            ):
                del entries[key]
        for key in sorted(entries, key=lambda one: entries[one]["seen_at"])[
            : max(0, len(entries) - ENTRIES)
        ]:
            del entries[key]
        for channel, waiting in list(self.data["pending"].items()):
            newest = sorted(waiting, key=lambda one: waiting[one]["queued_at"], reverse=True)
            for place, key in enumerate(newest):
                waiting[key]["queued_at"] = min(waiting[key]["queued_at"], now)
                if place >= QUEUE_LENGTH or now - waiting[key]["queued_at"] > QUEUE_SECONDS:
                    del waiting[key]
                    lost += 1
            if not waiting:
                del self.data["pending"][channel]
        return lost

    def waiting(self, channel: str) -> list[Event]:
        """Return what could not be delivered to a channel yet, oldest first, of one run the worst first."""
        found = [
            (one["queued_at"], Event.from_dict(one["event"]))
            for one in self.data["pending"].get(channel, {}).values()
        ]
        return [
            event
            for dummy, event in sorted(
                found,
                key=lambda one: (one[0], -one[1].level, one[1].host, one[1].check, one[1].subject),
            )
        ]

    def enqueue(self, channel: str, events: Iterable[Event], now: float) -> None:
        """Note events as undelivered to a channel; a newer event of a key takes the older one's place."""
        waiting = self.data["pending"].setdefault(channel, {})
        for event in events:
            old = waiting.get(event.key)
            newest = event if old is None else merge(Event.from_dict(old["event"]), event)
            waiting[event.key] = {"queued_at": now, "event": newest.to_dict()}
        if not waiting:
            del self.data["pending"][channel]

    def narrow(self, channel: str, keys: Iterable[str], left: Iterable[str]) -> None:
        """Note that events reached all of a channel's recipients but those with the marks C(left)."""
        for key in keys:
            self.data["pending"][channel][key]["event"]["only"] = list(left)

    def done(self, channel: str, keys: Iterable[str]) -> None:
        """Take events off a channel's undelivered ones."""
        waiting = self.data["pending"].get(channel, {})
        for key in keys:
            waiting.pop(key, None)
        if not waiting:
            self.data["pending"].pop(channel, None)


def _number(value: Any) -> float:
    """Return a number from the file; 0 for what is none, or no time that a clock can have had."""
    return (
        float(value)
        if isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value < _LAST_SECOND
        else 0.0
    )


def _clean(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usable part of a state file, every field of the type the code relies on."""
    data = copy.deepcopy(_EMPTY)
    data["saved"] = int(_number(found.get("saved")))
    data["salt"] = found.get("salt") if isinstance(found.get("salt"), str) else ""
    entries = found.get("entries")
    for key, entry in (entries if isinstance(entries, dict) else {}).items():
        if isinstance(entry, dict) and all(
            isinstance(entry.get(name), str) for name in ("host", "check", "subject")
        ):
            data["entries"][key] = {
                "host": entry["host"],
                "check": entry["check"],
                "subject": entry["subject"],
                "since": _number(entry.get("since")),
                "seen_at": _number(entry.get("seen_at")),
                "sent_at": _number(entry.get("sent_at")),
                "sent": entry.get("sent") if entry.get("sent") in list(LEVELS) else verdict.PASS,
                "open": entry.get("open") is True,
                "bad": entry.get("bad") is True,
                "incident": entry.get("incident")
                if isinstance(entry.get("incident"), str)
                else key,
                "by": _opinions(entry.get("by")),
            }
    pending = found.get("pending")
    for channel, waiting in (pending if isinstance(pending, dict) else {}).items():
        for key, one in (waiting if isinstance(waiting, dict) else {}).items():
            if isinstance(one, dict) and isinstance(one.get("event"), dict):
                with contextlib.suppress(ValueError):
                    event = Event.from_dict(one["event"])
                    data["pending"].setdefault(channel, {})[key] = {
                        "queued_at": _number(one.get("queued_at")),
                        "event": event.to_dict(),
                    }
    return data


def _opinions(found: Any) -> dict[str, list[Any]]:
    """Return which part judged the thing how bad and when (C(by) of an entry), as far as it can be used."""
    usable = found.items() if isinstance(found, dict) else ()
    return {
        part: [one[0], _number(one[1])]
        for part, one in usable
        if isinstance(one, list) and len(one) == 2 and one[0] in list(LEVELS)
    }


def decide(
    entries: Mapping[str, Mapping[str, Any]],
    seen: Iterable[Event],
    ran: frozenset[tuple[str, str]],
    now: float,
    cooldown: float,
    digest_after: int,
) -> tuple[list[tuple[Event, bool]], dict[str, Any]]:
    """Judge which sightings are told. Pure.

    :param entries: what the state file knows, by key.
    :param ran: (host, check) of the checks that a document reports as a whole, so that a subject it leaves out is gone.
    :return: every problem and recovery with whether it is sent (C(reason) says why), and the entries as they are once that happened.

    A problem is told when it is new, when it is worse than what was told last, and again when C(cooldown) seconds have passed. The
    cooldown counts from the last alert and outlives a recovery, so that something that flaps is told once per cooldown and not each
    time. A recovery is told once, and only when its problem was.

    Two parts may judge the same thing with limits of their own: then the worse opinion counts until its own part takes it back.
    """
    after = {key: dict(entry) for key, entry in entries.items()}
    seen = _with_vanished(after, list(seen), ran, now)
    found: list[tuple[Event, bool]] = []
    fresh: list[str] = []
    for event in seen:
        entry = after.get(event.key)
        if entry is not None:
            # A time in the future is a clock that was set back: count from now, or nobody hears of it until the clock is there again.
            entry["sent_at"], entry["since"] = min(entry["sent_at"], now), min(entry["since"], now)
            entry["seen_at"] = now
        others = _others(event, entry, now)
        if event.severity == verdict.PASS:
            recovered = _recover(event, entry) if not others else None
            if recovered is not None:
                found.append((recovered, True))
            continue
        if entry is None:
            entry = {
                "host": event.host,
                "check": event.check,
                "subject": event.subject,
                "since": event.since,
                "seen_at": now,
            }
            entry.update(
                sent_at=0.0, sent=verdict.PASS, open=False, bad=False, incident=event.key, by={}
            )
            after[event.key] = entry
        entry["by"] = {**entry["by"], event.source: [event.severity, now]}
        if others and LEVELS[others[0]] > event.level:
            part = f"{others[1]}_health"
            found.append(
                (
                    replace(
                        event,
                        reason=f"{part} judges it {others[0]}",
                        since=min(entry["since"], event.since),
                    ),
                    False,
                )
            )
            continue
        if not entry["bad"]:
            entry.update(bad=True, since=event.since)
        send, reason = _when(event, entry, now, cooldown)
        previous = (
            (entry["sent"],)
            if entry["open"] and entry["sent"] not in (event.severity, verdict.PASS)
            else ()
        )
        if send:
            if not entry["open"]:
                fresh.append(event.key)
                entry["incident"] = event.key
            entry.update(sent_at=now, sent=event.severity, open=event.has_end)
        found.append(
            (
                replace(
                    event, reason=reason, since=min(entry["since"], event.since), previous=previous
                ),
                send,
            )
        )
    if len(fresh) > digest_after:
        for key in fresh:
            after[key]["incident"] = digest_key(after[key]["host"])
    return [
        (replace(event, incident=after[event.key]["incident"]), send) for event, send in found
    ], after


def _others(event: Event, entry: dict[str, Any] | None, now: float) -> tuple[str, str] | None:
    """Return the worst severity that another part holds against this thing, and that part. The event's own part's former opinion is dropped."""
    if entry is None:
        return None
    entry["by"] = {
        part: one
        for part, one in entry["by"].items()
        if part not in ("", event.source) and event.source
    }
    fresh = [(one[0], part) for part, one in entry["by"].items() if now - one[1] <= OPINION_SECONDS]
    return max(fresh, key=lambda one: LEVELS[one[0]], default=None)


def _when(event: Event, entry: Mapping[str, Any], now: float, cooldown: float) -> tuple[bool, str]:
    told = entry["sent_at"] > 0
    age = now - entry["sent_at"]
    if not told or (age >= cooldown and not entry["open"]):
        return True, "new problem"
    if event.level > LEVELS[entry["sent"]]:
        return True, f"escalated from {entry['sent']} to {event.severity}"
    if age >= cooldown:
        how = (
            f"still {event.severity}"
            if event.severity == entry["sent"]
            else f"eased from {entry['sent']} to {event.severity}"
        )
        return (
            True,
            f"{how}, cooldown of {text.human_duration(cooldown)} is over" if cooldown else how,
        )
    rest = text.human_duration(cooldown - age)
    return False, f"told {text.human_duration(age)} ago, within the cooldown for another {rest}"


def _recover(event: Event, entry: dict[str, Any] | None) -> Event | None:
    if entry is None or not entry["bad"]:
        return None
    entry["bad"] = False
    if not entry["open"]:
        return None
    entry["open"] = False
    return replace(
        event,
        kind=RECOVERY,
        reason=f"recovered, was {entry['sent']}",
        since=entry["since"],
        previous=(entry["sent"],),
    )


def _with_vanished(
    entries: Mapping[str, Mapping[str, Any]],
    seen: list[Event],
    ran: frozenset[tuple[str, str]],
    now: float,
) -> list[Event]:
    """Add a C(pass) for subjects that a check no longer reports (a mount or GPU that is gone), or their incident stays open for ever.

    Only where the check itself ran: a document without that check says nothing, nor does one in which it is bad as a whole.
    """
    keys = {event.key for event in seen}
    sources = {(event.host, event.check): event.source for event in seen}
    ran = ran - {
        (event.host, event.check)
        for event in seen
        if not event.subject and event.severity != verdict.PASS
    }
    for key, entry in entries.items():
        if entry["bad"] and key not in keys and (entry["host"], entry["check"]) in ran:
            text = f"{entry['check']} {entry['subject']}".strip() + " is no longer reported"
            source = sources.get((entry["host"], entry["check"]), "")
            seen.append(
                Event(
                    key,
                    entry["host"],
                    entry["check"],
                    entry["subject"],
                    verdict.SKIPPED,
                    verdict.PASS,
                    text,
                    now,
                    now,
                    source=source,
                )
            )
    return seen
