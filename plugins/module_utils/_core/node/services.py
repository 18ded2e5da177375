# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units: the named services, failed ones, flapping ones. Two short calls of systemctl, whatever the number of units."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..errors import CommandFailed
from ..ports import World
from ..verdict import Check
from . import thresholds
from .options import NodeOptions

_SUFFIXES = (
    ".service",
    ".socket",
    ".timer",
    ".mount",
    ".target",
    ".path",
    ".automount",
    ".swap",
    ".slice",
    ".scope",
    ".device",
)
_PROPERTIES = (
    "Id,Names,LoadState,LoadError,ActiveState,SubState,Result,NRestarts,UnitFileState,Type"
)


def booted(world: World) -> bool:
    """Whether systemd runs this system (sd_booted(3))."""
    return os.path.isdir(world.path("/run/systemd/system"))


def unit(name: str) -> str:
    """Return the full unit name: C(docker) is C(docker.service)."""
    return name if name.endswith(_SUFFIXES) else name + ".service"


def parse_show(content: str) -> list[dict[str, str]]:
    """Return the property blocks of C(systemctl show), in their order."""
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in content.split("\n\n")
    ]
    return [block for block in blocks if "Id" in block]


def observe(world: World, options: NodeOptions, timeout: float) -> dict[str, Any]:
    """Return C(booted), C(named) (as given: properties) and C(bad) (units that failed or wait for a restart: properties).

    :param timeout: seconds for both calls together. :raises CommandFailed: systemctl is missing, failed or did not answer.
    """
    if not booted(world):
        return {"booted": False}
    half = timeout / 2
    bad: list[str] = []
    if options.wants("failed_units") or options.wants("flapping_units"):
        listed = world.run(
            [
                "systemctl",
                "list-units",
                "--all",
                "--plain",
                "--no-legend",
                "--no-pager",
                "--full",
                "--state=failed,auto-restart",
            ],
            timeout=half,
        )
        if listed.returncode != 0:
            raise CommandFailed(
                f"systemctl list-units failed: {listed.stderr.strip()[:200]}.", "", "systemctl"
            )
        bad = [words[0] for words in (line.split() for line in listed.stdout.splitlines()) if words]
    wanted = {name: unit(name) for name in options.services} if options.wants("service") else {}
    names = list(dict.fromkeys([*wanted.values(), *bad]))
    blocks: dict[str, dict[str, str]] = {}
    if names:
        shown = world.run(
            ["systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", "--", *names],
            timeout=half,
        )
        found = parse_show(shown.stdout)
        if len(found) < len(names):
            raise CommandFailed(
                f"systemctl show failed: {shown.stderr.strip()[:200] or 'incomplete answer'}.",
                "",
                "systemctl",
            )
        blocks = dict(zip(names, found))
    return {
        "booted": True,
        "named": {name: blocks[full] for name, full in wanted.items()},
        "bad": {name: blocks[name] for name in bad if name in blocks},
    }


def judge(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge the units; C(restarts) (unit to count within the window, from the journal) is used when there."""
    if not facts["booted"]:
        return [
            Check(name, verdict.SKIPPED, "systemd does not run here")
            for name in ("service", "failed_units", "flapping_units")
            if options.wants(name)
        ]
    found = []
    if options.wants("service"):
        found += [_service(name, block, options) for name, block in facts["named"].items()]
    named = {block["Id"] for block in facts["named"].values()}
    failed = sorted(
        block["Id"] for block in facts["bad"].values() if block.get("ActiveState") == "failed"
    )
    if options.wants("failed_units"):
        others = [name for name in failed if name not in named]
        message = f"Failed units: {len(others)}" + (
            f": {', '.join(others[:8])}" + (" …" if len(others) > 8 else "") if others else ""
        )
        details = {"units": others} if others else None
        found.append(
            thresholds.judge(
                options.limits_in_force["failed_units"],
                "failed_units",
                len(others),
                message,
                details=details,
            )
        )
    if options.wants("flapping_units"):
        restarts: dict[str, int] = dict(facts.get("restarts") or {})
        if facts.get("restarts") is None:
            # No journal to count in: what waits for its next start now, by systemd's own counter.
            waiting = [
                block
                for block in facts["bad"].values()
                if block.get("SubState", "").startswith("auto-restart")
            ]
            restarts = {block["Id"]: int(block.get("NRestarts") or 0) for block in waiting}
        flapping = sorted(
            (name, count) for name, count in restarts.items() if count >= options.flapping_restarts
        )
        message = f"Flapping units: {len(flapping)}" + (
            ": " + ", ".join(f"{name} ({count} restarts)" for name, count in flapping[:8])
            if flapping
            else ""
        )
        more = {"units": dict(flapping)} if flapping else None
        found.append(
            thresholds.judge(
                options.limits_in_force["flapping_units"],
                "flapping_units",
                len(flapping),
                message,
                details=more,
            )
        )
    return found


def _service(name: str, block: Mapping[str, str], options: NodeOptions) -> Check:
    load, active, sub = (
        block.get("LoadState", ""),
        block.get("ActiveState", ""),
        block.get("SubState", ""),
    )
    if load == "not-found":
        if options.services_are_default():
            return Check("service", verdict.SKIPPED, f"Service {name}: not installed", name)
        text = f"Unknown service {name}: systemd knows no unit {unit(name)}"
        return Check(
            "service",
            verdict.CRITICAL,
            text,
            name,
            value="not-found",
            action="inspect",
            domain="node",
        )
    if load == "masked":
        if options.services_are_default():
            return Check(
                "service", verdict.SKIPPED, f"Service {name}: masked, switched off for good", name
            )
        return Check(
            "service",
            verdict.CRITICAL,
            f"Service {name}: masked",
            name,
            value="masked",
            action="inspect",
            domain="node",
        )
    if load != "loaded":
        return Check(
            "service",
            verdict.CRITICAL,
            f"Service {name}: its unit can't be loaded ({load})",
            name,
            value=load,
            action="inspect",
            domain="node",
        )
    if active in ("active", "reloading", "refreshing"):
        return Check(
            "service", verdict.PASS, f"Service {name}: {active} ({sub})", name, value=active
        )
    job = block.get("Type") == "oneshot"
    if active == "activating" and job and not sub.startswith("auto-restart"):
        return Check(
            "service", verdict.PASS, f"Service {name}: a run is under way", name, value=active
        )
    if (
        active == "inactive"
        and job
        and block.get("Result") == "success"
        and unit(name).endswith(".service")
    ):
        # A job that a timer starts: at rest is its normal state.
        return Check(
            "service",
            verdict.PASS,
            f"Service {name}: at rest, last run succeeded",
            name,
            value=active,
        )
    if active in ("activating", "deactivating", "maintenance") and not sub.startswith(
        "auto-restart"
    ):
        return Check(
            "service",
            verdict.WARNING,
            f"Service {name}: {active} ({sub})",
            name,
            value=active,
            action="inspect",
            domain="node",
        )
    reason = block.get("Result", "success")
    text = f"Service {name}: {active} ({sub}" + (
        f", {reason})" if reason not in ("success", "") else ")"
    )
    return Check(
        "service", verdict.CRITICAL, text, name, value=active, action="restart_app", domain="node"
    )
