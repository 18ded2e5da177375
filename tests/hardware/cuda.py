# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small port to CUDA's driver interface (libcuda.so.1) by ctypes: enough to load a GPU and to
measure copies.

Source of names and signatures: CUDA Driver API, https://docs.nvidia.com/cuda/cuda-driver-api/.
"""

from __future__ import annotations

import ctypes
import time

_DEVICE_ATTRIBUTE_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76

#: Each thread repeats a fused multiply-add chain and stores its last value. The chain is
#: deterministic, so every thread of every launch on every GPU must store the same bits.
MULTIPLY_ADD = rb"""
.version 6.0
.target sm_70
.address_size 64

.visible .entry multiply_add(.param .u64 output, .param .u32 rounds)
{
    .reg .pred %p<2>;
    .reg .f32 %f<9>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<5>;

    ld.param.u64 %rd1, [output];
    ld.param.u32 %r1, [rounds];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    mov.f32 %f1, 0f3F800000;
    mov.f32 %f2, 0f3F000000;
    mov.f32 %f3, 0f3E800000;
    mov.f32 %f4, 0f3E000000;
    mov.f32 %f5, 0f3F7FF972;
    mov.f32 %f6, 0f38D1B717;
    mov.u32 %r6, 0;
LOOP:
    fma.rn.f32 %f1, %f1, %f5, %f6;
    fma.rn.f32 %f2, %f2, %f5, %f6;
    fma.rn.f32 %f3, %f3, %f5, %f6;
    fma.rn.f32 %f4, %f4, %f5, %f6;
    fma.rn.f32 %f1, %f1, %f5, %f6;
    fma.rn.f32 %f2, %f2, %f5, %f6;
    fma.rn.f32 %f3, %f3, %f5, %f6;
    fma.rn.f32 %f4, %f4, %f5, %f6;
    add.s32 %r6, %r6, 1;
    setp.lt.u32 %p1, %r6, %r1;
    @%p1 bra LOOP;
    add.rn.f32 %f7, %f1, %f2;
    add.rn.f32 %f8, %f3, %f4;
    add.rn.f32 %f7, %f7, %f8;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    st.global.f32 [%rd4], %f7;
    ret;
}
"""
#: Launches between two looks at the results: often enough to notice, seldom enough to keep the GPU
#: busy.
_LAUNCHES = 20
FLOPS_PER_ROUND = 16  # eight fused multiply-adds, two operations each


class CudaError(Exception):
    """A call of the driver interface failed; the text names it and CUDA's own name of the error."""


class Gpu:
    """One GPU with a context of its own; memory is freed and the context destroyed on exit.

    :raises OSError: libcuda.so.1 is not installed. :raises CudaError: a call failed.
    """

    def __init__(self, index: int = 0) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self._memory: list[ctypes.c_uint64] = []
        self.call("cuInit", 0)
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), index)
        self._context = ctypes.c_void_p()
        self.call("cuCtxCreate_v2", ctypes.byref(self._context), 0, device)
        self.multiprocessors = self._attribute(device, _DEVICE_ATTRIBUTE_MULTIPROCESSORS)
        self.capability = (
            self._attribute(device, _CAPABILITY_MAJOR),
            self._attribute(device, _CAPABILITY_MINOR),
        )

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, *error: object) -> None:
        for pointer in self._memory:
            self._cuda.cuMemFree_v2(pointer)
        self._cuda.cuCtxDestroy_v2(self._context)

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver interface."""
        code = getattr(self._cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorName(code, ctypes.byref(text))
            raise CudaError(f"{name}: {(text.value or b'unknown').decode()} ({code})")

    def _attribute(self, device: ctypes.c_int, number: int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    def memory(self) -> tuple[int, int]:
        """Return free and total device memory in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> ctypes.c_uint64:
        """Allocate C(size) bytes of device memory."""
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._memory.append(pointer)
        return pointer

    def synchronize(self) -> None:
        """Wait for everything that was started."""
        self.call("cuCtxSynchronize")

    def compute(self, seconds: float) -> dict[str, object]:
        """Run the multiply-add kernel for about C(seconds); return TFLOP/s and whether all results
        were equal.
        """
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), MULTIPLY_ADD)
        self.call("cuModuleGetFunction", ctypes.byref(function), module, b"multiply_add")
        threads, blocks, rounds = 256, self.multiprocessors * 8, 200_000
        output = self.allocate(blocks * threads * 4)
        pointer, count = ctypes.c_uint64(output.value), ctypes.c_uint32(rounds)
        parameters = (ctypes.c_void_p * 2)(
            ctypes.cast(ctypes.byref(pointer), ctypes.c_void_p),
            ctypes.cast(ctypes.byref(count), ctypes.c_void_p),
        )
        grid = (blocks, 1, 1, threads, 1, 1)
        launches, values = 0, set()
        host = (ctypes.c_uint32 * (blocks * threads))()
        start = busy = time.perf_counter()
        spent = 0.0
        while time.perf_counter() - start < seconds:
            busy = time.perf_counter()
            for _launch in range(_LAUNCHES):
                self.call("cuLaunchKernel", function, *grid, 0, None, parameters, None)
            self.synchronize()
            spent += time.perf_counter() - busy
            launches += _LAUNCHES
            self.call("cuMemcpyDtoH_v2", host, output, ctypes.c_size_t(ctypes.sizeof(host)))
            values |= set(host)
        work = launches * blocks * threads * rounds * FLOPS_PER_ROUND
        return {
            "tflops": round(work / spent / 1e12, 2),
            "launches": launches,
            "distinct_results": len(values),
            "bits": sorted(hex(value) for value in values)[:4],
        }

    def copies(self, size: int = 1 << 30, repeats: int = 10) -> dict[str, float]:
        """Return bandwidths in GB/s: device to device (bytes read and written), host to device and
        back (pinned).
        """
        source, target = self.allocate(size), self.allocate(size)
        pinned = ctypes.c_void_p()
        self.call("cuMemAllocHost_v2", ctypes.byref(pinned), ctypes.c_size_t(size))
        number = ctypes.c_size_t(size)
        try:
            return {
                "device_to_device": 2
                * self._rate(size, repeats, "cuMemcpyDtoDAsync_v2", target, source, number, None),
                "host_to_device": self._rate(
                    size, repeats, "cuMemcpyHtoDAsync_v2", target, pinned, number, None
                ),
                "device_to_host": self._rate(
                    size, repeats, "cuMemcpyDtoHAsync_v2", pinned, source, number, None
                ),
            }
        finally:
            self.call("cuMemFreeHost", pinned)

    def _rate(self, size: int, repeats: int, name: str, *arguments: object) -> float:
        self.call(name, *arguments)
        self.synchronize()
        start = time.perf_counter()
        for _repeat in range(repeats):
            self.call(name, *arguments)
        self.synchronize()
        return round(size * repeats / (time.perf_counter() - start) / 1e9, 1)
