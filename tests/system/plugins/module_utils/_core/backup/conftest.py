# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the unit tests beside these."""

from __future__ import annotations

from ansible_collections.mlops.fleet.tests.unit.plugins.module_utils._core.backup.conftest import *  # pylint: disable=wildcard-import,unused-wildcard-import
