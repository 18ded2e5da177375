# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet report as one HTML file: no script, no external asset, readable on paper and in the dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from .. import verdict
from ..system.text import human_duration, human_size
from . import report as fleet

_LABELS = {verdict.PASS: "ok", fleet.NO_DATA: "no data", verdict.SKIPPED: "not run"}

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#dfe4ea;--page:#f6f7f9;--card:#fff;
--pass:#1a7f4b;--warning:#9a6700;--critical:#c02626;--broken:#7a3ea8;--quiet:#6b7684}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b3;--line:#303844;--page:#14181e;--card:#1c222a;
--pass:#4cc38a;--warning:#e0b04a;--critical:#ff7b72;--broken:#c79bf2;--quiet:#8d98a6}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
main{max-width:78rem;margin:0 auto;padding:1.5rem 1rem 4rem}h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2rem 0 .6rem}
.when{color:var(--soft);margin:0 0 1.2rem}.tiles{display:flex;flex-wrap:wrap;gap:.6rem}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem;min-width:8rem}
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:.85rem}
.heat{display:flex;flex-wrap:wrap;gap:3px}.heat a{width:18px;height:18px;border-radius:3px;background:currentColor}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.45rem .7rem;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}th{color:var(--soft);font-weight:600;font-size:.85rem}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
td:first-child{min-width:8rem}
td small{display:block;color:var(--soft);overflow-wrap:anywhere}
.s{font-weight:600;white-space:nowrap}.pass{color:var(--pass)}.warning{color:var(--warning)}.critical{color:var(--critical)}
.failed,.unreachable,.held,.no_data{color:var(--broken)}.skipped{color:var(--quiet)}
.error{border-left:4px solid var(--critical);padding:.5rem .8rem;background:var(--card);margin:.6rem 0}
code{font-size:.85rem;overflow-wrap:anywhere}ul{margin:.3rem 0;padding-left:1.2rem}
@media print{body{background:#fff}.tile,.scroll{break-inside:avoid}}
"""


def _state(status: str) -> str:
    return f'<span class="s {escape(status)}">{escape(_LABELS.get(status, status))}</span>'


def _tile(value: str, what: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'


def _phase_cell(phase: Mapping[str, Any]) -> str:
    took = "" if phase["duration"] is None else f" {human_duration(phase['duration'])}"
    return (
        f"<td>{_state(phase['status'])}{escape(took)}<small>{escape(phase['message'])}</small></td>"
    )


def _host_row(number: int, entry: Mapping[str, Any]) -> str:
    score = "" if entry["health_score"] is None else f"{entry['health_score']:g}"
    advice = (
        ""
        if entry["recommendation"] == "none"
        else f"<small>recommended: {escape(entry['recommendation'])}</small>"
    )
    cells = "".join(_phase_cell(phase) for phase in entry["phases"])
    took = human_duration(entry["duration"]) if entry["duration"] else ""
    notes = "".join(f"<small>{escape(note)}</small>" for note in entry["notes"])
    name = f"<td><b>{escape(entry['host'])}</b>{advice}{notes}</td>"
    return f'<tr id="h{number}">{name}<td>{_state(entry["status"])}</td><td class="n">{score}</td>{cells}<td class="n">{escape(took)}</td></tr>'


def _problems(report: Mapping[str, Any]) -> str:
    parts = []
    for entry in report["hosts"]:
        if entry["problems"]:
            rest = entry["problems_total"] - len(entry["problems"])
            listed = "".join(f"<li>{escape(problem)}</li>" for problem in entry["problems"])
            more = f"<li>and {rest} more</li>" if rest else ""
            parts.append(f"<h3>{escape(entry['host'])}</h3><ul>{listed}{more}</ul>")
    return f"<h2>What is wrong</h2>{''.join(parts)}" if parts else ""


def _backups(report: Mapping[str, Any]) -> str:
    rows = []
    for entry in report["hosts"]:
        made = entry["backup"]
        if made:
            proof = _state(verdict.PASS if made.get("verified") else verdict.WARNING)
            size = human_size(float(made.get("size") or 0))
            path, digest = escape(str(made.get("path", ""))), escape(str(made.get("sha256", "")))
            where = f"<td><code>{path}</code><small>sha256 {digest}</small></td>"
            rows.append(
                f"<tr><td><b>{escape(entry['host'])}</b></td>{where}<td class='n'>{escape(size)}</td><td>{proof}</td></tr>"
            )
    if not rows:
        return ""
    head = "<tr><th>Host</th><th>Backup</th><th>Size</th><th>Verified</th></tr>"
    return f'<h2>Backups</h2><div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def render(report: Mapping[str, Any]) -> str:
    """Return the report (as made by C(fleet.report.assemble)) as a complete HTML document. All text in it is escaped."""
    summary = report["summary"]
    title = escape(report["title"])
    tiles = [_tile(str(summary["hosts"]), "hosts targeted")]
    tiles += [
        _tile(str(count), _LABELS.get(state, state))
        for state, count in summary["states"].items()
        if count
    ]
    if summary["score_min"] is not None:
        tiles.append(_tile(f"{summary['score_min']:g}", "lowest health score"))
    tiles += [
        _tile(str(summary["backups_verified"]), "verified backups"),
        _tile(human_size(summary["freed_bytes"]), "freed"),
    ]
    heat = ""
    if len(report["hosts"]) > 12:
        squares = "".join(
            f'<a href="#h{i}" class="{escape(e["status"])}" title="{escape(e["host"])}: {escape(e["status"])}"></a>'
            for i, e in enumerate(report["hosts"])
        )
        heat = f'<h2>All hosts at a glance</h2><div class="heat">{squares}</div>'
    errors = "".join(f'<p class="error">{escape(error)}</p>' for error in report["errors"])
    avoid = ""
    if summary["do_not_schedule"]:
        avoid = f"<h2>Give no work to these hosts</h2><code>{escape(','.join(summary['do_not_schedule']))}</code>"
    phases = [phase.upper() if phase == "gpu" else phase.capitalize() for phase in report["phases"]]
    heads = "".join(
        f"<th>{escape(name)}</th>" for name in ("Host", "State", "Score", *phases, "Time")
    )
    rows = "".join(_host_row(i, entry) for i, entry in enumerate(report["hosts"]))
    mode = " (check mode: nothing was changed)" if report["check_mode"] else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}: {escape(report['status'])}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{title}: {_state(report["status"])}</h1><p class="when">{escape(report["timestamp"])}{mode}</p>'
        f'{errors}<div class="tiles">{"".join(tiles)}</div>{heat}{avoid}'
        f'<h2>Hosts and phases</h2><div class="scroll"><table><tr>{heads}</tr>{rows}</table></div>'
        f"{_problems(report)}{_backups(report)}</main></body></html>\n"
    )
