# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes: what may hang, each in a child of its own, none twice at a time."""

from __future__ import annotations


class Problem(str):
    """Why a probe returned no value, in one line; distinguished from a value by its type."""
