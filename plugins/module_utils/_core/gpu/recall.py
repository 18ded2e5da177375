# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reading of a child that was given up, from the JSON that it left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .reading import (
    Ecc,
    Fabric,
    Fault,
    Gpu,
    Journal,
    Limits,
    LinkErrors,
    NvLink,
    Pcie,
    Process,
    Reading,
    Remap,
    Retired,
)

#: The fields of a GPU that are records of their own; JSON writes them as lists.
_RECORDS = {
    "t_limits": Limits,
    "thresholds": Limits,
    "ecc": Ecc,
    "remap": Remap,
    "retired": Retired,
    "nvlink": NvLink,
    "pcie": Pcie,
    "fabric": Fabric,
}


def from_json(text: str) -> Reading:
    """Return the reading that to_json() wrote. :raises ValueError, TypeError: it is incomplete."""
    values: dict[str, Any] = json.loads(text)
    gpus = [_gpu(gpu) for gpu in values.pop("gpus")]
    return Reading(gpus=gpus, **values)


def _gpu(values: Mapping[str, Any]) -> Gpu:
    fields = dict(values)
    for key, record in _RECORDS.items():
        if fields[key] is not None:
            fields[key] = record(*fields[key])
    if fields["nvlink"] is not None and fields["nvlink"].errors is not None:
        errors = [LinkErrors(*link) for link in fields["nvlink"].errors]
        fields["nvlink"] = fields["nvlink"]._replace(errors=errors)
    if fields["processes"] is not None:
        fields["processes"] = [Process(*process) for process in fields["processes"]]
    fields["faults"] = [Fault(*fault) for fault in fields["faults"]]
    return Gpu(**fields)


def of(journal: Journal) -> Reading:
    """Return what was known when the child was given up, with ``hung`` set."""
    query, content = journal.content()
    reading = Reading()
    if content:
        try:
            reading = from_json(content.decode("ascii"))
        except (ValueError, TypeError, KeyError):  # interrupted while it was written
            reading = Reading()
    reading.hung = query or "loading the driver's library"
    return reading
