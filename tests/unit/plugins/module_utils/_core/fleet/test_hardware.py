# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The majority of the fleet as what is expected: hosts whose hardware differs from their peers'."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import hardware
from ansible_collections.mlops.fleet.tests import synthetic_fleet

GIB = 2**30
ALIKE = {
    "cpus": 224,
    "memory": 2048 * GIB,
    "dimms": 32,
    "swap": 0,
    "disks": [{"size": 3840755982336, "count": 8}, {"size": 480103981056, "count": 2}],
    "links": [{"speed": 400000, "count": 8}, {"speed": 25000, "count": 2}],
    "gpus": 8,
    "kernel_modules": ["gdrdrv", "nvidia_peermem"],
    "libraries": ["libcuda.so.1"],
    "firmware": {"bios": "2.4.4", "MT_0000000838": "28.39.1002"},
}
#: A value of ``hardware`` that differs from the others', and what is reported about it.
UNLIKE = [
    ({"cpus": 192}, "CPUs 192 on odd; most hosts of the group h100 have 224"),
    ({"memory": 1984 * GIB}, "memory 1.9 TiB on odd; most hosts of the group h100 have 2.0 TiB"),
    ({"dimms": 31}, "memory modules 31 on odd; most hosts of the group h100 have 32"),
    ({"swap": 8 * GIB}, "swap 8.0 GiB on odd; most hosts of the group h100 have 0 B"),
    (
        {"disks": [{"size": 3840755982336, "count": 7}, {"size": 480103981056, "count": 2}]},
        (
            "disks 7 x 3.5 TiB, 2 x 447.1 GiB on odd; most hosts of the group h100 have 8 x 3.5"
            " TiB, 2 x 447.1 GiB"
        ),
    ),
    ({"disks": []}, "disks none on odd; most hosts"),
    (
        {"links": [{"speed": 400000, "count": 7}, {"speed": 25000, "count": 2}]},
        "network interfaces 7 x 400000 Mbit/s, 2 x 25000 Mbit/s on odd; most hosts",
    ),
    ({"gpus": 7}, "GPUs on the PCI bus 7 on odd; most hosts"),
    (
        {"kernel_modules": ["gdrdrv"]},
        "kernel module nvidia_peermem is missing on odd; most hosts of the group h100 have it",
    ),
    (
        {"libraries": ["libcuda.so.1", "libnccl.so.2"]},
        "library libnccl.so.2 is on odd; most hosts of the group h100 do not have it",
    ),
    ({"firmware": {"bios": "2.1.0"}}, "firmware of bios 2.1.0 on odd; most hosts"),
]


def outliers(inventories):
    """Return what the report of these hosts says, from the results of node_health on."""
    documents = {
        host: {"health": {"changed": False, "checks": [], "hardware": inventory}}
        for host, inventory in inventories.items()
    }
    report = synthetic_fleet.run(0, results=documents)
    return synthetic_fleet.compared(report)["outliers"]


def fleet_of(count, inventory):
    return {f"h{number}": inventory for number in range(count)}


@pytest.mark.parametrize(("unlike", "text"), UNLIKE)
def test_hardware_is_compared_with_the_majority_of_the_peers(unlike, text):
    odd = {**ALIKE, **unlike}
    (difference,) = outliers({**fleet_of(5, ALIKE), "odd": odd, "silent": None})
    assert (difference["kind"], difference["hosts"]) == ("hardware", ["odd"])
    assert difference["text"].startswith(text)
    assert outliers({**fleet_of(2, ALIKE), "odd": odd}) == [], "too few peers"
    half = {f"odd{number}": odd for number in range(5)}
    assert outliers({**fleet_of(5, ALIKE), **half}) == [], "no majority"


def test_sizes_within_the_tolerance_are_alike():
    inventories = {
        f"h{number}": {
            "memory": (2048 - number * 5) * GIB,
            "disks": [
                {"size": 3840755982336 - number * 1000, "count": 4},
                {"size": 3840000000000, "count": 4},
            ],
        }
        for number in range(6)
    }
    assert outliers(inventories) == []


@pytest.mark.parametrize(
    "content",
    [None, [], {"cpus": "8", "disks": [3], "links": {}, "kernel_modules": "x", "firmware": [1]}],
)
def test_what_is_no_hardware_is_left_out(content):
    assert set(hardware.facts(content)) <= {"disks"}
    assert outliers(fleet_of(6, content)) == []
