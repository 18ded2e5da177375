# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From facts to verdicts. Pure: reads nothing, changes nothing.

The checks of the node are entries of NODE_CHECKS, those of a single GPU are in checks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from .. import verdict
from ..records import NamedTuple
from ..registry import Registry
from ..system.text import human_count
from ..verdict import CRITICAL, PASS, SKIPPED, UNKNOWN, WARNING, Check
from . import checks
from .case import Case, Finding
from .facts import Facts
from .options import GpuOptions
from .reading import Gpu, Reading, bus_id
from .recovery import recovery
from .temperature import FIXED_TEMPERATURES, REASONS

if TYPE_CHECKING:
    from . import xid
    from .history import Memory

#: How many processes of a GPU are in the result.
MAX_PROCESSES = 32
_PUBLIC = tuple(
    "id name uuid serial bus_id vbios temp temp_memory margin fan util_gpu util_mem mem_used "
    "mem_total power_draw power_limit pstate clock_sm clock_mem clock_reasons ecc sram_threshold "
    "remap retired nvlink pcie fabric mig persistence".split()
)


class GpuReport(NamedTuple):
    """A GPU as it is returned to the user: its values, its errors in the log, its worst check."""

    gpu: Gpu
    events: tuple[xid.Event, ...]
    status: str
    recovery_action: Optional[str]
    history: Optional[dict[str, Any]] = None

    def to_dict(self) -> dict[str, Any]:
        """Return the old script's keys first, and no internals."""
        gpu = self.gpu
        values = {key: _plain(getattr(gpu, key)) for key in _PUBLIC}
        if gpu.clock_reasons is not None:
            values["clock_reasons"] = [
                name for bit, name in REASONS.items() if gpu.clock_reasons & bit
            ]
        values["recovery_action"] = self.recovery_action
        values["processes"] = values["process_count"] = None
        if gpu.processes is not None:
            values["processes"] = [item._asdict() for item in gpu.processes[:MAX_PROCESSES]]
            values["process_count"] = len(gpu.processes)
        values["xids"] = [event.to_dict() for event in self.events]
        values["status"] = self.status
        values["history"] = self.history
        if gpu.nvlink is not None and gpu.nvlink.errors is not None:
            values["nvlink"]["errors"] = [
                link._asdict() for link in gpu.nvlink.errors if any(link[1:])
            ]
        return values


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return value._asdict()
    return value


class Driver(NamedTuple):
    """What answered; None where there is none."""

    backend: Optional[str] = None
    version: Optional[str] = None
    nvml_version: Optional[str] = None
    cuda_version: Optional[str] = None


class Plan(NamedTuple):
    """The verdicts, and what is to be written where (None: nothing)."""

    checks: tuple[Check, ...]
    gpus: tuple[GpuReport, ...]
    driver: Driver
    gpu_count: Optional[int]
    now: float
    metrics_csv: Optional[str] = None
    textfile: Optional[str] = None
    memory: Optional[Memory] = None


class NodeCase(NamedTuple):
    """All that the checks of the node look at."""

    options: GpuOptions
    facts: Facts
    answers: Optional[Reading]


class NodeCheck(NamedTuple):
    """A check of the node as a whole; the fields are those of case.GpuCheck."""

    name: str
    evaluate: Callable[[NodeCase], Optional[Finding]]
    limit: str
    actions: tuple[str, ...]
    runbook: str
    metric: str
    documentation: str


def decide(
    options: GpuOptions,
    facts: Facts,
    fixed: tuple[float, float] = FIXED_TEMPERATURES,
    memory: Memory | None = None,
) -> Plan:
    """Return the checks in their order and the GPUs as they are returned to the user.

    :param fixed: (warning, critical) core temperature in °C where neither the device nor the user
        gives a limit.
    :param memory: what earlier runs know; None without a state file.
    """
    answers = facts.reading
    case = NodeCase(options, facts, answers)
    driver = _node_check(NODE_CHECKS["gpu_driver"], case)
    results = [driver]
    reports: list[GpuReport] = []
    if answers is not None and driver.status != SKIPPED:
        if answers.count is not None and answers.code == 0:
            results.append(_node_check(NODE_CHECKS["gpu_count"], case))
        events, gpu_checks, reports, memory = _gpus(options, facts, answers, fixed, memory)
        results += gpu_checks
        results += _xids_elsewhere(facts, answers, events)
        if facts.errors.switch or facts.fabric_manager:
            from . import nvswitch  # only systems with NVSwitches need it

            results += nvswitch.evaluate(
                facts.errors.switch, facts.fabric_manager, options.xid_overrides
            )
        if len([gpu for gpu in answers.gpus if gpu.name and gpu.vbios]) > 1:
            results.append(_node_check(NODE_CHECKS["gpu_vbios"], case))
    return Plan(
        tuple(results),
        tuple(reports),
        _driver_of(answers),
        0 if answers is None else answers.count,
        facts.now,
        options.metrics_csv,
        options.textfile,
        memory,
    )


def _gpus(
    options: GpuOptions,
    facts: Facts,
    answers: Reading,
    fixed: tuple[float, float],
    memory: Memory | None,
) -> tuple[list[xid.Event], list[Check], list[GpuReport], Memory | None]:
    """Return the events of the log, the checks and reports of all GPUs, and the new memory."""
    version, entries = answers.driver_version, facts.errors.entries
    tracker = None
    if memory is not None or any(_counts_errors(gpu, options) for gpu in answers.gpus):
        from . import trends  # most runs without a state file need none

        tracker = trends.Tracker(options, facts, answers, memory)
        entries = tracker.entries
    events: list[xid.Event] = []
    if entries:
        from . import xid  # a healthy node has none

        events = xid.events(entries, options.xid_overrides, version, options.keep_xids)
    log_readable = not facts.errors.problem and facts.errors.source != "none"
    own_events = [_own(events, gpu) for gpu in answers.gpus]
    by_gpu = []
    for gpu, own in zip(answers.gpus, own_events):
        case = Case(options, gpu, answers.gpus, own, log_readable, version, facts.orphans, fixed)
        by_gpu.append(checks.evaluate(case))
    histories: list[dict[str, Any] | None] = [None] * len(by_gpu)
    if tracker is not None:
        over_time, histories = tracker.conclude(by_gpu)
        by_gpu = [results + more for results, more in zip(by_gpu, over_time)]
        memory = tracker.memory
    reports = [
        _report(gpu, own, results, version, past)
        for gpu, own, results, past in zip(answers.gpus, own_events, by_gpu, histories)
    ]
    return events, [check for results in by_gpu for check in results], reports, memory


def _counts_errors(gpu: Gpu, options: GpuOptions) -> bool:
    """Return whether a counter may be too high for the time since boot."""
    links = (gpu.nvlink.errors if gpu.nvlink else None) or ()
    replays = 100 if options.pcie_replays_warning is None else options.pcie_replays_warning
    return (
        (gpu.ecc.volatile_corrected or 0) > options.corrected_errors_warning
        or (gpu.pcie.replays or 0) > replays
        or any(link.replay + link.crc > options.nvlink_errors_warning for link in links)
    )


def _driver_of(answers: Reading | None) -> Driver:
    if answers is None:
        return Driver()
    return Driver(
        answers.backend or None,
        answers.driver_version,
        answers.nvml_version,
        answers.cuda_version,
    )


def _node_check(entry: NodeCheck, case: NodeCase) -> Check:
    """Run a check of the node. :raises ValueError: it has no finding."""
    finding = entry.evaluate(case)
    if finding is None:
        raise ValueError(entry.name)
    values = finding._asdict()
    if finding.status in (PASS, SKIPPED):
        values["domain"] = None
    if entry.name == "gpu_driver":
        duration, answers = case.facts.duration, case.answers
        if duration is not None and answers is not None:
            values["duration_ms"] = round(duration * 1000, 1)
        if answers is not None and answers.stuck:
            values["since"] = verdict.isoformat(answers.stuck[1])
    return Check(entry.name, **values)


def _own(events: Sequence[xid.Event], gpu: Gpu) -> tuple[xid.Event, ...]:
    bus = bus_id(gpu.bus_id)
    return tuple(event for event in events if bus is not None and event.bus == bus)


def _report(
    gpu: Gpu,
    own: tuple[xid.Event, ...],
    results: list[Check],
    version: str | None,
    past: dict[str, Any] | None,
) -> GpuReport:
    status = verdict.worst(check.counts_as for check in results)
    wanted = None if gpu.recovery is None else recovery(int(gpu.recovery), version).text
    return GpuReport(gpu, own, status, wanted, past)


# --- driver -----------------------------------------------------------------------------------


def _driver(case: NodeCase) -> Finding:
    answers = case.answers
    if answers is not None and answers.code == 0 and not answers.stuck and not answers.hung:
        return _answering(case.facts, answers)
    from . import driver_fault  # a healthy node does not load it

    return driver_fault.finding(case)


def _answering(facts: Facts, answers: Reading) -> Finding:
    version = answers.driver_version
    if facts.module_version and version and facts.module_version != version:
        text = (
            f"The loaded kernel module is {facts.module_version}, but the driver's library says "
            f"{version}: an update waits for a reboot"
        )
        return Finding(WARNING, text, "reboot", version)
    vendor = "NVIDIA"
    if answers.backend == "amd_smi":
        vendor = "AMD"
    text = f"{vendor} driver {version or 'of unknown version'} answers"
    return Finding(PASS, text, value=version)


# --- count, VBIOS, Xids -----------------------------------------------------------------------


def _count(case: NodeCase) -> Finding:
    answers, pci, expected = case.answers or Reading(), case.facts.pci, case.options.expected_count
    number = answers.count or 0
    known = {bus_id(gpu.bus_id) for gpu in answers.gpus if gpu.bus_id}
    missing = []
    if len(pci) > number:
        missing = [gpu.address for gpu in pci if bus_id(gpu.address) not in known]
    listed = ", ".join(missing[:8])
    absent = ""
    if missing:
        absent = f"; on the PCI bus, but not in the driver: {listed}"
    text = f"{human_count(number, 'GPU')} found"
    finding = Finding(
        PASS,
        text,
        value=number,
        crit=expected,
        threshold_source=None if expected is None else "user",
    )
    if expected is not None and number < expected:
        return finding._replace(
            status=CRITICAL,
            message=f"{text}, {expected} expected{absent}",
            action="reboot" if missing else "inspect",
        )
    if expected is not None and number > expected:
        message = f"{text}, only {expected} expected"
        return finding._replace(status=WARNING, message=message, action="inspect")
    if expected is not None:
        return finding._replace(message=f"{text}, as expected")
    if missing:
        return finding._replace(status=CRITICAL, message=text + absent, action="reboot")
    if number == 0:
        message = (
            "The NVIDIA driver is loaded but has no GPU; set expected_count to 0 if that is right"
        )
        return finding._replace(status=WARNING, message=message, action="inspect")
    return finding


def _vbios(case: NodeCase) -> Finding:
    """Compare the VBIOS versions of one model: GPUs with others behave differently in one job."""
    models: dict[str, dict[str, list[str]]] = {}
    for gpu in (case.answers or Reading()).gpus:
        if gpu.name and gpu.vbios:
            models.setdefault(gpu.name, {}).setdefault(gpu.vbios, []).append(str(gpu.id))
    mixed = [
        f"{model}: "
        + "; ".join(f"{version} on GPU {', '.join(ids)}" for version, ids in versions.items())
        for model, versions in models.items()
        if len(versions) > 1
    ]
    if mixed:
        return Finding(WARNING, "Different VBIOS versions, " + " | ".join(mixed), "inspect")
    return Finding(PASS, "GPUs of the same model have the same VBIOS")


def _xids_elsewhere(facts: Facts, answers: Reading, events: Sequence[xid.Event]) -> list[Check]:
    """Return checks for errors of GPUs that the driver does not list, and for an unread log."""
    errors = facts.errors
    if answers.backend == "amd_smi":  # Xids are NVIDIA's
        return []
    if errors.problem:
        text = f"Xids not checked: {errors.problem}"
        if errors.source == "auto":
            return [Check("gpu_xid", SKIPPED, text)]
        return [Check("gpu_xid", UNKNOWN, text, domain="node")]
    if errors.source == "none":
        return [Check("gpu_xid", SKIPPED, "Xids not checked: switched off by log_source")]
    if not events:
        return []
    from . import xid  # a healthy node has none

    return xid.elsewhere(events, {bus_id(gpu.bus_id) for gpu in answers.gpus if gpu.bus_id})


NODE_CHECKS: Registry[NodeCheck] = Registry(
    "node-wide GPU check",
    (
        NodeCheck(
            "gpu_driver",
            _driver,
            "option timeout",
            ("inspect", "reboot"),
            "gpu_driver",
            "mlops_gpu_check_status",
            "whether a driver is here, loaded, and answers in time",
        ),
        NodeCheck(
            "gpu_count",
            _count,
            "option expected_count",
            ("inspect", "reboot"),
            "gpu_count",
            "mlops_gpu_devices",
            "number of GPUs in the driver, on the PCI bus, and expected",
        ),
        NodeCheck(
            "gpu_vbios",
            _vbios,
            "the same version",
            ("inspect",),
            "gpu_vbios",
            "mlops_gpu_check_status",
            "different VBIOS versions of GPUs of one model",
        ),
    ),
    required=("evaluate", "limit", "actions", "runbook", "metric", "documentation"),
)
