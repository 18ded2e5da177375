#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_health
short_description: Judge the health of a node without hanging on it
version_added: "0.1.0"
description:
  - Judges file systems, memory, load, services, GPUs, network, logs, processes, kernel limits, hardware and the system as a whole,
    and says in one document what is wrong, how bad it is and what to do.
  - Whatever may hang (a dead mount, a wedged driver, a resolver, a program) is asked in a process of its own with a deadline. One that
    hangs fails its own check only. While its process still hangs, later runs report that and start no new one.
  - What does not exist on a node (systemd, a journal, GPUs, RAID) is V(skipped) and does not count. What exists and can't be judged is
    V(unknown) and counts as a warning, or as critical where storage or GPUs are concerned.
  - It only judges. It never restarts, drains or reboots anything.
  - All checks with their limits and reasons are listed in C(docs/docsite/rst/node_health.rst) of this collection, what to do about each in
    C(docs/docsite/rst/runbook.rst).
notes:
  - Limits are plain numbers (bad from that value on) or ranges in the syntax of the Nagios plugins, C([@]start:end). V(10:20) is bad
    outside 10 to 20, V(~:5) is bad above 5, V(@5:10) is bad inside, and V(~:) switches the limit off.
extends_documentation_fragment:
  - mlops.fleet.attributes.info_module
  - mlops.fleet.attributes
  - mlops.fleet.verdict
attributes:
  check_mode:
    support: full
    details:
      - In check mode the files of O(state_file) and O(textfile) are not written.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  platform:
    platforms: linux
requirements:
  - psutil
options:
  disk_warning:
    description:
      - Limit of the space in use of every file system, in percent, as C(df) counts it.
      - It counts only while less than O(disk_floor_warning) is free.
    type: str
    default: "80"
  disk_critical:
    description:
      - As O(disk_warning), for a critical verdict. It counts only while less than O(disk_floor_critical) is free.
    type: str
    default: "90"
  disk_floor_warning:
    description:
      - Free space in GiB from which on O(disk_warning) does not count, so that ten percent of a very big disk are no alarm.
      - V(0) makes the percentage always count.
    type: float
    default: 500.0
  disk_floor_critical:
    description:
      - Free space in GiB from which on O(disk_critical) does not count. V(0) makes it always count.
    type: float
    default: 200.0
  disk_exclude:
    description: Mount points that are not judged, as shell patterns such as V(/mnt/scratch*).
    type: list
    elements: str
    default: []
  expected_mounts:
    description: Mount points that must be mounted, beside those of C(/etc/fstab).
    type: list
    elements: path
    default: []
  memory_warning:
    description: Limit of the memory that is not available to new programs, in percent.
    type: str
    default: "85"
  memory_critical:
    description: As O(memory_warning), for a critical verdict. Its default makes way for a higher O(memory_warning).
    type: str
    default: "95"
  limits:
    description:
      - Limits of single checks, by the check's name. Each is a mapping of V(warning), V(critical) and V(clear).
      - V(clear) is the limit that must not be hit any more before a raised state clears. It needs O(state_file).
      - Checks with limits are V(disk_usage), V(inode_usage), V(memory_usage), V(swap_usage), V(memory_pressure), V(io_pressure),
        V(cpu_pressure), V(cpu_load), V(failed_units), V(flapping_units), V(oom_kills), V(journal_errors), V(stuck_processes),
        V(zombie_processes), V(file_descriptors), V(process_ids), V(conntrack), V(time_sync), V(memory_errors), V(disk_wear), V(uptime),
        V(certificate) and V(security_updates).
      - What is given here for V(disk_usage) and V(memory_usage) goes before O(disk_warning), O(disk_critical), O(memory_warning) and
        O(memory_critical).
    type: dict
    default: {}
  services:
    description:
      - systemd units that must be active. A name without suffix is a service.
      - A unit that systemd does not know is critical, unless this option was left at its default.
    type: list
    elements: str
    default: [docker]
  flapping_restarts:
    description: Automatic restarts within O(flapping_window) from which on a unit counts as flapping.
    type: int
    default: 3
  flapping_window:
    description: Time in seconds that is searched for restarts.
    type: int
    default: 600
  gpu:
    description: Whether to judge GPUs, as M(mlops.fleet.gpu_health) does.
    type: bool
    default: true
  gpu_expected_count:
    description: Number of GPUs this node must have. Without it a node without GPUs is healthy.
    type: int
  gpu_temperature_warning:
    description:
      - Limit of the GPU temperature in degrees Celsius.
      - As long as this and O(gpu_temperature_critical) have their defaults, the limits that a device reports itself go before them.
    type: float
    default: 75.0
  gpu_temperature_critical:
    description: As O(gpu_temperature_warning), for a critical verdict.
    type: float
    default: 85.0
  network:
    description: Whether to judge connectivity.
    type: bool
    default: true
  network_targets:
    description: Addresses in the form HOST:PORT that must accept a TCP connection.
    type: list
    elements: str
    default: []
  dns_names:
    description:
      - Names that must resolve.
      - When empty, C(ipv4only.arpa) is asked for and any answer will do, so that closed networks pass as long as their resolver works.
    type: list
    elements: str
    default: []
  network_links:
    description: Network interfaces that must be up. Others are judged when they have hardware and are switched on.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the interface.
        type: str
        required: true
      speed:
        description: Least speed in Mbit/s.
        type: int
  infiniband_ports:
    description: Number of InfiniBand or RoCE ports that must be active.
    type: int
  infiniband_rate:
    description: Least rate of an active port in Gbit/s.
    type: float
  error_window:
    description: Time in seconds of journal or kernel log that is searched for errors and OOM kills.
    type: int
    default: 3600
  error_patterns:
    description: Kernel messages to look for beside the ones that are built in.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the rule, used as the subject of the check.
        type: str
        required: true
      pattern:
        description: Regular expression that is searched in messages of priority V(err) and worse.
        type: str
        required: true
      status:
        description: Verdict when it is found.
        type: str
        choices: [warning, critical]
        default: warning
  disk_health:
    description: Whether to ask the disks for their health through C(smartctl) or C(nvme) where these are installed. Needs root.
    type: bool
    default: true
  certificates:
    description: Files with certificates in PEM or DER format whose expiry is judged, by the certificate that ends first.
    type: list
    elements: path
    default: []
  security_updates:
    description: Whether to count pending security updates by the package lists as they are. This takes a second or two.
    type: bool
    default: false
  checks:
    description:
      - Only these checks or groups of checks.
      - Groups are V(disk), V(memory), V(load), V(services), V(gpu), V(network), V(errors), V(processes), V(limits), V(hardware), V(system),
        V(certificates) and V(updates).
    type: list
    elements: str
    default: []
  skip:
    description: Checks or groups of checks that are left out.
    type: list
    elements: str
    default: []
  timeout:
    description: Time in seconds that each probe has.
    type: float
    default: 5.0
  total_timeout:
    description: Time in seconds that all probes have together.
    type: float
    default: 30.0
  state_file:
    description:
      - File in which verdicts are remembered, so that they become steady. Without it every run stands for itself.
      - The last directory of the path is created when it is missing. The file has mode 0640.
      - With it, checks carry RV(checks[].since), and OOM kills are counted since the last run too.
    type: path
  raise_after:
    description: Observations in a row until a state gets worse. Needs O(state_file).
    type: int
    default: 1
  clear_after:
    description: Observations in a row until a state gets better. Needs O(state_file).
    type: int
    default: 2
  boot_grace:
    description:
      - Time in seconds after boot in which nothing new is raised, because services, network and GPUs still settle. Needs O(state_file).
      - Faults that do not go away by themselves (full disks, memory errors, RAID, certificates and the like) are raised all the same.
    type: int
    default: 600
seealso:
  - module: mlops.fleet.gpu_health
  - module: mlops.fleet.alert
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Judge the node
  mlops.fleet.node_health:
  register: node

- name: Show what is wrong and what to do
  ansible.builtin.debug:
    msg: "{{ node.status }}, recommended: {{ node.recommendation }} {{ node.reasons }}"

- name: Own limits, and the services of an inference node
  mlops.fleet.node_health:
    disk_warning: 70
    disk_critical: 85
    limits:
      cpu_load: {warning: 2, critical: 4}
      swap_usage: {warning: "~:"}
      memory_usage: {warning: 90, clear: 85}
    services: [docker, nginx, triton]
    network_targets: ["registry.example.org:443", "10.0.0.5:2049"]
    gpu_expected_count: 8

- name: Steady verdicts from a timer, with metrics for Prometheus
  mlops.fleet.node_health:
    state_file: /var/lib/mlops-fleet/node-health.json
    raise_after: 3
    clear_after: 2
    textfile: /var/lib/prometheus/node-exporter/mlops_node.prom

- name: Only what storage needs, and stop here when it is bad
  mlops.fleet.node_health:
    checks: [disk, raid, zfs_pool, nvme_state, disk_health]
    expected_mounts: [/data]
    fail_on: critical

# Options that several tasks share are set once, for the whole collection:
- name: Judge all nodes
  hosts: gpu_nodes
  gather_facts: false
  module_defaults:
    group/mlops.fleet.all:
      fail_on: critical
    mlops.fleet.node_health:
      services: [docker, nvidia-persistenced]
      network: false
  tasks:
    - name: Judge the node
      mlops.fleet.node_health:

    - name: Judge the GPUs
      mlops.fleet.gpu_health:
"""

RETURN = r"""
timestamp:
  description: When the checks were made, ISO 8601 in UTC.
  returned: always
  type: str
  sample: "2026-01-31T14:30:00+00:00"
hostname:
  description: The node's own name.
  returned: always
  type: str
checks:
  description: All checks, in a fixed order.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: Name of the check.
      type: str
      sample: disk_usage
    status:
      description: V(pass), V(warning), V(critical), V(unknown) or V(skipped).
      type: str
    message:
      description: One line for people, with the value.
      type: str
      sample: "Disk usage: 65% on / (34.1 GiB free)"
    subject:
      description: Which one of several, such as the mount point, the unit or the interface.
      type: str
      returned: when there are several
    value:
      description: What was measured.
      type: raw
      returned: when something was measured
    unit:
      description: Unit of RV(checks[].value).
      type: str
      returned: when it has one
    warn:
      description: Warning limit in force, a number, or a range as text.
      type: raw
      returned: when there is one
    crit:
      description: Critical limit in force.
      type: raw
      returned: when there is one
    threshold_source:
      description: Who set the limits, V(default), V(user) or V(device).
      type: str
      returned: when there are limits
    action:
      description: What the check calls for, such as V(none), V(inspect), V(free_space), V(restart_app), V(reset_gpu), V(drain) or V(reboot).
      type: str
    domain:
      description: Whether the machine (V(node)) or a workload (V(user)) is at fault.
      type: str
      returned: when the check did not pass
    since:
      description: Since when the status holds, ISO 8601.
      type: str
      returned: with O(state_file)
    duration_ms:
      description: How long the probe behind the check took.
      type: float
      returned: when it ran in a process of its own
    details:
      description: More for programs, such as victims of OOM kills or names of failed units.
      type: dict
      returned: when there is more
summary:
  description: Counts and score.
  returned: always
  type: dict
  contains:
    total:
      description: Checks that were judged; skipped ones are not among them.
      type: int
    passed:
      description: Checks that passed.
      type: int
    warnings:
      description: Checks with a warning, unknown ones included.
      type: int
    failed:
      description: Critical checks.
      type: int
    skipped:
      description: Checks of what does not exist here.
      type: int
    health_score:
      description: V(100) when all passed, from 50 up to below 100 with warnings only, below 50 with a critical check.
      type: float
    status:
      description: Same as RV(status).
      type: str
    exit_code:
      description: Same as RV(exit_code).
      type: int
  sample: {total: 15, passed: 13, warnings: 2, failed: 0, skipped: 9, health_score: 86.67, status: warning, exit_code: 1}
status:
  description: Worst verdict of all checks.
  returned: always
  type: str
exit_code:
  description: The same as a number, V(0) for healthy, V(1) for warnings, V(2) for critical.
  returned: always
  type: int
recommendation:
  description: What to do with the node, V(none), V(inspect), V(drain) or V(reboot). The module never does it.
  returned: always
  type: str
reasons:
  description: Messages of the checks behind RV(recommendation).
  returned: always
  type: list
  elements: str
domain:
  description: V(node) when the machine is at fault, V(user) when only workloads are, else V(none).
  returned: always
  type: str
agent_version:
  description: Version of the agent (the command C(mlfleet)) on this node, V(null) where it is not installed in C(/opt/mlops-fleet).
  returned: always
  type: str
  sample: 0.1.0-1f2e3d4c5b6a
duration:
  description: How long the module took, in seconds.
  returned: always
  type: float
"""

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.installed import agent_version
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run


def main() -> None:
    module = _shell.build(NodeOptions)

    def work() -> dict:
        options = NodeOptions.from_mapping(module.params)
        document = run(options, _shell.world(module), check=module.check_mode)
        return _shell.judged(
            {"changed": False, **document.to_dict(), "agent_version": agent_version()},
            options.fail_on,
        )

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
