# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet report: what the phases of a maintenance run left on every targeted host, in one
document.

Input are the registered results of the phases; hosts that gave none are part of the report too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .. import verdict
from ..installed import compare
from ..maintenance import plan
from ..maintenance.options import MaintenanceOptions
from ..system.text import human_count, human_list, human_size
from .stats import percentile

#: The phases in their order.
PHASES = plan.PHASES.names

FAILED = "failed"
UNREACHABLE = "unreachable"
HELD = "held"
NO_DATA = "no_data"
#: All states of a phase or host, best first.
STATES = (
    verdict.SKIPPED,
    verdict.PASS,
    verdict.WARNING,
    verdict.CRITICAL,
    HELD,
    NO_DATA,
    FAILED,
    UNREACHABLE,
)
#: States in which a phase did not do its job, whatever the verdict.
BROKEN = frozenset({FAILED, UNREACHABLE, HELD, NO_DATA})
#: How many problems a host's entry names; the rest is counted.
PROBLEMS = 10

Result = Mapping[str, Any]
Lookup = Callable[[str, str], "Result | None"]


def worst(states: Iterable[str]) -> str:
    """Return the worst of the states, C(skipped) for none."""
    return max(states, key=STATES.index, default=verdict.SKIPPED)


def _skip_reason(
    phase: str, result: Result, earlier: Mapping[str, Result | None], held: str
) -> plan.Skip:
    """Return why a phase was skipped: what its result says or, in playbooks of other people, what
    the rule says.
    """
    if isinstance(result.get("skip"), Mapping):
        return plan.Skip(str(result["skip"]["code"]), str(result["skip"]["text"]))
    everything_on = MaintenanceOptions.from_mapping({})
    return plan.decide(phase, everything_on, earlier, held) or plan.Skip(
        plan.SWITCHED_OFF, "switched off"
    )


def _backup_message(result: Result) -> str:
    backup = result.get("backup") or {}
    if not backup:
        return str(result.get("msg") or "nothing to back up")
    size = human_size(float(backup.get("size") or 0))
    proof = "not verified"
    if backup.get("verified"):
        proof = "verified"
    what = "unchanged since the last backup"
    if result.get("changed"):
        what = "new backup"
    message = f"{what}: {human_count(backup.get('files') or 0, 'file')}, {size}, {proof}"
    links = result.get("outside_links") or []
    if links:
        listed = human_list(links, 1)
        message += f"; not in it is what links out of the source point to: {listed}"
    return message


def _cleanup_message(result: Result) -> str:
    removed = result.get("removed") or []
    count = result.get("removed_count", len(removed))
    if not count:
        return "nothing to remove"
    return f"{count} removed, {human_size(float(result.get('freed_bytes') or 0))} freed"


def _verdict_message(result: Result) -> str:
    summary = result.get("summary") or {}
    bad = problems_of(result)
    if bad:
        text = "; ".join(bad[:2])
        if len(bad) > 2:
            text += f" (+{len(bad) - 2} more)"
        return text
    if result.get("status") == verdict.SKIPPED:
        messages = [str(check.get("message")) for check in result.get("checks") or []]
        if messages:
            return messages[0]
        return "nothing to check here"
    return f"{summary.get('passed', 0)} of {summary.get('total', 0)} checks passed"


def problems_of(result: Result) -> list[str]:
    """Return the messages of the checks that did not pass, worst first, in the checks' own order
    within a status.
    """
    checks = [
        check
        for check in result.get("checks") or []
        if check.get("status") not in (verdict.PASS, verdict.SKIPPED)
    ]
    checks.sort(key=lambda check: -verdict.STATUSES.index(check.get("status", verdict.UNKNOWN)))
    return [str(check.get("message")) for check in checks]


_MESSAGES = {"backup": _backup_message, "cleanup": _cleanup_message}


def phase_entry(
    phase: str,
    result: Result | None,
    earlier: Mapping[str, Result | None],
    held: str,
    check_mode: bool,
) -> dict[str, Any]:
    """Return what the report says of one phase on one host: C(phase status message duration
    changed).

    :param earlier: results of the phases before it on this host.
    :param held: why the host was held back, or empty.
    C(duration) is in seconds of the node, None where the phase did not run.
    """
    entry: dict[str, Any] = {"phase": phase, "duration": None, "changed": False}
    if result is None:
        if any(before and before.get("unreachable") for before in earlier.values()):
            return {
                **entry,
                "status": verdict.SKIPPED,
                "message": "not run: the host can't be reached",
            }
        return {**entry, "status": NO_DATA, "message": "the run gave no result for this host"}
    if result.get("unreachable"):
        # ansible-core 2.19 and later put words of their own before the message.
        message = str(result.get("msg") or "host can't be reached").removeprefix("Task failed: ")
        return {**entry, "status": UNREACHABLE, "message": message}
    entry["duration"] = result.get("duration")
    if result.get("failed"):
        message = str(result.get("msg") or "the module failed without a message")
        if check_mode:
            return {**entry, "status": verdict.WARNING, "message": f"would fail: {message}"}
        return {**entry, "status": FAILED, "message": message}
    if result.get("skipped"):
        skip = _skip_reason(phase, result, earlier, held)
        state = HELD if skip.code == plan.HELD else verdict.SKIPPED
        return {**entry, "duration": None, "status": state, "message": skip.text}
    message = _MESSAGES.get(phase, _verdict_message)(result)
    status = result.get("status")
    return {
        **entry,
        "status": status if status in STATES else verdict.PASS,
        "message": message,
        "changed": bool(result.get("changed")),
    }


def host_entry(
    host: str,
    results: Mapping[str, Result | None],
    held: str = "",
    check_mode: bool = False,
    version: str = "",
) -> dict[str, Any]:
    """Return the report's entry of one host from its phases' registered results (None = there is
    none).

    :param version: the collection's version of the agent, to compare the node's with.
    """
    entries: list[dict[str, Any]] = []
    earlier: dict[str, Result | None] = {}
    for phase in PHASES:
        if phase not in results:
            continue
        entries.append(phase_entry(phase, results[phase], earlier, held, check_mode))
        earlier[phase] = results[phase]
    health, gpu = results.get("health") or {}, results.get("gpu") or {}
    backup, cleanup = results.get("backup") or {}, results.get("cleanup") or {}
    problems = problems_of(health) + problems_of(gpu)
    made = backup.get("backup") or {}
    return {
        "host": host,
        "hostname": health.get("hostname") or gpu.get("hostname") or "",
        "status": worst(entry["status"] for entry in entries),
        "phases": entries,
        "health_score": _score(health, gpu),
        "recommendation": _recommendation(health, gpu),
        "gpus": len(gpu.get("gpus") or []),
        "problems": problems[:PROBLEMS],
        "problems_total": len(problems),
        "agent_version": str(health.get("agent_version") or ""),
        "notes": [
            note for note in [compare(str(health.get("agent_version") or ""), version)] if note
        ],
        "backup": {
            name: made[name]
            for name in ("path", "size", "sha256", "verified", "created")
            if name in made
        },
        "freed_bytes": int(cleanup.get("freed_bytes") or 0),
        "duration": round(sum(entry["duration"] or 0 for entry in entries), 3),
    }


def _score(health: Result, gpu: Result) -> float | None:
    """Return a host's health score, in which every check counts once.

    Where the health phase left the GPUs to the GPU phase, it is made from the checks of both.
    """
    summary = health.get("summary") or {}
    if not plan.left_gpus(health) or not gpu.get("summary"):
        return summary.get("health_score")
    counts = (
        int(summary.get(count) or 0) + int(gpu["summary"].get(count) or 0)
        for count in ("passed", "warnings", "failed")
    )
    return verdict.score(*counts)


def _recommendation(health: Result, gpu: Result) -> str:
    given = health.get("recommendation")
    if isinstance(given, Mapping):
        given = given.get("action")
    actions = [
        str(check.get("action", "none"))
        for check in gpu.get("checks") or []
        if check.get("status") == verdict.CRITICAL
    ]
    known = [action for action in [str(given or "none"), *actions] if action in verdict.ACTIONS]
    return max(known, key=verdict.ACTIONS.index, default="none")


def _unfit(entry: Mapping[str, Any]) -> bool:
    """Return whether a host should get no work: unreachable, or critical and more than an
    inspection is recommended.

    A pending kernel update recommends a reboot, too, but as a warning; that host can go on working.
    """
    is_critical = any(
        phase["phase"] in ("health", "gpu") and phase["status"] == verdict.CRITICAL
        for phase in entry["phases"]
    )
    return entry["status"] == UNREACHABLE or (
        is_critical and entry["recommendation"] in ("drain", "reboot", "reset_gpu")
    )


def assemble(
    hosts: Sequence[str],
    lookup: Lookup,
    *,
    phases: Sequence[str] = PHASES,
    timestamp: float,
    title: str = "Fleet maintenance",
    fail_on: str = verdict.CRITICAL,
    check_mode: bool = False,
    held: Mapping[str, str] | None = None,
    version: str = "",
    tags: bool = False,
) -> dict[str, Any]:
    """Assemble the report of all targeted hosts.

    :param lookup: returns the registered result of (host, phase), None where there is none.
    :param timestamp: seconds since the epoch. :param held: host to the reason why it was held back.
    :param version: the collection's version of the agent; a host with another one gets a note.
    :param tags: whether the user chose tasks by tags; a phase without any result, on any host, is
        then one they left out.
    :return: C(version title timestamp check_mode phases left_out hosts summary failed_hosts errors
        status exit_code), plain JSON data. C(failed_hosts) are those whose phases did not do their
        job, or whose verdict is at least C(fail_on).
    """
    left_out = [
        phase for phase in phases if tags and all(lookup(host, phase) is None for host in hosts)
    ]
    phases = [phase for phase in phases if phase not in left_out]
    entries = [
        host_entry(
            host,
            {phase: lookup(host, phase) for phase in phases},
            (held or {}).get(host, ""),
            check_mode,
            version,
        )
        for host in hosts
    ]
    return conclude(
        {
            "version": 1,
            "title": title,
            "timestamp": verdict.isoformat(timestamp),
            "check_mode": check_mode,
            "phases": phases,
            "left_out": left_out,
            "hosts": entries,
        },
        fail_on,
    )


def conclude(report: dict[str, Any], fail_on: str = verdict.CRITICAL) -> dict[str, Any]:
    """Return a report with C(summary failed_hosts errors status exit_code), made from its hosts and
    phases.
    """
    entries, phases = report["hosts"], report["phases"]
    failed = [
        entry["host"]
        for entry in entries
        if not phases or entry["status"] in BROKEN or verdict.fails(entry["status"], fail_on)
    ]
    states = {state: sum(1 for entry in entries if entry["status"] == state) for state in STATES}
    errors = []
    if not entries:
        errors.append("No host matched.")
    elif not phases:
        errors.append("No phase ran: the tags leave all of them out.")
    elif states[UNREACHABLE] == len(entries):
        errors.append(f"None of the {len(entries)} targeted hosts could be reached.")
    scores = [
        float(entry["health_score"]) for entry in entries if entry["health_score"] is not None
    ]
    broken = bool(errors) or any(entry["status"] in BROKEN for entry in entries)
    status = worst(entry["status"] for entry in entries)
    if broken or states[verdict.CRITICAL]:
        status = verdict.CRITICAL
    return {
        **report,
        "summary": {
            "hosts": len(entries),
            "states": states,
            "score_min": min(scores, default=None),
            "score_p5": percentile(scores, 5),
            "backups_verified": sum(1 for entry in entries if entry["backup"].get("verified")),
            "freed_bytes": sum(entry["freed_bytes"] for entry in entries),
            "do_not_schedule": [entry["host"] for entry in entries if _unfit(entry)],
        },
        "failed_hosts": failed,
        "errors": errors,
        "status": status,
        "exit_code": verdict.EXIT_CODES[status],
    }


def troubles(entry: Mapping[str, Any]) -> list[str]:
    """Return what went wrong on one host, a line per phase that did not pass."""
    bad = [
        phase for phase in entry["phases"] if phase["status"] not in (verdict.PASS, verdict.SKIPPED)
    ]
    return [f"{phase['phase']} {phase['status']}: {phase['message']}" for phase in bad]


def attention(report: Mapping[str, Any]) -> dict[str, str]:
    """Return why each of the C(failed_hosts) needs attention, in one line."""
    failed = set(report["failed_hosts"])
    return {
        entry["host"]: "; ".join(troubles(entry) or report["errors"])
        for entry in report["hosts"]
        if entry["host"] in failed
    }
