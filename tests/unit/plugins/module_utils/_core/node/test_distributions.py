# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Healthy nodes of distributions, as trees of files: what is normal there is no fault."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run

#: Mounts that every node has; the programs of a test see this machine's own root.
COMMON_MOUNTS = """\
22 1 253:0 / / rw,relatime shared:1 - {root} /dev/vda1 rw
23 22 0:21 / /proc rw,nosuid,nodev,noexec shared:12 - proc proc rw
24 22 0:22 / /sys rw,nosuid,nodev,noexec shared:7 - sysfs sysfs rw
25 24 0:6 / /sys/kernel/security rw - securityfs securityfs rw
26 24 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec shared:8 - cgroup2 cgroup2 rw
27 22 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=4096k
28 27 0:25 / /dev/shm rw,nosuid,nodev shared:3 - tmpfs tmpfs rw
29 22 0:26 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=400000k,mode=755
30 23 0:31 / /proc/sys/fs/binfmt_misc rw shared:14 - autofs systemd-1 rw,fd=29,pgrp=1,timeout=0
31 30 0:45 / /proc/sys/fs/binfmt_misc rw shared:15 - binfmt_misc binfmt_misc rw
32 29 0:46 / /run/user/1000 rw,nosuid,nodev shared:16 - tmpfs tmpfs rw,size=400000k,uid=1000
"""
UBUNTU_MOUNTS = """\
40 29 0:26 /snapd/ns /run/snapd/ns rw - tmpfs tmpfs rw,size=400000k
41 22 7:0 / /snap/core22/1612 ro,nodev shared:30 - squashfs /dev/loop0 ro
42 22 7:1 / /snap/snapd/21759 ro,nodev shared:31 - squashfs /dev/loop1 ro
43 40 0:4 mnt:[4026532600] /run/snapd/ns/lxd.mnt rw - nsfs nsfs rw
44 29 0:60 / /run/credentials/systemd-resolved.service ro - ramfs none rw
45 29 0:26 /lock /run/lock rw - tmpfs tmpfs rw,size=5120k
"""
RHEL_MOUNTS = """\
40 24 0:20 / /sys/fs/selinux rw - selinuxfs selinuxfs rw
41 22 0:50 / /var/lib/nfs/rpc_pipefs rw - rpc_pipefs sunrpc rw
"""
#: By distribution: type of the root, further mounts, and files.
TREES = {
    "ubuntu": (
        "ext4",
        UBUNTU_MOUNTS,
        {
            "/etc/fstab": "LABEL=cloudimg-rootfs\t/\text4\tdiscard,errors=remount-ro\t0 1\n"
            "/swap.img none swap sw 0 0\n",
            "/etc/nsswitch.conf": "hosts:          files mdns4_minimal [NOTFOUND=return] dns\n",
            "/proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
            "/lib/modules/6.8.0-41-generic/modules.dep": "",
            "/boot/vmlinuz-6.8.0-41-generic": "",
            "/lib/modules/6.8.0-45-generic/modules.dep": "",
            "/boot/vmlinuz-6.8.0-45-generic": "",
            "/lib/modules/6.8.0-1015-nvidia/modules.dep": "",
            "/boot/vmlinuz-6.8.0-1015-nvidia": "",
        },
    ),
    "rhel": (
        "xfs",
        RHEL_MOUNTS,
        {
            "/etc/fstab": "/dev/mapper/rl-root     /   xfs     defaults        0 0\n"
            "/dev/mapper/rl-swap     none    swap    defaults        0 0\n",
            "/etc/nsswitch.conf": "hosts:      files dns myhostname\n",
            "/proc/sys/kernel/osrelease": "5.14.0-427.13.1.el9_4.x86_64\n",
            "/lib/modules/5.14.0-427.el9.x86_64/vmlinuz": "",
            "/lib/modules/5.14.0-427.13.1.el9_4.x86_64/vmlinuz": "",
            "/lib/modules/5.14.0-503.el9.x86_64+debug/vmlinuz": "",
            "/boot/vmlinuz-0-rescue-5b5f6cbb1e2a4bd0a5d1d1d2c3f4e5a6": "",
        },
    ),
    "amazon": (
        "xfs",
        "",
        {
            "/etc/fstab": "UUID=x     /           xfs    defaults,noatime  1   1\n"
            "UUID=y        /boot/efi       vfat    defaults,noauto,x-systemd.automount 0 2\n",
            "/etc/nsswitch.conf": "hosts:      files myhostname resolve [!UNAVAIL=return] dns\n",
            "/proc/sys/kernel/osrelease": "6.1.79-99.167.amzn2023.x86_64\n",
            "/lib/modules/6.1.79-99.167.amzn2023.x86_64/vmlinuz": "",
            "/lib/modules/6.1.79-99.164.amzn2023.x86_64/vmlinuz": "",
        },
    ),
    "suse": (
        "xfs",
        "",
        {
            "/etc/fstab": "UUID=x  /  xfs  defaults  0  0\nUUID=z  swap  swap  defaults  0  0\n",
            "/etc/nsswitch.conf": "hosts:  files mdns_minimal [NOTFOUND=return] dns\n",
            "/proc/sys/kernel/osrelease": "6.4.0-150600.23.17-default\n",
            "/lib/modules/6.4.0-150600.23.17-default/vmlinuz": "",
            "/lib/modules/6.4.0-150600.21-default/vmlinuz": "",
        },
    ),
}
FILES = {
    "/proc/loadavg": "0.20 0.30 0.40 1/300 4242\n",
    "/proc/stat": "cpu 1\ncpu0 1\ncpu1 1\nbtime 1799136000\n",
    "/proc/sys/fs/file-nr": "1200\t0\t9223372036854775807\n",
    "/proc/sys/kernel/pid_max": "4194304\n",
    "/proc/sys/kernel/threads-max": "60000\n",
    "/proc/sys/kernel/tainted": "12289\n",  # proprietary, out of tree, unsigned
    "/proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\n",
    "/proc/net/ipv6_route": "0" * 32
    + " 00 "
    + "0" * 32
    + " 00 "
    + "0" * 32
    + " ffffffff 00000001 00000000 00200200       lo\n",
    "/etc/resolv.conf": "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
    "/sys/class/net/lo/flags": "0x9\n",
    "/sys/class/net/eth0/flags": "0x1003\n",
    "/sys/class/net/eth0/carrier": "1\n",
    "/sys/class/net/eth0/operstate": "up\n",
    "/sys/class/net/eth0/device/vendor": "0x1af4\n",
}


@pytest.mark.parametrize("distribution", TREES)
def test_a_healthy_node_passes(machine, options, distribution):
    root, mounts, files = TREES[distribution]
    machine.put("/proc/self/mountinfo", COMMON_MOUNTS.format(root=root) + mounts)
    for path, content in {**FILES, **files}.items():
        machine.put(path, content)
    # What is asked of this machine itself: memory, the clock, the resolver, how full its disk is.
    skip = ["memory", "time_sync", "dns", "disk_usage", "inode_usage", "read_only"]
    checks = run(options(skip=skip), machine.world).to_dict()["checks"]
    complaints = [
        (check["check"], check["message"])
        for check in checks
        if check["status"] not in ("pass", "skipped")
    ]
    assert complaints == []
    passed = {check["check"] for check in checks if check["status"] == "pass"}
    assert {"cpu_load", "network_gateway", "network_link", "reboot_required", "uptime"} <= passed
