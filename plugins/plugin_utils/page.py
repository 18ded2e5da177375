# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render a run as one HTML file without external parts, with Jinja2. Only for the controller."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import os
import typing as t

import jinja2
from markupsafe import Markup

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import (
    changes,
    page,
    peers,
    storage,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet.faults import causes, severity
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.text import human_duration

ROLE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    "roles",
    "fleet_report",
)


def _text(*path: str) -> str:
    with open(os.path.join(ROLE, *path), encoding="utf-8") as stream:
        return stream.read()


@functools.lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_text("templates", "page.html.j2"))


def render(
    report: t.Mapping[str, t.Any],
    runs: t.Sequence[tuple[str, t.Mapping[str, float]]] = (),
    limit: float = peers.LIMIT,
    minimum: int = peers.MINIMUM,
) -> str:
    """Return the page of a run.

    :param report: a run as ``record.extend`` makes it, with ``changes`` and ``outliers``.
    :param runs: time and metrics of the earlier runs, oldest first.
    """
    script = _text("files", "page.js")
    runbook = json.loads(_text("files", "runbook.json"))
    needed = dict.fromkeys(
        runbook["checks"][cause["check"]]
        for cause in report["causes"]
        if cause["check"] in runbook["checks"]
    )
    packed = json.dumps(page.script_data(report), ensure_ascii=False, separators=(",", ":"))
    data = gzip.compress(packed.encode("utf-8", "replace"), 6, mtime=0)
    states = {host["status"] for host in report["hosts"]}
    return _template().render(
        report=report,
        changes=report["changes"],
        causes_of=causes,
        change_counts=changes.counts(report["changes"]),
        tiles=page.headline_parts(report),
        groups=page.glance(report["hosts"]),
        legend=sorted(states, key=severity, reverse=True),
        outliers=report["outliers"],
        limit=f"{limit:g}",
        minimum=minimum,
        charts=page.trends([*runs, (report["timestamp"], report["metrics"])]),
        tables=storage.tables(report),
        filters=page.filters(report),
        numbers={entry["host"]: number for number, entry in enumerate(report["hosts"])},
        runbook={check: {"id": place} for check, place in runbook["checks"].items()},
        entries=[runbook["entries"][place] for place in needed],
        marks=page.MARKS,
        labels=page.LABELS,
        severity=severity,
        duration=human_duration,
        hosts_text=page.hosts_text,
        # These three are files of this collection, not text of a host.
        style=Markup(_text("files", "page.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode(),
        data=base64.b64encode(data).decode("ascii"),
    )
