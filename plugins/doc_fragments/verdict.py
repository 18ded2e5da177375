# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # Options shared by the health modules.
    DOCUMENTATION = r"""
options:
  fail_on:
    description:
      - Minimum verdict that fails the task. The verdict itself is always returned.
      - An unhealthy node is a result, not an error, so by default the task succeeds.
    type: str
    choices: [critical, warning, never]
    default: never
  textfile:
    description:
      - Absolute path of a metrics file to write for the textfile collector of the Prometheus node
        exporter.
      - The file is replaced atomically and has mode 0644. Its directory must exist.
      - The file is not written in check mode.
    type: path
"""
