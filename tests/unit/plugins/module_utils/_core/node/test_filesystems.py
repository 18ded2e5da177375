# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems: real mounts against df, real loop devices that fill up and turn read-only,
mountinfo of other machines.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import facts
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import filesystems as fs
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.probes import Probe, Problem
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import mounts

MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
42 27 254:0 /var/lib/x /srv/bound rw,relatime - ext4 /dev/vda rw
43 27 7:1 / /snap/core/1 ro,nodev - squashfs /dev/loop1 ro
44 27 0:50 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw,lowerdir=/l
45 27 0:61 / /mnt/with\040space rw - nfs4 server:/export rw,vers=4.2
46 27 8:17 / /data rw shared:1 - xfs /dev/sdb1 ro,attr2
47 27 8:33 / /hidden rw - ext4 /dev/sdc1 rw
48 27 0:70 / /hidden rw - fuse.sshfs me@host:/ rw,user_id=0
49 27 0:71 / /run/user/1000 rw - tmpfs tmpfs rw
50 27 0:72 / /dev/shm rw - tmpfs tmpfs rw
51 27 254:0 /etc/hosts /etc/hosts rw - ext4 /dev/vda rw
52 27 0:80 / /var/lib/docker/containers/ab12/mounts/shm rw,nosuid - tmpfs shm rw,size=65536k
53 27 0:81 / /run/containerd/io.containerd.grpc.v1.cri/sandboxes/cd/shm rw - tmpfs shm rw,size=65536k
54 27 0:82 / /home/me/containers/storage/overlay/xy/merged rw - fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0
55 27 0:83 / /proc/fs/nfsd rw - nfsd nfsd rw
56 27 0:84 / /var/lib/containers/storage/overlay-containers/ef/userdata/shm rw - tmpfs shm rw
57 27 0:61 /sub /mnt/same\040export rw - nfs4 server:/export/sub rw
58 27 0:90 /@home /home rw - btrfs /dev/nvme0n1p2 rw,subvol=/@home
59 27 0:90 /@ /srv/os rw - btrfs /dev/nvme0n1p2 rw,subvol=/@
60 27 0:91 / /tank/data rw - zfs tank/data rw,xattr
61 27 0:92 / /lustre/fs1 rw - lustre 10.0.0.1@o2ib:/fs1 rw
62 27 0:93 / /mnt/win rw - cifs //srv/share rw
"""


def test_mountinfo_leaves_what_a_person_can_fill():
    found = fs.relevant(mounts.parse(MOUNTINFO), [])
    assert [(mount.point, mount.fstype, fs.is_remote(mount)) for mount in found] == [
        ("/", "ext4", False),
        ("/data", "xfs", False),
        ("/dev/shm", "tmpfs", False),
        ("/hidden", "fuse.sshfs", True),
        ("/home", "btrfs", False),
        ("/lustre/fs1", "lustre", True),
        ("/mnt/win", "cifs", True),
        ("/mnt/with space", "nfs4", True),
        ("/tank/data", "zfs", False),
    ]
    shown = [
        mount.point
        for mount in fs.relevant(
            mounts.parse(MOUNTINFO), ["/mnt/*", "/hidden", "/[hlt]*", "/srv/*"]
        )
    ]
    assert shown == ["/", "/data", "/dev/shm"]


def test_what_has_no_size_has_no_usage(options):
    found = _judge(
        options(), fs.Usage(0, 0, 0, 0, 0, False), _mount("/mnt/bucket", "fuse.mountpoint-s3")
    )
    assert {name: check.status for name, check in found.items()} == {"mount_responds": "pass"}


def test_a_users_dead_mount_is_the_users(options):
    (mount,) = mounts.parse(
        "48 27 0:70 / /home/me/far rw - fuse.sshfs me@host:/ rw,user_id=1000,group_id=1000"
    )
    check = _judge(options(), fs.MountError(107, "Transport endpoint is not connected"), mount)[
        "mount_responds"
    ]
    assert (check.status, check.domain, check.action) == ("critical", "user", "restart_app")
    (mount,) = mounts.parse(
        "48 27 0:70 / /far rw - fuse.sshfs me@host:/ rw,user_id=0,group_id=0,allow_other"
    )
    assert (
        _judge(options(), Problem("no answer within 5 s"), mount)["mount_responds"].action
        == "drain"
    )


def test_fstab_as_people_write_it(machine, options):
    """Trailing slashes, missing options, links on the way: what is mounted is not missing."""
    (machine.root / "big" / "scratch").mkdir(parents=True)
    (machine.root / "short").symlink_to("big/scratch")
    mounted = "".join(
        f"{number} 1 8:{number} / {path} rw - nsfs x rw\n"
        for number, path in enumerate(("/data", "/big/scratch", "/two"))
    )
    machine.put("/proc/self/mountinfo", mounted)
    lines = [
        "# comment",
        "/dev/a /data/ ext4 defaults 0 2",
        "/dev/b /short xfs defaults",
        "/dev/c /two ext4",
        "/dev/d /gone\\040by ext4 defaults 0 0",
    ]
    machine.put("/etc/fstab", "\n".join(lines))
    document = run(
        options(checks=["mount_present"], expected_mounts=["/short/", "/data"]), machine.world
    ).to_dict()
    found = {check["subject"]: check["status"] for check in document["checks"]}
    assert found == {"/data": "pass", "/gone by": "critical", "/short": "pass"}


def test_a_containers_root_is_its_disk():
    found = fs.relevant(mounts.parse("1 0 0:50 / / rw - overlay overlay rw\n"), [])
    assert [mount.point for mount in found] == ["/"]


def test_percentages_are_those_of_df():
    for path in ("/", "/dev/shm"):
        shown = (
            subprocess.run(
                ["df", "--output=pcent,ipcent", path], capture_output=True, text=True, check=True
            )
            .stdout.splitlines()[1]
            .split()
        )
        answer = fs.usage(path)
        assert abs(fs.percent(answer.used, answer.avail) - int(shown[0].rstrip("%"))) <= 1.0, (
            "df rounds up"
        )
        if shown[1] != "-":
            assert (
                abs(fs.percent(answer.inodes_used, answer.inodes_avail) - int(shown[1].rstrip("%")))
                <= 1.0
            )


def _usage(percent, size=2**40, read_only=False, inodes=1000, inodes_used=10):
    used = -int(-size * percent // 100)
    return fs.Usage(used, size - used, inodes, inodes_used, inodes - inodes_used, read_only)


def _mount(path="/", fstype="ext4", mount_ro=False, super_ro=False):
    flags = {True: "ro", False: "rw"}
    return mounts.Mount(1, "1:1", "/", path, fstype, "/dev/x", flags[mount_ro], flags[super_ro])


def _judge(options, answer, mount=None, fstab=None):
    mount = mount or _mount()
    table = {point: fs.FstabEntry(*entry) for point, entry in (fstab or {}).items()}
    facts = fs.DiskFacts(
        [mount], frozenset({mount.point, "/", "/boot"}), table, {mount.point: answer}, {}, {}
    )
    return {check.check: check for check in fs.decide(facts, options)}


@pytest.mark.parametrize(
    ("percent", "size", "status"),
    [
        (65, 2**40, "pass"),
        (80, 2**40, "warning"),
        (90, 2**40, "critical"),
        (95, 30 * 2**40, "pass"),
        (98.6, 30 * 2**40, "warning"),
        (99.6, 30 * 2**40, "critical"),
    ],
)
def test_space_counts_by_percent_and_floor(options, percent, size, status):
    check = _judge(options(), _usage(percent, size))["disk_usage"]
    assert check.status == status
    assert (
        check.message.startswith(f"Disk usage: {percent:.0f}% on /")
        and abs(check.value - percent) < 0.01
    )
    assert (check.warn, check.crit, check.unit) == (80, 90, "%")


def test_floor_zero_makes_the_percentage_count_always(options):
    given = options(disk_floor_warning=0, disk_floor_critical=0)
    assert _judge(given, _usage(95, 30 * 2**40))["disk_usage"].status == "critical"


def test_inodes(options):
    assert _judge(options(), _usage(5, inodes_used=950))["inode_usage"].status == "critical"
    assert "inode_usage" not in _judge(options(), _usage(5, inodes=0, inodes_used=0)), (
        "btrfs has none to count"
    )


@pytest.mark.parametrize(
    ("mount", "fstab", "status"),
    [
        (_mount(super_ro=True), {}, "critical"),  # the kernel did it
        (
            mounts.parse(
                "60 27 7:0 / / rw,relatime - ext4 /dev/loop0 rw,errors=remount-ro,emergency_ro"
            )[0],
            {},
            "critical",
        ),  # Linux 6.15 and later
        (
            _mount(super_ro=True, mount_ro=True),
            {"/": ("ext4", frozenset({"defaults"}))},
            "critical",
        ),
        (_mount(super_ro=True, mount_ro=True), {"/": ("ext4", frozenset({"ro"}))}, "pass"),
        (_mount(super_ro=True, mount_ro=True), {}, "warning"),
        (_mount(mount_ro=True), {}, "pass"),  # a read-only bind of a writable disk
        (_mount(fstype="nfs4", super_ro=True, mount_ro=True), {}, "pass"),
        (
            _mount("/tank/copy", "zfs", super_ro=True, mount_ro=True),
            {},
            "pass",
        ),  # a received dataset: readonly=on
        (_mount("/boot", super_ro=True, mount_ro=True), {}, "pass"),
        (_mount("/boot", super_ro=True), {}, "critical"),
    ],
)
def test_read_only(options, mount, fstab, status):
    assert _judge(options(), _usage(5, read_only=True), mount, fstab)["read_only"].status == status


def test_errors_and_silence_are_critical_and_denied_access_is_not(options):
    assert (
        _judge(options(), fs.MountError(116, "Stale file handle"))["mount_responds"].status
        == "critical"
    )
    assert (
        "Stale file handle"
        in _judge(options(), fs.MountError(116, "Stale file handle"))["mount_responds"].message
    )
    assert _judge(options(), Problem("no answer within 5 s"))["mount_responds"].status == "critical"
    assert (
        _judge(options(), fs.MountError(13, "Permission denied"))["mount_responds"].status
        == "skipped"
    )
    assert (
        _judge(options(), fs.MountError(errno.ENOSYS, "Function not implemented"))[
            "mount_responds"
        ].status
        == "pass"
    )


AUTOMOUNT = "70 27 0:60 / /data/far rw,relatime - autofs systemd-1 rw,fd=41,direct\n"


@pytest.mark.parametrize(
    ("table", "status", "message"),
    [
        (AUTOMOUNT, "critical", "(its automount mounts nothing)"),
        ("70 27 0:60 / /data rw - autofs auto.data rw,indirect\n", "critical", "mounts nothing)"),
        (AUTOMOUNT + "71 70 0:61 / /data/far rw - nsfs x rw\n", "pass", "is mounted"),
        ("71 27 0:61 / /data/far rw - nsfs x rw\n", "pass", "is mounted"),
        ("70 27 0:60 / /other rw - autofs x rw\n", "critical", "though expected_mounts names it"),
    ],
)
def test_an_automount_that_waits_is_no_mount(machine, options, table, status, message):
    machine.put("/proc/self/mountinfo", table)
    given = options(checks=["mount_present"], expected_mounts=["/data/far"])
    (check,) = run(given, machine.world).checks
    assert check.status == status and check.message.endswith(message)


ROOT = "27 1 254:0 / / rw - nsfs x rw\n"
FAR = "71 27 0:61 / /data/far rw - nsfs x rw\n"


@pytest.mark.parametrize(
    ("table", "mounted"),
    [
        (ROOT + FAR, True),
        (ROOT + FAR + "72 27 0:62 / /data rw - nsfs y rw\n", False),
        (ROOT + "72 27 0:62 / /data rw - nsfs y rw\n71 72 0:61 / /data/far rw - nsfs x rw\n", True),
        (ROOT + FAR + "72 71 0:62 / /data/far rw - autofs y rw\n", False),
        (ROOT + FAR + "72 71 0:62 / /data/far rw - nsfs y rw\n", True),
        (ROOT + FAR + "72 27 0:62 / /dat rw - nsfs y rw\n", True),
        (ROOT + FAR + "72 27 0:62 / / rw - nsfs y rw\n", True),
        (
            ROOT
            + "70 27 0:60 / /data rw - nsfs x rw\n71 70 0:61 / /data/far rw - nsfs x rw\n"
            + "72 70 0:62 / /data rw - nsfs y rw\n",
            False,
        ),
    ],
)
def test_what_another_mount_hides_is_not_mounted(machine, options, table, mounted):
    machine.put("/proc/self/mountinfo", table)
    given = options(checks=["mount_present"], expected_mounts=["//data/far/"])
    (check,) = run(given, machine.world).checks
    assert (check.subject, check.status) == ("/data/far", "pass" if mounted else "critical")


def test_after_its_use_an_automount_may_have_mounted(machine, options, tmp_path):
    """What it mounted is checked at once: at the next run it may be gone again."""
    table = AUTOMOUNT.replace("/data/far", str(tmp_path))
    machine.put("/proc/self/mountinfo", table)
    assert fs.automount(machine.world, str(tmp_path), []) == fs.Automounted(False)
    table += f"71 70 0:61 / {tmp_path} rw - ext4 /dev/sdb rw\n"
    machine.put("/proc/self/mountinfo", table)
    excluded = fs.automount(machine.world, str(tmp_path), [str(tmp_path)])
    assert (excluded.mounted, excluded.mounts) == (True, [])
    answer = fs.automount(machine.world, str(tmp_path), [])
    assert answer.mounted and isinstance(answer.answers[str(tmp_path)], fs.Usage)
    waiting = fs.DiskFacts([], frozenset(), {}, {}, {}, {})
    disk = facts._with_answers(waiting, None, {Probe("automount", str(tmp_path)): answer})
    full = fs.Usage(100, 0, 0, 0, 0, False)
    disk = disk._replace(answers=dict.fromkeys(disk.answers, full))
    given = options(checks=["disk"], expected_mounts=[str(tmp_path)])
    assert {check.check: check.status for check in fs.decide(disk, given)} == {
        "mount_present": "pass",
        "disk_usage": "critical",
        "read_only": "pass",
    }


@pytest.mark.parametrize("how", ["bind", "rbind,nofail", "defaults,bind"])
def test_a_bind_mount_in_fstab_is_wanted(machine, options, how):
    machine.put("/proc/self/mountinfo", "27 1 254:0 / / rw - nsfs x rw\n")
    machine.put("/etc/fstab", f"/data/docker /var/lib/docker none {how} 0 0\n/swap none swap sw\n")
    (check,) = run(options(checks=["mount_present"]), machine.world).checks
    expected = "warning" if "nofail" in how else "critical"
    assert (check.subject, check.status) == ("/var/lib/docker", expected)


SUBVOLUME = "60 27 0:90 /@lib /usr/lib/big rw - btrfs /dev/sdb rw,subvolid=5,subvol=/@lib\n"
FILE_OF_ONE = "60 27 0:90 /@lib/a.so /usr/lib/a.so rw - btrfs /dev/sdb rw,subvol=/@lib\n"


@pytest.mark.parametrize(
    ("line", "points"),
    [
        (SUBVOLUME, ["/usr/lib/big"]),
        (FILE_OF_ONE, []),
        ("60 27 8:1 /lib/big /usr/lib/big rw - ext4 /dev/sda1 rw\n", []),
    ],
)
def test_a_subvolume_alone_below_usr_lib_counts(line, points):
    assert [mount.point for mount in fs.relevant(mounts.parse(line), [])] == points


def test_a_mount_point_of_any_bytes_is_checked(machine, options, tmp_path):
    directory = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(directory)
    table = machine.root / "proc/self/mountinfo"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"60 27 8:1 / " + directory + b" rw - ext4 /dev/sda1 rw\n")
    document = run(options(checks=["disk"]), machine.world).to_dict()
    subjects = {check["subject"] for check in document["checks"]}
    assert subjects == {str(tmp_path) + "/caf\\udce9"}
    assert "disk_usage" in {check["check"] for check in document["checks"]}
    str(document).encode("utf-8")


def test_mounts_that_are_missing(options):
    fstab = {
        "/scratch": ("xfs", frozenset({"defaults"})),
        "/usb": ("ext4", frozenset({"noauto"})),
        "/opt/x": ("nfs", frozenset({"nofail"})),
        "none": ("swap", frozenset({"sw"})),
    }
    table = {point: fs.FstabEntry(*entry) for point, entry in fstab.items()}
    facts = fs.DiskFacts([], frozenset({"/there"}), table, {}, {}, {})
    found = {
        check.subject: check.status
        for check in fs.decide(facts, options(expected_mounts=["/there", "/gone/"]))
    }
    assert found == {
        "/scratch": "critical",
        "/opt/x": "warning",
        "/there": "pass",
        "/gone": "critical",
    }


@pytest.fixture
def loop_mount(tmp_path):
    """A real ext4 file system of 64 MiB on a loop device."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    image, directory = tmp_path / "disk.img", tmp_path / "mnt"
    directory.mkdir()
    with open(image, "wb") as stream:
        stream.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no loop devices here: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def _observed(directory):
    every = mounts.parse(open("/proc/self/mountinfo", encoding="utf-8").read())
    own = [mount for mount in fs.relevant(every, []) if mount.point == str(directory)]
    points = frozenset(mount.point for mount in every)
    return fs.DiskFacts(own, points, {}, fs.probe([str(directory)]), {}, {})


def test_a_real_disk_fills_up_and_turns_read_only(loop_mount, options):
    given = options()

    def found():
        return {check.check: check.status for check in fs.decide(_observed(loop_mount), given)}

    assert found() == {"disk_usage": "pass", "inode_usage": "pass", "read_only": "pass"}
    free = os.statvfs(loop_mount).f_bavail * os.statvfs(loop_mount).f_frsize
    with open(loop_mount / "ballast", "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, int(free * 0.85))
    assert found()["disk_usage"] == "warning"
    with open(loop_mount / "more", "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, int(free * 0.08))
    assert found()["disk_usage"] == "critical"
    subprocess.run(["mount", "-o", "remount,ro", str(loop_mount)], check=True)
    assert found()["read_only"] == "warning", "somebody mounted it so, and fstab says nothing"
    assert "disk_usage" not in found(), "nobody can fill it any more"
    table = {str(loop_mount): fs.FstabEntry("ext4", frozenset({"defaults"}))}
    facts = _observed(loop_mount)._replace(fstab=table)
    assert [check.status for check in fs.decide(facts, given) if check.check == "read_only"] == [
        "critical"
    ]


def test_the_kernels_own_remount_is_critical(loop_mount, options):
    device = next(
        mount.source
        for mount in mounts.parse(open("/proc/self/mountinfo", encoding="utf-8").read())
        if mount.point == str(loop_mount)
    )
    trigger = f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error"
    if not os.environ.get("MLOPS_TEST_KERNEL_FAULTS"):
        pytest.skip(
            "leaves a file system error in the kernel's log for everybody to find; set"
            " MLOPS_TEST_KERNEL_FAULTS=1 to run it"
        )
    if not os.access(trigger, os.W_OK):
        pytest.skip("this kernel can't simulate a file system error")
    subprocess.run(["mount", "-o", "remount,errors=remount-ro", str(loop_mount)], check=True)
    with open(trigger, "w", encoding="ascii") as stream:
        stream.write("simulated by a test of mlops.fleet")
    check = next(
        check for check in fs.decide(_observed(loop_mount), options()) if check.check == "read_only"
    )
    assert (
        check.status == "critical"
        and "the kernel turned it so" in check.message
        and check.action == "drain"
    )
