# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests themselves: each runs inside a child process on one GPU (or one pair) and returns plain figures."""

from __future__ import annotations

import ctypes
import hashlib
import struct
import time
from collections.abc import Callable
from typing import Any

from . import kernels
from .cuda import Context, Driver, Pointer
from .options import RESERVE, Level

#: Blocks per multiprocessor: enough to keep every one busy.
_WAVES = 8
#: Rounds of a compute launch: some 20 ms on a card of 2023, so that a deadline is never far.
_ROUNDS = 100_000
_LAUNCHES = 10
#: The largest piece of memory in one allocation; fragments are filled with smaller ones.
_PIECE = 4 << 30
_SMALLEST = 1 << 20

Figures = dict[str, Any]


def memory(context: Context, level: Level, until: float) -> Figures:
    """Write patterns over a share of the free memory and read them back.

    :param until: monotonic time after which no further pattern is begun.
    :return: C(bytes) under test, C(patterns), C(mismatches) and C(samples) of (address offset, expected, read).
    """
    free, total = context.memory()
    wanted = int(min(free * level.memory_share, free - total * RESERVE))
    pieces = _allocate(context, max(0, wanted))
    record = context.allocate(kernels.RECORD_WORDS * 4)
    blocks = context.multiprocessors * _WAVES
    figures: Figures = {
        "bytes": sum(size for dummy, size in pieces),
        "patterns": 0,
        "mismatches": 0,
        "samples": [],
    }
    started = time.monotonic()
    for number in range(level.patterns):
        # Every second pattern is the complement of the one before it, so that each bit is 0 once and 1 once.
        seed = (0x5DEECE66 * (number // 2 + 1)) & 0xFFFFFFFF
        seed ^= 0xFFFFFFFF if number % 2 else 0
        for pointer, size in pieces:
            words = ctypes.c_uint64(size // 4)
            context.launch("fill", blocks, kernels.THREADS, pointer, words, ctypes.c_uint32(seed))
        offset = 0
        for pointer, size in pieces:
            context.clear(record, kernels.RECORD_WORDS)
            context.launch(
                "check",
                blocks,
                kernels.THREADS,
                pointer,
                ctypes.c_uint64(size // 4),
                ctypes.c_uint32(seed),
                record,
                ctypes.c_uint32(kernels.RECORDED),
            )
            _add_mismatches(figures, context.read(record, kernels.RECORD_WORDS * 4), offset)
            offset += size
        figures["patterns"] = number + 1
        if time.monotonic() > until:
            break
    figures["seconds"] = round(time.monotonic() - started, 3)
    for pointer, dummy in pieces:
        context.free(pointer)
    return figures


def _allocate(context: Context, wanted: int) -> list[tuple[Pointer, int]]:
    """Allocate C(wanted) bytes in pieces, smaller ones where the memory is in fragments."""
    from .cuda import OUT_OF_MEMORY, CudaError

    pieces: list[tuple[Pointer, int]] = []
    size = _PIECE
    while wanted >= _SMALLEST and size >= _SMALLEST:
        size = min(size, wanted) // 4096 * 4096
        try:
            pieces.append((context.allocate(size), size))
            wanted -= size
        except CudaError as error:
            if error.cuda_code != OUT_OF_MEMORY:
                raise
            size //= 2
    return pieces


def _add_mismatches(figures: Figures, record: bytes, offset: int) -> None:
    count = struct.unpack_from("<I", record)[0]
    figures["mismatches"] += count
    for number in range(min(count, kernels.RECORDED)):
        low, high, expected, value = struct.unpack_from("<4I", record, 4 + 16 * number)
        if len(figures["samples"]) < kernels.RECORDED:
            figures["samples"].append((offset + ((high << 32) | low) * 4, expected, value))


def device_bandwidth(context: Context, level: Level, _until: float) -> Figures:
    """Copy inside the GPU; C(rate) counts bytes read and written, in GB/s (1e9 bytes)."""
    size = _copy_size(context, level)
    source, target = context.allocate(size), context.allocate(size)
    seconds = _time(context, level, lambda: context.copy("DtoD", target, source, size))
    context.free(source)
    context.free(target)
    return {"rate": _rate(2 * size * level.repeats, seconds)}


def host_bandwidth(context: Context, level: Level, _until: float) -> Figures:
    """Copy from and to page-locked host memory; rates in GB/s."""
    size = _copy_size(context, level)
    device, host = context.allocate(size), context.pin(size)
    down = _time(context, level, lambda: context.copy("HtoD", device, host, size))
    up = _time(context, level, lambda: context.copy("DtoH", host, device, size))
    moved = size * level.repeats
    figures = {"host_to_device": _rate(moved, down), "device_to_host": _rate(moved, up)}
    context.free(device)
    return figures


def compute(context: Context, level: Level, until: float) -> Figures:
    """Run the arithmetic kernel and compare the results of all blocks and launches.

    :return: C(tflops), C(launches), C(wrong) (blocks whose result differs from the first block's of the first
        launch) and C(fingerprint) of that result, the same on every healthy GPU.
    """
    blocks = context.multiprocessors * _WAVES
    size = kernels.THREADS * 4
    output = context.allocate(blocks * size)
    figures: Figures = {"launches": 0, "wrong": 0, "fingerprint": ""}
    reference = b""
    spent = 0.0
    started = time.monotonic()
    while not figures["launches"] or time.monotonic() < min(started + level.compute, until):
        begun = time.monotonic()
        for dummy in range(_LAUNCHES):
            context.launch("compute", blocks, kernels.THREADS, output, ctypes.c_uint32(_ROUNDS))
        context.synchronize()
        spent += time.monotonic() - begun
        figures["launches"] += _LAUNCHES
        result = context.read(output, blocks * size)
        reference = reference or result[:size]
        if result != reference * blocks:
            figures["wrong"] += sum(
                result[at : at + size] != reference for at in range(0, len(result), size)
            )
    work = figures["launches"] * blocks * kernels.THREADS * _ROUNDS * kernels.FLOPS_PER_ROUND
    figures["tflops"] = round(work / max(spent, 1e-9) / 1e12, 2)
    figures["fingerprint"] = hashlib.sha256(reference).hexdigest()[:16]
    context.free(output)
    return figures


#: What runs on one GPU, by the name of the test.
SINGLE: dict[str, Callable[[Context, Level, float], Figures]] = {
    "memory": memory,
    "device_bandwidth": device_bandwidth,
    "host_bandwidth": host_bandwidth,
    "compute": compute,
}


def peer(
    driver: Driver, devices: dict[int, int], level: Level, note: Callable[[str], None]
) -> list[Figures]:
    """Copy a pattern between every pair of GPUs and check it at its destination.

    :param devices: number of the GPU to the driver's number of it. :param note: gets each pair before it is tried.
    :return: for each pair C(source), C(target), C(direct) (peer access), C(rate) in GB/s and C(mismatches).
    """
    results: list[Figures] = []
    for source in devices:
        for target in devices:
            if source != target:
                note(f"copy from GPU {source} to GPU {target}")
                results.append(
                    _pair(driver, devices[source], devices[target], level, (source, target))
                )
    return results


def _pair(driver: Driver, first: int, second: int, level: Level, pair: tuple[int, int]) -> Figures:
    with driver.context(second) as there, driver.context(first) as here:
        direct = here.reaches(there)
        if direct:
            here.enable(there)
        size = min(_copy_size(here, level), _copy_size(there, level))
        here.load(kernels.PTX)
        blocks = here.multiprocessors * _WAVES
        source = here.allocate(size)
        words, seed = ctypes.c_uint64(size // 4), ctypes.c_uint32(0x1234ABCD)
        here.launch("fill", blocks, kernels.THREADS, source, words, seed)
        there.use()
        there.load(kernels.PTX)
        target, record = there.allocate(size), there.allocate(kernels.RECORD_WORDS * 4)
        there.clear(record, kernels.RECORD_WORDS)
        there.clear(target, size // 4)
        there.synchronize()
        here.use()
        seconds = _time(here, level, lambda: here.copy_to(there, target, source, size))
        there.use()
        there.launch(
            "check",
            blocks,
            kernels.THREADS,
            target,
            words,
            seed,
            record,
            ctypes.c_uint32(kernels.RECORDED),
        )
        figures: Figures = {"mismatches": 0, "samples": []}
        _add_mismatches(figures, there.read(record, kernels.RECORD_WORDS * 4), 0)
        here.use()
    return {
        "source": pair[0],
        "target": pair[1],
        "direct": direct,
        "rate": _rate(size * level.repeats, seconds),
        "mismatches": figures["mismatches"],
    }


def _copy_size(context: Context, level: Level) -> int:
    """Return the bytes of a copy: the level's, less where the GPU is small."""
    return min(level.copy, context.memory()[0] // 4 // 4096 * 4096)


def _time(context: Context, level: Level, start: Callable[[], None]) -> float:
    """Return the seconds that the level's repeats take; one more before them warms up."""
    start()
    context.synchronize()
    begun = time.monotonic()
    for dummy in range(level.repeats):
        start()
    context.synchronize()
    return time.monotonic() - begun


def _rate(size: int, seconds: float) -> float:
    return round(size / max(seconds, 1e-9) / 1e9, 1)
