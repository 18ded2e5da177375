# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A RHEL-like root made by rpm and dnf themselves, of packages that are built here."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import system
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult

TOOLS = ("rpm", "rpmbuild", "dnf", "createrepo_c", "modifyrepo_c")
needs_tools = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in TOOLS),
    reason="needs rpm, dnf, createrepo-c and dnf-plugins-core",
)
OLD, NEW = "4.18.0-553.el8_10", "4.18.0-553.5.1.el8_10"
SPEC = """
Name: %{n}
Version: %{v}
Release: %{r}
Summary: a package of a test
License: GPL-3.0-or-later
%description
A package of a test.
%install
install -D -m 644 /dev/null %{buildroot}%{f}
%files
%{f}
"""
ADVISORY = """<?xml version="1.0" encoding="UTF-8"?>
<updates><update from="x" status="final" type="security" version="1">
<id>RHSA-2023:7877</id><title>openssl</title><severity>Low</severity>
<issued date="2023-12-19 00:00:00"/><updated date="2023-12-19 00:00:00"/>
<release>8</release><description>x</description><references/>
<pkglist><collection short="8"><name>8</name>
<package name="openssl-libs" version="1.1.1k" release="12.el8_9" epoch="0" arch="x86_64"
 src="openssl.src.rpm"><filename>openssl-libs-1.1.1k-12.el8_9.x86_64.rpm</filename></package>
</collection></pkglist></update></updates>
"""
CONFIG = """
[main]
cachedir={0}/cache
reposdir={0}/none
gpgcheck=0
installonlypkgs=kernel-core
[test]
name=test
baseurl=file://{0}/packages
"""
PACKAGES = (
    ("kernel-core", OLD, f"/lib/modules/{OLD}.x86_64/vmlinuz"),
    ("kernel-core", NEW, f"/lib/modules/{NEW}.x86_64/vmlinuz"),
    ("openssl-libs", "1.1.1k-9.el8", "/usr/lib64/libssl.so.1.1"),
    ("openssl-libs", "1.1.1k-12.el8_9", "/usr/lib64/libssl.so.1.1"),
    ("glibc", "2.28-251.el8_10.2", "/usr/lib64/libc.so.6"),
)


def call(*argv, check=True):
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=check)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return a directory with packages, a security advisory for one of them, and dnf.conf."""
    directory = tmp_path_factory.mktemp("rpm")
    (directory / "package.spec").write_text(SPEC)
    (directory / "updateinfo.xml").write_text(ADVISORY)
    (directory / "dnf.conf").write_text(CONFIG.format(directory))
    for name, version, path in PACKAGES:
        macros = {
            "_topdir": f"{directory}/build",
            "_rpmdir": f"{directory}/packages",
            "_binary_payload": "w1.gzdio",
            "__os_install_post": "%{nil}",
            "debug_package": "%{nil}",
            "n": name,
            "v": version.partition("-")[0],
            "r": version.partition("-")[2],
            "f": path,
        }
        defined = [part for pair in macros.items() for part in ("--define", " ".join(pair))]
        target = ("--target", "x86_64")
        call("rpmbuild", "-bb", "--quiet", *target, *defined, f"{directory}/package.spec")
    packages = f"{directory}/packages"
    call("createrepo_c", "-q", packages)
    call("modifyrepo_c", f"{directory}/updateinfo.xml", f"{packages}/repodata")
    return directory


@pytest.fixture
def node(machine, repository):
    """A machine whose root dnf fills; ``node.dnf(...)`` changes it."""

    def dnf(*arguments, check=True):
        where = ("-c", f"{repository}/dnf.conf", "--installroot", str(machine.root))
        return call("dnf", *where, "--releasever", "8", *arguments, check=check)

    def programs(argv, **dummy):
        """Run what a RHEL has, in this root; needs-restarting is a wrapper there."""
        done = dnf(*(argv if argv[0] == "needs-restarting" else argv[1:]), check=False)
        return CommandResult(done.returncode, done.stdout, done.stderr)

    machine.put("/proc/sys/kernel/osrelease", f"{OLD}.x86_64\n")
    dnf("-y", "-q", "install", f"kernel-core-{OLD}", "openssl-libs-1.1.1k-9.el8")
    machine.dnf = lambda *arguments: dnf("-y", "-q", "-C", *arguments)
    machine.programs = dataclasses.replace(machine.world, run=programs)
    return machine


def checks_of(node, options, *names):
    given = options(checks=list(names), security_updates=True, timeout=60, total_timeout=60)
    document = run(given, node.programs).to_dict()
    return {check["check"]: (check["status"], check["message"]) for check in document["checks"]}


@needs_tools
def test_a_rhel_like_root(node, options):
    assert checks_of(node, options, "reboot_required") == {
        "reboot_required": ("pass", "Reboot required: no")
    }
    node.put("/usr/bin/dnf", "").chmod(0o755)
    assert checks_of(node, options, "security_updates") == {
        "security_updates": (
            "warning",
            "Security updates: 1 pending: openssl-libs-1.1.1k-12.el8_9.x86_64",
        )
    }
    node.dnf("install", f"kernel-core-{NEW}")
    newer = f"kernel {NEW}.x86_64 is installed, {OLD}.x86_64 runs"
    assert checks_of(node, options, "reboot_required") == {
        "reboot_required": ("warning", f"Reboot required: yes, {newer}")
    }
    # Booted into it, the older kernel that is still installed asks for nothing.
    node.put("/proc/sys/kernel/osrelease", f"{NEW}.x86_64\n")
    assert checks_of(node, options, "reboot_required")["reboot_required"][0] == "pass"
    node.put("/usr/bin/needs-restarting", "").chmod(0o755)
    assert checks_of(node, options, "reboot_required")["reboot_required"][0] == "pass"
    node.dnf("install", "glibc", "openssl-libs-1.1.1k-12.el8_9")
    assert checks_of(node, options, "reboot_required", "security_updates") == {
        "reboot_required": ("warning", "Reboot required: yes, glibc"),
        "security_updates": ("pass", "Security updates: 0 pending"),
    }


VERSIONS = (
    "1 1.0 1.1 1.10 1.01 1.a a 1a 1.1a 1.1~rc1 1.1^20240101 1.1^ 553.el8_10 553.5.1.el8_10"
    " 427.el9 427.13.1.el9_4 99.164.amzn2023 16.al8 16.3.al8 2.cm2 150600.21 150600.23.17 el9 fc40"
    " 1..2 1_2 0 00 ~ ^"
).split()


@needs_tools
def test_versions_compare_as_rpm_itself_compares_them():
    pairs = list(itertools.product(VERSIONS, repeat=2))
    calls = "".join(f"print(rpm.vercmp('{one}','{other}')..' ')" for one, other in pairs)
    orders = call("rpm", "--eval", f"%{{lua:{calls}}}").stdout.split()
    assert len(orders) == len(pairs)
    ours = [system.compare_rpm(*pair) for pair in pairs]
    different = [
        (pair, ours, order) for pair, ours, order in zip(pairs, ours, orders) if ours != int(order)
    ]
    assert different == []
