# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel messages that indicate a fault, each with the place where it is written or described."""

from __future__ import annotations

from ..records import NamedTuple
from ..registry import Registry

_ERR, _WARNING, _NOTICE, _INFO = 3, 4, 5, 6  # syslog priorities


class KernelRule(NamedTuple):
    """A kernel message that means something: what it reports when it matches.

    :param source: where the message is written: a file of the kernel's source, or a rule of
        another tool. :param level: the least severe syslog priority at which kernels log it.
    :param over: pattern of a later message that takes the fault back; its group is what must
        occur in the earlier message.
    """

    name: str
    pattern: str
    status: str
    action: str
    source: str
    level: int = _ERR
    over: str = ""


#: On every node. The first that matches takes a message. Drives for removable media (fd0, sr0)
#: complain whenever they are empty. AMD machines log corrected machine checks as emergencies.
PATTERNS = Registry(
    "kernel rule",
    (
        KernelRule(
            "btrfs checksum error",
            r"BTRFS (warning|error).*"
            r"(csum failed|checksum (error|verify failed)|fixed up error at)",
            "critical",
            "inspect",
            "fs/btrfs/btrfs_inode.h (btrfs_print_data_csum_error), fs/btrfs/disk-io.c"
            " (btrfs_validate_extent_buffer), fs/btrfs/scrub.c",
            _WARNING,
        ),
        KernelRule(
            "file system error",
            r"EXT4-fs error|XFS \(\S+\): .*([Cc]orruption|[Ss]hutting down"
            r"|([Mm]etadata|log) I/O [Ee]rror)"
            r"|BTRFS:? (error|critical)|Remounting filesystem read-only"
            r"|I/O error while writing superblock|Aborting journal on device",
            "critical",
            "drain",
            "fs/ext4/super.c, fs/jbd2/journal.c, fs/xfs/xfs_fsops.c, fs/xfs/xfs_log.c,"
            " fs/btrfs/messages.c",
        ),
        KernelRule(
            "disk I/O error",
            r"(I/O error, dev|Buffer I/O error on (dev|device|device dev)|"
            r"critical medium error, dev) (?!fd\d|sr\d)",
            "critical",
            "drain",
            "block/blk-mq.c (blk_print_req_error), fs/buffer.c",
        ),
        KernelRule(
            "RAID disk failure",
            r"md/raid\S*: Disk failure on ",
            "critical",
            "drain",
            "drivers/md/raid0.c (raid0_error), raid1.c, raid10.c, raid5.c; gpud's"
            " raid_array_failure",
        ),
        KernelRule(
            "NVMe controller fault",
            r"nvme.*(controller is down|Removing after probe failure|"
            r"Disabling device after reset failure|Device not ready; aborting|"
            r"no available path - failing I/O|I/O .*timeout, (reset|disable))",
            "critical",
            "drain",
            "drivers/nvme/host/pci.c (nvme_warn_reset, nvme_timeout), multipath.c",
            _WARNING,
        ),
        KernelRule(
            "NVMe time-out",
            r"nvme.*(I/O .*QID \d+ timeout|queue \d+: timeout request 0x)",
            "warning",
            "inspect",
            "drivers/nvme/host/pci.c (nvme_timeout), tcp.c, rdma.c",
            _WARNING,
        ),
        KernelRule(
            "ATA command failed",
            r"\bata\d+(\.\d+)?: (failed command|disable device|disabled$|revalidation failed"
            r"|reset failed, giving up)",
            "warning",
            "inspect",
            "drivers/ata/libata-eh.c (ata_eh_link_report, ata_eh_reset), libata-core.c",
            _WARNING,
        ),
        KernelRule(
            "uncorrected memory error",
            r"EDAC .*((MC|DEVICE)\d+: UE\b|\b[1-9]\d* UE )",
            "critical",
            "drain",
            "drivers/edac/edac_mc.c (edac_ue_error), edac_device.c",
            _WARNING,
        ),
        KernelRule(
            "uncorrected hardware error",
            r"Machine Check Exception|[Ff]atal [Mm]achine check|Uncorrected|System Fatal error"
            r"|event severity: (fatal|recoverable)|Processor context corrupt|"
            r"Memory failure: 0x",
            "critical",
            "drain",
            "arch/x86/kernel/cpu/mce/core.c, drivers/firmware/efi/cper.c, mm/memory-failure.c",
        ),
        KernelRule(
            "machine check",
            r"\[Hardware Error\]",
            "warning",
            "inspect",
            "drivers/edac/mce_amd.c",
        ),
        KernelRule(
            "workqueue lock-up",
            r"BUG: workqueue lockup",
            "warning",
            "inspect",
            "kernel/workqueue.c (wq_watchdog_timer_fn)",
        ),
        KernelRule(
            "lock-up",
            r"soft lockup|hard LOCKUP|rcu.*detected (expedited )?stall|watchdog: BUG",
            "critical",
            "reboot",
            "kernel/watchdog.c, kernel/rcu/tree_stall.h",
        ),
        KernelRule(
            "kernel bug",
            r"kernel BUG at|BUG: (unable to handle|kernel NULL|Bad page)|Oops: |"
            r"general protection fault.*\[#|(divide error|invalid opcode|stack segment"
            r"|alignment check|int3|Internal error): .*\[#\d+\]",
            "critical",
            "reboot",
            "lib/bug.c, arch/x86/mm/fault.c, arch/x86/kernel/traps.c, arch/arm64/kernel/traps.c",
            _WARNING,
        ),
        KernelRule(
            "hung task",
            r"blocked( in I/O wait)? for more than \d+ seconds",
            "warning",
            "inspect",
            "kernel/hung_task.c",
        ),
        KernelRule(
            "network adapter fault",
            r"mlx5_core.*(device's health compromised|Health issue observed, .*severity\([0-3]\)|"
            r"Fatal error \d+ detected|PCI slot is unavailable|FW is unable to respond|"
            r"timeout\. Will cause a leak of a command resource)",
            "critical",
            "drain",
            "drivers/net/ethernet/mellanox/mlx5/core/health.c (poll_health, print_health_info),"
            " cmd.c (wait_func)",
        ),
        KernelRule(
            "network adapter warning",
            r"mlx5_core.*(Health issue observed, .*severity\(4\)|High temperature on sensors)",
            "warning",
            "inspect",
            "drivers/net/ethernet/mellanox/mlx5/core/health.c, events.c (temp_warn)",
            _WARNING,
        ),
        KernelRule(
            "network cable fault",
            r"Port module event\[error\]: module \d+",
            "warning",
            "inspect",
            "drivers/net/ethernet/mellanox/mlx5/core/events.c (port_module), gpud's"
            " port_module_high_temp",
            _INFO,
        ),
        KernelRule(
            "GPUDirect RDMA fault",
            r"nvidia-peermem .*ERROR detected invalid context",
            "warning",
            "inspect",
            "kernel-open/nvidia-peermem/nvidia-peermem.c ; gpud's nvidia_peermem_invalid_context",
        ),
        KernelRule(
            "network device fault",
            r"NETDEV WATCHDOG|transmit queue \d+ timed out|tx timeout",
            "warning",
            "inspect",
            "net/sched/sch_generic.c (dev_watchdog)",
            _WARNING,
        ),
        KernelRule(
            "network device stuck",
            r"unregister_netdevice: waiting for \S+ to become free",
            "warning",
            "inspect",
            "net/core/dev.c (netdev_wait_allrefs_any), UnregisterNetDevice of"
            " node-problem-detector",
        ),
        KernelRule(
            "neighbour table overflow",
            r"[Nn]eighbou?r table overflow",
            "warning",
            "inspect",
            "net/core/neighbour.c (neigh_alloc)",
            _INFO,
        ),
        KernelRule(
            "PCIe error",
            r"AER: .*(Fatal|Uncorrect)|PCIe Bus Error: severity=Uncorrect",
            "warning",
            "inspect",
            "drivers/pci/pcie/aer.c",
        ),
        KernelRule(
            "PCIe link down",
            r"pciehp.*([Ss]lot\([^)]*\): (Link Down(?!/| event (ignored|queued))|Card not present)"
            r"|Card not present on Slot)",
            "warning",
            "inspect",
            "drivers/pci/hotplug/pciehp_ctrl.c (pciehp_handle_presence_or_link_change)",
            _INFO,
        ),
        KernelRule(
            "IOMMU fault",
            r"(DMAR|dmar|DRHD):.*(handling fault status|fault (addr|index|reason))"
            r"|AMD-Vi:.*(Event logged \[|Completion-Wait loop timed out)",
            "warning",
            "inspect",
            "drivers/iommu/intel/dmar.c (dmar_fault, dmar_fault_do_one), drivers/iommu/amd/iommu.c"
            " (iommu_print_event, wait_on_sem)",
        ),
        KernelRule(
            "network file system",
            r"nfs: server \S+ not responding|NFS: .*Lock reclaim failed|LustreError"
            r"|CIFS: VFS: \S+ has not responded",
            "warning",
            "inspect",
            "net/sunrpc/clnt.c, fs/nfs/nfs4state.c, fs/smb/client/connect.c,"
            " Lustre's libcfs/debug.h",
            _NOTICE,
            over=r"nfs: server (\S+) OK",
        ),
    ),
    required=("pattern", "status", "action", "source"),
)
