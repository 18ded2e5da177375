# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The system as a whole: uptime, pending reboot, clock, kernel taint, certificates, updates."""

from __future__ import annotations

import os
import re

from .. import verdict
from ..errors import CommandFailed
from ..ports import World
from ..records import NamedTuple
from ..system import boot, procfs
from ..system.containers import in_container
from ..verdict import Check, isoformat
from . import hardware, thresholds
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, passed, skipped

#: The checks that are made of these facts.
DECIDES = ("uptime", "reboot_required", "time_sync", "kernel_taint")

#: Bits of /proc/sys/kernel/tainted that indicate a fault
#: (Documentation/admin-guide/tainted-kernels.rst). Proprietary, out-of-tree and unsigned modules
#: are normal on a GPU node.
TAINTS = {
    4: "a machine check happened",
    5: "a bad page was found",
    7: "the kernel crashed in part (oops)",
    14: "a lock-up happened",
}
#: Of Debian and Ubuntu, and of SUSE (libzypp).
_REBOOT_FLAGS = ("/run/reboot-required", "/var/run/reboot-required", "/run/reboot-needed")
#: Kernels of distributions that mark their releases (el9_4, fc40, amzn2023, oe2203, cm2): what
#: Debian and SUSE append after another dash is not there.
_ARCHITECTURES = "x86_64|aarch64|ppc64le|s390x"
_RPM_KERNEL = re.compile(
    rf"(?P<version>[^-]+)-(?P<release>[^-]*\.(?!{_ARCHITECTURES})[a-z]+\d[\w.]*?)"
    rf"(?:\.(?P<flavour>(?:{_ARCHITECTURES})(?:\+.*)?))?"
)
#: Name, version, release and architecture of a package.
_RPM_PACKAGE = re.compile(r"\S+-[^-\s]+-[^-\s]+\.\w+")
#: systemd-timesyncd touches it each time it has compared the clock with a server (its manual page),
#: and removes its directory when it stops.
_TIMESYNCD = "/run/systemd/timesync/synchronized"
#: Seconds after which a time daemon should have compared the clock again; the usual longest poll
#: intervals are 17 minutes (chrony, ntpd) and 34 (systemd-timesyncd).
_LONGEST_POLL = 3 * 3600.0
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


class KernelClock(NamedTuple):
    """Whether the clock is synchronised, its offset and the largest error in seconds.

    ``stale`` is how many seconds ago it was compared with a time server, if that is too long ago.
    """

    synchronised: bool
    offset: float
    error: float
    stale: float | None = None


class Reboot(NamedTuple):
    """Whether this system waits for a reboot, and why."""

    needed: bool
    reason: str = ""


class SystemFacts(NamedTuple):
    """What the kernel and the flag files say.

    ``boot`` and ``now`` are in seconds since the epoch.
    """

    container: bool
    boot: float | None
    now: float
    taint: int | None
    reboot: Reboot | Problem
    clock: KernelClock | Problem


def kernel_clock() -> KernelClock:
    """Ask the kernel's clock discipline without changing it (adjtimex(2)).

    :raises OSError: the call is not allowed here.
    """
    import ctypes

    class Timex(ctypes.Structure):
        _fields_ = [
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("freq", ctypes.c_long),
            ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_byte * 256),
        ]

    libc = ctypes.CDLL(None, use_errno=True)
    timex = Timex()
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    scale = 1e9 if timex.status & 0x2000 else 1e6  # STA_NANO
    synchronised = state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    return KernelClock(synchronised, abs(timex.offset) / scale, timex.maxerror / 1e6)


def chrony_offset(world: World, timeout: float) -> KernelClock | None:
    """Ask chrony, which may keep time without telling the kernel (no ``rtcsync``).

    None when it does not run. :raises CommandFailed: no answer.
    """
    result = world.run(["chronyc", "-c", "-n", "tracking"], timeout=timeout)
    fields = result.stdout.strip().split(",")
    if result.returncode != 0 or len(fields) < 14:
        return None
    synchronised = fields[13] != "Not synchronised" and fields[2] != "0"
    return KernelClock(
        synchronised, abs(float(fields[4])), float(fields[11]), _stale(world, float(fields[3]))
    )


def _stale(world: World, compared: float) -> float | None:
    """Return the seconds since the clock was compared with a time server, if they are too many.

    A daemon that reaches no server any more says for days that all is well. A time before the
    boot is that of a clock that has stepped since.
    """
    age = world.clock.now() - compared
    if _LONGEST_POLL < age <= (boot.uptime(world) or 0.0):
        return age
    return None


def _release(release: str) -> tuple[list[int], str]:
    """Return the numbers of a kernel release, and its flavour."""
    parts = re.findall(r"\d+|[A-Za-z_]+", release)
    numbers = [int(part) for part in parts if part.isdigit()]
    return numbers, "-".join(part for part in parts if not part.isdigit())


def _bootable(world: World, release: str) -> bool:
    paths = (f"/boot/vmlinuz-{release}", f"/lib/modules/{release}/vmlinuz")
    return any(os.path.exists(world.path(path)) for path in paths)


def compare_rpm(one: str, other: str) -> int:
    """Compare two versions as rpm does (rpmvercmp); the result is below, equal to or above 0.

    Separators only divide. Of two parts the number is newer than letters, numbers compare by
    value, letters by their text; with all parts equal the version with more of them is newer.
    ``~`` is older than anything, the end included; ``^`` is newer than the end, and older than
    anything else.
    """
    parts = [re.findall(r"\d+|[A-Za-z]+|~|\^", version) for version in (one, other)]
    ranks = [[_rpm_rank(part) for part in [*version, ""]] for version in parts]
    if ranks[0] == ranks[1]:
        return 0
    if ranks[0] < ranks[1]:
        return -1
    return 1


def _rpm_rank(part: str) -> tuple[int, int, str]:
    """Return a sort key: tilde, end, caret, letters, numbers."""
    if part.isdigit():
        return 4, int(part), ""
    return {"~": 0, "": 1, "^": 2}.get(part, 3), 0, part


def _rpm_release(release: str) -> tuple[str, str, str] | None:
    """Return version, release and flavour of a kernel that rpm installed, else None.

    ``5.14.0-427.13.1.el9_4.x86_64+debug``: the architecture and the variant are the flavour.
    """
    match = _RPM_KERNEL.fullmatch(release)
    if match is None:
        return None
    # Oracle installs its own kernel beside the one of RHEL, RHEL 8 its real-time kernel.
    own = re.search(r"uek|\brt(?=\d)", match["release"])
    flavour = match["flavour"] or ""
    if own:
        flavour += own[0]
    return match["version"], match["release"], flavour


def _newer(release: str, other: str) -> bool:
    """Return whether a kernel release is of the same flavour as another one and newer."""
    rpm, other_rpm = _rpm_release(release), _rpm_release(other)
    if rpm and other_rpm:
        order = compare_rpm(rpm[0], other_rpm[0]) or compare_rpm(rpm[1], other_rpm[1])
        return rpm[2] == other_rpm[2] and order > 0
    numbers, flavour = _release(release)
    other_numbers, other_flavour = _release(other)
    return flavour == other_flavour and numbers > other_numbers


def newest_kernel(world: World, running: str) -> str | None:
    """Return the newest installed kernel of the running one's flavour.

    None when that is the running one, or when it is unknown.
    """
    newest = running
    for release in procfs.directory(world, "/lib/modules"):
        if _newer(release, newest) and _bootable(world, release):
            newest = release
    if newest == running:
        return None
    return newest


def reboot_required(world: World) -> Reboot:
    """Return whether this system waits for a reboot.

    The flag file of Debian or SUSE says so, or a newer kernel that is installed.
    """
    for path in _REBOOT_FLAGS:
        if os.path.exists(world.path(path)):
            packages = sorted(set(procfs.lines(world, path + ".pkgs")))
            if not packages:
                return Reboot(True, "asked for by a package")
            more = ""
            if len(packages) > 5:
                more = " …"
            return Reboot(True, ", ".join(packages[:5]) + more)
    running = procfs.text(world, "/proc/sys/kernel/osrelease") or ""
    newer = newest_kernel(world, running) if running else None
    if newer:
        return Reboot(True, f"kernel {newer} is installed, {running} runs")
    return Reboot(False)


def needs_restarting(world: World, timeout: float) -> Reboot:
    """Ask ``needs-restarting -r`` (yum-utils, dnf-utils): exit status 1 means yes.

    :raises CommandFailed: no answer.
    """
    result = world.run(["needs-restarting", "-r"], timeout=timeout)
    if result.returncode not in (0, 1):
        raise CommandFailed(
            f"needs-restarting failed: {result.stderr.strip()[:200]}.", "", "needs-restarting"
        )
    updated = [
        line.strip(" *") for line in result.stdout.splitlines() if line.strip().startswith("*")
    ]
    return Reboot(result.returncode == 1, ", ".join(updated[:5]) or "updated packages")


def security_updates(world: World, timeout: float) -> list[str] | None:
    """Return the packages with a pending security update by the package lists as they are.

    On SUSE they are patches. None without apt, dnf and zypper.

    :raises CommandFailed: the package manager failed.
    """
    if hardware.tool(world, "apt-get"):
        argv = ["apt-get", "-s", "-o", "Debug::NoLocking=true", "dist-upgrade"]
        result = world.run(argv, timeout=timeout)
        packages = [
            line.split()[1]
            for line in result.stdout.splitlines()
            if line.startswith("Inst ") and re.search(r"-[Ss]ecurity\b", line)
        ]
    elif hardware.tool(world, "dnf"):
        argv = ["dnf", "-q", "-C", "updateinfo", "list", "--security"]
        result = world.run(argv, timeout=timeout)
        # dnf: advisory, severity, package. dnf5: a heading; advisory, type, severity, package,
        # time.
        fields = [field for line in result.stdout.splitlines() for field in line.split()[2:]]
        packages = [field for field in fields if _RPM_PACKAGE.fullmatch(field)]
    elif hardware.tool(world, "zypper"):
        argv = ["zypper", "--no-refresh", "-q", "list-patches", "--category", "security"]
        result = world.run(argv, timeout=timeout)
        rows = [re.split(r"\s*[|│]\s*", line) for line in result.stdout.splitlines()]
        packages = [row[1] for row in rows if "needed" in row and len(row) > 2]
    else:
        return None
    if result.returncode != 0:
        raise CommandFailed(
            f"The package manager failed: {result.stderr.strip()[:200]}.", "", "apt-get"
        )
    return sorted(set(packages))


def _clock_or_problem(world: World) -> KernelClock | Problem:
    try:
        clock = kernel_clock()
    except (OSError, AttributeError, ImportError) as error:
        return Problem(error)
    try:
        touched = os.stat(world.path(_TIMESYNCD)).st_mtime
    except OSError:
        return clock
    return clock._replace(stale=_stale(world, touched))


def observe(world: World, options: NodeOptions) -> SystemFacts:
    """Read what costs nothing: uptime, flags, taint, the kernel's clock."""
    not_asked = Problem("not asked")
    return SystemFacts(
        container=in_container(world),
        boot=boot.boot_time(world),
        now=world.clock.now(),
        taint=procfs.number(world, "/proc/sys/kernel/tainted"),
        reboot=reboot_required(world) if options.wants("reboot_required") else not_asked,
        clock=_clock_or_problem(world) if options.wants("time_sync") else not_asked,
    )


def decide(facts: SystemFacts, options: NodeOptions) -> list[Check]:
    """Return the checks of uptime, pending reboot, clock and taint."""
    checks = []
    if options.wants("uptime"):
        checks.append(_uptime(facts, options))
    if options.wants("reboot_required"):
        checks.append(_reboot(facts.reboot))
    if options.wants("time_sync"):
        checks.append(decide_clock(facts.clock, facts.container, options))
    if options.wants("kernel_taint"):
        checks.append(_taint(facts.taint))
    return checks


def _uptime(facts: SystemFacts, options: NodeOptions) -> Check:
    if facts.boot is None:
        return Check("uptime", verdict.UNKNOWN, "Uptime: can't be read")
    days = (facts.now - facts.boot) / 86400
    text = f"Uptime: {days:.0f} days" if days >= 2 else f"Uptime: {days * 24:.1f} hours"
    details = {"boot_time": isoformat(facts.boot)}
    return thresholds.evaluate(
        options.limits_in_force["uptime"], "uptime", days, text, details=details
    )


def _reboot(reboot: Reboot | Problem) -> Check:
    if isinstance(reboot, Problem):
        return Check("reboot_required", verdict.UNKNOWN, f"Reboot required: {reboot}")
    if reboot.needed:
        text = f"Reboot required: yes, {reboot.reason}"
        return fault("reboot_required", verdict.WARNING, text, action="reboot", value=True)
    return passed("reboot_required", "Reboot required: no", value=False)


def decide_clock(clock: KernelClock | Problem, container: bool, options: NodeOptions) -> Check:
    """Return time_sync."""
    limits = options.limits_in_force["time_sync"]
    if container:
        return skipped("time_sync", "Clock: kept by the host of this container")
    if isinstance(clock, Problem):
        return Check("time_sync", verdict.UNKNOWN, f"Clock: {clock}")
    if not clock.synchronised:
        text = "Clock: not synchronised"
        return thresholds.evaluate(limits, "time_sync", clock.offset, text, verdict.WARNING)
    if clock.stale is not None:
        hours = clock.stale / 3600
        text = f"Clock: not compared with a time server for {hours:.1f} hours"
        return thresholds.evaluate(limits, "time_sync", clock.offset, text, verdict.WARNING)
    text = f"Clock: synchronised, {clock.offset * 1000:.1f} ms off"
    return thresholds.evaluate(limits, "time_sync", float(f"{clock.offset:.6f}"), text)


def _taint(taint: int | None) -> Check:
    if taint is None:
        return skipped("kernel_taint", "Kernel taint: not reported")
    reasons = [text for bit, text in TAINTS.items() if taint >> bit & 1]
    if reasons:
        text = f"Kernel taint: {', '.join(reasons)} ({taint})"
        return fault("kernel_taint", verdict.WARNING, text, action="reboot", value=taint)
    return passed("kernel_taint", f"Kernel taint: no fault ({taint})", value=taint)


def decide_updates(packages: list[str] | Problem | None, options: NodeOptions) -> Check:
    """Return security_updates. :param packages: None without a package manager."""
    if packages is None:
        return skipped("security_updates", "Security updates: neither apt nor dnf nor zypper here")
    if isinstance(packages, Problem):
        return Check("security_updates", verdict.UNKNOWN, f"Security updates: {packages}")
    text = f"Security updates: {len(packages)} pending"
    if packages:
        text += f": {', '.join(packages[:5])}"
    if len(packages) > 5:
        text += " …"
    return thresholds.evaluate(
        options.limits_in_force["security_updates"],
        "security_updates",
        len(packages),
        text,
        details={"packages": packages} if packages else None,
    )
