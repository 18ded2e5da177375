# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs are tested and how, and what the figures mean: pure decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import verdict
from ..errors import Refused
from ..system.text import human_count, human_size
from ..verdict import Check
from . import kernels, models, peers
from .facts import Facts, Failure, GpuFacts, Outcome
from .options import TESTS, DiagnosticsOptions, Expected, Level


class Plan(NamedTuple):
    """What will be run. C(left_out) are checks that say why a GPU is not tested."""

    gpus: tuple[GpuFacts, ...]
    tests: tuple[str, ...]
    peer: bool
    level: Level
    left_out: tuple[Check, ...]


def decide(options: DiagnosticsOptions, facts: Facts) -> Plan:
    """Choose the GPUs and the tests.

    :raises Refused: a chosen GPU is in use and C(when_busy) is C(fail).
    """
    chosen = [gpu for gpu in facts.gpus if options.gpus is None or gpu.number in options.gpus]
    busy = [gpu for gpu in chosen if gpu.busy]
    if busy and options.when_busy == "fail":
        reasons = "; ".join(f"GPU {gpu.number}: {gpu.busy}" for gpu in busy)
        raise Refused(
            f"Nothing was tested, because GPUs are in use ({reasons}).",
            "Drain the node first, or set when_busy to skip to test the others.",
            f"GPU {busy[0].number}",
        )
    left_out = [_skipped(gpu, gpu.busy) for gpu in busy]
    left_out += [
        _skipped(gpu, "it is divided by MIG") for gpu in chosen if gpu.mig and not gpu.busy
    ]
    tested = tuple(gpu for gpu in chosen if not gpu.busy and not gpu.mig)
    single = tuple(name for name in TESTS if name in options.tests and name != "peer")
    return Plan(
        gpus=tested,
        tests=single,
        peer="peer" in options.tests and len(tested) > 1,
        level=options.effort,
        left_out=tuple(left_out),
    )


def _skipped(gpu: GpuFacts, reason: str) -> Check:
    return Check(
        "gpu_test",
        verdict.SKIPPED,
        f"GPU {gpu.number}: not tested, {reason}",
        subject=f"GPU {gpu.number}",
    )


# --- verdicts


def evaluate(
    options: DiagnosticsOptions, plan: Plan, outcome: Outcome, after: Facts
) -> list[Check]:
    """Return the checks: figures against limits, GPUs against their peers, and what changed during
    the tests.
    """
    if not plan.gpus and not plan.left_out:
        return [Check("gpu_test", verdict.SKIPPED, "No NVIDIA GPU on this node")]
    checks = list(plan.left_out)
    expected = options.expected or Expected.from_mapping({})
    facts = {gpu.number: gpu for gpu in plan.gpus}
    for measured in outcome.gpus:
        gpu = facts[measured.number]
        if measured.failure is not None:
            checks.append(_failed(gpu, measured.failure))
        for name in plan.tests:
            figures = measured.figures.get(name)
            if figures is not None:
                checks += _CHECKS[name](gpu, figures, expected, options)
        checks += _sensors(gpu, measured.sensors)
    checks += peers.compared(plan.gpus, outcome, options)
    checks += peers.copies(outcome, expected, options)
    checks += _changed(plan, after)
    return checks


def _failed(gpu: GpuFacts, failure: Failure) -> Check:
    subject = f"GPU {gpu.number}"
    if failure.hung:
        stuck = "; its process was killed"
        if failure.stuck:
            stuck = "; its process can't be killed"
        message = f"GPU {gpu.number}: test {failure.test} hung, {failure.text}{stuck}"
        action = "reset_gpu"
        if failure.stuck:
            action = "reboot"
    else:
        message, action = f"GPU {gpu.number}: test {failure.test} failed: {failure.text}", "inspect"
    return Check(
        "gpu_test", verdict.CRITICAL, message, subject=subject, action=action, domain="node"
    )


def _memory(gpu: GpuFacts, figures: Mapping[str, Any], *_unused: Any) -> list[Check]:
    size = human_size(figures["bytes"])
    if not figures["bytes"]:
        message = f"GPU {gpu.number}: no free memory to test"
        return [
            _check("gpu_test_memory", verdict.UNKNOWN, gpu, message, unknown_as=verdict.CRITICAL)
        ]
    if not figures["mismatches"]:
        message = f"GPU {gpu.number}: {size} read back as written, {figures['patterns']} patterns"
        return [_check("gpu_test_memory", verdict.PASS, gpu, message, value=0)]
    offset, written, read = figures["samples"][0]
    message = (
        f"GPU {gpu.number}: {human_count(figures['mismatches'], 'word')} of {size} read back wrong,"
        f" the first at offset {offset:#x}: written {written:#010x}, read {read:#010x}, bits"
        f" {written ^ read:#010x} differ"
    )
    details = {
        "samples": [
            {"offset": at, "written": good, "read": bad, "bits": good ^ bad}
            for at, good, bad in figures["samples"]
        ]
    }
    return [
        _check(
            "gpu_test_memory",
            verdict.CRITICAL,
            gpu,
            message,
            value=figures["mismatches"],
            action="drain",
            details=details,
        )
    ]


def _device_bandwidth(
    gpu: GpuFacts, figures: Mapping[str, Any], expected: Expected, options: DiagnosticsOptions
) -> list[Check]:
    model = models.bandwidth(gpu.name)
    limit, source = _limit(
        expected.device_bandwidth, options, model and model.bandwidth * models.REACHED
    )
    return [
        _rate(
            gpu,
            "gpu_test_device_bandwidth",
            "copies inside the GPU",
            figures["rate"],
            limit,
            source,
        )
    ]


def _host_bandwidth(
    gpu: GpuFacts, figures: Mapping[str, Any], expected: Expected, options: DiagnosticsOptions
) -> list[Check]:
    link = models.link(gpu.pcie_generation, gpu.pcie_width)
    default = None if link is None else link * models.LINK_REACHED
    down, source = _limit(expected.host_to_device, options, default)
    up, other = _limit(expected.device_to_host, options, default)
    return [
        _rate(
            gpu,
            "gpu_test_host_to_device",
            "copies from the host",
            figures["host_to_device"],
            down,
            source,
        ),
        _rate(
            gpu,
            "gpu_test_device_to_host",
            "copies to the host",
            figures["device_to_host"],
            up,
            other,
        ),
    ]


def _compute(
    gpu: GpuFacts, figures: Mapping[str, Any], expected: Expected, options: DiagnosticsOptions
) -> list[Check]:
    if figures["wrong"]:
        message = (
            f"GPU {gpu.number}: {figures['wrong']} of the same calculations gave another result"
            f" ({figures['launches']} launches): silent corruption"
        )
        return [
            _check(
                "gpu_test_compute",
                verdict.CRITICAL,
                gpu,
                message,
                value=figures["wrong"],
                action="drain",
            )
        ]
    if figures["fingerprint"] != kernels.ANSWER:
        message = (
            f"GPU {gpu.number}: the calculation gives {figures['fingerprint']} instead of"
            f" {kernels.ANSWER} every time: silent corruption"
        )
        return [
            _check(
                "gpu_test_compute",
                verdict.CRITICAL,
                gpu,
                message,
                value=figures["fingerprint"],
                action="drain",
            )
        ]
    limit, source = _limit(expected.compute, options, None)
    return [
        _rate(
            gpu,
            "gpu_test_compute",
            "arithmetic, all results equal,",
            figures["tflops"],
            limit,
            source,
            "TFLOP/s",
        )
    ]


_CHECKS: dict[str, Callable[..., list[Check]]] = {
    "memory": _memory,
    "device_bandwidth": _device_bandwidth,
    "host_bandwidth": _host_bandwidth,
    "compute": _compute,
}


def _limit(
    given: float | None, options: DiagnosticsOptions, default: float | None
) -> tuple[float | None, str | None]:
    """Return the least figure and where it comes from."""
    if given is not None:
        return round(given * (1 - options.tolerance / 100), 1), "user"
    if default is None:
        return (None, None)
    return (round(default, 1), "default")


def _rate(
    gpu: GpuFacts,
    name: str,
    what: str,
    rate: float,
    limit: float | None,
    source: str | None,
    unit: str = "GB/s",
) -> Check:
    message = f"GPU {gpu.number}: {what} {rate:g} {unit}"
    if limit is None or rate >= limit:
        return _check(
            name,
            verdict.PASS,
            gpu,
            message,
            value=rate,
            unit=unit,
            warn=limit,
            threshold_source=source,
        )
    message += f", at least {limit:g} expected"
    return _check(
        name,
        verdict.WARNING,
        gpu,
        message,
        value=rate,
        unit=unit,
        warn=limit,
        threshold_source=source,
        action="inspect",
    )


def _check(name: str, status: str, gpu: GpuFacts, message: str, **more: Any) -> Check:
    return Check(name, status, message, subject=f"GPU {gpu.number}", domain="node", **more)


def _sensors(gpu: GpuFacts, readings: Mapping[str, Any]) -> list[Check]:
    from .sensors import SLOWDOWN

    if not readings.get("readings"):
        return []
    parts = [
        f"{label} {readings[name]:g} {unit}"
        for name, label, unit in (
            ("temperature", "temperature up to", "°C"),
            ("power", "power up to", "W"),
            ("clock", "clock down to", "MHz"),
        )
        if readings[name] is not None
    ]
    message = f"GPU {gpu.number}: {', '.join(parts) or 'no readings'}"
    status, action = verdict.PASS, "none"
    if readings["reasons"] & SLOWDOWN:
        status, action = verdict.WARNING, "inspect"
        message += ", slowed down by hardware or heat"
    details = dict(readings)
    return [_check("gpu_test_sensors", status, gpu, message, action=action, details=details)]


def _changed(plan: Plan, after: Facts) -> list[Check]:
    """Report errors that the tests brought to light: counters that grew."""
    later = {gpu.number: gpu for gpu in after.gpus}
    checks = []
    for gpu in plan.gpus:
        now = later.get(gpu.number)
        if now is None:
            message = f"GPU {gpu.number}: no longer answers after the tests"
            checks.append(
                _check("gpu_test_errors", verdict.CRITICAL, gpu, message, action="reboot")
            )
            continue
        hard, soft = now.uncorrected - gpu.uncorrected, now.corrected - gpu.corrected
        if hard > 0:
            message = (
                f"GPU {gpu.number}: {human_count(hard, 'uncorrected memory error')} during the"
                " tests"
            )
            checks.append(
                _check(
                    "gpu_test_errors", verdict.CRITICAL, gpu, message, value=hard, action="drain"
                )
            )
        elif soft > 0:
            message = (
                f"GPU {gpu.number}: {human_count(soft, 'corrected memory error')} during the tests"
            )
            checks.append(
                _check(
                    "gpu_test_errors", verdict.WARNING, gpu, message, value=soft, action="inspect"
                )
            )
        else:
            message = f"GPU {gpu.number}: no memory errors during the tests"
            checks.append(_check("gpu_test_errors", verdict.PASS, gpu, message, value=0))
    return checks
