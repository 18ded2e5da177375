# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests themselves: each runs inside a child process on one GPU (or one pair) and returns plain
figures.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from . import kernels
from .cuda import Context, Driver, Pointer
from .options import RESERVE, Level

#: Blocks per multiprocessor: enough to keep every one busy.
_WAVES = 8
_LAUNCHES = 10
#: The largest piece of memory in one allocation; fragments are filled with smaller ones.
_PIECE = 4 << 30
_SMALLEST = 1 << 20

Figures = dict[str, Any]


def memory(context: Context, level: Level, until: float) -> Figures:
    """Write patterns over a share of the free memory and read them back.

    :param until: monotonic time after which no further pattern is begun.
    :return: C(bytes) under test, C(patterns), C(mismatches) and C(samples) of (address offset,
        expected, read).
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
        # Every second pattern is the complement of the one before it, so that each bit is 0 once
        # and 1 once.
        seed = (0x5DEECE66 * (number // 2 + 1)) & 0xFFFFFFFF
        if number % 2:
            seed ^= 0xFFFFFFFF
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

    :return: C(tflops), C(launches), C(wrong) (blocks whose result differs from the first block's of
        the first launch) and C(fingerprint) of that result, the same on every healthy GPU.
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
            context.launch(
                "compute", blocks, kernels.THREADS, output, ctypes.c_uint32(kernels.ROUNDS)
            )
        context.synchronize()
        spent += time.monotonic() - begun
        figures["launches"] += _LAUNCHES
        result = context.read(output, blocks * size)
        reference = reference or result[:size]
        if result != reference * blocks:
            figures["wrong"] += sum(
                result[at : at + size] != reference for at in range(0, len(result), size)
            )
    work = figures["launches"] * blocks * kernels.THREADS * kernels.ROUNDS * kernels.FLOPS_PER_ROUND
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


class _Side(NamedTuple):
    """One GPU of the copies between GPUs: its context, a filled source, a target and a record of
    mismatches.
    """

    context: Context
    source: Pointer
    target: Pointer
    record: Pointer


_PEER_SEED = 0x1234ABCD


def peer(
    driver: Driver, devices: dict[int, int], level: Level, note: Callable[[str], None]
) -> list[Figures]:
    """Copy a pattern between every pair of GPUs and check it at its destination.

    :param devices: number of the GPU to the driver's number of it.
    :param note: gets each pair before it is tried.
    :return: for each pair C(source), C(target), C(direct) (peer access), C(rate) in GB/s and
        C(mismatches).
    """
    results: list[Figures] = []
    with ExitStack() as stack:
        sides: dict[int, _Side] = {}
        size = level.copy
        for number, device in devices.items():
            note(f"GPU {number}")
            context = stack.enter_context(driver.context(device))
            size = min(size, _copy_size(context, level))
            context.load(kernels.PTX)
            sides[number] = _Side(
                context,
                context.allocate(size),
                context.allocate(size),
                context.allocate(kernels.RECORD_WORDS * 4),
            )
            _launch_pattern("fill", context, sides[number].source, size)
            context.synchronize()
        for source, here in sides.items():
            for target, there in sides.items():
                if source != target:
                    note(f"GPU {source} to GPU {target}")
                    figures = _pair(here, there, size, level)
                    results.append({"source": source, "target": target, **figures})
    return results


def _launch_pattern(name: str, context: Context, buffer: Pointer, size: int, *more: Any) -> None:
    blocks = context.multiprocessors * _WAVES
    words, seed = ctypes.c_uint64(size // 4), ctypes.c_uint32(_PEER_SEED)
    context.launch(name, blocks, kernels.THREADS, buffer, words, seed, *more)


def _pair(here: _Side, there: _Side, size: int, level: Level) -> Figures:
    there.context.use()
    there.context.clear(there.record, kernels.RECORD_WORDS)
    there.context.clear(there.target, size // 4)
    there.context.synchronize()
    here.context.use()
    direct = here.context.reaches(there.context)
    if direct:
        here.context.enable(there.context)

    def copy() -> None:
        here.context.copy_to(there.context, there.target, here.source, size)

    copy()
    here.context.synchronize()
    seconds = _time_once(here.context, level, copy)
    there.context.use()
    room = ctypes.c_uint32(kernels.RECORDED)
    _launch_pattern("check", there.context, there.target, size, there.record, room)
    figures: Figures = {"mismatches": 0, "samples": []}
    _add_mismatches(figures, there.context.read(there.record, kernels.RECORD_WORDS * 4), 0)
    return {
        "direct": direct,
        "rate": _rate(size * level.repeats, seconds),
        "mismatches": figures["mismatches"],
    }


def _copy_size(context: Context, level: Level) -> int:
    """Return the bytes of a copy: the level's, less where the GPU is small."""
    return min(level.copy, context.memory()[0] // 4 // 4096 * 4096)


def _time(context: Context, level: Level, start: Callable[[], None]) -> float:
    """Return the seconds that the level's repeats take, the best of three tries; one copy before
    them warms up.
    """
    start()
    context.synchronize()
    best = float("inf")
    for dummy in range(3):
        best = min(best, _time_once(context, level, start))
    return best


def _time_once(context: Context, level: Level, start: Callable[[], None]) -> float:
    begun = time.monotonic()
    for dummy in range(level.repeats):
        start()
    context.synchronize()
    return time.monotonic() - begun


def _rate(size: int, seconds: float) -> float:
    return round(size / max(seconds, 1e-9) / 1e9, 1)
