# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The system as a whole: uptime, pending reboot, clock, kernel taint, certificates, pending security updates."""

from __future__ import annotations

import base64
import binascii
import calendar
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..errors import CommandFailed, NotUsable
from ..ports import World
from ..system import boot, procfs
from ..system.containers import in_container
from ..verdict import Check, isoformat
from . import hardware, thresholds
from .options import NodeOptions
from .probes import Problem

#: Bits of /proc/sys/kernel/tainted that tell of a fault (Documentation/admin-guide/tainted-kernels.rst). Proprietary, out-of-tree and
#: unsigned modules are how every GPU node runs.
TAINTS = {
    4: "a machine check happened",
    5: "a bad page was found",
    7: "the kernel crashed in part (oops)",
    14: "a lock-up happened",
}
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
_PEM = re.compile(
    rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----(.+?)-----END (?:TRUSTED |X509 )?CERTIFICATE-----",
    re.DOTALL,
)


def kernel_clock() -> dict[str, Any]:
    """Ask the kernel's clock discipline without changing it (adjtimex(2)); C(offset) and C(error) are in seconds.

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
    answer = Timex()
    state = libc.adjtimex(ctypes.byref(answer))
    if state < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    scale = 1e9 if answer.status & 0x2000 else 1e6  # STA_NANO
    return {
        "synchronised": state != _TIME_ERROR and not answer.status & _STA_UNSYNC,
        "offset": abs(answer.offset) / scale,
        "error": answer.maxerror / 1e6,
    }


def chrony_offset(world: World, timeout: float) -> dict[str, Any] | None:
    """Ask chrony, which may keep time without telling the kernel (no C(rtcsync)). None when it does not run. :raises CommandFailed: no answer."""
    done = world.run(["chronyc", "-c", "-n", "tracking"], timeout=timeout)
    words = done.stdout.strip().split(",")
    if done.returncode != 0 or len(words) < 14:
        return None
    return {
        "synchronised": words[13] != "Not synchronised" and words[2] != "0",
        "offset": abs(float(words[4])),
        "error": float(words[11]),
    }


def newest_kernel(world: World, running: str) -> str | None:
    """Return the newest installed kernel of the running one's flavour, None when it is the running one or can't be told."""

    def parts(release: str) -> tuple[list[Any], str]:
        words = re.findall(r"\d+|[A-Za-z_]+", release)
        numbers = [int(word) for word in words if word.isdigit()]
        return numbers, "-".join(word for word in words if not word.isdigit())

    numbers, flavour = parts(running)
    best, name = numbers, None
    for release in procfs.directory(world, "/lib/modules"):
        own, own_flavour = parts(release)
        bootable = any(
            os.path.exists(world.path(path.format(release)))
            for path in ("/boot/vmlinuz-{}", "/lib/modules/{}/vmlinuz")
        )
        if own_flavour == flavour and bootable and own > best:
            best, name = own, release
    return name


def reboot_required(world: World) -> dict[str, Any]:
    """Return whether (C(needed)) and why (C(reason)) this system waits for a reboot: Debian's flag file, else a newer installed kernel."""
    for path in ("/run/reboot-required", "/var/run/reboot-required"):
        if os.path.exists(world.path(path)):
            packages = sorted(set(procfs.lines(world, path + ".pkgs")))
            return {
                "needed": True,
                "reason": ", ".join(packages[:5]) + (" …" if len(packages) > 5 else "")
                if packages
                else "asked for by a package",
            }
    running = procfs.text(world, "/proc/sys/kernel/osrelease") or ""
    newer = newest_kernel(world, running) if running else None
    return {
        "needed": bool(newer),
        "reason": f"kernel {newer} is installed, {running} runs" if newer else "",
    }


def needs_restarting(world: World, timeout: float) -> dict[str, Any]:
    """Ask C(needs-restarting -r) (yum-utils, dnf-utils): exit status 1 means yes. :raises CommandFailed: no answer."""
    done = world.run(["needs-restarting", "-r"], timeout=timeout)
    if done.returncode not in (0, 1):
        raise CommandFailed(
            f"needs-restarting failed: {done.stderr.strip()[:200]}.", "", "needs-restarting"
        )
    updated = [
        line.strip(" *") for line in done.stdout.splitlines() if line.strip().startswith("*")
    ]
    return {"needed": done.returncode == 1, "reason": ", ".join(updated[:5]) or "updated packages"}


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, start and end of the DER element at C(at) (X.690)."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise ValueError("truncated")
    return tag, start, start + length


def _time(der: bytes, at: int) -> tuple[float, int]:
    """Return the time at C(at), seconds since the epoch, and where it ends (RFC 5280 4.1.2.5)."""
    tag, start, end = _element(der, at)
    stamp = der[start:end].decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year
        stamp = ("19" if int(stamp[:2]) >= 50 else "20") + stamp
    return float(calendar.timegm(time.strptime(stamp, "%Y%m%d%H%M%SZ"))), end


def validity(der: bytes) -> tuple[float, float]:
    """Return from when and until when a certificate is valid, seconds since the epoch. :raises ValueError: it is not a certificate."""
    try:
        _tag, at, _end = _element(der, 0)  # Certificate
        _tag, at, _end = _element(der, at)  # TBSCertificate
        tag, _start, end = _element(der, at)
        if tag == 0xA0:  # explicit version
            at = end
        for _field in ("serial", "signature", "issuer"):
            at = _element(der, at)[2]
        _tag, at, _end = _element(der, at)  # Validity
        begins, at = _time(der, at)
        return begins, _time(der, at)[0]
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ValueError("not a certificate") from error


def certificate(world: World, path: str) -> dict[str, float] | str:
    """Return from when (C(begins)) and until when (C(ends)) all certificates of a PEM or DER file are valid, or what is wrong with it.

    :raises NotUsable: this user may not read it. The file may lie on a dead mount: only in a child.
    """
    try:
        with open(world.path(path), "rb") as stream:
            content = stream.read(1 << 20)
    except PermissionError as error:
        raise NotUsable("this user may not read it") from error
    except OSError as error:
        return f"can't be read ({error.strerror})"
    blocks = [content] if content[:1] == b"\x30" else []  # DER: one certificate, a sequence
    try:
        blocks = blocks or [base64.b64decode(block) for block in _PEM.findall(content)]
        found = [validity(block) for block in blocks]
    except (ValueError, binascii.Error):
        return "holds a damaged certificate"
    if not found:
        return "holds no certificate"
    return {
        "begins": max(begins for begins, _ends in found),
        "ends": min(ends for _begins, ends in found),
    }


def security_updates(world: World, timeout: float) -> list[str] | None:
    """Return the packages with a pending security update by the package lists as they are; None without apt and dnf.

    :raises CommandFailed: the package manager failed or did not answer.
    """
    if hardware.tool(world, "apt-get"):
        done = world.run(
            ["apt-get", "-s", "-o", "Debug::NoLocking=true", "dist-upgrade"], timeout=timeout
        )
        found = [
            line.split()[1]
            for line in done.stdout.splitlines()
            if line.startswith("Inst ") and re.search(r"-[Ss]ecurity\b", line)
        ]
    elif hardware.tool(world, "dnf"):
        done = world.run(["dnf", "-q", "-C", "updateinfo", "list", "--security"], timeout=timeout)
        found = [line.split()[-1] for line in done.stdout.splitlines() if len(line.split()) >= 3]
    else:
        return None
    if done.returncode != 0:
        raise CommandFailed(
            f"The package manager failed: {done.stderr.strip()[:200]}.", "", "apt-get"
        )
    return sorted(set(found))


def observe(world: World, options: NodeOptions) -> dict[str, Any]:
    """Read what costs nothing: uptime, flags, taint, the kernel's clock."""
    facts: dict[str, Any] = {
        "container": in_container(world),
        "boot": boot.boot_time(world),
        "now": world.clock.now(),
    }
    facts["taint"] = procfs.number(world, "/proc/sys/kernel/tainted")
    if options.wants("reboot_required"):
        facts["reboot"] = reboot_required(world)
    if options.wants("time_sync"):
        try:
            facts["clock"] = kernel_clock()
        except (OSError, AttributeError, ImportError) as error:
            facts["clock"] = str(error)
    return facts


def judge(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge uptime, pending reboot, clock and taint."""
    found = []
    if options.wants("uptime"):
        found.append(_uptime(facts, options))
    if options.wants("reboot_required"):
        found.append(_reboot(facts))
    if options.wants("time_sync"):
        found.append(_clock(facts, options))
    if options.wants("kernel_taint"):
        found.append(_taint(facts["taint"]))
    return found


def _uptime(facts: Mapping[str, Any], options: NodeOptions) -> Check:
    if facts["boot"] is None:
        return Check("uptime", verdict.UNKNOWN, "Uptime: can't be read")
    days = (facts["now"] - facts["boot"]) / 86400
    shown = f"{days:.0f} days" if days >= 2 else f"{days * 24:.1f} hours"
    details = {"boot_time": isoformat(facts["boot"])}
    return thresholds.judge(
        options.limits_in_force["uptime"], "uptime", days, f"Uptime: {shown}", details=details
    )


def _reboot(facts: Mapping[str, Any]) -> Check:
    found = facts["reboot"]
    if isinstance(found, str):
        return Check("reboot_required", verdict.UNKNOWN, f"Reboot required: {found}")
    if found["needed"]:
        return Check(
            "reboot_required",
            verdict.WARNING,
            f"Reboot required: yes, {found['reason']}",
            value=True,
            action="reboot",
            domain="node",
        )
    return Check("reboot_required", verdict.PASS, "Reboot required: no", value=False)


def _clock(facts: Mapping[str, Any], options: NodeOptions) -> Check:
    clock = facts["clock"]
    limits = options.limits_in_force["time_sync"]
    if facts["container"]:
        return Check("time_sync", verdict.SKIPPED, "Clock: kept by the host of this container")
    if isinstance(clock, str):
        return Check("time_sync", verdict.UNKNOWN, f"Clock: {clock}")
    value = clock["offset"]
    if not clock["synchronised"]:
        return thresholds.judge(
            limits, "time_sync", value, "Clock: not synchronised", verdict.WARNING
        )
    return thresholds.judge(
        limits,
        "time_sync",
        float(f"{value:.6f}"),
        f"Clock: synchronised, {value * 1000:.1f} ms off",
    )


def _taint(taint: int | None) -> Check:
    if taint is None:
        return Check("kernel_taint", verdict.SKIPPED, "Kernel taint: not reported")
    reasons = [text for bit, text in TAINTS.items() if taint >> bit & 1]
    if reasons:
        return Check(
            "kernel_taint",
            verdict.WARNING,
            f"Kernel taint: {', '.join(reasons)} ({taint})",
            value=taint,
            action="reboot",
            domain="node",
        )
    return Check("kernel_taint", verdict.PASS, f"Kernel taint: no fault ({taint})", value=taint)


def judge_certificates(read: Mapping[str, Any], now: float, options: NodeOptions) -> list[Check]:
    """Judge what certificate() returned by path, or the text of a Problem."""
    found = []
    for path, answer in read.items():
        head = f"Certificate {path}: "
        if not isinstance(answer, Mapping):
            status = verdict.UNKNOWN if isinstance(answer, Problem) else verdict.CRITICAL
            found.append(
                Check(
                    "certificate", status, f"{head}{answer}", path, action="inspect", domain="node"
                )
            )
            continue
        days = (answer["ends"] - now) / 86400
        details = {"begins": isoformat(answer["begins"]), "ends": isoformat(answer["ends"])}
        early = now < answer["begins"]
        text = f"ends in {days:.0f} days" if days >= 0 else f"ended {-days:.0f} days ago"
        expired = verdict.CRITICAL if days < 0 or early else None
        text = f"not valid before {details['begins']}" if early else text
        limits = options.limits_in_force["certificate"]
        found.append(
            thresholds.judge(
                limits, "certificate", days, head + text, expired, subject=path, details=details
            )
        )
    return found


def judge_updates(answer: Any, options: NodeOptions) -> list[Check]:
    """Judge the pending security updates: a list of packages, None (no package manager), or a problem's text."""
    if answer is None:
        return [
            Check("security_updates", verdict.SKIPPED, "Security updates: neither apt nor dnf here")
        ]
    if isinstance(answer, str):
        return [Check("security_updates", verdict.UNKNOWN, f"Security updates: {answer}")]
    text = f"Security updates: {len(answer)} pending" + (
        f": {', '.join(answer[:5])}" + (" …" if len(answer) > 5 else "") if answer else ""
    )
    details = {"packages": answer} if answer else None
    return [
        thresholds.judge(
            options.limits_in_force["security_updates"],
            "security_updates",
            len(answer),
            text,
            details=details,
        )
    ]
