# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of mlops.fleet.fleet_report; nothing runs on the nodes."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.mlops.fleet.plugins.action import agent_install
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    FleetError,
    OptionError,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import (
    changes,
    collected,
    faults,
    merge,
    peers,
    record,
    rollout,
    screen,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import report as fleet
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import OptionSet, option
from ansible_collections.mlops.fleet.plugins.plugin_utils import kept_runs, run_stores

#: Message with which the gate fails a host.
GATE = "This host needs attention. The report says why and what to do."


class ReportOptions(OptionSet):
    """Arguments of the task; documented in the module fleet_report."""

    dest: str | None = option(
        type="path", relative_ok=True, help="Directory on the controller that keeps the reports."
    )
    title: str = option(default="Fleet maintenance", help="Title of the report.")
    fail_on: str = option(
        choices=("critical", "warning", "never"),
        default="critical",
        help="Minimum verdict that fails the task.",
    )
    phases: list[str] = option(
        type="list",
        elements="str",
        choices=fleet.PHASES,
        default=list(fleet.PHASES),
        help="Phases to report.",
    )
    prefix: str = option(
        default="maintenance_result_", help="Beginning of the names of the registered results."
    )
    keep: int = option(type="int", minimum=1, default=30, help="Number of reports to keep.")
    keep_days: float | None = option(
        type="float", minimum=0, help="Age in days up to which reports are kept; 0 for any."
    )
    previous: Any = option(
        type="raw", default=None, help="Earlier run to compare with, newer than those in dest."
    )
    history: str | None = option(
        help=(
            "Store that keeps the runs where the controller does not: a bucket or a Git repository."
        )
    )
    s3: dict[str, Any] | None = option(
        type="dict", secret=True, help="Connection to the bucket of history or merge."
    )
    outlier_limit: float = option(
        type="float", minimum=1, default=peers.LIMIT, help="Distance from the median of an outlier."
    )
    outlier_min_group: int = option(
        type="int", minimum=3, default=peers.MINIMUM, help="Smallest number of peers."
    )
    max_fail_percentage: float | None = option(
        type="float", minimum=0, maximum=100, help="Share of failed hosts that stops the rollout."
    )
    max_age: dict[str, Any] | None = option(
        type="dict", help="Hours after which collected results are too old, by phase."
    )
    merge: str | None = option(
        help="Directory or other store with the runs of slices to merge into one."
    )
    merge_hours: float = option(
        type="float", minimum=0, default=24.0, help="Age in hours of the oldest run to merge."
    )
    fail_host: str | None = option(help="Fail the host, with this reason, and write no report.")
    show: bool = option(type="bool", default=True, help="Print the report.")


_SCALARS = frozenset((str, int, float, bool, type(None)))


def plain(value: t.Any) -> t.Any:
    """Return a registered result as plain JSON data: without Ansible's tags, wrappers and lazy
    containers.
    """
    if type(value) in _SCALARS:
        return value
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    return value


def results_of(
    task_vars: dict[str, t.Any], prefix: str, max_age: t.Mapping[str, t.Any] | None = None
) -> tuple[list[str], fleet.Lookup]:
    """Return all hosts the play targets (failed and unreachable ones too) and a look-up of their
    results.

    :param max_age: hours by phase after which results that the playbook collect fetched are too
        old.
    """
    hostvars = task_vars["hostvars"]
    variables: dict[str, t.Any] = {}
    results: dict[str, dict[str, t.Any]] = {}
    ages = {**collected.MAX_AGE, **_hours(max_age or {})}

    def lookup(host: str, phase: str) -> t.Any:
        if host not in results:
            variables[host] = hostvars.get(host) or {}
            fetched = variables[host].get(prefix + "collected")
            results[host] = {}
            if fetched is not None:
                # Not the rest: stdout_lines repeats all that was fetched.
                used = {key: plain(fetched[key]) for key in collected.USED if key in fetched}
                results[host] = collected.results(used, time.time(), ages)
        if phase not in results[host]:
            results[host][phase] = plain(variables[host].get(prefix + phase))
        return results[host][phase]

    return [str(host) for host in task_vars.get("ansible_play_hosts_all") or []], lookup


def _gate_message(task_vars: dict[str, t.Any]) -> str:
    """Return the message with which the gate fails a host: with the page, where there is one."""
    report = task_vars.get("fleet_report_result")
    if not isinstance(report, t.Mapping) or not report.get("html"):
        return GATE
    return f"This host needs attention. Report: {report['html']}"


def _hours(max_age: t.Mapping[str, t.Any]) -> dict[str, float]:
    """Return hours by phase as numbers.

    :raises OptionError: there is no such phase, or it is no number.
    """
    hours = {}
    for phase, value in max_age.items():
        try:
            hours[phase] = float(value)
        except (TypeError, ValueError):
            hours[phase] = -1.0
        if phase not in collected.MAX_AGE or not 0 <= hours[phase] < float("inf"):
            raise OptionError(
                f"Option max_age.{phase} is {value!r}.",
                f"Give hours for phases: {', '.join(collected.MAX_AGE)}.",
                f"max_age.{phase}",
            )
    return hours


class ActionModule(ActionBase):
    """Assembles the report of all targeted hosts from their registered results."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        try:
            options = ReportOptions.from_mapping(plain(self._task.args))
            if options.fail_host is not None:
                # Ansible prints equal messages once; with the name in it, it would print the
                # message with the lines of the task around it for every host.
                host = (task_vars or {}).get("inventory_hostname")
                reason = faults.clean(f"{host} needs attention: {options.fail_host}", 200)
                return {
                    **result,
                    "failed": True,
                    "msg": _gate_message(task_vars or {}),
                    "attention": reason,
                }
            result.update(
                self._brake(options, task_vars or {})
                if options.max_fail_percentage is not None
                else self._report(options, task_vars or {})
            )
        except FleetError as error:
            result.update(failed=True, msg=str(error), error=error.to_dict())
        return result

    def _print(self, lines: t.Iterable[str]) -> None:
        for line in lines:
            self._display.display(line)

    def _brake(self, options: t.Any, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        hosts, lookup = results_of(task_vars, options.prefix)
        reason = rollout.brake(
            ([lookup(host, phase) for phase in options.phases] for host in hosts),
            options.max_fail_percentage,
        )
        if reason:
            self._display.warning(reason)
        return {"changed": False, "held": reason}

    def _assemble(
        self, options: t.Any, task_vars: dict[str, t.Any], now: float
    ) -> dict[str, t.Any]:
        """Return the run over the hosts of this play, from their registered results."""
        hosts, lookup = results_of(task_vars, options.prefix, options.max_age)
        groups = plain(task_vars.get("groups") or {})
        held = {}
        for host in hosts:
            held[host] = rollout.held_host(lookup(host, "brake"), host, groups)
        report = fleet.assemble(
            hosts,
            lookup,
            phases=[phase for phase in fleet.PHASES if phase in options.phases],
            timestamp=now,
            title=options.title,
            fail_on=options.fail_on,
            check_mode=bool(self._task.check_mode),
            held=held,
            version=agent_install.version_of(agent_install.files()),
            tags="all" not in (task_vars.get("ansible_run_tags") or ["all"])
            or bool(task_vars.get("ansible_skip_tags")),
        )
        return record.extend(report, lookup, groups)

    def _report(self, options: t.Any, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        now = time.time()
        report = self._make(options, task_vars, now)
        kept = kept_runs.KeptRuns(options)
        _compare(report, kept, options)
        for problem in kept.problems:
            self._display.warning(f"The report {problem.name} is left out: {problem.reason}.")
        lines = screen.table(report)
        difference = changes.text(report["changes"])
        if len(report["hosts"]) > screen.TABLE_HOSTS:
            # The single hosts are in the page; here are the faults they share.
            lines[-1:-1] = changes.cause_lines(report["causes"])
        printed_diff = difference if self._task.diff else []
        if options.show:
            # Ansible shows the diffs of changed tasks only, and a report changes no host.
            self._print([*printed_diff, *lines])
        paths: dict[str, str] = {}
        if not self._task.check_mode:
            paths = kept.add(report, now)
        for error in kept.errors:
            self._display.error(str(error))
        if options.show:
            self._print(changes.last_lines(report, paths.get("html")))
        result = _result(report, kept, lines)
        if printed_diff:
            result["diff"] = {"prepared": "\n".join(difference) + "\n"}
        return {**result, **paths}

    def _make(self, options: t.Any, task_vars: dict[str, t.Any], now: float) -> dict[str, t.Any]:
        """Return the run: that of this play, or that of the slices."""
        if not options.merge:
            return self._assemble(options, task_vars, now)
        store = run_stores.open_store(options.merge, options.s3)
        return merge.combine(
            merge.recent(store, now, options.merge_hours),
            timestamp=now,
            title=options.title,
            fail_on=options.fail_on,
        )


def _compare(report: dict[str, t.Any], kept: kept_runs.KeptRuns, options: t.Any) -> None:
    """Add to a run what the earlier ones say: changes, outliers, trend, last good backups."""
    report["changes"] = changes.compare(report, kept.runs)
    report["outliers"] = peers.find(
        report,
        limit=options.outlier_limit,
        minimum=options.outlier_min_group,
        before=kept.runs.corrected,
    )
    report["trend"] = kept.trend()
    for entry in report["hosts"]:
        if entry["host"] in kept.runs.backed_up:
            entry.setdefault("backed_up", kept.runs.backed_up[entry["host"]])


def _result(
    report: dict[str, t.Any], kept: kept_runs.KeptRuns, lines: list[str]
) -> dict[str, t.Any]:
    """Return what the module returns, without the places of the files."""
    chat = changes.chat(report)
    summary = {
        name: report[name]
        for name in ("timestamp", "status", "exit_code", "failed_hosts", "errors")
    }
    summary.update(report["summary"])
    summary["chat"] = chat
    summary["changes"] = {kind: len(report["changes"][kind]) for kind in changes.KINDS}
    summary["run"] = _artifact(report)
    return {
        "changed": False,
        "msg": screen.headline(report),
        "failed_hosts": report["failed_hosts"],
        "attention": fleet.attention(report),
        "errors": report["errors"],
        "status": report["status"],
        "exit_code": report["exit_code"],
        "summary": report["summary"],
        "table": lines,
        "changes": report["changes"],
        "causes": report["causes"],
        "chat": chat,
        "left_out_reports": [problem._asdict() for problem in kept.problems],
        # What AWX stores as the job's artifacts and hands to later nodes of a workflow.
        "ansible_stats": {
            "data": {"mlops_fleet": summary},
            "per_host": False,
            "aggregate": False,
        },
        **kept.failure(),
    }


#: Most faults of a run in the job's artifacts: AWX keeps them in its database.
ARTIFACT_FAULTS = 200
#: Most earlier runs whose metrics are in the artifacts.
ARTIFACT_TREND = 14


def _artifact(report: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the run as a small document that a later job can take as ``previous``.

    With more faults than ARTIFACT_FAULTS it holds none, and the later job compares with nothing.
    """
    if sum(len(entry["faults"]) for entry in report["hosts"]) > ARTIFACT_FAULTS:
        return {}
    return {
        **{name: report[name] for name in ("version", "timestamp", "title", "phases", "metrics")},
        "trend": report["trend"][-ARTIFACT_TREND:],
        "hosts": [
            {
                "host": entry["host"],
                "phases": [
                    {"phase": phase["phase"], "status": phase["status"]}
                    for phase in entry["phases"]
                ],
                "faults": entry["faults"],
                "backed_up": entry.get("backed_up", ""),
            }
            for entry in report["hosts"]
        ],
    }
