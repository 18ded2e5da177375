# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nvidia-smi, for nodes without pynvml: one CSV query for the GPUs and one for remapped rows.

It ends with the NVML code of what went wrong (9 no driver, 12 no library, 15 a GPU is lost, 18
mismatch, ...; "RETURN VALUE" in its manual), and refuses a whole query for one field it does not
know, so such fields are dropped and the query is repeated.
"""

from __future__ import annotations

import csv
import math
import re
import time
from collections.abc import Sequence
from typing import Any

from ..errors import CommandFailed
from ..ports import CommandResult, World
from ..records import NamedTuple
from .reading import (
    CORRUPTED_INFOROM,
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    LIBRARY_NOT_FOUND,
    MISMATCH,
    NO_PERMISSION,
    NOT_FOUND,
    RESET_REQUIRED,
    UNKNOWN_ERROR,
    UNREADABLE,
    Ecc,
    Gpu,
    Pcie,
    Reading,
    Remap,
    Retired,
    bus_id,
)

#: Field of --query-gpu -> where it goes. The order is the one asked in.
FIELDS = {
    "index": "id",
    "name": "name",
    "uuid": "uuid",
    "serial": "serial",
    "pci.bus_id": "bus_id",
    "vbios_version": "vbios",
    "driver_version": "driver_version",
    "temperature.gpu": "temp",
    "temperature.memory": "temp_memory",
    "temperature.gpu.tlimit": "margin",
    "fan.speed": "fan",
    "utilization.gpu": "util_gpu",
    "utilization.memory": "util_mem",
    "memory.used": "mem_used",
    "memory.total": "mem_total",
    "power.draw": "power_draw",
    "enforced.power.limit": "power_limit",
    "power.limit": "power_limit_set",
    "pstate": "pstate",
    "clocks.sm": "clock_sm",
    "clocks.mem": "clock_mem",
    "clocks_throttle_reasons.active": "clock_reasons",
    "ecc.mode.current": "ecc.mode",
    "ecc.errors.corrected.volatile.total": "ecc.volatile_corrected",
    "ecc.errors.uncorrected.volatile.total": "ecc.volatile_uncorrected",
    "ecc.errors.corrected.aggregate.total": "ecc.aggregate_corrected",
    "ecc.errors.uncorrected.aggregate.total": "ecc.aggregate_uncorrected",
    "retired_pages.single_bit_ecc.count": "retired.single_bit",
    "retired_pages.double_bit.count": "retired.double_bit",
    "retired_pages.pending": "retired.pending",
    "pcie.link.gen.current": "pcie.gen",
    "pcie.link.gen.max": "pcie.gen_max",
    "pcie.link.width.current": "pcie.width",
    "pcie.link.width.max": "pcie.width_max",
    "persistence_mode": "persistence",
    "mig.mode.current": "mig",
    "gpu_recovery_action": "recovery",
}
#: Asked where the first name is not known.
_RENAMED = {"clocks_throttle_reasons.active": "clocks_event_reasons.active"}
_ROWS = (
    "gpu_uuid",
    "remapped_rows.correctable",
    "remapped_rows.uncorrectable",
    "remapped_rows.pending",
    "remapped_rows.failure",
)
_TEXTS = frozenset({"name", "uuid", "serial", "bus_id", "vbios", "driver_version"})
_FLOATS = frozenset({"power_draw", "power_limit", "power_limit_set"})
_FLAGS = frozenset({"ecc.mode", "retired.pending", "persistence", "mig"})
_RECOVERIES = {
    "none": 0,
    "reset": 1,
    "gpu reset": 1,
    "reboot": 2,
    "node reboot": 2,
    "drain p2p": 3,
    "drain and reset": 4,
    "recover imex domain": 5,
    "bus reset": 6,
    "system reboot": 7,
}

#: Characters of its output that are read; thousands of GPUs would fit.
_MUCH = 1 << 20
#: What stands in a field, lower case without brackets, when there is no value.
_NOTHING = frozenset(
    {
        "",
        "n/a",
        "not supported",
        "not available",
        "not active",
        "requested functionality has been deprecated",
        "deprecated",
    }
)
#: Part of a message -> NVML code; the first that fits.
_TEXT_CODES = (
    ("gpu is lost", GPU_IS_LOST),
    ("fallen off the bus", GPU_IS_LOST),
    ("requires reset", RESET_REQUIRED),
    ("requires restart", RESET_REQUIRED),
    ("reset required", RESET_REQUIRED),
    ("version mismatch", MISMATCH),
    ("couldn't communicate with the nvidia driver", DRIVER_NOT_LOADED),
    ("driver not loaded", DRIVER_NOT_LOADED),
    ("couldn't find libnvidia-ml", LIBRARY_NOT_FOUND),
    ("infrorom is corrupted", CORRUPTED_INFOROM),
    ("inforom is corrupted", CORRUPTED_INFOROM),
    ("insufficient permissions", NO_PERMISSION),
    ("no devices were found", NOT_FOUND),
    ("unknown error", UNKNOWN_ERROR),
)
_BAD_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
_DEAD = re.compile(
    r"Unable to determine the device handle for gpu ?(?:\d+: )?"
    r"([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])?:? ?(.*)",
    re.IGNORECASE,
)
_BAD_INFOROM = re.compile(r"info?r?ROM is corrupted at gpu ([0-9a-f:.]*[0-9a-f])", re.IGNORECASE)


def code_of(message: str) -> int:
    """Return the NVML code that a message stands for, UNREADABLE when none is known."""
    lower = message.lower()
    return next((code for text, code in _TEXT_CODES if text in lower), UNREADABLE)


def session(timeout: float, world: World) -> Reading:
    """Ask nvidia-smi.

    :param timeout: seconds for all calls together; what takes longer is killed and sets ``hung``.
    :raises CommandFailed: nvidia-smi is not installed.
    """
    deadline = time.monotonic() + timeout
    reading = Reading(backend="nvidia_smi")
    fields = list(FIELDS)
    while True:
        result = _query("gpu", fields, deadline, world)
        if result is None:
            reading.hung = "nvidia-smi --query-gpu"
            return reading
        bad = set(_BAD_FIELD.findall(result.stdout + result.stderr)) & set(fields)
        if not bad:
            break
        fields = [
            _RENAMED[name] if name in bad else name
            for name in fields
            if name not in bad or name in _RENAMED
        ]
    _read_gpus(reading, fields, result)
    if any(gpu.uuid for gpu in reading.gpus):
        rows = _query("remapped-rows", _ROWS, deadline, world)
        if rows is None:
            reading.hung = "nvidia-smi --query-remapped-rows"
        elif rows.returncode == 0:
            _read_rows(reading, rows.stdout)
    return reading


def _query(kind: str, fields: Sequence[str], deadline: float, world: World) -> CommandResult | None:
    """Return the result of a query, None when it did not end in time."""
    argv = ["nvidia-smi", f"--query-{kind}=" + ",".join(fields), "--format=csv,noheader,nounits"]
    try:
        return world.run(argv, timeout=max(0.1, deadline - time.monotonic()))
    except CommandFailed:
        if time.monotonic() >= deadline:
            return None
        raise


def _columns(line: str, fields: Sequence[str]) -> list[str]:
    """Split a line of CSV. The program quotes nothing, so extra commas may belong to the name.

    They do when the identifier behind the name is then in its place; else the row stays too long.
    """
    try:
        values = next(csv.reader([line], skipinitialspace=True), [])
    except csv.Error:
        values = []
    if len(values) != len(fields):
        values = line.split(",")
        more = len(values) - len(fields)
        if 0 < more < 10 and "name" in fields and "uuid" in fields:
            start, uuid = fields.index("name"), fields.index("uuid") + more
            if values[uuid].strip().startswith(("GPU-", "[")):
                values[start : start + more + 1] = [",".join(values[start : start + more + 1])]
    return [value.strip() for value in values]


class _Output(NamedTuple):
    """The program's lines, sorted by what they are."""

    rows: list[list[str]]
    dead: list[tuple[str | None, str]]  # address if known, explanation
    bad_inforom: set[str]


def _sort_lines(text: str, fields: list[str]) -> _Output:
    output = _Output([], [], set())
    for line in text.splitlines():
        if not line.strip():
            continue
        lost, inforom = _DEAD.search(line), _BAD_INFOROM.search(line)
        values = _columns(line, fields)
        if lost:
            output.dead.append((lost[1], lost[2] or line))
        elif inforom:
            output.bad_inforom.add(inforom[1].upper())
        elif len(values) == len(fields):
            output.rows.append(values)
        elif len(values) > 1 and values[0].isdigit():
            count = f"{len(values)} values for {len(fields)} fields"
            output.dead.append((_address(values), f"{count}: {line.strip()[:200]!r}"))
    return output


def _address(values: Sequence[str]) -> str | None:
    return next((value for value in values if bus_id(value) is not None), None)


def _read_gpus(reading: Reading, fields: list[str], result: CommandResult) -> None:
    output = _sort_lines(result.stdout[:_MUCH] + "\n" + result.stderr[:_MUCH], fields)
    for values in output.rows:
        reading.gpus.append(_gpu(dict(zip(fields, values)), reading))
    for bus, text in output.dead:
        gpu = Gpu(_free_index(reading), bus_id=bus)
        code = code_of(text)
        gpu.fail("device handle", UNKNOWN_ERROR if code == UNREADABLE else code, text.strip())
        reading.gpus.append(gpu)
    for gpu in reading.gpus:
        if (gpu.bus_id or "").upper() in output.bad_inforom:
            gpu.fail("InfoROM", CORRUPTED_INFOROM, "Corrupted infoROM")
    reading.gpus.sort(key=lambda gpu: gpu.id)
    reading.count = len(reading.gpus)
    _read_status(reading, result)


def _read_status(reading: Reading, result: CommandResult) -> None:
    """Take what the exit status says beyond the rows."""
    printed = (result.stdout + result.stderr).strip()
    # 255 and other large numbers are the program's own; its text says more.
    status = 0
    if 0 < result.returncode < 100:
        status = result.returncode
    if not reading.gpus and result.returncode:
        code = code_of(printed)
        reading.code = code
        if code == UNREADABLE and status:
            reading.code = status
        nothing = f"nvidia-smi ended with {result.returncode} and said nothing"
        reading.text = " ".join(printed.split())[:300] or nothing
        if reading.code == NOT_FOUND:  # no GPU is an answer, not an error
            reading.code, reading.count = 0, 0
    elif not reading.gpus:
        if "no devices were found" not in printed.lower():
            reading.code, reading.text = (
                UNREADABLE,
                "nvidia-smi said nothing that can be understood",
            )
    elif result.returncode and not any(gpu.faults for gpu in reading.gpus):
        reading.text = f"nvidia-smi ended with {result.returncode}"
        code = status or UNKNOWN_ERROR
        query = "nvidia-smi"
        if code == CORRUPTED_INFOROM:
            query = "InfoROM"
        explanation = f"ended with {result.returncode}, which GPU it means is not known"
        reading.gpus[0].fail(query, code, explanation)


def _free_index(reading: Reading) -> int:
    taken = {gpu.id for gpu in reading.gpus}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _gpu(row: dict[str, str], reading: Reading) -> Gpu:
    gpu = Gpu(_free_index(reading))
    groups: dict[str, dict[str, Any]] = {"ecc": {}, "retired": {}, "pcie": {}}
    for field, text in row.items():
        key = FIELDS.get(field, "clock_reasons")
        value = _value(key, text, field, gpu)
        group, dot, name = key.partition(".")
        if dot:
            groups[group][name] = value
        elif key == "driver_version":
            reading.driver_version = reading.driver_version or value
        elif key == "id":
            if value is not None and all(other.id != value for other in reading.gpus):
                gpu.id = value
        elif key == "power_limit_set":
            if gpu.power_limit is None:
                gpu.power_limit = value
        else:
            setattr(gpu, key, value)
    gpu.ecc, gpu.pcie = Ecc(**groups["ecc"]), Pcie(**groups["pcie"])
    retired = Retired(**groups["retired"])
    if retired != Retired():
        gpu.retired = retired
    return gpu


def _value(key: str, text: str, field: str, gpu: Gpu) -> Any:
    bare = text.strip().strip("[]").strip()
    lower = bare.lower()
    # "Not Active" is a value of flags elsewhere; here it means none, as do all forms of N/A.
    if lower in _NOTHING:
        return None
    error = any(part in lower for part in ("error", "gpu is lost", "requires reset"))
    if error or text.strip().startswith("["):
        code = code_of(bare)
        gpu.fail(field, UNKNOWN_ERROR if code == UNREADABLE else code, bare)
        return None
    if key in _TEXTS:
        return bare
    if key in _FLAGS:
        return {"enabled": True, "yes": True, "disabled": False, "no": False}.get(lower)
    try:
        return _parse(key, bare)
    except ValueError:
        gpu.fail(field, UNREADABLE, f"not understood: {bare[:40]!r}")
        return None


def _parse(key: str, text: str) -> int | float:
    """Return a number. :raises ValueError: it is none."""
    if key == "recovery":
        if text.lower() not in _RECOVERIES:
            raise ValueError(text)
        return _RECOVERIES[text.lower()]
    if key == "clock_reasons":
        return int(text, 16)
    if key == "pstate":
        return int(text.lstrip("Pp"))
    number = float(text.split()[0])
    if not math.isfinite(number):
        raise ValueError(text)
    if key in _FLOATS:
        return number
    return int(number)


def _read_rows(reading: Reading, text: str) -> None:
    by_uuid = {gpu.uuid: gpu for gpu in reading.gpus}
    for line in text[:_MUCH].splitlines():
        values = _columns(line, _ROWS)
        gpu = by_uuid.get(values[0]) if len(values) == len(_ROWS) else None
        if gpu is None:
            continue
        corrected, uncorrected, pending, failure = (value.lower() for value in values[1:])
        if corrected.isdigit() and uncorrected.isdigit():
            gpu.remap = Remap(
                int(corrected),
                int(uncorrected),
                pending=pending in ("1", "yes"),
                failure=failure in ("1", "yes"),
            )
