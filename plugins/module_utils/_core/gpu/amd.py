# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AMD's GPUs through the JSON of ``amd-smi`` (experimental: tested on samples in the published
format only).

The JSON differs between releases of ROCm: a list, or an object with ``gpu_data``; values are
numbers, text, or an object of value and unit; ``N/A`` where there is none. What is not there is
None.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

from ..errors import CommandFailed
from ..ports import World
from .reading import LIBRARY_NOT_FOUND, UNREADABLE, Ecc, Gpu, Limits, Pcie, Reading

BACKEND = "amd_smi"
#: Bytes of a megabyte as amd-smi prints it, and of other units, in MiB.
_SIZES = {"B": 1 / (1 << 20), "KB": 1 / 1024, "MB": 1.0, "GB": 1024.0}


def session(timeout: float, world: World) -> Reading | None:
    """Ask for everything, None where amd-smi is not installed.

    :param timeout: seconds for all queries together.
    """
    deadline = time.monotonic() + timeout
    reading = Reading(backend=BACKEND)
    answers: dict[str, list[Any]] = {}
    for query in ("static", "metric", "list"):
        try:
            result = world.run(
                ["amd-smi", query, "--json"], timeout=max(0.1, deadline - time.monotonic())
            )
        except CommandFailed as error:
            if not _installed(world):
                return None
            if error.code == CommandFailed.TIMED_OUT or time.monotonic() >= deadline:
                reading.hung = f"amd-smi {query}"
                return reading
            return _failed(reading, error.message)
        entries = _entries(result.stdout)
        if entries is None and query != "list":
            printed = " ".join((result.stderr or result.stdout).split())[:300]
            return _failed(reading, printed or f"amd-smi {query} printed no JSON")
        answers[query] = entries or []
    metrics = {_number(entry.get("gpu")): entry for entry in answers["metric"]}
    listed = {_number(entry.get("gpu")): entry for entry in answers["list"]}
    for index, entry in enumerate(answers["static"]):
        number = _number(entry.get("gpu"))
        if number is None:
            number = index
        gpu = _gpu(int(number), entry, metrics.get(number, {}), listed.get(number, {}))
        reading.gpus.append(gpu)
        reading.driver_version = reading.driver_version or _text(_at(entry, "driver.version"))
    reading.count = len(reading.gpus)
    return reading


def _installed(world: World) -> bool:
    path = f"{world.environ.get('PATH', os.defpath)}:/opt/rocm/bin:/usr/local/bin"
    return shutil.which("amd-smi", path=path) is not None


def absent() -> Reading:
    """Return the reading of a node without amd-smi that asks for it."""
    return Reading(BACKEND, LIBRARY_NOT_FOUND, "amd-smi is not installed")


def _failed(reading: Reading, text: str) -> Reading:
    reading.code, reading.text = UNREADABLE, text
    return reading


def _entries(text: str) -> list[Any] | None:
    """Return the GPUs of an answer, None where it is no JSON of that kind."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, Mapping):
        content = content.get("gpu_data", [content] if "gpu" in content else None)
    if not isinstance(content, list):
        return None
    return [entry for entry in content if isinstance(entry, Mapping)]


def _at(entry: Any, path: str) -> Any:
    """Return the value at a dotted path, None where it ends before."""
    for key in path.split("."):
        if not isinstance(entry, Mapping):
            return None
        entry = entry.get(key)
    return entry


def _text(value: Any) -> str | None:
    if isinstance(value, str) and value.strip().upper() not in ("", "N/A"):
        return value
    return None


def _number(value: Any) -> float | None:
    """Return a number of any form, None for N/A."""
    if isinstance(value, Mapping):
        value = value.get("value")
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = (value.split() or [""])[0]
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if abs(number) < 1e18:
        return number
    return None


def _whole(entry: Any, *paths: str) -> int | None:
    """Return the first of several values that is a number."""
    for path in paths:
        number = _number(_at(entry, path))
        if number is not None:
            return round(number)
    return None


def _mib(entry: Any, *paths: str) -> int | None:
    for path in paths:
        value = _at(entry, path)
        number = _number(value)
        if number is not None:
            unit = "MB"
            if isinstance(value, Mapping):
                unit = str(value.get("unit", "MB"))
            return round(number * _SIZES.get(unit.upper(), 1.0))
    return None


def _gpu(number: int, static: Any, metric: Any, listed: Any) -> Gpu:
    serial = _text(_at(static, "asic.asic_serial")) or _text(_at(static, "board.product_serial"))
    generation = (_text(_at(static, "bus.pcie_interface_version")) or "").rpartition(" ")[2]
    return Gpu(
        number,
        name=_text(_at(static, "asic.market_name")) or _text(_at(static, "board.product_name")),
        uuid=_text(_at(listed, "uuid")) or _text(_at(static, "uuid")),
        serial=serial,
        bus_id=_text(_at(static, "bus.bdf")) or _text(_at(listed, "bdf")),
        vbios=_text(_at(static, "vbios.version")) or _text(_at(static, "vbios.part_number")),
        temp=_whole(metric, "temperature.hotspot", "temperature.edge"),
        temp_memory=_whole(metric, "temperature.mem"),
        thresholds=Limits(
            shutdown=_whole(static, "limit.shutdown_hotspot_temperature") or None,
            slowdown=_whole(static, "limit.slowdown_hotspot_temperature") or None,
            mem_max=_whole(static, "limit.slowdown_vram_temperature") or None,
        ),
        fan=_whole(metric, "fan.usage"),
        util_gpu=_whole(metric, "usage.gfx_activity"),
        util_mem=_whole(metric, "usage.umc_activity"),
        mem_used=_mib(metric, "mem_usage.used_vram"),
        mem_total=_mib(metric, "mem_usage.total_vram") or _mib(static, "vram.size"),
        power_draw=_number(_at(metric, "power.socket_power")),
        power_limit=_number(_at(static, "limit.socket_power"))
        or _number(_at(static, "limit.max_power")),
        clock_sm=_whole(metric, "clock.gfx_0.clk"),
        clock_mem=_whole(metric, "clock.mem_0.clk"),
        ecc=Ecc(
            volatile_corrected=_whole(metric, "ecc.total_correctable_count"),
            volatile_uncorrected=_whole(metric, "ecc.total_uncorrectable_count"),
        ),
        pcie=Pcie(
            width=_whole(metric, "pcie.width"),
            width_max=_whole(static, "bus.max_pcie_width"),
            gen_max=int(generation) if generation.isdecimal() else None,
            replays=_whole(metric, "pcie.replay_count"),
        ),
    )
