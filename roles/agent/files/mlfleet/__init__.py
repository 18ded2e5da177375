# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node command ``mlfleet``: the shell over the core for timers, cron jobs and people, without a
control node.

Installed by the agent role as ``mlops_fleet.mlfleet``, beside ``mlops_fleet._core``.
"""

from __future__ import annotations

from .entry import main

__all__ = ["main"]
