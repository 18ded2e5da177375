# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors in the logs: journal entries and kernel records of real machines."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import journal
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.journal import (
    LogEntry,
    LogFacts,
    OomCounter,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import (
    journal as system_journal,
)

#: Kernel messages as they were logged (priority err and worse).
REAL = {
    "file system error": "EXT4-fs (loop0): Remounting filesystem read-only",
    "disk I/O error": (
        "I/O error, dev sda, sector 12345 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2"
    ),
    "NVMe controller fault": (
        "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10"
    ),
    "machine check": "mce: [Hardware Error]: Machine check events logged",
    "lock-up": "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [python3:4242]",
    "kernel bug": "BUG: unable to handle page fault for address: ffffc90000a3f000",
    "hung task": "INFO: task python3:4242 blocked for more than 120 seconds.",
    "network device fault": "NETDEV WATCHDOG: CPU: 3: transmit queue 7 timed out 5120 ms",
}
OOM = (
    "Memory cgroup out of memory: Killed process 23824 (python3) total-vm:123kB, anon-rss:99kB,"
    " UID:0 oom_score_adj:0"
)
NODE_OOM = (
    "Out of memory: Killed process 77 (trainer) total-vm:1kB, anon-rss:1kB, UID:1000"
    " oom_score_adj:0"
)


#: Lines from bug reports, mailing lists and the tests of gpud and other monitors.
REPORTED = [
    (
        "network adapter fault",
        3,
        (
            "mlx5_core 0000:0d:00.0: poll_health:801:(pid 0): device's health compromised - reached"
            " miss count"
        ),
    ),
    (
        "network adapter fault",
        3,
        (
            "mlx5_core 0000:0d:00.0: print_health_info:431:(pid 0): Health issue observed, firmware"
            " internal error, severity(3) ERROR:"
        ),
    ),
    (
        "network adapter warning",
        4,
        (
            "mlx5_core 0000:0d:00.0: print_health_info:431:(pid 0): Health issue observed, High"
            " temperature, severity(4) WARNING:"
        ),
    ),
    (
        "network adapter warning",
        4,
        (
            "mlx5_core 0000:41:00.1: temp_warn:170:(pid 0): High temperature on sensors with bit"
            " set 0 1"
        ),
    ),
    (
        "network adapter fault",
        3,
        "mlx5_core 0000:41:00.0: poll_health:471:(pid 0): device's health compromised",
    ),
    (
        "network adapter fault",
        3,
        "mlx5_core 0000:bb:00.0: poll_health:1083:(pid 0): Fatal error 1 detected",
    ),
    (
        "network adapter fault",
        3,
        "mlx5_core 0000:bb:00.0: print_health_info:491:(pid 0): PCI slot is unavailable",
    ),
    (
        None,
        4,
        (
            "mlx5_core 0000:5c:00.0: mlx5_pcie_event:299:(pid 268269): Detected insufficient power"
            " on the PCIe slot (27W)."
        ),
    ),
    (
        None,
        3,
        (
            "mlx5_core 0000:d2:00.0: mlx5_cmd_out_err:838:(pid 268269): ACCESS_REG(0x805)"
            " op_mod(0x1) failed"
        ),
    ),
    (
        "network adapter fault",
        3,
        (
            "mlx5_core 0000:03:00.0: wait_func:964:(pid 112): ENABLE_HCA(0x104) timeout. Will cause"
            " a leak of a command resource"
        ),
    ),
    (
        "network cable fault",
        3,
        "mlx5_core 0000:5c:00.0: Port module event[error]: module 0, Cable error, High Temperature",
    ),
    (
        "network cable fault",
        6,
        (
            "mlx5_core 0000:5c:00.0: Port module event[error]: module 0, Cable error, Bus stuck(I2C"
            " or data shorted)"
        ),
    ),
    (None, 6, "mlx5_core 0000:5c:00.0: Port module event: module 1, Cable unplugged"),
    ("PCIe link down", 6, "pcieport 0000:b0:03.0: pciehp: Slot(3): Link Down"),
    ("PCIe link down", 6, "pciehp 0000:b0:03.0:pcie204: Slot(3): Link Down"),
    ("PCIe link down", 6, "pcieport 0000:b0:03.0: pciehp: Slot(3-1): Card not present"),
    (None, 6, "pcieport 0000:b0:03.0: pciehp: Slot(3): Link Down/Up ignored (recovered by DPC)"),
    (None, 6, "pcieport 0000:b0:03.0: pciehp: Slot(3): Link Up"),
    ("PCIe link down", 6, "pciehp 0000:13:01.0:pcie24: slot(1-5): Link Down event"),
    ("PCIe link down", 6, "pciehp 0000:00:1c.0:pcie004: Card not present on Slot(2)"),
    (
        None,
        6,
        (
            "pciehp 0000:00:1c.1:pcie004: Slot(3): Link Down event queued; currently getting"
            " powered on"
        ),
    ),
    (
        None,
        6,
        "pciehp 0000:00:1c.1:pcie004: Slot(3): Link Down event ignored; already powering off",
    ),
    (None, 6, "pciehp 0000:00:1c.1:pcie004: Card present on Slot(3)"),
    ("ATA command failed", 3, "ata1.00: failed command: READ FPDMA QUEUED"),
    (
        "btrfs checksum error",
        4,
        (
            "BTRFS warning (device sda4): csum failed root 257 ino 293 off 15661608960 csum"
            " 0x445ced74 expected csum 0x2f7d82ec mirror 1"
        ),
    ),
    ("ATA command failed", 3, "ata6.02: failed command: READ DMA EXT"),
    ("ATA command failed", 4, "ata2.00: disabled"),
    ("ATA command failed", 3, "ata3: reset failed, giving up"),
    (None, 4, "ata1.00: NCQ disabled due to excessive errors"),
    (None, 4, "ata7: reset failed (errno=-32), retrying in 8 secs"),
    (
        "btrfs checksum error",
        4,
        (
            "BTRFS warning (device dm-0): checksum verify failed on logical 2070681747456 mirror 1"
            " wanted 0x00000000 found 0xbed7400f level 0"
        ),
    ),
    (
        "btrfs checksum error",
        3,
        "BTRFS error (device sdb): fixed up error at logical 5312512 on dev /dev/sdb",
    ),
    (None, 6, "BTRFS info (device loop0): using blake2b (blake2b-256-generic) checksum algorithm"),
    ("NVMe time-out", 4, "nvme nvme0: I/O 978 QID 3 timeout, completion polled"),
    ("NVMe time-out", 4, "nvme nvme0: I/O 201 (I/O Cmd) QID 4 timeout, aborting"),
    ("NVMe time-out", 4, "nvme nvme0: queue 1: timeout request 0x3 type 6"),
    (
        "NVMe time-out",
        4,
        "nvme nvme1: I/O tag 0 (0000) type 4 opcode 0x18 (Keep Alive) QID 0 timeout",
    ),
    (
        "NVMe controller fault",
        4,
        "nvme nvme4: I/O tag 22 (2016) opcode 0x2 (Admin Cmd) QID 0 timeout, reset controller",
    ),
    ("NVMe controller fault", 4, "block nvme0n1: no available path - failing I/O"),
    (None, 4, "block nvme0n1: no usable path - requeuing I/O"),
    (None, 4, "nvme nvme0: Shutdown timeout set to 10 seconds"),
    (
        "NVMe time-out",
        4,
        (
            "nvme nvme0: I/O tag 26 (401a) opcode 0x2 (I/O Cmd) QID 8 timeout, aborting"
            " req_op:READ(0) size:4096"
        ),
    ),
    (
        "workqueue lock-up",
        0,
        "BUG: workqueue lockup - pool cpus=4 node=0 flags=0x0 nice=0 stuck for 30s!",
    ),
    (
        None,
        4,
        (
            "workqueue: drm_fb_helper_damage_work hogged CPU for >10000us 4 times, consider"
            " switching to WQ_UNBOUND"
        ),
    ),
    (
        "network device stuck",
        0,
        "unregister_netdevice: waiting for vxlan1 to become free. Usage count = 11",
    ),
    ("IOMMU fault", 3, "DMAR: DRHD: handling fault status reg 3"),
    (
        "IOMMU fault",
        3,
        (
            "DMAR: [DMA Read NO_PASID] Request device [00:1e.3] fault addr 0xffffa000 [fault reason"
            " 0x06] PTE Read access is not set"
        ),
    ),
    (
        "IOMMU fault",
        3,
        (
            "ahci 0000:28:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0035"
            " address=0x7fffff00000 flags=0x0000]"
        ),
    ),
    (None, 6, "DMAR: Host address width 46"),
    (None, 6, "AMD-Vi: Interrupt remapping enabled"),
    ("IOMMU fault", 3, "DRHD: handling fault status reg 3"),
    ("IOMMU fault", 3, "DMAR:[DMA Read] Request device [04:00.0] fault addr fde00000"),
    ("IOMMU fault", 3, "DMAR:[fault reason 12] non-zero reserved fields in PTE"),
    ("IOMMU fault", 3, "dmar: DRHD: handling fault status reg 2"),
    (
        "IOMMU fault",
        3,
        (
            "DMAR: [INTR-REMAP] Request device [c9:05.0] fault index 0xa00 [fault reason 0x25]"
            " Blocked a compatibility format interrupt request"
        ),
    ),
    (
        "IOMMU fault",
        3,
        (
            "AMD-Vi: Event logged [IO_PAGE_FAULT device=0a:00.0 domain=0x001d"
            " address=0x000000000637c000 flags=0x0000]"
        ),
    ),
    ("IOMMU fault", 1, "AMD-Vi: IOMMU 0000:20:00.2: Completion-Wait loop timed out"),
    ("neighbour table overflow", 6, "neighbour: arp_cache: neighbor table overflow!"),
    ("neighbour table overflow", 4, "Neighbour table overflow."),
    (
        "uncorrected memory error",
        4,
        (
            "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0"
            " page:0x1 offset:0x0 grain:32)"
        ),
    ),
    (
        None,
        4,
        (
            "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0"
            " page:0x1 offset:0x0 grain:32)"
        ),
    ),
    (
        "uncorrected memory error",
        4,
        (
            "EDAC MC0: 1 UE multi-bit ECC on unknown memory (node:0 card:0 module:1 rank:1 bank:13"
            " device:6 row:64114 column:832)"
        ),
    ),
    (
        "uncorrected memory error",
        4,
        'EDAC MC0: UE page 0x1fffc, offset 0x0, grain 4096, row 0, labels ":": i82875p UE',
    ),
    (
        "uncorrected memory error",
        0,
        "EDAC DEVICE0: UE: cpu instance: cpu0 block: L2 count: 1 'L2 double bit'",
    ),
    ("network file system", 5, "nfs: server nas1 not responding, timed out"),
    ("network file system", 5, "nfs: server 7.247.192.16 not responding, still trying"),
    (None, 5, "nfs: server 7.247.192.16 OK"),
    ("hung task", 3, "INFO: task dd:456 blocked in I/O wait for more than 122 seconds."),
    (
        "file system error",
        1,
        (
            "XFS (dm-0): Metadata I/O Error (0x1) detected at xfs_trans_read_buf_map+0x1ea/0x4b0"
            " [xfs] (fs/xfs/xfs_trans_buf.c:311).  Shutting down filesystem."
        ),
    ),
    ("file system error", 1, "XFS (dm-0): log I/O error -5"),
    ("file system error", 3, "Aborting journal on device sdc1-8."),
    ("file system error", 3, "EXT4-fs (dm-0): I/O error while writing superblock"),
]


#: From the tests of gpud (components/disk, nfs, accelerator/nvidia) and the kernel's sources.
GPUD = [
    (
        "RAID disk failure",
        2,
        "md/raid0md0: Disk failure on nvme0n1p1 detected, failing array.",
    ),
    ("RAID disk failure", 2, "md/raid1:md127: Disk failure on sdb1, disabling device."),
    ("RAID disk failure", 2, "md/raid:md5: Disk failure on nvme3n1, disabling device."),
    (None, 6, "md/raid1:md127: active with 2 out of 2 mirrors"),
    ("network file system", 4, "NFS: nfs4_reclaim_open_state: Lock reclaim failed!"),
    (
        "GPUDirect RDMA fault",
        3,
        (
            "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping"
            " further processing"
        ),
    ),
    ("kernel bug", 4, "divide error: 0000 [#1] SMP NOPTI"),
    ("kernel bug", 4, "invalid opcode: 0000 [#1] PREEMPT SMP"),
    ("kernel bug", 0, "Internal error: Oops - BUG: 00000000f2000800 [#1] SMP"),
    (
        None,
        4,
        "traps: python3[4242] trap invalid opcode ip:7f3a sp:7ffe error:0 in libtorch_cpu.so",
    ),
    (
        "file system error",
        2,
        "BTRFS: error (device dm-0: state A) in btrfs_finish_ordered_io:3344: errno=-5 IO failure",
    ),
]


#: More of the same, as kernels logged them: rule (None: harmless), syslog priority, message.
MORE = [
    ("lock-up", 3, "rcu: INFO: rcu_sched self-detected stall on CPU"),
    ("lock-up", 3, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks: { 3-... } 5 jiffies"),
    (
        "uncorrected hardware error",
        0,
        "mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 7: be00000000800400",
    ),
    ("uncorrected hardware error", 0, "[Hardware Error]: Uncorrected, software restartable error."),
    ("machine check", 0, "[Hardware Error]: Corrected error, no action required."),
    (
        "machine check",
        0,
        (
            "[Hardware Error]: CPU:0 (17:31:0)"
            " MC18_STATUS[Over|CE|MiscV|AddrV|-|-|SyndV|CECC|-|-|-]: 0xdc2040000000011b"
        ),
    ),
    ("NVMe controller fault", 4, "nvme nvme2: I/O 256 QID 1 timeout, reset controller"),
    (
        "NVMe controller fault",
        4,
        "nvme nvme2: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10",
    ),
    ("NVMe controller fault", 4, "nvme nvme2: Disabling device after reset failure: -19"),
    (
        "kernel bug",
        4,
        (
            "general protection fault, probably for non-canonical address 0xdead000000000100: 0000"
            " [#1] PREEMPT SMP NOPTI"
        ),
    ),
    ("disk I/O error", 3, "Buffer I/O error on dev sda1, logical block 0, async page read"),
    (
        "disk I/O error",
        3,
        (
            "blk_update_request: critical medium error, dev sdc, sector 8 op 0x0:(READ) flags 0x0"
            " phys_seg 1 prio class 0"
        ),
    ),
    (
        "network file system",
        3,
        "CIFS: VFS: \\\\server has not responded in 180 seconds. Reconnecting...",
    ),
    (None, 3, "I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2"),
    (None, 3, "Buffer I/O error on dev fd0, logical block 0, async page read"),
    (
        None,
        3,
        (
            "blk_update_request: I/O error, dev sr0, sector 0 op 0x0:(READ) flags 0x80700 phys_seg"
            " 1 prio class 0"
        ),
    ),
    (
        "PCIe error",
        3,
        (
            "pcieport 0000:00:01.0: PCIe Bus Error: severity=Uncorrectable (Fatal),"
            " type=Transaction Layer, (Receiver ID)"
        ),
    ),
    (None, 4, "{1}[Hardware Error]: event severity: corrected"),
    (
        None,
        4,
        (
            "pcieport 0000:00:1c.0: PCIe Bus Error: severity=Corrected, type=Physical Layer,"
            " (Receiver ID)"
        ),
    ),
]


@pytest.mark.parametrize(("name", "priority", "message"), [*MORE, *REPORTED, *GPUD])
def test_more_kernel_messages(options, name, priority, message):
    facts = _facts()._replace(entries=[LogEntry(message, 0, True, priority, "kernel")])
    found = [
        check
        for check in journal.decide(facts, OomCounter(), options())
        if check.check == "kernel_errors"
    ]
    assert [check.subject for check in found] == [name]
    if name == "machine check":
        assert found[0].status == "warning", "corrected"
    if priority > 3:
        assert _checks(options(), facts)[("journal_errors", None)].value == 0


def test_a_server_that_responds_again_is_no_fault(options):
    lines = [
        "nfs: server a not responding, still trying",
        "nfs: server ab not responding, timed out",
    ]
    entries = [LogEntry(line, 0, True, 5, "kernel") for line in [*lines, "nfs: server a OK"]]
    check = _checks(options(), _facts(entries=entries))[("kernel_errors", "network file system")]
    assert (check.value, check.message[-15:]) == (1, "ding, timed out")
    entries.append(LogEntry("nfs: server ab OK", 0, True, 5, "kernel"))
    assert _checks(options(), _facts(entries=entries))[("kernel_errors", None)].status == "pass"


INFORMATION = ["+", "_TRANSPORT=kernel", "PRIORITY=6"]
PCIEHP = "/sys/bus/pci_express/drivers/pciehp"
MLX5 = "/sys/bus/pci/drivers/mlx5_core"
NFS = "36 25 0:40 / /data rw - nfs4 nas:/ rw\n"
NFSD = "36 25 0:40 / /proc/fs/nfsd rw - nfsd nfsd rw\n"
OVERFLOWS = "entries allocs table_fulls\n00000003 000000c8 {}\n00000003 000000c8 00000000\n"


@pytest.mark.parametrize(
    ("files", "matches"),
    [
        ({}, []),
        ({"/proc/net/stat/arp_cache": OVERFLOWS.format("00000000")}, []),
        (
            {"/proc/net/stat/ndisc_cache": OVERFLOWS.format("0000000a")},
            ["+", "_TRANSPORT=kernel", "PRIORITY=6"],
        ),
        (
            {f"{PCIEHP}/0000:b0:03.0:pcie204/device": "", f"{PCIEHP}/uevent": ""},
            [
                *INFORMATION,
                "_KERNEL_DEVICE=+pci:0000:b0:03.0",
                "_KERNEL_DEVICE=+pci_express:0000:b0:03.0:pcie204",
            ],
        ),
        (
            {
                f"{MLX5}/0000:5c:00.0/device": "",
                f"{MLX5}/0000:5c:00.2/physfn/device": "",
                f"{MLX5}/module/refcnt": "1",
            },
            [*INFORMATION, "_KERNEL_DEVICE=+pci:0000:5c:00.0"],
        ),
        ({"/proc/self/mountinfo": NFS}, ["+", "_TRANSPORT=kernel", "PRIORITY=5"]),
        ({"/proc/self/mountinfo": NFSD}, []),
    ],
)
def test_lesser_messages_are_read_only_where_they_may_matter(machine, options, files, matches):
    machine.put("/var/log/journal/m/system.journal", "")
    for path, content in files.items():
        machine.put(path, content)
    asked = []

    def journalctl(argv, **dummy):
        asked.append(argv)
        return CommandResult(0, "", "")

    journal.observe(dataclasses.replace(machine.world, run=journalctl), options(), 5)
    assert len(asked) == 1
    assert asked[0][asked[0].index("MESSAGE_ID=" + journal.OOMD_KILLED) + 1 :] == matches


def _facts(*messages, **more):
    entries = [LogEntry(message, 0, True, 3, "kernel") for message in messages]
    return LogFacts(journal.JOURNAL, entries, {}, False, 3600)._replace(**more)


def _checks(options, facts):
    return {
        (check.check, check.subject): check
        for check in journal.decide(facts, OomCounter(), options)
    }


@pytest.mark.parametrize(("name", "message"), REAL.items())
def test_known_kernel_messages(options, name, message):
    found = _checks(options(), _facts(message))
    assert [key for key in found if key[0] == "kernel_errors"] == [("kernel_errors", name)]
    assert (
        found[("kernel_errors", name)].status in ("warning", "critical")
        and message[:40] in found[("kernel_errors", name)].message
    )


def test_harmless_messages_raise_nothing(options):
    found = _checks(
        options(),
        _facts(
            "usb 1-1: device descriptor read/64, error -71",
            "ACPI Error: AE_NOT_FOUND",
            "nvidia: module license taints kernel",
        ),
    )
    assert (
        found[("kernel_errors", None)].status == "pass"
        and found[("journal_errors", None)].status == "pass"
    )


def test_own_patterns(options):
    every = options(error_patterns=[{"name": "all", "pattern": "."}])
    assert {
        key[1] for key in _checks(every, _facts(REAL["lock-up"])) if key[0] == "kernel_errors"
    } == {"lock-up", "all"}, "ours hides no other"
    given = options(
        error_patterns=[{"name": "my disk", "pattern": "raidcard.*offline", "status": "critical"}]
    )
    assert (
        _checks(given, _facts("raidcard 3: offline"))[("kernel_errors", "my disk")].status
        == "critical"
    )


@pytest.mark.parametrize(
    ("messages", "status", "value"),
    [([], "pass", 0), ([OOM], "warning", 1), ([OOM] * 10, "critical", 10)],
)
def test_oom_kills(options, messages, status, value):
    check = _checks(options(), _facts(*messages))[("oom_kills", None)]
    assert (check.status, check.value) == (status, value)
    if messages:
        assert (
            "python3 (23824)" in check.message
            and check.details["whole_node"] is False
            and check.domain == "user"
        )


def test_an_oom_of_the_whole_node_is_told_apart(options):
    check = _checks(options(), _facts(NODE_OOM))[("oom_kills", None)]
    assert check.details == {"victims": ["trainer (77)"], "whole_node": True}


def test_many_errors_warn_and_name_their_sources(options):
    entries = [LogEntry("x", 0, False, 3, "noisy.service") for dummy in range(100)]
    facts = _facts(entries=entries)
    check = _checks(options(), facts)[("journal_errors", None)]
    assert (
        check.status == "warning"
        and check.message == "Recent errors: 100 in the last 60 min: noisy.service 100"
    )


def test_without_any_log_all_is_skipped(machine, options):
    facts = journal.observe(machine.world, options(), 5)
    assert facts.source is None
    checks = journal.decide(facts, OomCounter(since_boot=3), options())
    assert {check.status for check in checks} == {"skipped"}


def test_the_kernels_ring_buffer(machine, options):
    machine.put(
        "/dev/kmsg",
        f"3,1,863999000000,-;{OOM}\n SUBSYSTEM=x\n6,2,863999000000,-;EXT4-fs error but only"
        f" info\n3,3,100,-;{NODE_OOM}\n",
    )
    facts = journal.observe(machine.world, options(), 5)
    assert facts.source == "kernel" and [entry.message for entry in facts.entries] == [OOM], (
        "one is info, one too old"
    )


def _journalctl(lines, seen):
    def run(argv, timeout=30.0, env=None, stdin=None):
        seen.append((argv, timeout))
        return CommandResult(0, "".join(json.dumps(line) + "\n" for line in reversed(lines)), "")

    return run


def test_the_journal_is_asked_once_bounded_and_by_its_index(machine, options):
    machine.put("/var/log/journal/0123/system.journal", "")
    machine.put("/proc/sys/kernel/random/boot_id", "aaaa-bbbb\n")
    now = machine.world.clock.now()

    def line(age, **more):
        return {
            "__REALTIME_TIMESTAMP": str(int((now - age) * 1e6)),
            "PRIORITY": "3",
            "_BOOT_ID": "aaaabbbb",
            **more,
        }

    restart = {"MESSAGE_ID": journal.RESTARTED, "UNIT": "loop.service", "PRIORITY": "6"}
    seen = []
    lines = [
        line(3000, MESSAGE=[104, 105, 255], _SYSTEMD_UNIT="a.service"),  # bytes: not UTF-8
        line(
            10, MESSAGE=OOM, _TRANSPORT="kernel", _SOURCE_MONOTONIC_TIMESTAMP="1000000"
        ),  # written late, but nine days old
        line(500, **restart),
        line(20, **restart),
        line(700, **restart),
        line(5, MESSAGE=None, SYSLOG_IDENTIFIER="cron"),
    ]
    world = World(run=_journalctl(lines, seen), clock=machine.world.clock, root=str(machine.root))
    facts = journal.observe(world, options(), 4)
    assert facts.source == "journal" and facts.restarts == {"loop.service": 2}, (
        "the third is older than the window"
    )
    assert [entry.source for entry in facts.entries] == ["a.service", "cron"] and facts.entries[
        0
    ].message == "hi\ufffd"
    ((argv, timeout),) = seen
    assert (
        timeout == 4
        and "--since=-3600s" in argv
        and argv[argv.index("-n") + 1] == "1000"
        and "PRIORITY=3" in argv
    )
    assert not any(word.startswith(("-g", "--grep")) for word in argv), (
        "a text search reads the whole journal"
    )


def test_a_flood_hides_neither_the_kernel_nor_restarts(machine, options):
    machine.put("/var/log/journal/0123/system.journal", "")
    now = machine.world.clock.now()

    def line(age, **more):
        return {"__REALTIME_TIMESTAMP": str(int((now - age) * 1e6)), "PRIORITY": "3", **more}

    asked = []

    def run(argv, timeout=30.0, env=None, stdin=None):
        asked.append(argv)
        flood = [line(1, MESSAGE="again", _SYSTEMD_UNIT="noisy.service")] * journal.MOST
        rest = [line(500, MESSAGE=REAL["disk I/O error"], _TRANSPORT="kernel")] + [
            line(400, MESSAGE_ID=journal.RESTARTED, UNIT="loop.service")
        ] * 3
        return CommandResult(
            0,
            "".join(
                json.dumps(one) + "\n" for one in (flood if len(asked) == 1 else reversed(rest))
            ),
            "",
        )

    facts = journal.observe(
        World(run=run, clock=machine.world.clock, root=str(machine.root)), options(), 4
    )
    found = _checks(options(), facts)
    assert found[("kernel_errors", "disk I/O error")].status == "critical" and facts.restarts == {
        "loop.service": 3
    }
    assert found[("journal_errors", None)].message.startswith(
        "Recent errors: 1001 or more (only the newest 1000 were read)"
    )
    assert "_TRANSPORT=kernel" in asked[1] and len(asked) == 2


def test_a_lock_up_before_the_last_reboot_asks_for_no_other(machine, options):
    """The node was rebooted because of it; the broken disk and the memory that failed are still
    there.
    """
    machine.put("/var/log/journal/0123/system.journal", "")
    machine.put("/proc/sys/kernel/random/boot_id", "bb-bb\n")
    now = machine.world.clock.now()
    names = ("lock-up", "kernel bug", "disk I/O error", "machine check")

    def run(argv, **more):
        lines = [
            {
                "__REALTIME_TIMESTAMP": str(int((now - 900) * 1e6)),
                "PRIORITY": "3",
                "_TRANSPORT": "kernel",
                "MESSAGE": REAL[name],
            }
            for name in names
        ]
        return CommandResult(
            0, "".join(json.dumps({**one, "_BOOT_ID": boot}) + "\n" for one in lines), ""
        )

    world = World(run=run, clock=machine.world.clock, root=str(machine.root))
    boot = "aaaa"
    found = [
        key[1]
        for key in _checks(options(), journal.observe(world, options(), 4))
        if key[0] == "kernel_errors"
    ]
    assert found == ["disk I/O error", "machine check"]
    boot = "bbbb"
    assert (
        len(
            [
                key
                for key in _checks(options(), journal.observe(world, options(), 4))
                if key[0] == "kernel_errors"
            ]
        )
        == 4
    )


@pytest.mark.parametrize(
    "fields",
    [
        {
            "MESSAGE": ["given", "twice"],
            "PRIORITY": ["3", "4"],
            "_SYSTEMD_UNIT": ["a.service", "b.service"],
        },
        {"MESSAGE": [[1, 2], "x"], "SYSLOG_IDENTIFIER": [255, 254]},
        {"MESSAGE": {"odd": 1}, "PRIORITY": None},
        {"MESSAGE": [], "PRIORITY": "loud"},
        {"MESSAGE": "\u2028 \x85 one line"},
        {"__REALTIME_TIMESTAMP": None},
    ],
)
def test_odd_entries_spoil_nothing(machine, options, fields):
    machine.put("/var/log/journal/0123/system.journal", "")
    now = machine.world.clock.now()
    good = {
        "__REALTIME_TIMESTAMP": str(int(now * 1e6)),
        "PRIORITY": "3",
        "MESSAGE": OOM,
        "_TRANSPORT": "kernel",
    }
    content = (
        "\0\xff garbage\n"
        + "".join(
            json.dumps({**good, **one}, ensure_ascii=False) + "\n" for one in ({}, fields, {})
        )
        + '{"MESSAGE": "cut o'
    )
    world = World(
        run=lambda argv, **more: CommandResult(0, content, ""),
        clock=machine.world.clock,
        root=str(machine.root),
    )
    check = _checks(options(), journal.observe(world, options(), 4))[("oom_kills", None)]
    assert check.value >= 2


@pytest.mark.parametrize(
    ("content", "status"),
    [("\x7fELF garbage\n{\n", "unknown"), ("", "pass"), ("-- No entries --\n", "pass")],
)
def test_garbage_for_an_answer_is_no_healthy_node(machine, options, content, status):
    machine.put("/var/log/journal/0123/system.journal", "")
    world = World(
        run=lambda argv, **more: CommandResult(0, content, ""),
        clock=machine.world.clock,
        root=str(machine.root),
        environ={},
    )
    document = run(options(checks=["errors"]), world).to_dict()
    assert {check["check"]: check["status"] for check in document["checks"]}[
        "journal_errors"
    ] == status


def test_a_journal_of_others_falls_back_to_the_ring_buffer(machine, options):
    machine.put("/run/log/journal/0123/system.journal", "")
    machine.put("/dev/kmsg", f"3,1,863999000000,-;{OOM}\n")

    def denied(argv, **more):
        return CommandResult(
            0, "", "Hint: You are currently not seeing messages from other users and the system.\n"
        )

    world = World(run=denied, clock=machine.world.clock, root=str(machine.root))
    assert journal.observe(world, options(), 4).source == "kernel"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to stop being it")
def test_who_may_read_only_the_own_journal_does_not_call_the_node_healthy(
    machine, options, tmp_path
):
    machine.put("/var/log/journal/0123/system.journal", "").chmod(0o640)
    machine.put("/var/log/journal/0123/user-65534.journal", "").chmod(0o644)
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)

    def source():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return journal.observe(
            World(
                run=lambda *a, **k: CommandResult(0, "", ""),
                clock=machine.world.clock,
                root=str(machine.root),
            ),
            options(),
            4,
        ).source

    assert isolate.call(source, 5).value is None
    assert system_journal.readable(machine.world) is True


def test_the_id_of_restarts_is_systemds():
    try:
        with open("/usr/lib/systemd/catalog/systemd.catalog", encoding="utf-8") as stream:
            catalog = stream.read()
    except OSError:
        pytest.skip("no message catalogue here")
    assert (
        f"-- {journal.RESTARTED}\nSubject: Automatic restarting of a unit has been scheduled\n"
        in catalog
    )


#: As systemd 252 wrote it on a booted Debian 12 with control groups version 2 and swap, when
#: systemd-oomd killed a unit with ManagedOOMMemoryPressure=kill.
OOMD_RECORDED = {
    "__MONOTONIC_TIMESTAMP": "134301929",
    "MESSAGE": "hog.service: systemd-oomd killed 1 process(es) in this unit.",
    "UNIT": "hog.service",
    "_BOOT_ID": "ca00ae5d0f0a4479a4b5683fadf27681",
    "PRIORITY": "5",
    "MESSAGE_ID": "d989611b15e44c9dbf31e3c81256e4ed",
}


def test_a_recorded_kill_by_systemd_oomd(machine, options):
    machine.put("/var/log/journal/0123/system.journal", "")
    stamp = str(int((machine.world.clock.now() - 60) * 1e6))
    lines = [{**OOMD_RECORDED, "__REALTIME_TIMESTAMP": stamp}]
    world = World(run=_journalctl(lines, []), clock=machine.world.clock, root=str(machine.root))
    check = _checks(options(), journal.observe(world, options(), 4))[("oom_kills", None)]
    assert (check.status, check.value) == ("warning", 1)
    assert check.message.endswith("1 of them by systemd-oomd (hog.service)")


def test_kills_by_systemd_oomd_count_beside_the_kernels(machine, options):
    machine.put("/var/log/journal/0123/system.journal", "")
    now = machine.world.clock.now()

    def line(age, **more):
        return {"__REALTIME_TIMESTAMP": str(int((now - age) * 1e6)), "PRIORITY": "5", **more}

    killed = {
        "MESSAGE_ID": journal.OOMD_KILLED,
        "UNIT": "train.scope",
        "MESSAGE": "train.scope: systemd-oomd killed 3 process(es) in this unit.",
    }
    seen = []
    lines = [
        line(4000, **killed),  # before the window
        line(60, **killed),
        line(50, **{**killed, "UNIT": "b.service", "MESSAGE": "in another language"}),
        line(
            45,
            MESSAGE_ID=journal.OOMD_KILLED,
            USER_UNIT="notebook.service",
            _SYSTEMD_UNIT="user@1000.service",
            MESSAGE="notebook.service: systemd-oomd killed 1 process(es) in this unit.",
        ),
        line(40, MESSAGE=OOM, _TRANSPORT="kernel", PRIORITY="3"),
    ]
    world = World(run=_journalctl(lines, seen), clock=machine.world.clock, root=str(machine.root))
    log = journal.observe(world, options(), 4)
    assert log.oomd_kills == {"train.scope": 3, "b.service": 1, "user@1000.service": 1}
    assert f"MESSAGE_ID={journal.OOMD_KILLED}" in seen[0][0]
    check = _checks(options(), log)[("oom_kills", None)]
    assert (check.status, check.value) == ("warning", 6)
    text = "5 of them by systemd-oomd (train.scope, b.service, user@1000.service)"
    assert text in check.message
    assert check.details["oomd"] == log.oomd_kills
    assert _checks(options(), log)[("journal_errors", None)].value == 1
