#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: schedule_check
short_description: Check whether a schedule of the node's jobs can work
version_added: "0.1.0"
description:
  - Checks the variables of the role P(mlops.fleet.schedule#role), and the node they are for, before
    anything is changed. It changes nothing. All problems are reported at once.
options:
  backend:
    description: What starts the jobs.
    type: str
    choices: [systemd, cron]
    default: systemd
  jobs:
    description: The jobs that are switched on.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the job.
        type: str
        required: true
      user:
        description: User who runs it.
        type: str
        default: root
      arguments:
        description: Arguments of the command.
        type: list
        elements: raw
        default: []
      timeout:
        description: Time after which it is killed.
        type: str
        default: 1h
      calendar:
        description: When it runs, as C(OnCalendar=) takes it.
        type: str
        default: ""
      random_delay:
        description: Random delay of the start.
        type: str
        default: "0"
      cron:
        description: When it runs, for cron.
        type: str
        default: ""
      write_paths:
        description: Directories it writes to.
        type: list
        elements: raw
        default: []
      directives:
        description: Further directives of the unit.
        type: dict
        default: {}
  command:
    description: The node command.
    type: str
    default: /usr/local/bin/mlfleet
  environment_file:
    description: File with the old scripts' variables.
    type: str
    default: /etc/ml-automation.conf
  alert_user:
    description: User who sends alerts.
    type: str
    default: mlops-fleet
  memory_max:
    description: Memory that a job may use.
    type: str
    default: 2G
  cpu_quota:
    description: Processor time that a job may use.
    type: str
    default: "50%"
  io_weight:
    description: Weight of a job's disk access.
    type: str
    default: "100"
  credentials:
    description: "Credentials: name to the file that holds it."
    type: dict
    default: {}
  cron_mailto:
    description: Who gets the jobs' output by mail.
    type: str
    default: ""
  config:
    description: The node's configuration.
    type: path
    default: /etc/mlops-fleet/config.json
    version_added: "0.2.0"
  occupied:
    description: Files in the place of the role's that somebody else wrote.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
    details: In check mode, users, command and credentials may be missing.
  diff_mode:
    support: none
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Check a calendar
  mlops.fleet.schedule_check:
    jobs:
      - name: backup
        calendar: "*-*-* 02:00:00"
"""

RETURN = r"""
problems:
  description: What is wrong, a sentence or two each.
  returned: always
  type: list
  elements: str
write_paths:
  description:
    - The directories that each job writes to because the node's configuration, or the file with the
      old scripts' variables, names them. The key is the name of the job.
  returned: success
  type: dict
  sample:
    backup: [/backup/other]
  version_added: "0.2.0"
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core import schedule


def main() -> None:
    module = _shell.build(schedule.ScheduleOptions)

    def work() -> dict[str, t.Any]:
        options = schedule.ScheduleOptions.from_mapping(module.params)
        world = _shell.world(module)
        problems = schedule.problems_of_variables(options)
        if not problems:
            problems = schedule.problems_of_node(options, world, module.check_mode)
        if problems:
            module.fail_json(msg="Nothing was changed. " + " ".join(problems), problems=problems)
        write_paths = schedule.configured_paths(options, world)
        return {"changed": False, "problems": [], "write_paths": write_paths}

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
