# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nvidia-smi, for nodes where it is all there is: one CSV query for the GPUs and one for remapped rows.

It ends with the NVML code of what went wrong (9 no driver, 12 no library, 15 a GPU is lost, 18 mismatch, ...; "RETURN VALUE" in its
manual), and refuses a whole query for one field it does not know, so such fields are dropped and the query is repeated.
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
from . import reading as r

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
#: Words of a message -> NVML code, the first that is in it.
_WORDS = (
    ("gpu is lost", r.GPU_IS_LOST),
    ("fallen off the bus", r.GPU_IS_LOST),
    ("requires reset", r.RESET_REQUIRED),
    ("requires restart", r.RESET_REQUIRED),
    ("reset required", r.RESET_REQUIRED),
    ("version mismatch", r.MISMATCH),
    ("couldn't communicate with the nvidia driver", r.DRIVER_NOT_LOADED),
    ("driver not loaded", r.DRIVER_NOT_LOADED),
    ("couldn't find libnvidia-ml", r.LIBRARY_NOT_FOUND),
    ("infrorom is corrupted", r.CORRUPTED_INFOROM),
    ("inforom is corrupted", r.CORRUPTED_INFOROM),
    ("insufficient permissions", r.NO_PERMISSION),
    ("no devices were found", r.NOT_FOUND),
    ("unknown error", r.UNKNOWN_ERROR),
)
_BAD_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
_DEAD = re.compile(
    r"Unable to determine the device handle for gpu ?(?:\d+: )?([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])?:? ?(.*)",
    re.IGNORECASE,
)
_BAD_INFOROM = re.compile(r"info?r?ROM is corrupted at gpu ([0-9a-f:.]*[0-9a-f])", re.IGNORECASE)


def code_of(text: str) -> int:
    """Return the NVML code that a message of nvidia-smi stands for, UNREADABLE when none is known."""
    lower = text.lower()
    return next((code for words, code in _WORDS if words in lower), r.UNREADABLE)


def session(timeout: float, world: World) -> r.Reading:
    """Ask nvidia-smi.

    :param timeout: seconds for all calls together; what takes longer is killed and gives C(hung).
    :raises CommandFailed: nvidia-smi is not installed.
    """
    deadline = time.monotonic() + timeout
    found = r.Reading(backend="nvidia_smi")
    fields = list(FIELDS)
    while True:
        result = _run(
            ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"],
            deadline,
            world,
        )
        if result is None:
            found.hung = "nvidia-smi --query-gpu"
            return found
        bad = set(_BAD_FIELD.findall(result.stdout + result.stderr)) & set(fields)
        if not bad:
            break
        fields = [
            _RENAMED[name] if name in bad else name
            for name in fields
            if name not in bad or name in _RENAMED
        ]
    _read_gpus(found, fields, result)
    if any(gpu["uuid"] for gpu in found.gpus):
        rows = _run(
            [
                "nvidia-smi",
                "--query-remapped-rows=" + ",".join(_ROWS),
                "--format=csv,noheader,nounits",
            ],
            deadline,
            world,
        )
        if rows is None:
            found.hung = "nvidia-smi --query-remapped-rows"
        elif rows.returncode == 0:
            _read_rows(found, rows.stdout)
    return found


def _run(argv: list[str], deadline: float, world: World) -> CommandResult | None:
    """Return the result, None when it did not end in time."""
    try:
        return world.run(argv, timeout=max(0.1, deadline - time.monotonic()))
    except CommandFailed:
        if time.monotonic() >= deadline:
            return None
        raise


def _columns(line: str, fields: Sequence[str]) -> list[str]:
    """Split a line of CSV. The program quotes nothing, so commas too many belong to the name."""
    try:
        values = next(csv.reader([line], skipinitialspace=True), [])
    except csv.Error:
        values = []
    if len(values) != len(fields):
        values = line.split(",")
        more = len(values) - len(fields)
        if 0 < more < 10 and "name" in fields:
            at = fields.index("name")
            values[at : at + more + 1] = [",".join(values[at : at + more + 1])]
    return [value.strip() for value in values]


def _read_gpus(found: r.Reading, fields: list[str], result: CommandResult) -> None:
    dead = []
    rows = []
    broken_inforom = set()
    for line in (result.stdout[:_MUCH] + "\n" + result.stderr[:_MUCH]).splitlines():
        if not line.strip():
            continue
        lost, inforom = _DEAD.search(line), _BAD_INFOROM.search(line)
        values = _columns(line, fields)
        if lost:
            dead.append((lost[1], lost[2] or line))
        elif inforom:
            broken_inforom.add(inforom[1].upper())
        elif len(values) == len(fields):
            rows.append(values)
        elif len(values) > 1 and values[0].isdigit():
            dead.append((None, f"nvidia-smi said {line.strip()[:200]!r}"))
    for values in rows:
        found.gpus.append(_gpu(dict(zip(fields, values)), found))
    for bus, words in dead:
        gpu = r.blank(_free_index(found))
        gpu["bus_id"] = bus
        code = code_of(words)
        gpu["faults"].append(
            ("device handle", r.UNKNOWN_ERROR if code == r.UNREADABLE else code, words.strip())
        )
        found.gpus.append(gpu)
    for gpu in found.gpus:
        if (gpu["bus_id"] or "").upper() in broken_inforom:
            gpu["faults"].append(("InfoROM", r.CORRUPTED_INFOROM, "Corrupted infoROM"))
    found.gpus.sort(key=lambda gpu: int(gpu["id"]))
    found.count = len(found.gpus)
    if result.returncode and not found.gpus:
        words = (result.stdout + result.stderr).strip()
        code = code_of(words)
        # 255 and other small numbers of the program itself say nothing; its words do.
        known = 0 < result.returncode < 100
        found.code = code if code != r.UNREADABLE or not known else result.returncode
        found.text = (
            " ".join(words.split())[:300]
            or f"nvidia-smi ended with {result.returncode} and said nothing"
        )
        if found.code == r.NOT_FOUND:  # no GPU is an answer, not an error
            found.code, found.count = 0, 0
    elif not found.gpus and "no devices were found" not in (result.stdout + result.stderr).lower():
        found.code, found.text = r.UNREADABLE, "nvidia-smi said nothing that can be understood"
    elif result.returncode and found.gpus and not any(gpu["faults"] for gpu in found.gpus):
        found.text = f"nvidia-smi ended with {result.returncode}"
        code = result.returncode if 0 < result.returncode < 100 else r.UNKNOWN_ERROR
        question = "InfoROM" if code == r.CORRUPTED_INFOROM else "nvidia-smi"
        found.gpus[0]["faults"].append(
            (question, code, f"ended with {result.returncode}, which GPU it means is not known")
        )


def _free_index(found: r.Reading) -> int:
    taken = {gpu["id"] for gpu in found.gpus}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _gpu(row: dict[str, str], found: r.Reading) -> dict[str, Any]:
    gpu = r.blank(_free_index(found))
    nested: dict[str, dict[str, Any]] = {"ecc": gpu["ecc"], "retired": {}, "pcie": gpu["pcie"]}
    for field, text in row.items():
        key = FIELDS.get(field, "clock_reasons")
        value = _value(key, text, field, gpu)
        group, dot, name = key.partition(".")
        if key == "driver_version":
            found.driver_version = found.driver_version or value
        elif dot:
            nested[group][name] = value
        elif key == "id":
            gpu["id"] = (
                _free_index(found)
                if value is None or any(other["id"] == value for other in found.gpus)
                else value
            )
        elif key == "power_limit_set":
            gpu["power_limit"] = value if gpu["power_limit"] is None else gpu["power_limit"]
        elif key == "pstate" or key in r.KEYS:
            gpu[key] = value
    retired = nested["retired"]
    gpu["retired"] = retired if any(value is not None for value in retired.values()) else None
    return gpu


def _value(key: str, text: str, field: str, gpu: dict[str, Any]) -> Any:
    bare = text.strip().strip("[]").strip()
    lower = bare.lower()
    # "Not Active" is a value of flags elsewhere; here it means none, as do all forms of N/A.
    if lower in _NOTHING:
        return None
    if (
        text.strip().startswith("[")
        or "error" in lower
        or "gpu is lost" in lower
        or "requires reset" in lower
    ):
        code = code_of(bare)
        gpu["faults"].append((field, r.UNKNOWN_ERROR if code == r.UNREADABLE else code, bare))
        return None
    if key in _TEXTS:
        return bare
    if key in _FLAGS:
        return {"enabled": True, "yes": True, "disabled": False, "no": False}.get(lower)
    if key == "recovery" and lower in _RECOVERIES:
        return _RECOVERIES[lower]
    try:
        if key == "recovery":
            raise ValueError(bare)
        if key == "clock_reasons":
            return int(bare, 16)
        if key == "pstate":
            return int(bare.lstrip("Pp"))
        number = float(bare.split()[0])
        if not math.isfinite(number):
            raise ValueError(bare)
    except ValueError:
        gpu["faults"].append((field, r.UNREADABLE, f"not understood: {bare[:40]!r}"))
        return None
    return number if key in _FLOATS else int(number)


def _read_rows(found: r.Reading, text: str) -> None:
    by_uuid = {gpu["uuid"]: gpu for gpu in found.gpus}
    for line in text[:_MUCH].splitlines():
        values = _columns(line, _ROWS)
        gpu = by_uuid.get(values[0]) if len(values) == len(_ROWS) else None
        if gpu is None:
            continue
        corrected, uncorrected, pending, failure = (value.lower() for value in values[1:])
        if corrected.isdigit() and uncorrected.isdigit():
            gpu["remap"] = {
                "corrected": int(corrected),
                "uncorrected": int(uncorrected),
                "pending": pending in ("1", "yes"),
                "failure": failure in ("1", "yes"),
            }
