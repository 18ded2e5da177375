# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that need more than one reading: rates, counters that went backwards, repeat offenders.

Pure. Without a state file, the uptime of the node bounds a rate from below: a counter that started
with the driver cannot be older than the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from .. import verdict
from ..records import NamedTuple
from ..registry import Registry
from ..system.text import human_count, human_duration
from ..verdict import CRITICAL, PASS, WARNING, Check
from . import history, xid, xid_catalog
from .case import Finding, source_of
from .history import Incident, Memory, Moment, Record, Sample
from .options import GpuOptions
from .reading import BusId, Gpu, Reading, bus_id
from .recovery import recovery

if TYPE_CHECKING:
    from .facts import Facts

#: Replays per minute and lane that DCGM tolerates (DcgmHealthWatch.cpp), by PCIe generation.
REPLAYS_PER_LANE = {1: 0.15, 2: 0.3, 3: 0.48, 4: 0.96, 5: 1.92, 6: 3.84}
#: A rate is over at least this long, so that a few events in a few seconds are no rate; seconds.
CORRECTED_INTERVAL, LINK_INTERVAL = 3600.0, 60.0
#: Counters of a GPU's whole life; smaller than before means that something was replaced.
LIFETIME = {
    "aggregate_corrected": "corrected memory errors",
    "aggregate_uncorrected": "uncorrected memory errors",
    "remapped_rows": "remapped memory rows",
    "retired_pages": "retired memory pages",
}
#: Counters that start again only when the GPU is reset or the driver loaded.
RESTARTING = ("energy", "replays")
#: Checks whose critical result is an incident where no Xid was logged with it.
INCIDENT_CHECKS = frozenset(
    {"gpu_state", "gpu_ecc", "gpu_remapped_rows", "gpu_retired_pages", "gpu_nvlink"}
)


class Case(NamedTuple):
    """A GPU with its record. ``record`` is None without a state file, or for a new GPU."""

    options: GpuOptions
    gpu: Gpu
    now: Moment
    record: Optional[Record]
    remembered: bool
    before: Optional[Record] = None  # the other card that was in this slot


class TrendCheck(NamedTuple):
    """A check over time; the fields are those of case.GpuCheck."""

    name: str
    evaluate: Callable[[Case], Optional[Finding]]
    limit: str
    actions: tuple[str, ...]
    runbook: str
    metric: str
    documentation: str


class Growth(NamedTuple):
    """By how much a counter grew, and in how many seconds."""

    amount: int
    seconds: float


def growth(case: Case, counter: str, interval: float) -> Growth | None:
    """Return the growth of a counter since a sample at least ``interval`` seconds old.

    The oldest sample serves where all are younger. A counter that restarted meanwhile counts from
    0. Without a sample it is that since boot, None when nothing is known.
    """
    value = history.counters_of(case.gpu).get(counter)
    if value is None:
        return None
    samples = [sample for sample in _samples(case) if counter in sample.counters]
    base = len(samples) - 1
    while base > 0 and (case.now.seconds_since(samples[base].moment) or 0.0) < interval:
        base -= 1
    if base < 0:
        if case.now.uptime is None:
            return None
        return Growth(value, case.now.uptime)
    amount, seconds = 0, 0.0
    chain = [*samples[base:], Sample(case.now, {counter: value})]
    for earlier, later in zip(chain, chain[1:]):
        step = later.counters[counter] - earlier.counters[counter]
        elapsed = later.moment.seconds_since(earlier.moment)
        if earlier.moment.boot != later.moment.boot or step < 0:
            step = later.counters[counter]
            if elapsed is None:
                elapsed = later.moment.uptime
        if elapsed is not None:
            amount, seconds = amount + step, seconds + elapsed
    return Growth(amount, seconds)


def _samples(case: Case) -> tuple[Sample, ...]:
    if case.record:
        return case.record.samples
    return ()


def per_hour(grown: Growth) -> float:
    """Return a growth as a number per hour."""
    return grown.amount * 3600.0 / max(CORRECTED_INTERVAL, grown.seconds)


def per_minute(grown: Growth) -> float:
    """Return a growth as a number per minute."""
    return grown.amount * 60.0 / max(LINK_INTERVAL, grown.seconds)


# --- rates ------------------------------------------------------------------------------------


def _corrected(case: Case) -> Finding | None:
    limit = case.options.corrected_errors_warning
    grown = growth(case, "corrected", CORRECTED_INTERVAL)
    if grown is None or not limit:
        return None
    return _rate(
        case, grown, per_hour(grown), limit, "corrected memory errors", "hour", _user(case)
    )


def _replays(case: Case) -> Finding | None:
    pcie, limit, source = case.gpu.pcie, case.options.pcie_replays_warning, "user"
    if limit is None:
        lanes = pcie.width_max or pcie.width
        per_lane = REPLAYS_PER_LANE.get(pcie.gen_max or pcie.gen or 0)
        if lanes is None or per_lane is None:
            return None
        limit, source = round(lanes * per_lane, 2), "default"
    grown = growth(case, "replays", LINK_INTERVAL)
    if grown is None or not limit:
        return None
    return _rate(case, grown, per_minute(grown), limit, "PCIe replays", "minute", source)


def _rate(
    case: Case, grown: Growth, value: float, limit: float, what: str, unit: str, source: str
) -> Finding | None:
    above = value > limit
    if not above and not case.remembered:
        return None
    period = human_duration(grown.seconds)
    text = f"{grown.amount} {what} in {period}"
    finding = Finding(
        PASS,
        text,
        value=round(value, 2),
        unit={"hour": "1/h", "minute": "1/min"}[unit],
        warn=limit,
        threshold_source=source,
    )
    if above:
        text += f", {value:.0f} per {unit}, above {limit:g}"
        return finding._replace(status=WARNING, message=text, action="inspect")
    return finding


def _user(case: Case) -> str:
    return source_of("corrected_errors_warning", case.options.corrected_errors_warning)


def _nvlink(case: Case) -> Finding | None:
    nvlink, limit = case.gpu.nvlink, case.options.nvlink_errors_warning
    if nvlink is None or nvlink.errors is None or not limit:
        return None
    problems, worst = [], 0.0
    for link in nvlink.errors:
        recoveries = growth(case, f"nvlink_recovery.{link.link}", LINK_INTERVAL)
        errors = growth(case, f"nvlink_errors.{link.link}", LINK_INTERVAL)
        rate = 0.0
        if errors is not None:
            rate = per_minute(errors)
        worst = max(worst, rate)
        # What happened before the first look may be long over.
        if recoveries is not None and recoveries.amount and _samples(case):
            problems.append(f"link {link.link} {human_count(recoveries.amount, 'recovery')}")
        elif rate > limit:
            problems.append(f"link {link.link} {rate:.0f} errors per minute")
    if not problems:
        if not case.remembered:
            return None
        return Finding(PASS, "no NVLink above its limit of errors", value=round(worst, 2))
    text = "NVLink errors: " + ", ".join(problems[:6]).replace("recoverys", "recoveries")
    source = source_of("nvlink_errors_warning", limit)
    return Finding(
        WARNING, text, "inspect", round(worst, 2), "1/min", warn=limit, threshold_source=source
    )


# --- counters and incidents -------------------------------------------------------------------


def _counters(case: Case) -> Finding | None:
    if not _samples(case):
        return None
    before, now = _samples(case)[-1].counters, history.counters_of(case.gpu)
    smaller = [
        f"{what} {now[name]} after {before[name]}"
        for name, what in LIFETIME.items()
        if name in before and name in now and now[name] < before[name]
    ]
    if smaller:
        text = f"counters of its whole life went backwards: {', '.join(smaller)}"
        return Finding(WARNING, text, "inspect")
    if restarted(case.gpu, _samples(case)[-1], case.now):
        return Finding(PASS, "counters restarted: it was reset or the driver was loaded")
    return Finding(PASS, "no counter went backwards")


def restarted(gpu: Gpu, before: Sample, now: Moment) -> bool:
    """Return whether a counter has started again since ``before`` within the same boot."""
    if before.moment.boot != now.boot:
        return False
    counters = history.counters_of(gpu)
    return any(
        name in counters and name in before.counters and counters[name] < before.counters[name]
        for name in RESTARTING
    )


def _history(case: Case) -> Finding | None:
    if case.record is None:
        return None
    groups = history.recent(case.record, case.now.time)
    limit = case.options.incidents_warning
    source = source_of("incidents_warning", limit)
    text = f"{human_count(len(groups), 'incident')} in 30 days"
    if groups:
        text += f": {history.describe(groups)}"
    if case.before is not None:
        text += f"; the GPU in this slot was {case.before.label} before"
    back = _back_after_reboot(case)
    if back:
        text = f"Xid {', '.join(back)} came back after a reboot; {text}"
        return Finding(WARNING, text, "inspect", len(groups), None, limit or None, None, source)
    if limit and len(groups) >= limit:
        text = f"repeat offender, {text}"
        return Finding(WARNING, text, "inspect", len(groups), None, limit, None, source)
    return Finding(PASS, text, value=len(groups), warn=limit or None, threshold_source=source)


def _back_after_reboot(case: Case) -> list[str]:
    """Return the critical Xids of this boot that an earlier boot of the last 30 days also had."""
    boots: dict[str, set[Optional[str]]] = {}
    for group in history.recent(case.record, case.now.time):
        for incident in group:
            if incident.level == CRITICAL and incident.code.isdecimal():
                boots.setdefault(incident.code, set()).add(incident.moment.boot)
    return [
        code for code, where in boots.items() if case.now.boot in where and len(where - {None}) > 1
    ]


TREND_CHECKS: Registry[TrendCheck] = Registry(
    "GPU check over time",
    (
        TrendCheck(
            "gpu_corrected_errors",
            _corrected,
            "option corrected_errors_warning",
            ("inspect",),
            "gpu_corrected_errors",
            "mlops_gpu_ecc_corrected_errors",
            "rate of corrected memory errors",
        ),
        TrendCheck(
            "gpu_pcie_replays",
            _replays,
            "option pcie_replays_warning",
            ("inspect",),
            "gpu_pcie_replays",
            "mlops_gpu_check_status",
            "rate of PCIe replays",
        ),
        TrendCheck(
            "gpu_nvlink_errors",
            _nvlink,
            "option nvlink_errors_warning",
            ("inspect",),
            "gpu_nvlink_errors",
            "mlops_gpu_check_status",
            "rate of NVLink errors, and recoveries of links",
        ),
        TrendCheck(
            "gpu_counters",
            _counters,
            "no smaller than before",
            ("inspect",),
            "gpu_counters",
            "mlops_gpu_check_status",
            "counters that went backwards",
        ),
        TrendCheck(
            "gpu_history",
            _history,
            "option incidents_warning",
            ("inspect",),
            "gpu_history",
            "mlops_gpu_check_status",
            "incidents in 30 days, and Xids that came back after a reboot",
        ),
    ),
    required=("evaluate", "limit", "actions", "runbook", "metric", "documentation"),
)


def evaluate(case: Case) -> list[Check]:
    """Return the checks of one GPU over time."""
    subject = f"GPU {case.gpu.id}"
    results = []
    for entry in TREND_CHECKS:
        finding = entry.evaluate(case)
        if finding is not None:
            values = finding._asdict()
            values["message"] = f"{subject}: {finding.message}"
            if finding.status == PASS:
                values["domain"] = None
            results.append(Check(entry.name, subject=subject, **values))
    return results


# --- from run to run --------------------------------------------------------------------------


class Tracker:
    """Follows the GPUs of one run: what earlier runs say of its log, and what it adds to them.

    ``entries`` are the log's, with resets that no line reports, and what a person has cleared
    marked. With ``keep_xids``, incidents that the log does not show any more are among them.
    ``memory`` is what to remember after conclude(), None without a state file.
    """

    def __init__(
        self, options: GpuOptions, facts: Facts, answers: Reading, memory: Memory | None
    ) -> None:
        self.options = options
        self.gpus = answers.gpus
        self.version = answers.driver_version
        self.now = Moment(facts.now, facts.boot_id, facts.uptime)
        self.memory = memory
        self.logged = self.entries = facts.errors.entries
        self.records: list[Optional[Record]] = [None] * len(self.gpus)
        if memory is not None:
            self.records = [
                self._with_reset(gpu, history.find(memory, gpu, self.gpus)) for gpu in self.gpus
            ]
            self.entries = self._with_past(facts.errors.entries)

    def _with_reset(self, gpu: Gpu, record: Record | None) -> Record | None:
        """Return the record with the time of a reset that was noticed now."""
        reset = None if record is None else _reset(gpu, record, self.now, self.version)
        if record is None or reset is None:
            return record
        return record._replace(reset=reset)

    def _with_past(self, entries: Iterable[xid.Entry]) -> tuple[xid.Entry, ...]:
        by_bus: dict[BusId, Record] = {}
        for gpu, record in zip(self.gpus, self.records):
            bus = bus_id(gpu.bus_id)
            if bus is not None and record is not None:
                by_bus[bus] = record
        marked: list[xid.Entry] = []
        for entry in entries:
            if isinstance(entry, xid.Incident) and entry.bus in by_bus:
                before = _known(by_bus[entry.bus], entry, self.now)
                cleared = before is not None and before.cleared
                marked.append(entry._replace(cleared=cleared))
            else:
                marked.append(entry)
        for gpu, record in zip(self.gpus, self.records):
            bus = bus_id(gpu.bus_id)
            reset = None if record is None else record.reset
            if bus is not None and reset is not None and reset.boot == self.now.boot:
                _insert(marked, xid.Recovered(_earliest(reset, self.now), bus))
        if self.options.keep_xids:
            for bus, record in by_bus.items():
                marked[:0] = _kept(record, bus, marked, self.now)
        return tuple(marked)

    def conclude(
        self, checks: Sequence[Sequence[Check]]
    ) -> tuple[list[list[Check]], list[Optional[dict[str, Any]]]]:
        """Return the checks over time and the history of each GPU, and update ``memory``.

        :param checks: those of the GPUs in their order.
        """
        over_time: list[list[Check]] = []
        histories: list[Optional[dict[str, Any]]] = []
        updated: list[Record] = []
        for gpu, record, results in zip(self.gpus, self.records, checks):
            if self.memory is None:
                over_time.append(evaluate(Case(self.options, gpu, self.now, None, False)))
                histories.append(None)
                continue
            faults = tuple(
                check.check
                for check in results
                if check.status == verdict.CRITICAL and check.check in INCIDENT_CHECKS
            )
            new = self._update(gpu, record, faults)
            updated.append(new)
            before = None
            if record is None or bus_id(record.bus_id) != bus_id(new.bus_id):
                before = history.at_address(self.memory, gpu.bus_id)
            # The counters are compared with those of earlier runs.
            samples = record.samples if record else ()
            case = Case(self.options, gpu, self.now, new._replace(samples=samples), True, before)
            results_over_time = evaluate(case)
            over_time.append(results_over_time)
            histories.append(summary(case, results_over_time))
        if self.memory is not None:
            followed = {id(history.find(self.memory, gpu, self.gpus)) for gpu in self.gpus}
            others = [record for record in self.memory.records if id(record) not in followed]
            self.memory = Memory((*updated, *others))
        return over_time, histories

    def _update(self, gpu: Gpu, record: Record | None, faults: tuple[str, ...]) -> Record:
        """Return the record with what this run adds."""
        now = self.now
        if record is None:
            record = Record(None, None, None, None, now.time, now.time)
        bus = bus_id(gpu.bus_id)
        added: list[Incident] = []
        for entry in self.logged:
            if isinstance(entry, xid.Incident) and entry.bus == bus and bus is not None:
                incident = _incident(entry, self.options, now, self.version)
                seen = record._replace(incidents=(*record.incidents, *added))
                if incident is not None and _known(seen, entry, now) is None:
                    added.append(incident)
        new = [fault for fault in faults if fault not in record.faults]
        lately = [item for item in record.incidents if now.time - item.moment.time < 3600]
        if new and not added and not lately:
            added.append(Incident(now, new[0], CRITICAL))
        counters = history.counters_of(gpu)
        samples = record.samples
        if counters or gpu.recovery is not None:
            samples = _add_sample(samples, Sample(now, counters, gpu.recovery))
        incidents = sorted((*record.incidents, *added), key=lambda item: item.moment.time)
        return record._replace(
            uuid=gpu.uuid or record.uuid,
            serial=history.serial_of(gpu) or record.serial,
            name=gpu.name or record.name,
            bus_id=gpu.bus_id or record.bus_id,
            last_seen=now.time,
            samples=samples,
            incidents=tuple(incidents[-history.MAX_INCIDENTS :]),
            faults=faults,
        )


def summary(case: Case, results: Sequence[Check]) -> dict[str, Any]:
    """Return what is known of a GPU's past, for the user and the fleet report."""
    record = case.record
    groups = history.recent(record, case.now.time)
    limit = case.options.incidents_warning
    rates = {check.check: check.value for check in results}
    return {
        "since": verdict.isoformat(record.first_seen if record else case.now.time),
        "incidents": len(groups),
        "days": history.PERIOD // 86400,
        "last_incident": verdict.isoformat(groups[-1][-1].moment.time) if groups else None,
        "codes": sorted({incident.code for group in groups for incident in group}),
        "repeat_offender": bool(limit and len(groups) >= limit),
        "corrected_errors_per_hour": rates.get("gpu_corrected_errors"),
        "pcie_replays_per_minute": rates.get("gpu_pcie_replays"),
        "nvlink_errors_per_minute": rates.get("gpu_nvlink_errors"),
    }


def _moment(entry: xid.Incident, now: Moment) -> Moment:
    if entry.time is None:
        return now
    uptime = None if now.uptime is None else entry.time - (now.time - now.uptime)
    return Moment(entry.time, now.boot, uptime)


def _known(record: Record | None, entry: xid.Incident, now: Moment) -> Incident | None:
    return history.known(record, _moment(entry, now), entry.name, entry.time is not None)


def _earliest(moment: Moment, now: Moment) -> float:
    """Return a moment of this boot on today's clock or on that of its time, whichever is
    earlier.
    """
    if moment.uptime is None or now.uptime is None:
        return moment.time
    return min(moment.time, now.time - now.uptime + moment.uptime)


def _reset(gpu: Gpu, record: Record, now: Moment, version: str | None) -> Moment | None:
    """Return until when everything that a reset cures is over, None without sign of a reset.

    A driver that asked for a recovery and asks for none now was obeyed. A restarted counter means
    a reset at some time since the last run: where the driver says that nothing is left to do, that
    ends what was logged since, too.
    """
    if not record.samples:
        return None
    before = record.samples[-1]
    if before.moment.boot != now.boot:
        return None
    content = gpu.recovery is not None and recovery(gpu.recovery, version).level == PASS
    if restarted(gpu, before, now):
        if content:
            return now
        return before.moment
    asked = before.recovery is not None and recovery(before.recovery, version).level != PASS
    if asked and content:
        return before.moment
    return None


def _insert(entries: list[xid.Entry], reset: xid.Recovered) -> None:
    """Put a reset behind the entries that are not younger."""
    place = len(entries)
    for number, entry in enumerate(entries):
        if entry.time is not None and reset.time is not None and entry.time > reset.time:
            place = number
            break
    entries.insert(place, reset)


def _kept(record: Record, bus: BusId, entries: Sequence[xid.Entry], now: Moment) -> list[xid.Entry]:
    logged = {
        id(_known(record, entry, now))
        for entry in entries
        if isinstance(entry, xid.Incident) and entry.bus == bus
    }
    return [
        xid.Incident(incident.moment.time, bus, incident.code, incident.text)
        for incident in record.incidents
        if not incident.cleared
        and id(incident) not in logged
        and (incident.code.isdecimal() or incident.code in xid_catalog.UNNUMBERED)
    ]


def _incident(
    entry: xid.Incident, options: GpuOptions, now: Moment, version: str | None
) -> Incident | None:
    """Return what is remembered of an Xid, None where it is no warning."""
    (event,) = xid.events([entry._replace(cleared=False)], options.xid_overrides, version)
    if event.level not in (WARNING, CRITICAL):
        return None
    return Incident(
        _moment(entry, now),
        entry.name,
        event.level,
        entry.text.strip()[:200],
        entry.time is not None,
    )


def _add_sample(samples: tuple[Sample, ...], new: Sample) -> tuple[Sample, ...]:
    """Keep the samples of two hours, a quarter of an hour apart, and in any case the last one."""
    kept = [
        sample
        for sample in samples
        if (new.moment.seconds_since(sample.moment) or 0.0) <= history.KEEP_SAMPLES
    ]
    kept = kept or list(samples[-1:])
    if len(kept) > 1:
        gap = kept[-1].moment.seconds_since(kept[-2].moment)
        if gap is not None and gap < history.SAMPLE_GAP:
            kept.pop()
    return (*kept[-16:], new)


def clear(memory: Memory, selected: Callable[[Record], bool]) -> tuple[Memory, int]:
    """Return the memory with the incidents of the selected GPUs cleared, and how many those are."""
    count = 0
    records = []
    for record in memory.records:
        if not selected(record):
            records.append(record)
            continue
        count += sum(not incident.cleared for incident in record.incidents)
        incidents = tuple(item._replace(cleared=True) for item in record.incidents)
        records.append(record._replace(incidents=incidents))
    return Memory(tuple(records)), count
