# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of what a node must have: suboptions of ``expected_hardware``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..options import OptionSet, option

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGTP]?)(I?B?)")


def parse_size(given: str) -> int:
    """Return the bytes of a size: ``512G`` and ``512 GiB`` are binary, ``3.84TB`` is decimal.

    :raises ValueError: it is no size.
    """
    match = _SIZE.fullmatch(given.strip().upper())
    if match is None:
        raise ValueError(given)
    base = 1024
    if match[3] == "B":
        base = 1000
    return int(float(match[1]) * base ** " KMGTP".index(match[2] or " "))


def _size(given: str) -> str | None:
    try:
        parse_size(given)
    except ValueError:
        return "that is no size such as 512G, 3.84TB or a number of bytes"
    return None


def _versions(given: Mapping[Any, Any]) -> str | None:
    for component, version in given.items():
        if not isinstance(component, str) or not isinstance(version, str):
            return f"the version of {component} must be text: quote it"
    return None


class DiskOptions(OptionSet):
    """Disks of one size."""

    size: str = option(required=True, check=_size, help="Size of each disk, such as 3.84TB.")
    count: int = option(type="int", default=1, minimum=0, help="How many there must be.")


class SpeedOptions(OptionSet):
    """Network interfaces of one speed."""

    speed: int = option(type="int", required=True, minimum=1, help="Least speed in Mbit/s.")
    count: int = option(type="int", default=1, minimum=0, help="How many must be up.")


class ExpectedHardware(OptionSet):
    """What a node must have; None = nothing is expected."""

    cpus: int | None = option(type="int", minimum=1, help="CPUs that are online.")
    memory: str | None = option(check=_size, help="Main memory, such as 512G; 3 % may be missing.")
    dimms: int | None = option(type="int", minimum=0, help="Memory modules, as EDAC counts them.")
    swap: str | None = option(check=_size, help="Swap space.")
    disks: list[DiskOptions] | None = option(
        type="list", elements="dict", suboptions=DiskOptions, help="Disks by size."
    )
    links: list[SpeedOptions] | None = option(
        type="list", elements="dict", suboptions=SpeedOptions, help="Network interfaces by speed."
    )
    gpus: int | None = option(type="int", minimum=0, help="NVIDIA GPUs on the PCI bus.")
    kernel_modules: list[str] | None = option(
        type="list", elements="str", help="Kernel modules that must be loaded or built in."
    )
    libraries: list[str] | None = option(
        type="list", elements="str", help="Libraries that the dynamic loader must find."
    )
    kernel: str | None = option(help="Version of the running kernel, a shell pattern.")
    driver: str | None = option(help="Version of the NVIDIA driver, a shell pattern.")
    firmware: dict[str, Any] | None = option(
        type="dict",
        check=_versions,
        help="Versions of firmware by component, shell patterns.",
    )
