# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The system as a whole: certificates against openssl, kernels, clock, pending reboots and
updates.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import (
    certificates,
    probes,
    system,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.certificates import (
    Unusable,
    Validity,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.system import KernelClock
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World


def _run(world, given):
    return {
        (check["check"], check.get("subject")): check
        for check in run(given, world).to_dict()["checks"]
    }


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
@pytest.mark.parametrize(
    ("days", "key"), [(10, "rsa:2048"), (20000, "ec")]
)  # the second ends after 2050: GeneralizedTime
def test_certificates_end_when_openssl_says(tmp_path, days, key):
    path = tmp_path / "cert.pem"
    extra = ["-pkeyopt", "ec_paramgen_curve:prime256v1"] if key == "ec" else []
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        key,
        *extra,
        "-nodes",
        "-keyout",
        str(tmp_path / "key.pem"),
        "-out",
        str(path),
        "-days",
        str(days),
        "-subj",
        "/CN=x",
    ]
    subprocess.run(argv, check=True, capture_output=True)

    def said(which):
        shown = subprocess.run(
            ["openssl", "x509", "-noout", which, "-in", str(path)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return int(
            subprocess.run(
                ["date", "-d", shown.strip().partition("=")[2], "+%s"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )

    expected = Validity(begins=said("-startdate"), ends=said("-enddate"))
    world = World(run=lambda *a, **k: None)
    assert certificates.certificate(world, str(path)) == expected
    both = tmp_path / "chain.pem"
    both.write_text(path.read_text() + "garbage between\n" + path.read_text())
    assert certificates.certificate(world, str(both)) == expected
    der = tmp_path / "cert.der"
    subprocess.run(
        ["openssl", "x509", "-in", str(path), "-outform", "DER", "-out", str(der)], check=True
    )
    assert certificates.certificate(world, str(der)) == expected


def test_certificates_are_judged(machine, options):
    now, day = machine.world.clock.now(), 86400

    def cert(ends, begins=-day):
        return Validity(now + begins, now + ends)

    read = {
        "/a": cert(30 * day),
        "/b": cert(20 * day),
        "/c": cert(6 * day),
        "/d": cert(-1),
        "/early": cert(90 * day, begins=day),
        "/e": Unusable("can't be read (No such file or directory)"),
        "/f": probes.Problem("this user may not read it"),
    }
    found = {check.subject: check.status for check in certificates.decide(read, now, options())}
    assert list(found.values()) == [
        "pass",
        "warning",
        "critical",
        "critical",
        "critical",
        "critical",
        "unknown",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to stop being it")
def test_a_certificate_that_this_user_may_not_read_is_unknown(
    tmp_path, options, world, monkeypatch
):
    path = tmp_path / "cert.pem"
    path.write_text("secret")
    path.chmod(0o600)
    monkeypatch.setattr(probes, "marked", lambda probe, job: lambda: (os.setuid(65534), job())[1])
    tmp_path.chmod(0o755)
    for directory in tmp_path.parents:
        if os.access(directory, os.W_OK) and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    found = _run(
        world, options(certificates=[str(path), str(tmp_path / "none.pem")], checks=["certificate"])
    )
    assert [(check["status"], check["message"].partition(": ")[2]) for check in found.values()] == [
        ("unknown", "this user may not read it"),
        ("critical", "can't be read (No such file or directory)"),
    ]


def test_a_certificate_on_a_dead_mount_does_not_hang_the_rest(options, machine):
    os.makedirs(machine.root / "etc/ssl")
    os.mkfifo(machine.root / "etc/ssl/x.pem")  # nobody writes: open() waits for ever
    found = _run(
        machine.world,
        options(certificates=["/etc/ssl/x.pem"], checks=["certificate", "limits"], timeout=0.5),
    )
    assert (
        found[("certificate", "/etc/ssl/x.pem")]["status"] == "unknown"
        and ("process_ids", None) in found
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ],
)
def test_broken_certificates_are_said(machine, options, content):
    path = machine.put("/etc/ssl/x.pem", content)
    check = _run(machine.world, options(certificates=["/etc/ssl/x.pem"], checks=["certificate"]))[
        ("certificate", "/etc/ssl/x.pem")
    ]
    assert (
        check["status"] == "critical"
        and "certificate" in check["message"].lower()
        and path.exists()
    )


def test_the_kernels_clock_can_be_asked():
    found = system.kernel_clock()
    assert 0 <= found.offset < 1
    if shutil.which("adjtimex"):
        shown = subprocess.run(
            ["adjtimex", "--print"], capture_output=True, text=True, check=True
        ).stdout
        assert (int(shown.split("status: ")[1].split()[0]) & 64 == 0) == found.synchronised


@pytest.mark.parametrize(
    ("clock", "status"),
    [
        (KernelClock(True, 0.0002, 0.1), "pass"),
        (KernelClock(True, 0.2, 0.1), "warning"),
        (KernelClock(True, 1.5, 0.1), "critical"),
        (KernelClock(False, 0.0, 16.0), "warning"),
        (probes.Problem("Operation not permitted"), "unknown"),
    ],
)
def test_clock(options, clock, status):
    assert system.decide_clock(clock, False, options()).status == status
    assert system.decide_clock(clock, True, options()).status == "skipped"


def test_chrony_goes_before_the_kernel(machine):
    line = "A9FEA97B,169.254.169.123,4,1600000000.1,-0.000012,0.00001,0.00002,-1.2,0.0,0.1,0.0005,0.0003,16.2,Normal\n"
    world = World(run=lambda argv, **more: CommandResult(0, line, ""), root=str(machine.root))
    assert system.chrony_offset(world, 1) == KernelClock(True, 0.000012, 0.0003)
    world.run = lambda argv, **more: CommandResult(1, "506 Cannot talk to daemon\n", "")
    assert system.chrony_offset(world, 1) is None


@pytest.mark.parametrize(
    ("hours", "status"),
    [(0.5, "pass"), (2.9, "pass"), (3.1, "warning"), (200.0, "warning"), (300.0, "pass")],
)
@pytest.mark.parametrize("daemon", ["chrony", "timesyncd"])
def test_a_clock_that_no_server_confirmed_for_hours(
    machine, options, monkeypatch, daemon, hours, status
):
    """Up for 240 hours: an earlier time is that of another clock."""
    compared = machine.world.clock.now() - hours * 3600
    monkeypatch.setattr(system, "kernel_clock", lambda: KernelClock(True, 0.0, 0.1))
    line = f"A9FEA97B,10.0.0.1,4,{compared},0.00001,0.00001,0.00002,-1.2,0.0,0.1,0.0005,0.0003,16.2,Normal\n"
    if daemon == "chrony":
        os.chmod(machine.put("/usr/bin/chronyc", ""), 0o755)
    else:
        path = machine.put("/run/systemd/timesync/synchronized", "")
        os.utime(path, (compared, compared))
    world = World(
        run=lambda argv, **more: CommandResult(0, line, ""),
        clock=machine.world.clock,
        root=str(machine.root),
        environ={},
    )
    check = _run(world, options(checks=["time_sync"]))[("time_sync", None)]
    assert check["status"] == status
    assert ("not compared" in check["message"]) == (status == "warning")


def test_chrony_is_asked_also_when_the_kernel_says_synchronised(machine, options, monkeypatch):
    """chrony slews the clock by itself: the kernel knows of no offset then."""
    os.chmod(machine.put("/usr/bin/chronyc", ""), 0o755)
    monkeypatch.setattr(system, "kernel_clock", lambda: KernelClock(True, 0.0, 0.1))
    line = "A9FEA97B,10.0.0.1,4,1600000000.1,{offset},0.00001,0.00002,-1.2,0.0,0.1,0.0005,0.0003,16.2,{leap}\n"

    def found(answer):
        world = World(
            run=lambda argv, **more: CommandResult(0, answer, ""),
            clock=machine.world.clock,
            root=str(machine.root),
            environ={},
        )
        check = _run(world, options(checks=["time_sync"]))[("time_sync", None)]
        return check["status"], check["message"]

    assert found(line.format(offset="-0.300000", leap="Normal")) == (
        "warning",
        "Clock: synchronised, 300.0 ms off",
    )
    assert found(line.format(offset="0.000001", leap="Normal"))[0] == "pass"
    assert found(line.format(offset="0.0", leap="Not synchronised")) == (
        "warning",
        "Clock: not synchronised",
    )
    assert found("506 Cannot talk to daemon\n") == (
        "pass",
        "Clock: synchronised, 0.0 ms off",
    ), "not running: the kernel's word counts"
    assert found(line.format(offset="garbage", leap="Normal"))[0] == "pass"


def test_reboot_required_by_flag_file(machine, options):
    given = options(checks=["reboot_required"])
    assert _run(machine.world, given)[("reboot_required", None)]["status"] == "pass"
    machine.put("/run/reboot-required", "*** System restart required ***\n")
    machine.put("/run/reboot-required.pkgs", "linux-image-6.1.0-28-amd64\nlibc6\nlibc6\n")
    document = run(given, machine.world).to_dict()
    check = document["checks"][0]
    assert (check["status"], check["action"]) == (
        "warning",
        "reboot",
    ) and "libc6, linux-image" in check["message"]
    assert document["recommendation"] == "reboot" and document["reasons"] == [check["message"]]


@pytest.mark.parametrize(
    ("running", "installed", "newer"),
    [
        (
            "6.1.0-25-amd64",
            ["6.1.0-25-amd64", "6.1.0-28-amd64", "6.1.0-28-cloud-amd64"],
            "6.1.0-28-amd64",
        ),
        ("6.1.0-28-amd64", ["6.1.0-9-amd64", "6.1.0-28-amd64"], None),
        ("5.14.0-427.el9.x86_64", ["5.14.0-427.13.1.el9.x86_64"], "5.14.0-427.13.1.el9.x86_64"),
        (
            "5.14.0-70.el9.x86_64",
            ["5.14.0-427.el9.x86_64", "5.14.0-503.el9.x86_64+debug"],
            "5.14.0-427.el9.x86_64",
        ),
        ("6.8.0-generic", [], None),
    ],
)
def test_a_newer_kernel_waits_for_a_reboot(machine, running, installed, newer):
    for release in installed:
        machine.put(f"/lib/modules/{release}/vmlinuz", "")
    machine.put("/lib/modules/9.9.9-amd64/build", "left behind by a removed kernel")
    assert system.newest_kernel(machine.world, running) == newer


#: /lib/modules of RHEL-like systems, Amazon Linux and SUSE: running, installed, newest.
RELEASES = [
    ("4.18.0-553.5.1.el8_10.x86_64", ["4.18.0-553.el8_10.x86_64"], None),
    (
        "4.18.0-553.el8_10.x86_64",
        ["4.18.0-553.5.1.el8_10.x86_64"],
        "4.18.0-553.5.1.el8_10.x86_64",
    ),
    ("5.14.0-427.el9.x86_64", ["5.14.0-427.13.1.el9_4.x86_64"], "5.14.0-427.13.1.el9_4.x86_64"),
    ("5.14.0-427.13.1.el9_4.x86_64", ["5.14.0-427.el9.x86_64"], None),
    ("5.14.0-427.el9.aarch64", ["5.14.0-503.el9.aarch64+64k", "5.14.0-503.el9.x86_64"], None),
    (
        "5.14.0-427.el9.x86_64+rt",
        ["5.14.0-503.el9.x86_64", "5.14.0-430.el9.x86_64+rt"],
        "5.14.0-430.el9.x86_64+rt",
    ),
    ("4.18.0-553.el8_10.x86_64", ["4.18.0-553.rt7.342.el8_10.x86_64"], None),
    (
        "4.18.0-513.rt7.300.el8_9.x86_64",
        ["4.18.0-553.el8_10.x86_64", "4.18.0-553.rt7.342.el8_10.x86_64"],
        "4.18.0-553.rt7.342.el8_10.x86_64",
    ),
    ("5.15.0-200.131.27.el9uek.x86_64", ["5.14.0-503.el9.x86_64"], None),
    ("5.14.0-427.el9.x86_64", ["5.15.0-200.131.27.el9uek.x86_64"], None),
    (
        "6.1.79-99.164.amzn2023.x86_64",
        ["6.1.79-99.167.amzn2023.x86_64", "6.1.8-200.1.amzn2023.x86_64"],
        "6.1.79-99.167.amzn2023.x86_64",
    ),
    ("5.10.134-16.al8.x86_64", ["5.10.134-16.3.al8.x86_64"], "5.10.134-16.3.al8.x86_64"),
    ("5.10.134-16.3.al8.x86_64", ["5.10.134-16.al8.x86_64"], None),
    ("5.15.153.1-2.cm2", ["5.15.153.1-1.cm2", "5.15.158.2-1.cm2"], "5.15.158.2-1.cm2"),
    ("6.8.5-301.fc40.x86_64", ["6.10.3-200.fc40.x86_64"], "6.10.3-200.fc40.x86_64"),
    (
        "6.4.0-150600.21-default",
        ["6.4.0-150600.23.17-default", "6.4.0-150600.99-rt"],
        "6.4.0-150600.23.17-default",
    ),
]


@pytest.mark.parametrize(("running", "installed", "newest"), RELEASES)
def test_kernels_of_rpm_systems_compare_as_rpm_does(machine, options, running, installed, newest):
    machine.put("/proc/sys/kernel/osrelease", running + "\n")
    for release in [running, *installed]:
        machine.put(f"/lib/modules/{release}/vmlinuz", "")
    check = _run(machine.world, options(checks=["reboot_required"]))[("reboot_required", None)]
    assert check["status"] == ("warning" if newest else "pass")
    assert newest is None or newest in check["message"]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0", "1.1"),
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0^git1"),
        ("1.0^git1", "1.0.1"),
        ("1.0a", "1.0b"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0.1"),
        ("553.el8", "553.5.1.el8"),
    ],
)
def test_versions_compare_as_rpmvercmp_says(older, newer):
    assert system.compare_rpm(older, newer) < 0 < system.compare_rpm(newer, older)
    assert system.compare_rpm(newer, newer) == 0 == system.compare_rpm("1.05", "1_5")


def test_the_flag_file_of_suse(machine, options):
    machine.put("/run/reboot-needed", "")
    given = options(checks=["reboot_required"])
    assert _run(machine.world, given)[("reboot_required", None)]["status"] == "warning"


ZYPPER = """Repository | Name                 | Category | Severity  | Interactive | Status | Summary
-----------+----------------------+----------+-----------+-------------+--------+--------
SLE-15-SP6 | SUSE-15-2024-1       | security | important | ---         | needed | openssl
SLE-15-SP6 | SUSE-15-2024-2       | security | moderate  | reboot      | needed | kernel
"""


#: rpm-software-management/dnf5#1501.
DNF5 = """Name                   Type Severity                                Package              Issued
FEDORA-2024-635a54eb7e secu Importan            glib2-2.80.2-1.fc40.x86_64 2024-05-12 04:16:43
FEDORA-2024-635a54eb7e secu Importan      glib2-devel-2.80.2-1.fc40.x86_64 2024-05-12 04:16:43
"""
DNF4 = """RHSA-2024:3513  Important/Sec. less-590-4.el9_4.x86_64
RHSA-2024:3513  Important/Sec. tzdata-2024a-1.el9.noarch
"""


@pytest.mark.parametrize(
    ("tool", "said", "packages"),
    [
        ("zypper", ZYPPER, ["SUSE-15-2024-1", "SUSE-15-2024-2"]),
        ("zypper", ZYPPER.replace("|", "│"), ["SUSE-15-2024-1", "SUSE-15-2024-2"]),
        ("dnf", DNF5, ["glib2-2.80.2-1.fc40.x86_64", "glib2-devel-2.80.2-1.fc40.x86_64"]),
        ("dnf", DNF4, ["less-590-4.el9_4.x86_64", "tzdata-2024a-1.el9.noarch"]),
        ("dnf", "", []),
    ],
)
def test_security_updates_are_counted(machine, options, tool, said, packages):
    os.chmod(machine.put(f"/usr/bin/{tool}", "#!/bin/sh\n"), 0o755)
    world = World(
        run=lambda argv, **more: CommandResult(0, said, ""),
        clock=machine.world.clock,
        root=str(machine.root),
        environ={},
    )
    given = options(checks=["updates"], security_updates=True)
    check = _run(world, given)[("security_updates", None)]
    assert check["value"] == len(packages)
    assert (check.get("details") or {"packages": []})["packages"] == packages


@pytest.mark.parametrize(
    ("taint", "status"),
    [
        ("0", "pass"),
        (str(1 | 1 << 12 | 1 << 13), "pass"),
        (str(1 << 7), "warning"),
        (str(1 << 4 | 1), "warning"),
    ],
)
def test_taint(machine, options, taint, status):
    machine.put("/proc/sys/kernel/tainted", taint + "\n")
    assert (
        _run(machine.world, options(checks=["kernel_taint"]))[("kernel_taint", None)]["status"]
        == status
    )


def test_uptime_has_no_limits_unless_given(machine, options):
    assert (
        _run(machine.world, options(checks=["uptime"]))[("uptime", None)]["message"]
        == "Uptime: 10 days"
    )
    assert (
        _run(machine.world, options(checks=["uptime"], limits={"uptime": {"warning": 10}}))[
            ("uptime", None)
        ]["status"]
        == "warning"
    )


APT = (
    "Inst libc6 [2.36-9] (2.36-9+deb12u9 Debian-Security:12/stable-security [amd64])\nInst vim [1]"
    " (2 Debian:12.8/stable [amd64])\nConf libc6 (2)\n"
)


def test_security_updates_are_opt_in_and_counted(machine, options):
    os.chmod(machine.put("/usr/bin/apt-get", "#!/bin/sh\n"), 0o755)
    world = World(
        run=lambda argv, **more: CommandResult(0, APT, ""),
        clock=machine.world.clock,
        root=str(machine.root),
        environ={},
    )
    assert _run(world, options(checks=["updates"])) == {}
    check = _run(world, options(checks=["updates"], security_updates=True))[
        ("security_updates", None)
    ]
    assert (check["status"], check["value"], check["details"]) == (
        "warning",
        1,
        {"packages": ["libc6"]},
    )
    os.unlink(machine.root / "usr/bin/apt-get")
    assert (
        _run(world, options(checks=["updates"], security_updates=True))[("security_updates", None)][
            "status"
        ]
        == "skipped"
    )
