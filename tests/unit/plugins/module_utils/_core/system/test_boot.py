# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detection of containers and boot times, on machines made of files."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import boot
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.containers import (
    in_container,
)


@pytest.fixture
def machine(tmp_path, clock):
    """A world whose files are below a temporary directory."""

    def make(files=(), environ=None):
        for path, content in dict(files).items():
            target = tmp_path / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode())
        return World(run=None, clock=clock, root=str(tmp_path), environ=environ or {})

    return make


@pytest.mark.parametrize(
    ("files", "environ", "expected"),
    [
        ({}, {}, False),
        ({"/proc/1/environ": "PATH=/bin\0TERM=linux\0"}, {"PATH": "/bin"}, False),
        ({"/proc/1/environ": "PATH=/bin\0mycontainer=lxc\0"}, {}, False),
        ({"/run/.containerenv": ""}, {}, True),
        ({"/.dockerenv": ""}, {}, True),
        ({"/run/systemd/container": "systemd-nspawn"}, {}, True),
        ({"/var/run/secrets/kubernetes.io/x": ""}, {}, True),
        ({"/proc/1/environ": "PATH=/bin\0container=lxc\0"}, {}, True),
        ({}, {"container": "podman"}, True),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ({}, {"NVIDIA_VISIBLE_DEVICES": "all"}, True),
    ],
)
def test_containers(machine, files, environ, expected):
    assert in_container(machine(files, environ)) is expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"/proc/uptime": "100.5 3.0\n"}, 2_500_000_000.0 - 100.5),
        ({"/proc/uptime": "garbage", "/proc/stat": "cpu 1\nbtime 1700000000\n"}, 1_700_000_000.0),
        ({"/proc/stat": "btime x\n"}, None),
        ({"/proc/uptime": "-1 0"}, None),
        ({"/proc/uptime": "1e10 0"}, None),
    ],
)
def test_boot_time(machine, files, expected):
    assert boot.boot_time(machine(files)) == expected


def test_boot_id(machine):
    assert boot.boot_id(machine()) is None
    assert boot.boot_id(machine({"/proc/sys/kernel/random/boot_id": "a-b\n"})) == "a-b"
