# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics files for the textfile collector of the Prometheus node exporter (text exposition format
0.0.4).

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. The node exporter reads all
``*.prom`` files of a directory as one exposition, so no two of our files share a metric family:
every part has its own prefix (``mlops_gpu_``, ``mlops_node_``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .. import verdict
from ..records import NamedTuple, dataclass, field
from ..registry import Registry
from ..system import files


@dataclass(frozen=True)
class Sample:
    """One sample of the metric ``name``.

    A ``value`` of None means unknown and is left out, never written as 0.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: float | bool | None = None


#: Status of a check -> value of its ``_check_status`` metric. Skipped checks have no sample.
STATUS_VALUES = {verdict.PASS: 0, verdict.WARNING: 1, verdict.CRITICAL: 2, verdict.UNKNOWN: 3}


class Metric(NamedTuple):
    """A metric family. ``type`` and ``help`` as in the exposition format."""

    name: str
    type: str
    help: str


def _of_part(part: str, checks: str) -> list[Metric]:
    """Return the metrics that every part with checks has."""
    return [
        Metric(
            f"mlops_{part}_check_status",
            "gauge",
            f"Result of one {checks} check: 0 pass, 1 warning, 2 critical, 3 unknown.",
        ),
        Metric(
            f"mlops_{part}_health_score",
            "gauge",
            f"Score of the {checks} checks from 0 to 100; 100 means all passed.",
        ),
        Metric(
            f"mlops_{part}_exit_code",
            "gauge",
            f"Verdict of the {checks} checks: 0 healthy, 1 warning, 2 critical.",
        ),
        Metric(
            f"mlops_{part}_last_run_timestamp_seconds",
            "gauge",
            f"When the {checks} checks ran, seconds since the epoch.",
        ),
    ]


#: Base units only (celsius, bytes, seconds, watts; shares are ratios from 0 to 1).
METRICS: Registry[Metric] = Registry(
    "metric",
    [
        Metric("mlops_gpu_devices", "gauge", "Number of GPUs the driver reports."),
        Metric("mlops_gpu_info", "gauge", "Always 1; the labels say which GPU and driver this is."),
        Metric(
            "mlops_gpu_status",
            "gauge",
            "Worst check of this GPU: 0 pass, 1 warning, 2 critical, 3 unknown.",
        ),
        Metric("mlops_gpu_temperature_celsius", "gauge", "Core temperature."),
        Metric("mlops_gpu_memory_temperature_celsius", "gauge", "Memory temperature."),
        Metric(
            "mlops_gpu_temperature_margin_celsius",
            "gauge",
            "Distance to the nearest slowdown threshold as the device reports it.",
        ),
        Metric(
            "mlops_gpu_utilization_ratio", "gauge", "Share of time in which a kernel was running."
        ),
        Metric(
            "mlops_gpu_memory_utilization_ratio",
            "gauge",
            "Share of time in which the memory controller was busy.",
        ),
        Metric(
            "mlops_gpu_memory_used_bytes",
            "gauge",
            "Memory allocated, without what the driver reserves.",
        ),
        Metric("mlops_gpu_memory_size_bytes", "gauge", "Memory of the device."),
        Metric("mlops_gpu_power_draw_watts", "gauge", "Power draw."),
        Metric("mlops_gpu_power_limit_watts", "gauge", "Enforced power limit."),
        Metric(
            "mlops_gpu_ecc_uncorrected_errors",
            "gauge",
            "Uncorrected memory errors since the driver was loaded.",
        ),
        Metric(
            "mlops_gpu_ecc_corrected_errors",
            "gauge",
            "Corrected memory errors since the driver was loaded.",
        ),
        Metric(
            "mlops_gpu_xid_errors",
            "gauge",
            "Driver errors of this Xid number in the kernel log of the looked-at window.",
        ),
        *_of_part("gpu", "GPU"),
        *_of_part("node", "node"),
    ],
    required=("type", "help"),
)


def of_checks(part: str, checks: Iterable[verdict.Check], now: float) -> list[Sample]:
    """Return the samples of every part with checks: status of each check, score, exit code and
    time.

    Checks of the same name and subject become one sample, the worst.

    :param part: ``gpu`` or ``node``. :param now: seconds since the epoch.
    """
    checks = list(checks)
    worst: dict[tuple[str, str], str] = {}
    for check in checks:
        if check.status != verdict.SKIPPED:
            key = (check.check, check.subject or "")
            worst[key] = verdict.worst((worst.get(key, verdict.SKIPPED), check.status))
    samples = [
        Sample(
            f"mlops_{part}_check_status", {"check": name, "subject": subject}, STATUS_VALUES[status]
        )
        for (name, subject), status in worst.items()
    ]
    summary = verdict.Summary.of(checks)
    samples.append(Sample(f"mlops_{part}_health_score", {}, summary.health_score))
    samples.append(Sample(f"mlops_{part}_exit_code", {}, summary.exit_code))
    samples.append(Sample(f"mlops_{part}_last_run_timestamp_seconds", {}, int(now)))
    return samples


def _escape(text: str, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    if quote:
        return text.replace('"', '\\"')
    return text


def _number(value: float) -> str:
    if isinstance(value, int):  # bool too
        return str(int(value))
    if math.isinf(value):
        if value > 0:
            return "+Inf"
        return "-Inf"
    if math.isnan(value):
        return "NaN"
    return repr(value)


def render(samples: Iterable[Sample]) -> str:
    """Return the exposition text: families in the order of their first sample, samples in the order
    given.

    :raises ValueError: a name that is not in METRICS, or the same name and labels twice (the node
        exporter would reject the file).
    """
    families: dict[str, dict[str, str]] = {}
    for sample in samples:
        if sample.name not in METRICS:
            raise ValueError(f"metric {sample.name} is not registered")
        if sample.value is None:
            continue
        labels = ",".join(
            f'{name}="{_escape(str(text), quote=True)}"' for name, text in sample.labels.items()
        )
        family = families.setdefault(sample.name, {})
        if labels in family:
            raise ValueError(f"metric {sample.name} has two samples with the labels {labels}")
        family[labels] = _number(sample.value)
    lines = []
    for name, family in families.items():
        metric = METRICS[name]
        lines += [f"# HELP {name} {_escape(metric.help)}", f"# TYPE {name} {metric.type}"]
        lines += [
            f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
            for labels, value in family.items()
        ]
    return "".join(line + "\n" for line in lines)


def write(path: str, samples: Iterable[Sample]) -> None:
    """Replace the metrics file ``path``, readable for everybody, whole or not at all.

    :raises WriteFailed: the directory is missing or not writable, or the disk is full; the old file
        is untouched.
    """
    files.atomic_write(path, render(samples).encode("utf-8", "replace"), mode=0o644)
