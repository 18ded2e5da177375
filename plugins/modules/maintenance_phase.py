#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_phase
short_description: Run one phase of maintenance from the role's variables
version_added: "0.1.0"
description:
  - Calls the module of a phase with the variables C(maintenance_PHASE_OPTION) that are set on the
    host. Variables that are null or an empty text, as in an unanswered survey question, leave the
    option to C(module_defaults) or the module's default.
  - Decides whether the phase may run after those before it, whose registered results it reads. A
    phase that may not run is skipped, and RV(skip) says why.
  - The role P(mlops.fleet.maintenance#role) consists of calls of this module.
  - Where the GPU phase runs, the health phase leaves the GPUs to it.
options:
  phase:
    description:
      - The phase to run.
      - V(start) runs none. It checks the variables of all phases, and whether more hosts than
        C(maintenance_max_fail_percentage) failed. Use it once per run, with C(run_once).
    type: str
    choices: [start, health, gpu, backup, cleanup]
    required: true
  prefix:
    description: Beginning of the names of the variables that hold the registered results; the
      phase's name follows.
    type: str
    default: maintenance_result_
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
    details: As the module of the phase.
  diff_mode:
    support: full
    details: As the module of the phase.
seealso:
  - module: mlops.fleet.node_health
  - module: mlops.fleet.gpu_health
  - module: mlops.fleet.model_backup
  - module: mlops.fleet.artifact_cleanup
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Check the GPUs, then back up
  hosts: gpu_nodes
  gather_facts: false
  ignore_unreachable: true
  vars:
    maintenance_gpu_expected_count: 8
    maintenance_run_health: false
  tasks:
    - name: Check the GPUs
      mlops.fleet.maintenance_phase:
        phase: gpu
      register: maintenance_result_gpu
      ignore_errors: true

    - name: Back up the models
      mlops.fleet.maintenance_phase:
        phase: backup
      register: maintenance_result_backup
      ignore_errors: true
"""

RETURN = r"""
skip:
  description: Why the phase did not run. Whatever else a phase returns is what its module returns.
  returned: when the phase was skipped
  type: dict
  contains:
    code:
      description: C(switched_off), C(held), C(unreachable), C(backup_failed), C(backup_not_run),
        C(earlier_failed) or C(busy).
      type: str
    text:
      description: The same for people.
      type: str
held:
  description: Why no further host is started, empty when hosts may be started.
  returned: when O(phase=start)
  type: str
"""
