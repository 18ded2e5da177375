# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier cleanups of this node removed: a report of each, and the numbers of the last ones for the brake."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import NotUsable
from ..ports import World
from ..system.files import atomic_write

#: Runs of a target that the brake compares with.
RUNS = 10
_NUMBERS = "history.json"
_REPORT = re.compile(r"\d{8}T\d{6}Z(-\d+)?\.json")
_DAY = 86400.0


class Amount(NamedTuple):
    """What a run removed from a target: units and bytes."""

    units: int
    size: int


class History:
    """The reports and numbers in a state directory; ``directory`` is "" where nothing is kept."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.amounts: dict[str, list[Amount]] = {}
        if directory:
            self.amounts = dict(_read(os.path.join(directory, _NUMBERS)))

    def largest(self, target: str) -> Amount | None:
        """Return the most units and the most bytes that one of the last runs removed from a target, None without any run."""
        amounts = self.amounts.get(target)
        if not amounts:
            return None
        return Amount(
            max(amount.units for amount in amounts), max(amount.size for amount in amounts)
        )

    def add(
        self, removed: Mapping[str, Amount], report: Mapping[str, Any], now: float, days: float
    ) -> None:
        """Keep a report for so many days, and what it removed by target, and forget older reports. :raises WriteFailed: it can't be written."""
        if not self.directory:
            return
        for target, amount in removed.items():
            self.amounts[target] = [*self.amounts.get(target, []), amount][-RUNS:]
        if removed:
            text = json.dumps(self.amounts, indent=1) + "\n"
            atomic_write(os.path.join(self.directory, _NUMBERS), text)
        if days > 0:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            path, number = os.path.join(self.directory, f"{stamp}.json"), 1
            while os.path.lexists(path):
                number += 1
                path = os.path.join(self.directory, f"{stamp}-{number}.json")
            atomic_write(path, as_text(report))
        self._forget(now - days * _DAY)

    def _forget(self, before: float) -> None:
        limit = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(0.0, before)))
        with contextlib.suppress(OSError):
            for name in os.listdir(self.directory):
                if _REPORT.fullmatch(name) and name[:16] < limit:
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(self.directory, name))


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report as JSON, one line for each entry of its lists: with ``indent`` the encoder of Python takes ten times as long."""
    entries = []
    for key, value in report.items():
        text = json.dumps(value)
        if value and isinstance(value, list) and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        entries.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _read(path: str) -> Iterator[tuple[str, list[Amount]]]:
    """Yield the numbers by target; nothing that can't be understood."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except (OSError, ValueError):
        return
    for target, amounts in document.items() if isinstance(document, dict) else ():
        with contextlib.suppress(TypeError, ValueError):
            yield str(target), [Amount(int(units), int(size)) for units, size in amounts]


def open_history(state_dir: str | None, world: World, needed: bool, check: bool) -> History:
    """Return the history in a state directory; by default the agent's, where there is an agent or the history is needed.

    :param needed: the brake compares with it. :param check: nothing is made. :raises NotUsable: it is needed and can't be made.
    """
    directory = state_dir or world.state("cleanup")
    if not state_dir and not needed and not os.access(os.path.dirname(directory), os.W_OK):
        return History("")
    if not os.path.isdir(directory):
        if check:
            return History("")
        try:
            os.makedirs(directory, mode=0o750)
        except OSError as error:
            if not (needed or state_dir):
                return History("")
            raise NotUsable(
                f"The directory {directory} for the history of the cleanup can't be made: {error.strerror}.",
                "Name another one with state_dir.",
                directory,
            ) from error
    elif not os.access(directory, os.W_OK) and not (needed or state_dir):
        return History("")
    return History(directory)
