# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The earlier runs of a report, and this run added to them. Only for the controller."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    FleetError,
    OptionError,
    StoreError,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import (
    changes,
    history,
    screen,
)
from ansible_collections.mlops.fleet.plugins.plugin_utils import page, run_stores


class KeptRuns:
    """The earlier runs wherever they are kept, and this run added to them.

    A store that can't be reached costs the comparison, not the report of this run.
    """

    def __init__(self, options: t.Any) -> None:
        self._options = options
        self._stores: list[history.Store] = []
        self.problems: list[history.Problem] = []
        self.errors: list[FleetError] = []
        if options.history:
            try:
                self._stores.append(run_stores.open_store(options.history, options.s3))
            except OptionError:
                raise
            except FleetError as error:
                self.errors.append(error)
        if options.dest:
            self._stores.append(history.Directory(options.dest))
        self.runs = Earlier(self._earlier())

    def _earlier(self) -> t.Iterator[dict[str, t.Any]]:
        """Yield the runs to compare with, newest first."""
        given = self._options.previous
        if given:
            try:
                yield history.upgrade(json.loads(given) if isinstance(given, str) else given)
            except ValueError as error:
                self.problems.append(history.Problem("given as previous", str(error)))
        if self._stores and not self.errors:
            try:
                yield from history.earlier(self._stores[0], self.problems)
            except StoreError as error:
                self.errors.append(error)

    def trend(self) -> list[tuple[str, dict[str, float]]]:
        """Return time and metrics of the earlier runs, oldest first."""
        near = all(isinstance(store, history.Directory) for store in self._stores)
        return self.runs.trend(read_all=near)

    def add(self, report: dict[str, t.Any], now: float) -> dict[str, str]:
        """Keep the run in every place; return its files, those in the directory if it has one."""
        options = self._options
        if not self._stores:
            return {}
        texts = {
            "json": json.dumps(report, indent=1, ensure_ascii=False) + "\n",
            "html": page.render(
                report, report["trend"], options.outlier_limit, options.outlier_min_group
            ),
            "md": changes.markdown(report, screen.headline(report)),
        }
        places: dict[str, str] = {}
        for store in self._stores:
            try:
                places.update(store.add(texts, now, options.keep, options.keep_days))
            except FleetError as error:
                if isinstance(store, history.Directory):
                    raise
                self.errors.append(error)
        return {"markdown" if kind == "md" else kind: place for kind, place in places.items()}

    def failure(self) -> dict[str, t.Any]:
        """Return that the task failed, where a store could not be read or written."""
        if not self.errors:
            return {}
        error = self.errors[0]
        return {"failed": True, "msg": str(error), "error": error.to_dict()}


class Earlier:
    """The earlier runs, newest first.

    Of each only what trends and comparisons need stays in memory.
    """

    def __init__(self, documents: t.Iterator[dict[str, t.Any]]) -> None:
        self._documents = documents
        self._metrics: list[tuple[str, dict[str, float]]] = []
        #: What the oldest of the runs that were read says of those before it.
        self._trend: list[tuple[str, dict[str, float]]] = []
        #: When the models of a host were last known to be in a backup.
        self.backed_up: dict[str, str] = {}
        #: Corrected memory errors by host and GPU in the newest run that read them.
        self.corrected: dict[str, dict[str, float]] = {}

    def __iter__(self) -> t.Iterator[dict[str, t.Any]]:
        for document in self._documents:
            self._metrics.append((document["timestamp"], document["metrics"]))
            self._trend = document["trend"]
            for entry in document["hosts"]:
                if entry["backed_up"]:
                    self.backed_up.setdefault(entry["host"], entry["backed_up"])
                if entry.get("corrected"):
                    self.corrected.setdefault(entry["host"], entry["corrected"])
            yield document

    def trend(self, read_all: bool) -> list[tuple[str, dict[str, float]]]:
        """Return time and metrics of the earlier runs, oldest first.

        :param read_all: read all runs; otherwise the newest run, which repeats the metrics of those
            before it, is enough.
        """
        if read_all or not self._metrics:
            for dummy in self:
                if not read_all:
                    break
        metrics = {**dict(self._trend), **dict(self._metrics)}
        return sorted(metrics.items())[-history.TREND :]
