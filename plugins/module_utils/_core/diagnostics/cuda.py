# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A port to CUDA's driver interface (``libcuda.so.1``), which comes with the driver: nothing else
is needed on a node.

Names, signatures and numbers: CUDA Driver API, https://docs.nvidia.com/cuda/cuda-driver-api/. Every
call may hang in a broken driver, so that a session runs in a child process with a deadline only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import FleetError

#: cuda.h, CUdevice_attribute.
_MULTIPROCESSORS = 16
#: cuda.h, CUresult: the codes that mean something of their own here.
OUT_OF_MEMORY, ALREADY_ENABLED = 2, 704

Pointer = ctypes.c_uint64


class CudaError(FleetError):
    """A call of the driver interface failed.

    :param call: the function, such as ``cuMemAlloc_v2``. :param code: CUDA's number of the error
        (CUresult).
    :param name: CUDA's name of it, such as ``CUDA_ERROR_OUT_OF_MEMORY``.
    """

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call} failed: {name} ({code}).", "", call)
        self.call, self.cuda_code, self.name = call, code, name

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaError, (self.call, self.cuda_code, self.name)


class Driver:
    """The driver's library.

    :raises OSError: it is not installed.
    :raises CudaError: it can't be initialised.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. :raises CudaError: it failed, or this driver does not have it."""
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise CudaError(name, -1, "not in this driver") from None
        code = function(*arguments)
        if code:
            raise CudaError(name, code, self._error_name(code))

    def _error_name(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(code, ctypes.byref(text))
        return (text.value or b"unknown error").decode("ascii", "replace")

    def by_bus_id(self, bus_id: str) -> int:
        """Return the driver's number of the GPU at a PCI address. The order differs from NVML's."""
        device = ctypes.c_int()
        self.call("cuDeviceGetByPCIBusId", ctypes.byref(device), bus_id.encode("ascii"))
        return device.value

    @contextmanager
    def context(self, device: int) -> Iterator[Context]:
        """Open a context on a GPU; its memory is freed and it is destroyed at the end, whatever
        happened.
        """
        handle = ctypes.c_void_p()
        self.call("cuCtxCreate_v2", ctypes.byref(handle), 0, device)
        context = Context(self, device, handle)
        try:
            yield context
        finally:
            context.close()


class Context:
    """A context on one GPU. Sizes are in bytes, times in seconds."""

    def __init__(self, driver: Driver, device: int, handle: ctypes.c_void_p) -> None:
        self.driver, self.device, self.handle = driver, device, handle
        self._memory: list[Pointer] = []
        self._pinned: list[ctypes.c_void_p] = []
        self._module: ctypes.c_void_p | None = None

    def close(self) -> None:
        """Give everything back. What fails here is freed with the context or with the process."""
        calls: list[tuple[str, Any]] = [("cuMemFree_v2", pointer) for pointer in self._memory]
        calls += [("cuMemFreeHost", pointer) for pointer in self._pinned]
        if self._module is not None:
            calls.append(("cuModuleUnload", self._module))
        for name, argument in [*calls, ("cuCtxDestroy_v2", self.handle)]:
            try:
                self.driver.call(name, argument)
            except CudaError:
                continue

    def use(self) -> None:
        """Make this the context of the calls that follow."""
        self.driver.call("cuCtxSetCurrent", self.handle)

    def attribute(self, number: int) -> int:
        """Return a device attribute by its number in cuda.h."""
        value = ctypes.c_int()
        self.driver.call("cuDeviceGetAttribute", ctypes.byref(value), number, self.device)
        return value.value

    @property
    def multiprocessors(self) -> int:
        return self.attribute(_MULTIPROCESSORS)

    def memory(self) -> tuple[int, int]:
        """Return free and total memory of the device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.driver.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> Pointer:
        """Allocate memory on the device. :raises CudaError: there is not enough."""
        pointer = Pointer()
        self.driver.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._memory.append(pointer)
        return pointer

    def free(self, pointer: Pointer) -> None:
        """Free what allocate() gave."""
        self._memory.remove(pointer)
        self.driver.call("cuMemFree_v2", pointer)

    def pin(self, size: int) -> ctypes.c_void_p:
        """Allocate page-locked memory of the host, freed at the end."""
        pointer = ctypes.c_void_p()
        self.driver.call("cuMemAllocHost_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._pinned.append(pointer)
        return pointer

    def synchronize(self) -> None:
        """Wait for everything that was started; errors of kernels are raised here."""
        self.driver.call("cuCtxSynchronize")

    def load(self, ptx: str) -> None:
        """Compile and load a module of kernels."""
        module = ctypes.c_void_p()
        self.driver.call("cuModuleLoadData", ctypes.byref(module), ptx.encode("ascii") + b"\0")
        self._module = module

    def launch(self, name: str, blocks: int, threads: int, *arguments: Any) -> None:
        """Start a kernel of the loaded module; the arguments are ctypes values in the kernel's
        order.
        """
        function = ctypes.c_void_p()
        self.driver.call(
            "cuModuleGetFunction", ctypes.byref(function), self._module, name.encode("ascii")
        )
        addresses = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in arguments]
        parameters = (ctypes.c_void_p * len(addresses))(*addresses)
        self.driver.call(
            "cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, None, parameters, None
        )

    def clear(self, pointer: Pointer, words: int) -> None:
        """Set 32-bit words to 0."""
        self.driver.call("cuMemsetD32_v2", pointer, 0, ctypes.c_size_t(words))

    def read(self, pointer: Pointer, size: int) -> bytes:
        """Return device memory."""
        buffer = ctypes.create_string_buffer(size)
        self.driver.call("cuMemcpyDtoH_v2", buffer, pointer, ctypes.c_size_t(size))
        return buffer.raw

    def copy(self, kind: str, target: Any, source: Any, size: int) -> None:
        """Start a copy; C(kind) is ``DtoD``, ``HtoD`` or ``DtoH``."""
        self.driver.call(f"cuMemcpy{kind}Async_v2", target, source, ctypes.c_size_t(size), None)

    def reaches(self, other: Context) -> bool:
        """Say whether this GPU can read the other's memory directly."""
        value = ctypes.c_int()
        self.driver.call("cuDeviceCanAccessPeer", ctypes.byref(value), self.device, other.device)
        return bool(value.value)

    def enable(self, other: Context) -> None:
        """Let this context read the other's memory."""
        try:
            self.driver.call("cuCtxEnablePeerAccess", other.handle, 0)
        except CudaError as error:
            if error.cuda_code != ALREADY_ENABLED:
                raise

    def copy_to(self, other: Context, target: Pointer, source: Pointer, size: int) -> None:
        """Start a copy from this GPU's memory to another GPU's."""
        number = ctypes.c_size_t(size)
        self.driver.call(
            "cuMemcpyPeerAsync", target, other.handle, source, self.handle, number, None
        )
