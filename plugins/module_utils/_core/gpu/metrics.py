# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPU numbers for other programs: the old script's CSV file and Prometheus samples."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import stat
import time
from collections.abc import Iterable, Sequence

from ..errors import WriteFailed
from ..output.prometheus import STATUS_VALUES, Sample, of_checks
from ..system import files
from .plan import GpuReport, Plan

#: The old script's columns, exactly. ``util_mem`` is the memory controller's; memory in MiB,
#: power in W.
HEADER = "timestamp,gpu_id,name,temp,util_gpu,util_mem,mem_used,mem_total,power_draw,power_limit"
_MIB = 1 << 20
#: Seconds to wait for another writer of the same file.
LOCK_PATIENCE = 5.0


def csv_rows(reports: Iterable[GpuReport], now: float) -> str:
    """Return one line per GPU. Time is local as in the old script; numbers are whole.

    What is not known is an empty field.
    """
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for report in reports:
        gpu = report.gpu
        writer.writerow(
            [
                stamp,
                gpu.id,
                gpu.name,
                gpu.temp,
                gpu.util_gpu,
                gpu.util_mem,
                gpu.mem_used,
                gpu.mem_total,
                _rounded(gpu.power_draw),
                _rounded(gpu.power_limit),
            ]
        )
    return out.getvalue()


def append_csv(path: str, reports: Sequence[GpuReport], now: float) -> None:
    """Append a row per GPU in one write under a lock; a new or empty file gets the header first.

    A file moved away by log rotation between opening and locking is noticed and the new one used.

    :param now: seconds since the epoch.
    :raises WriteFailed: the file is a link or no regular file, can't be made or locked, or the disk
        is full. A row that did not fit is removed again.
    """
    rows = csv_rows(reports, now)
    if not rows:
        return
    try:
        fd = _open_locked(path)
        try:
            size = os.fstat(fd).st_size
            before = _before_rows(fd, size)
            try:
                files.write_all(fd, (before + rows).encode("utf-8", "replace"))
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
    except OSError as error:
        reasons = {
            errno.ELOOP: "It is a symbolic link",
            errno.EWOULDBLOCK: "Another process holds its lock",
        }
        raise WriteFailed(
            f"Can't append to {path}: {reasons.get(error.errno or 0, error.strerror)}.",
            "Check that its directory exists, is writable and has space.",
            path,
        ) from error


def _before_rows(fd: int, size: int) -> str:
    """Return what must stand before the new rows: the header, or the end of an interrupted row."""
    if size == 0:
        return HEADER + "\n"
    if os.pread(fd, 1, size - 1) == b"\n":
        return ""
    return "\n"


def _open_locked(path: str) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        fd = os.open(path, flags, 0o640)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "It is not a regular file")
            _flock(fd)
            try:
                same = os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
            except FileNotFoundError:
                same = False
            if same:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _flock(fd: int) -> None:
    """Wait for the lock, but not for ever: whoever holds it may be stuck."""
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.01)


def samples(plan: Plan) -> list[Sample]:
    """Return the Prometheus samples of a report; what is not known is left out."""
    columns: dict[str, list[Sample]] = {}
    for report in plan.gpus:
        gpu = report.gpu
        labels = {"gpu": str(gpu.id), "uuid": gpu.uuid or ""}
        about = {
            **labels,
            "name": gpu.name or "",
            "bus_id": gpu.bus_id or "",
            "driver": plan.driver.version or "",
        }
        row = {
            "mlops_gpu_status": STATUS_VALUES.get(report.status),
            "mlops_gpu_temperature_celsius": gpu.temp,
            "mlops_gpu_memory_temperature_celsius": gpu.temp_memory,
            "mlops_gpu_temperature_margin_celsius": gpu.margin,
            "mlops_gpu_utilization_ratio": _scaled(gpu.util_gpu, 0.01),
            "mlops_gpu_memory_utilization_ratio": _scaled(gpu.util_mem, 0.01),
            "mlops_gpu_memory_used_bytes": _scaled(gpu.mem_used, _MIB),
            "mlops_gpu_memory_size_bytes": _scaled(gpu.mem_total, _MIB),
            "mlops_gpu_power_draw_watts": gpu.power_draw,
            "mlops_gpu_power_limit_watts": gpu.power_limit,
            "mlops_gpu_ecc_uncorrected_errors": gpu.ecc.volatile_uncorrected,
            "mlops_gpu_ecc_corrected_errors": gpu.ecc.volatile_corrected,
        }
        columns.setdefault("mlops_gpu_info", []).append(Sample("mlops_gpu_info", about, 1))
        for metric, value in row.items():
            columns.setdefault(metric, []).append(Sample(metric, labels, value))
        columns.setdefault("mlops_gpu_xid_errors", []).extend(
            Sample("mlops_gpu_xid_errors", {**labels, "xid": event.label}, event.count)
            for event in report.events
        )
    result = [Sample("mlops_gpu_devices", {}, plan.gpu_count)]
    for column in columns.values():
        result += column
    return result + of_checks("gpu", plan.checks, plan.now)


def _scaled(value: float | None, factor: float) -> float | None:
    if value is None:
        return None
    return round(value * factor, 4)


def _rounded(value: float | None) -> int | None:
    if value is None:
        return None
    return round(value)
