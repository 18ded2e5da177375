#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: schedule_timers
short_description: Load units into systemd and start their timers
version_added: "0.2.0"
description:
  - Loads units whose files have changed, and enables and starts the timers among them. The role
    P(mlops.fleet.schedule#role) uses it after it has written the units.
  - No job is started that was not due. A timer that is new, was stopped, or has another calendar
    counts from now. A timer with an unchanged calendar still makes up for a run that was missed
    while the node was off.
options:
  units:
    description: File names of the units, such as C(ml-backup.service) and C(ml-backup.timer).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Start the timer of the backup
  mlops.fleet.schedule_timers:
    units: [ml-backup.service, ml-backup.timer]
"""

RETURN = r"""
loaded:
  description: Whether systemd had to read the units again.
  returned: success
  type: bool
started:
  description: The timers that were started.
  returned: success
  type: list
  elements: str
counting_from_now:
  description: Those of them whose next run is the first time of their calendar after now, whenever
    the job last ran.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core import timers


def main() -> None:
    module = _shell.build(timers.TimerOptions)

    def work() -> dict[str, t.Any]:
        options = timers.TimerOptions.from_mapping(module.params)
        return timers.activate(options, _shell.world(module), module.check_mode)

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
