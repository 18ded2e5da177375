# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that make the optional checks, loaded only where a check applies.

Each has two functions. ``questions(world, options, patience)`` returns functions by subject, which
run in children, because they may hang; ``patience`` is in seconds. ``decide(answers, now,
options)`` gets their answers by subject (a Problem where one failed) and returns the checks. It is
called without questions as well.
"""

from __future__ import annotations

from types import ModuleType


def _acs() -> ModuleType:
    from . import acs

    return acs


def _infiniband_errors() -> ModuleType:
    from . import infiniband_errors

    return infiniband_errors


def _runtimes() -> ModuleType:
    from . import runtimes

    return runtimes


def _servers() -> ModuleType:
    from . import servers

    return servers


def _backup_age() -> ModuleType:
    from . import backup_age

    return backup_age


#: The functions that load them, by check.
MODULES = {
    "container_runtime": _runtimes,
    "infiniband_errors": _infiniband_errors,
    "storage_server": _servers,
    "pci_acs": _acs,
    "backup_age": _backup_age,
}
