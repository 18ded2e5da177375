# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit that this process runs in."""

from __future__ import annotations

import contextlib

from ..ports import World


def current_unit(world: World) -> str:
    """Return the name of the service that systemd started this process for, empty where it did not.

    Sessions are no services; what was started from a login has no ``INVOCATION_ID``.
    """
    if not world.environ.get("INVOCATION_ID"):
        return ""
    with contextlib.suppress(OSError), open(world.path("/proc/self/cgroup"), "rb") as stream:
        for line in stream.read().decode("utf-8", "replace").splitlines():
            hierarchy, dummy, path = (*line.split(":", 2), "", "")[:3]
            # Version 2 has the number 0, and of version 1 systemd's own hierarchy counts.
            unit = path.rsplit("/", 1)[-1]
            if unit.endswith(".service") and (hierarchy == "0" or "name=systemd" in line):
                return unit
    return ""
