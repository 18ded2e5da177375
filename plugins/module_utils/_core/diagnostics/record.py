# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures that each GPU reached in earlier runs, by UUID, and the comparison with them."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import verdict
from ..errors import FleetError, WriteFailed
from ..ports import World
from ..system import files, locks
from ..verdict import Check
from .facts import GpuFacts, Measured

VERSION = 1
#: The runs of a GPU that are kept, the newest. Their median is what the next one is compared with.
RUNS = 10
#: Test, figure, what it is called, unit.
FIGURES = (
    ("device_bandwidth", "rate", "copies inside the GPU", "GB/s"),
    ("host_bandwidth", "host_to_device", "copies from the host", "GB/s"),
    ("host_bandwidth", "device_to_host", "copies to the host", "GB/s"),
    ("compute", "tflops", "arithmetic", "TFLOP/s"),
)

#: Figure -> its values in earlier runs, oldest first.
Values = dict[str, list[float]]


class Record(NamedTuple):
    """The figures of earlier runs by UUID."""

    gpus: dict[str, Values]


class NewerRecord(FleetError):
    """The record was written by a later release."""


def load(path: str) -> tuple[Record, str | None]:
    """Return the record, an empty one where there is none, and what is wrong with the file.

    :raises FleetError: a later release wrote it.
    """
    try:
        content = files.read_json(path)
        if content is None:
            return Record({}), None
        if isinstance(content["version"], int) and content["version"] > VERSION:
            raise NewerRecord(
                f"{path} was written by a later release: it was neither used nor changed.",
                "Update the collection on this node, or name another state_file.",
                path,
            )
        gpus = {
            str(uuid): {str(name): [float(value) for value in row] for name, row in values.items()}
            for uuid, values in content["gpus"].items()
        }
        return Record(gpus), None
    except NewerRecord:
        raise
    except FleetError as error:
        return Record({}), error.message
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return Record({}), f"{path} is not a record of GPU diagnostics."


def compare(
    record: Record, gpus: Sequence[GpuFacts], results: Sequence[Measured], tolerance: float
) -> list[Check]:
    """Return a check for each GPU and figure with a record: is it slower than it was? Pure."""
    by_number = {gpu.number: gpu for gpu in gpus}
    checks = []
    for measured in results:
        gpu = by_number[measured.number]
        before = record.gpus.get(gpu.uuid, {})
        for test, figure, label, unit in FIGURES:
            values = before.get(f"{test}.{figure}")
            rate = measured.figures.get(test, {}).get(figure)
            if not values or rate is None:
                continue
            usual = statistics.median(values)
            limit = usual * (1 - tolerance / 100)
            status, action, domain = verdict.PASS, "none", None
            if rate < limit:
                status, action, domain = verdict.WARNING, "inspect", "node"
            message = f"GPU {gpu.number}: {label} {rate:g} {unit}, {usual:g} in earlier runs"
            checks.append(
                Check(
                    "gpu_test_record",
                    status,
                    message,
                    subject=f"GPU {gpu.number}",
                    value=rate,
                    unit=unit,
                    warn=round(limit, 1),
                    threshold_source="record",
                    action=action,
                    domain=domain,
                )
            )
    return checks


def added(record: Record, gpus: Sequence[GpuFacts], results: Sequence[Measured]) -> Record:
    """Return the record with the figures of this run. Pure."""
    by_number = {gpu.number: gpu for gpu in gpus}
    merged = {
        uuid: {name: list(row) for name, row in values.items()}
        for uuid, values in record.gpus.items()
    }
    for measured in results:
        uuid = by_number[measured.number].uuid
        for test, figure, dummy, dummy in FIGURES:
            rate = measured.figures.get(test, {}).get(figure)
            if uuid and rate is not None and measured.failure is None:
                row = merged.setdefault(uuid, {}).setdefault(f"{test}.{figure}", [])
                row.append(float(rate))
                del row[:-RUNS]
    return Record(merged)


def update(
    path: str, gpus: Sequence[GpuFacts], results: Sequence[Measured], tolerance: float, world: World
) -> list[Check]:
    """Compare with the record in a file and add to it; a file that can't be had is a check."""
    try:
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            try:
                os.mkdir(directory, 0o750)
            except OSError as error:
                raise WriteFailed(
                    f"Can't make {directory} for the state file: {error.strerror}.",
                    "Make it, or name another state_file.",
                    path,
                ) from error
        with locks.lock(path + ".lock", "GPU diagnostics", wait=2.0):
            record, problem = load(path)
            if problem:
                world.warn(f"The record of the GPU diagnostics starts over: {problem}")
            checks = compare(record, gpus, results, tolerance)
            content: dict[str, Any] = {
                "version": VERSION,
                "gpus": added(record, gpus, results).gpus,
            }
            files.atomic_write(path, json.dumps(content, indent=1) + "\n", mode=0o640)
        return checks
    except FleetError as error:
        return [
            Check("gpu_test_state_file", verdict.WARNING, str(error), subject=path, domain="node")
        ]
