# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed since the runs before: faults that are new, gone, worse or better.

Each phase of a host is compared with the latest earlier run that examined it. So a run of one phase
or of a few hosts (``--limit``) neither hides nor reports faults of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..system.text import human_count
from . import faults as fleet_faults
from .faults import ANY_CHECK, Fault, clean, key, severity

#: Phase states that say nothing about the faults that the phase's checks report.
_NOT_EXAMINED = frozenset({"skipped", "unreachable", "held", "no_data", "failed"})
#: Ends of the checks that say that a phase did not do its job.
_DID_NOT_RUN = ("_failed", "_held", "_no_data")
KINDS = ("new", "gone", "worse", "better")
#: Longest chat summary; longer ones are cut.
CHAT_LENGTH = 400


def _index(document: Mapping[str, Any]) -> dict[tuple[str, str], dict[tuple[str, ...], Fault]]:
    """Return (host, place) to its faults by key, for what was examined.

    A place is a phase, ``!phase`` for whether the phase did its job, or the empty text for the
    host's reachability. A phase that failed says nothing about the faults that its checks report.
    """
    result: dict[tuple[str, str], dict[tuple[str, ...], Fault]] = {}
    for entry in document["hosts"]:
        host = entry["host"]
        result[host, ""] = {}
        for phase in entry["phases"]:
            if phase["status"] not in _NOT_EXAMINED:
                result[host, phase["phase"]] = {}
            if phase["status"] not in ("skipped", "unreachable"):
                result[host, "!" + phase["phase"]] = {}
        for fault in entry["faults"]:
            result.setdefault((host, _place(fault)), {})[key(fault)[2:]] = fault
    return result


def _place(fault: Fault) -> str:
    if fault["check"] == "unreachable":
        return ""
    if fault["check"] in [fault["phase"] + end for end in _DID_NOT_RUN]:
        return "!" + str(fault["phase"])
    return str(fault["phase"])


def compare(document: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare a run with earlier ones, newest first.

    :return: ``since`` (timestamp of the newest earlier run, None for a first run), lists of faults
        ``new gone worse better`` (``worse`` and ``better`` with ``was``, the status before), the
        number ``unchanged``, and ``absent``: hosts of the newest run with the same phases that this
        run did not target.
    """
    current = _index(document)
    before: dict[tuple[str, str], dict[tuple[str, ...], Fault]] = {}
    changes: dict[str, Any] = {"since": None, **{kind: [] for kind in KINDS}, "unchanged": 0}
    absent: list[str] | None = None
    hosts = {entry["host"] for entry in document["hosts"]}
    for run in earlier:
        if changes["since"] is None:
            changes["since"] = run["timestamp"]
        if absent is None and set(run["phases"]) >= set(document["phases"]):
            absent = [entry["host"] for entry in run["hosts"] if entry["host"] not in hosts]
        for where, known in _index(run).items():
            if where in current:
                before.setdefault(where, known)
        if len(before) == len(current):
            break
    for where, present in current.items():
        _compare_phase(changes, present, before.get(where, {}))
    for kind in KINDS:
        changes[kind].sort(key=lambda fault: (-severity(fault["status"]), fault["host"]))
    changes["absent"] = sorted(absent or [])
    return changes


def _compare_phase(
    changes: dict[str, Any],
    present: Mapping[tuple[str, ...], Fault],
    known: Mapping[tuple[str, ...], Fault],
) -> None:
    whole = next((fault for fault in known.values() if fault["check"] == ANY_CHECK), None)
    for identity, fault in present.items():
        old = known.get(identity, whole)
        if old is None:
            changes["new"].append(dict(fault))
            continue
        was, now = severity(old["status"]), severity(fault["status"])
        if now > was:
            changes["worse"].append({**fault, "was": old["status"]})
        elif now < was and old is not whole:
            changes["better"].append({**fault, "was": old["status"]})
        else:
            changes["unchanged"] += 1
    if whole is not None and present:
        known = {}
    changes["gone"] += [dict(known[identity]) for identity in known if identity not in present]


def counts(changes: Mapping[str, Any]) -> str:
    """Return the number of changes: ``2 new, 1 gone``; ``no change`` without any."""
    listed = [f"{len(changes[kind])} {kind}" for kind in KINDS if changes[kind]]
    return ", ".join(listed) or "no change"


def chat(report: Mapping[str, Any]) -> str:
    """Return the run as one line for a chat: ``2 new, 1 gone: GPU 1: 3 ECC errors on gpu7;
    ...``.
    """
    changes = report["changes"]
    causes = report["causes"]
    if changes["since"] is None:
        head = "first run, " + human_count(sum(cause["count"] for cause in causes), "fault")
        listed = causes
    else:
        head = counts(changes)
        listed = fleet_faults.causes([*changes["new"], *changes["worse"]])
        if not listed and changes["unchanged"]:
            head += f", {human_count(changes['unchanged'], 'known fault')}"
    texts = [f"{_plain(cause['title'], 120)} ({_hosts(cause['hosts'])})" for cause in listed[:3]]
    if len(listed) > 3:
        texts.append(f"{len(listed) - 3} more")
    if texts:
        head += ": " + _plain("; ".join(texts), CHAT_LENGTH)
    return f"{head} [{_plain(report['title'], 60)}: {report['status']}]"


def _hosts(hosts: Sequence[str]) -> str:
    if len(hosts) == 1:
        return _plain(hosts[0], 60)
    return f"{len(hosts)} hosts"


def _plain(text: str, length: int) -> str:
    """Return text that a chat neither formats nor takes for a mention, command or link."""
    line = clean(text, length)
    for mark, other in (("<", "‹"), (">", "›"), ("@", "＠"), ("`", "'"), ("*", "∗"), ("|", "¦")):
        line = line.replace(mark, other)
    return line.replace("://", ":⁄⁄").replace("[", "(").replace("]", ")")


def cause_lines(causes: Sequence[Mapping[str, Any]], limit: int = 20) -> list[str]:
    """Return causes as lines: status, number of hosts, message, action, the first hosts."""
    lines = []
    for cause in causes[:limit]:
        hosts = ", ".join(cause["hosts"][:3])
        more = ""
        if len(cause["hosts"]) > 3:
            more = f" and {len(cause['hosts']) - 3} more"
        title = cause["title"]
        if cause["action"] != "none":
            title += f" [{cause['action']}]"
        text = f"{cause['status']}: {title}: {hosts}{more}"
        lines.append(clean(f"{human_count(len(cause['hosts']), 'host')} {text}", 300))
    if len(causes) > limit:
        lines.append(f"and {len(causes) - limit} more causes")
    return lines


def last_lines(report: Mapping[str, Any], page: str | None) -> list[str]:
    """Return the end of the run on the screen: what is new, and where the page is."""
    changes = report["changes"]
    lines = []
    if changes["since"] is not None:
        lines.append(f"Since {changes['since']}: {counts(changes)}")
        causes = fleet_faults.causes([*changes["new"], *changes["worse"]])
        lines += [f"new: {line}" for line in cause_lines(causes, 5)]
    if page:
        lines.append(f"Report: {page}")
    return lines


_SIGNS = {"new": "+", "gone": "-", "worse": "!", "better": "~"}


def text(changes: Mapping[str, Any]) -> list[str]:
    """Return the changes as lines, as a diff shows them: ``+ host check subject: message``."""
    since = changes["since"]
    lines = [f"since {since}: {counts(changes)}" if since else "no earlier run to compare with"]
    if since is None:
        return lines
    for kind in KINDS:
        for fault in changes[kind]:
            where = " ".join(part for part in (fault["check"], fault["subject"]) if part)
            was = ""
            if "was" in fault:
                was = f" (was {fault['was']})"
            lines.append(
                clean(
                    f"{_SIGNS[kind]} {fault['host']} {where} {fault['status']}{was}:"
                    f" {fault['message']}",
                    600,
                )
            )
    lines += [
        f"  {clean(host, 200)} was in the last run and not in this one"
        for host in changes["absent"]
    ]
    return lines


_MARKDOWN = str.maketrans({mark: "\\" + mark for mark in r"\`*_{}[]()#+-.!|~"})


def _escape(value: str) -> str:
    """Return text that Markdown shows as it is."""
    line = clean(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return line.replace("@", "&#64;").replace("://", ":&#47;&#47;").translate(_MARKDOWN)


def markdown(report: Mapping[str, Any], headline: str) -> str:
    """Return the run as Markdown: verdict, changes, faults by cause."""
    changes = report["changes"]
    lines = [f"# {_escape(report['title'])}: {report['status']}", "", _escape(headline), ""]
    lines += [*(_escape(error) for error in report["errors"]), "", "## Changes", ""]
    if changes["since"] is None:
        lines.append("First run: nothing to compare with.")
    else:
        lines.append(f"Since {_escape(changes['since'])}: {counts(changes)}.")
        lines.append("")
    for kind in KINDS:
        for fault in changes[kind]:
            lines.append(f"- {kind}: **{_escape(fault['host'])}** {_escape(fault['message'])}")
    lines += ["", "## Faults by cause", ""]
    if not report["causes"]:
        lines.append("None.")
    else:
        lines += ["| Status | Fault | Hosts | Action |", "|---|---|---|---|"]
    for cause in report["causes"]:
        hosts = ", ".join(_escape(host) for host in cause["hosts"][:10])
        more = len(cause["hosts"]) - 10
        if more > 0:
            hosts += f" and {more} more"
        lines.append(
            f"| {cause['status']} | {_escape(cause['title'])} | {hosts} |"
            f" {_escape(cause['action'])} |"
        )
    return "\n".join(lines) + "\n"
