# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # Attributes that every module states; the level of support stands in the module.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what would be changed without changing the
      target.
  diff_mode:
    description: Returns details on what has changed (or would be changed in C(check_mode)) when in
      diff mode.
  platform:
    description: Target systems on which the module runs.
    platforms: linux
    support: full
"""

    # Reading modules: nothing is ever changed.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what would be changed without changing the
      target.
    support: full
    details:
      - This module reads only.
  diff_mode:
    description: Returns details on what has changed (or would be changed in C(check_mode)) when in
      diff mode.
    support: N/A
    details:
      - This module changes nothing.
"""
