# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on a node whose driver is absent, broken or does not answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import verdict
from ..system.text import human_count
from ..verdict import CRITICAL, SKIPPED, UNKNOWN, WARNING
from . import reading
from .case import Finding
from .reading import Reading

if TYPE_CHECKING:
    from .facts import Facts, OtherGpu
    from .plan import NodeCase

#: NVML codes after which only a reboot helps: time-out, interrupts, lost, unknown.
_NEEDS_REBOOT = frozenset({10, 11, reading.GPU_IS_LOST, reading.UNKNOWN_ERROR})


def finding(case: NodeCase) -> Finding:
    """Return the verdict on a driver that is absent, broken or does not answer."""
    answers = case.answers
    if answers is not None and answers.stuck:
        return _stuck(answers.stuck)
    if answers is not None and answers.hung:
        return _hung(case, answers)
    on_bus = _on_bus(case.facts)
    if case.options.expected_count == 0:
        if case.facts.pci:
            text = f"{on_bus}, but none expected, and no working driver"
            return Finding(WARNING, text, "inspect")
        return Finding(SKIPPED, "No GPU on this node, as expected")
    code = reading.LIBRARY_NOT_FOUND if answers is None else answers.code
    if code == reading.LIBRARY_NOT_FOUND:
        return _not_installed(case)
    if code == reading.DRIVER_NOT_LOADED:
        text = "The NVIDIA driver is installed but not loaded"
        if case.facts.pci:
            text += f", {on_bus}"
        elif case.options.expected_count is None:
            text += "; set expected_count to 0 if this node has no GPU"
        return Finding(CRITICAL, text, "inspect")
    if code == reading.MISMATCH:
        text = (
            "The driver's library and its loaded kernel module have different versions: "
            "reload the module or reboot"
        )
        return Finding(CRITICAL, text, "reboot")
    text = f"The NVIDIA driver answers with an error: {answers.text if answers else ''}"
    if code != reading.UNREADABLE:
        text += f" (NVML code {code})"
    if code == reading.NO_PERMISSION:
        return Finding(UNKNOWN, text, "inspect", unknown_as=CRITICAL)
    if code in _NEEDS_REBOOT:
        return Finding(CRITICAL, text, "reboot")
    return Finding(CRITICAL, text, "inspect")


def _on_bus(facts: Facts) -> str:
    holders = sorted({gpu.driver for gpu in facts.pci} - {"", "nvidia"})
    count = human_count(len(facts.pci), "NVIDIA GPU")
    held = ""
    if holders:
        held = f" (held by {', '.join(holders)})"
    return f"{count} on the PCI bus{held}"


def _others(others: Sequence[OtherGpu]) -> str:
    """Return the GPUs of other vendors as a phrase."""
    vendors = [gpu.vendor for gpu in others]
    counts = ", ".join(
        human_count(vendors.count(vendor), f"GPU of {vendor}").replace(
            f" of {vendor}s", f"s of {vendor}"
        )
        for vendor in dict.fromkeys(vendors)
    )
    places = ", ".join(gpu.address for gpu in others[:8])
    return f"{counts} at {places}"


def _stuck(stuck: tuple[int, float]) -> Finding:
    pid, start = stuck
    text = (
        f"The driver does not answer: hung since {verdict.isoformat(start)}, process {pid} "
        "of an earlier check still waits, so it was not asked again"
    )
    return Finding(CRITICAL, text, "reboot")


def _hung(case: NodeCase, answers: Reading) -> Finding:
    timeout = case.options.timeout
    text = f"The driver does not answer: no reply within {timeout:g} s to {answers.hung}"
    asked = {gpu.id for gpu in answers.gpus} | {answers.hung_gpu}
    if answers.hung_gpu is not None:
        skipped = [str(index) for index in range(answers.count or 0) if index not in asked]
        if skipped:
            text += f"; not asked: GPU {', '.join(skipped)}"
    return Finding(CRITICAL, text, "reboot", timeout, "s")


def _not_installed(case: NodeCase) -> Finding:
    expected = case.options.expected_count
    if case.facts.pci:
        text = f"{_on_bus(case.facts)}, but the NVIDIA driver is not installed"
        return Finding(CRITICAL, text, "inspect")
    if expected:
        text = (
            f"{human_count(expected, 'GPU')} expected, but there is no NVIDIA driver "
            "and no NVIDIA GPU was detected"
        )
        return Finding(CRITICAL, text, "inspect")
    if case.options.backend == "amd_smi":
        return Finding(CRITICAL, "amd-smi is not installed", "inspect")
    text = "No NVIDIA GPU on this node: no driver library and no device on the PCI bus"
    if case.facts.others:
        text += f"; {_others(case.facts.others)} not checked"
    return Finding(SKIPPED, text)
