# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other makers' tests: NVIDIA's ``dcgmi diag`` and ``nvbandwidth``, their JSON as our figures and
checks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from .. import verdict
from ..errors import CommandFailed, NotUsable
from ..ports import World
from ..registry import Registry
from ..system.locks import lock, lock_directory
from ..verdict import Check
from .facts import GpuFacts, Measured, Outcome
from .plan import Plan


class Results(NamedTuple):
    """What a program measured: figures as the builtin engine has them, and checks of its own."""

    outcome: Outcome
    checks: list[Check]


class Engine(NamedTuple):
    """A program that tests GPUs.

    :param name: value of the option ``engine``. :param program: what must be installed.
    :param arguments: of the program, for a plan. :param read: makes results of its JSON.
    """

    name: str
    program: str
    documentation: str
    arguments: Callable[[Plan], list[str]]
    read: Callable[[Plan, Any], Results]


def run(name: str, plan: Plan, world: World) -> Results:
    """Run a program's tests on the GPUs of a plan.

    :raises NotUsable: it is not installed. :raises LockBusy: other diagnostics run on this node.
    """
    engine = ENGINES[name]
    if not plan.gpus:
        return Results(Outcome((), (), None), [])
    visible = ",".join(gpu.uuid for gpu in plan.gpus if gpu.uuid)
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if visible and engine.name == "nvbandwidth":
        environment["CUDA_VISIBLE_DEVICES"] = visible
    with lock(os.path.join(lock_directory(), "gpu-diagnostics.lock"), "GPU diagnostics"):
        try:
            argv = [engine.program, *engine.arguments(plan)]
            result = world.run(argv, timeout=plan.level.timeout, env=environment)
        except CommandFailed as error:
            if error.code == CommandFailed.MISSING:
                raise NotUsable(
                    f"The engine {name} needs the program {engine.program}, which is not"
                    " installed.",
                    "Install it, or set engine to builtin.",
                    "engine",
                ) from error
            return _failed(plan, engine, error.message, "reset_gpu")
    document = _json(result.stdout)
    if document is None:
        printed = " ".join((result.stderr or result.stdout).split())[-300:]
        text = printed or f"{engine.program} ended with {result.returncode} and printed nothing"
        return _failed(plan, engine, f"no result: {text}", "inspect")
    try:
        return engine.read(plan, document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        text = f"its result can't be read: {type(error).__name__}: {error}"
        return _failed(plan, engine, text, "inspect")


def _json(text: str) -> Any:
    """Return the JSON object in a program's output, which may have lines before it; None
    without.
    """
    start = text.find("{")
    if start < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(text[start:])[0]
    except (ValueError, RecursionError):
        return None


def _unmeasured(plan: Plan) -> tuple[Measured, ...]:
    return tuple(Measured(gpu.number, {}, {}, None) for gpu in plan.gpus)


def _failed(plan: Plan, engine: Engine, text: str, action: str) -> Results:
    check = Check(
        "gpu_test",
        verdict.CRITICAL,
        f"{engine.program}: {text}",
        subject=engine.program,
        action=action,
        domain="node",
    )
    return Results(Outcome(_unmeasured(plan), (), None), [check])


# --- dcgm -------------------------------------------------------------------------------------

#: Our level -> DCGM's. 1 takes seconds, 2 about two minutes, 3 half an hour.
_DCGM_LEVELS = {"quick": "1", "standard": "2", "soak": "3"}
#: Part of a test's name -> our check; the first that fits.
_DCGM_TESTS = (
    ("memory_bandwidth", "gpu_test_device_bandwidth"),
    ("memory bandwidth", "gpu_test_device_bandwidth"),
    ("memory", "gpu_test_memory"),
    ("memtest", "gpu_test_memory"),
    ("pcie", "gpu_test_host_to_device"),
    ("nvbandwidth", "gpu_test_peer"),
    ("nccl", "gpu_test_peer"),
    ("eud", "gpu_test_compute"),
    ("diagnostic", "gpu_test_compute"),
    ("stress", "gpu_test_compute"),
    ("targeted", "gpu_test_compute"),
    ("pulse", "gpu_test_compute"),
)
_DCGM_STATUSES = {
    "pass": verdict.PASS,
    "fail": verdict.CRITICAL,
    "warn": verdict.WARNING,
    "skip": verdict.SKIPPED,
    "not run": verdict.SKIPPED,
    "notrun": verdict.SKIPPED,
}
#: Severity of a warning (dcgm_errors.h) -> status and action: monitor, isolate, unknown, triage,
#: configuration, reset.
_DCGM_SEVERITIES = {
    1: (verdict.WARNING, "inspect"),
    2: (verdict.CRITICAL, "drain"),
    4: (verdict.CRITICAL, "inspect"),
    5: (verdict.WARNING, "inspect"),
    6: (verdict.CRITICAL, "reset_gpu"),
}


def _dcgm_arguments(plan: Plan) -> list[str]:
    gpus = ",".join(str(gpu.number) for gpu in plan.gpus)
    return ["diag", "-r", _DCGM_LEVELS[plan.level.name], "-i", gpus, "-j"]


def _dcgm(plan: Plan, document: Any) -> Results:
    """Read ``dcgmi diag -j`` of DCGM 2 to 4: categories, tests, and a result for each GPU."""
    names = ("DCGM Diagnostic", "DCGM GPU Diagnostic")
    content = next((document[name] for name in names if name in document), document)
    error = content.get("runtime_error") or content.get("Error")
    if error:
        return _failed(plan, ENGINES["dcgm"], str(error), "inspect")
    checks = [
        check
        for category in content["test_categories"]
        for test in category["tests"]
        for result in test["results"]
        for check in _dcgm_result(str(test["name"]), result)
    ]
    if not checks:
        return _failed(plan, ENGINES["dcgm"], "no test was run", "inspect")
    return Results(Outcome(_unmeasured(plan), (), None), checks)


def _dcgm_result(test: str, result: Mapping[str, Any]) -> Iterator[Check]:
    lower = test.lower()
    name = next((check for part, check in _DCGM_TESTS if part in lower), "gpu_test")
    status = _DCGM_STATUSES.get(str(result.get("status", "")).lower(), verdict.UNKNOWN)
    texts, severities = _dcgm_warnings(result.get("warnings"))
    action = "inspect"
    if status in (verdict.PASS, verdict.SKIPPED):
        action = "none"
    if status == verdict.CRITICAL and severities:
        known = [_DCGM_SEVERITIES.get(code, (verdict.CRITICAL, "inspect")) for code in severities]
        status = verdict.worst(entry[0] for entry in known)
        action = max((entry[1] for entry in known), key=verdict.ACTIONS.index)
    numbers = _dcgm_numbers(result)
    for number in numbers or [None]:
        subject = "DCGM" if number is None else f"GPU {number}"
        message = f"{subject}: DCGM test {test}: {result.get('status', 'no status')}"
        if texts:
            message += f": {'; '.join(texts)[:400]}"
        yield Check(
            name,
            status,
            message,
            subject=subject,
            action=action,
            domain=None if action == "none" else "node",
            unknown_as=verdict.CRITICAL,
        )


def _dcgm_numbers(result: Mapping[str, Any]) -> list[Optional[int]]:
    """Return the GPUs that a result is about, none where it is about the node."""
    if "entity_id" in result:
        if result.get("entity_group") == "GPU":
            return [int(result["entity_id"])]
        return []
    listed = result.get("gpu_ids", result.get("gpu_id", result.get("gpus", "")))
    if not isinstance(listed, list):
        listed = str(listed).split(",")
    return [int(part) for part in listed if str(part).strip().isdigit()]


def _dcgm_warnings(given: Any) -> tuple[list[str], list[int]]:
    """Return the texts and severities; older versions have only text."""
    entries = given or []
    if not isinstance(entries, list):
        entries = [entries]
    texts, severities = [], []
    for entry in entries:
        if isinstance(entry, Mapping):
            texts.append(str(entry.get("warning", "")))
            if isinstance(entry.get("error_severity"), int):
                severities.append(entry["error_severity"])
        else:
            texts.append(str(entry))
    return [text for text in texts if text], severities


# --- nvbandwidth ------------------------------------------------------------------------------

_DOWN, _UP = "host_to_device_memcpy_ce", "device_to_host_memcpy_ce"
_BETWEEN = "device_to_device_memcpy_read_ce"


def _nvbandwidth_arguments(plan: Plan) -> list[str]:
    names = []
    if "host_bandwidth" in plan.tests:
        names += [_DOWN, _UP]
    if plan.peer:
        names.append(_BETWEEN)
    return ["-j", *(word for name in names or [_DOWN, _UP] for word in ("-t", name))]


def _nvbandwidth(plan: Plan, document: Any) -> Results:
    """Read ``nvbandwidth -j``: a matrix for each test, numbers as text, N/A where nothing was
    measured.
    """
    content = document["nvbandwidth"]
    cases = {str(case["name"]): case for case in content.get("testcases", [])}
    checks = [
        Check(
            "gpu_test",
            verdict.CRITICAL,
            f"nvbandwidth test {name}: {case.get('status')}: {case.get('error', 'no explanation')}",
            subject="nvbandwidth",
            action="inspect",
            domain="node",
        )
        for name, case in cases.items()
        if str(case.get("status", "Passed")) not in ("Passed", "Waived", "Not Found")
    ]
    if content.get("error") or not cases:
        text = str(content.get("error") or "no test was run")
        checks += _failed(plan, ENGINES["nvbandwidth"], text, "inspect").checks
    figures: dict[int, dict[str, dict[str, Any]]] = {gpu.number: {} for gpu in plan.gpus}
    down, up = _row(plan.gpus, cases.get(_DOWN)), _row(plan.gpus, cases.get(_UP))
    for number in figures:
        if number in down and number in up:
            rates = {"host_to_device": down[number], "device_to_host": up[number]}
            figures[number]["host_bandwidth"] = rates
    measured = tuple(Measured(number, own, {}, None) for number, own in figures.items())
    pairs = tuple(_pairs(plan.gpus, cases.get(_BETWEEN)))
    return Results(Outcome(measured, pairs, None), checks)


def _cell(cell: Any) -> float | None:
    try:
        return round(float(cell), 2)
    except (TypeError, ValueError):
        return None


def _row(gpus: Sequence[GpuFacts], case: Mapping[str, Any] | None) -> dict[int, float]:
    """Return the rates of a test between the host and each GPU, which are the columns."""
    matrix = (case or {}).get("bandwidth_matrix") or [[]]
    cells = zip(gpus, matrix[0])
    rates = {gpu.number: _cell(cell) for gpu, cell in cells}
    return {number: rate for number, rate in rates.items() if rate is not None}


def _pairs(gpus: Sequence[GpuFacts], case: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield the copies between GPUs.

    Each row is the GPU that reads, each column the one it reads from.
    """
    for target, row in zip(gpus, (case or {}).get("bandwidth_matrix") or []):
        for source, cell in zip(gpus, row):
            rate = _cell(cell)
            if rate is not None and source.number != target.number:
                yield {
                    "source": source.number,
                    "target": target.number,
                    "rate": rate,
                    "direct": True,
                    "mismatches": 0,
                }


ENGINES: Registry[Engine] = Registry(
    "engine",
    (
        Engine(
            "dcgm",
            "dcgmi",
            "https://docs.nvidia.com/datacenter/dcgm/latest/user-guide/dcgm-diagnostics.html",
            _dcgm_arguments,
            _dcgm,
        ),
        Engine(
            "nvbandwidth",
            "nvbandwidth",
            "https://github.com/NVIDIA/nvbandwidth",
            _nvbandwidth_arguments,
            _nvbandwidth,
        ),
    ),
    required=("program", "documentation", "arguments", "read"),
)
