#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# long because most of it is documentation

from __future__ import annotations

DOCUMENTATION = r"""
module: node_health
short_description: Check the health of a node, with a time limit on every probe
version_added: "0.1.0"
description:
  - Checks file systems, memory, load, services, GPUs, network, logs, processes, kernel limits,
    hardware and the system as a whole, and returns one document that says what is wrong, how
    severe it is and what to do.
  - Everything that may hang (a dead mount, a hung driver, a resolver, a program) is queried in a
    separate process with a time limit. If it hangs, only its own check fails. As long as its
    process hangs, later runs report that and do not start a second process.
  - A check of something that does not exist on the node (systemd, a journal, GPUs, RAID) is
    V(skipped) and does not count. A check that could not be made is V(unknown) and counts as a
    warning, or as critical for GPUs and disks.
  - The module only checks. It never restarts, drains or reboots anything.
  - C(docs/docsite/rst/node_health.rst) of this collection lists all checks with their limits and
    reasons, C(docs/docsite/rst/runbook.rst) what to do about each.
notes:
  - A limit is a plain number, reached at that value and above, or a range in the syntax of the
    Nagios plugins, C([@]start:end). V(10:20) alerts outside 10 to 20, V(~:5) above 5, V(@5:10)
    inside the range, and V(~:) disables the limit.
extends_documentation_fragment:
  - mlops.fleet.attributes.info_module
  - mlops.fleet.attributes
  - mlops.fleet.verdict
attributes:
  check_mode:
    support: full
    details:
      - In check mode O(state_file) and O(textfile) are not written.
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
      - Warning limit for the used space of each file system, in percent, as C(df) counts it.
      - It applies only while less than O(disk_floor_warning) is free.
    type: str
    default: "80"
  disk_critical:
    description:
      - As O(disk_warning), for a critical verdict. It applies only while less than
        O(disk_floor_critical) is free.
    type: str
    default: "90"
  disk_floor_warning:
    description:
      - With at least this much free space, in GiB, O(disk_warning) does not apply, so that ten
        percent of a very large disk cause no alert.
      - With V(0) the percentage always applies.
    type: float
    default: 500.0
  disk_floor_critical:
    description:
      - With at least this much free space, in GiB, O(disk_critical) does not apply. With V(0) it
        always applies.
    type: float
    default: 200.0
  disk_exclude:
    description: Mount points that are not checked, as shell patterns such as V(/mnt/scratch*).
    type: list
    elements: str
    default: []
  expected_mounts:
    description:
      - Mount points that must be mounted, in addition to those of C(/etc/fstab).
      - A waiting automount is used first; only what it then mounts counts.
    type: list
    elements: path
    default: []
  memory_warning:
    description:
      - Warning limit for the memory that is not available to new programs, in percent. Huge pages
        do not count.
      - Under the memory limit of a control group, the fuller of host and limit decides.
    type: str
    default: "85"
  memory_critical:
    description: As O(memory_warning), for a critical verdict. A higher O(memory_warning) overrides
      the default.
    type: str
    default: "95"
  limits:
    description:
      - Limits of single checks, by name of the check. Each is a mapping of V(warning), V(critical)
        and V(clear).
      - A raised state clears only when the limit V(clear) is not reached. It needs O(state_file).
      - Checks with limits are V(disk_usage), V(inode_usage), V(memory_usage), V(swap_usage),
        V(memory_pressure), V(io_pressure), V(cpu_pressure), V(cpu_load), V(failed_units),
        V(flapping_units), V(oom_kills), V(journal_errors), V(stuck_processes), V(zombie_processes),
        V(file_descriptors), V(process_ids), V(conntrack), V(time_sync), V(memory_errors),
        V(disk_wear), V(uptime), V(certificate), V(security_updates), V(infiniband_errors) and
        V(backup_age).
      - Limits of V(disk_usage) and V(memory_usage) override O(disk_warning), O(disk_critical),
        O(memory_warning) and O(memory_critical).
    type: dict
    default: {}
  services:
    description:
      - systemd units that must be active. A name without suffix is a service.
      - A unit that systemd does not know is critical, except with the default of this option.
    type: list
    elements: str
    default: [docker]
  flapping_restarts:
    description: Minimum number of automatic restarts within O(flapping_window) for a flapping unit.
    type: int
    default: 3
  flapping_window:
    description: How far back restarts are counted, in seconds.
    type: int
    default: 600
  gpu:
    description: Whether to check GPUs, as M(mlops.fleet.gpu_health) does.
    type: bool
    default: true
  gpu_expected_count:
    description: Number of GPUs that this node must have. By default a node without GPUs is healthy.
    type: int
  gpu_temperature_warning:
    description:
      - Warning limit for the GPU temperature in degrees Celsius.
      - While this option and O(gpu_temperature_critical) have their defaults, limits that the
        device reports take precedence.
    type: float
    default: 75.0
  gpu_temperature_critical:
    description: As O(gpu_temperature_warning), for a critical verdict.
    type: float
    default: 85.0
  network:
    description: Whether to check connectivity.
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
      - When empty, C(ipv4only.arpa) is looked up and any answer passes, so that closed networks
        pass as long as their resolver works.
    type: list
    elements: str
    default: []
  network_links:
    description:
      - Network interfaces that must be up. Others are checked when they have hardware and are
        switched on.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the interface.
        type: str
        required: true
      speed:
        description: Minimum speed in Mbit/s.
        type: int
  infiniband_ports:
    description: Number of InfiniBand or RoCE ports that must be active.
    type: int
  infiniband_rate:
    description: Minimum rate of an active port in Gbit/s.
    type: float
  expected_hardware:
    description:
      - What this node must have. Each thing that is expected gives a check V(expected_hardware)
        with the thing as its subject. More than expected passes.
      - Completes, and takes precedence over, what O(expected_hardware_file) says.
    type: dict
    suboptions:
      cpus:
        description: Number of CPUs that must be online.
        type: int
      memory:
        description:
          - Main memory, such as V(512G), or a number of bytes. Up to 3 percent may be missing,
            which the kernel reserves; one of 32 memory modules is more.
          - V(G) and V(GiB) are binary, V(GB) is decimal.
        type: str
      dimms:
        description: Number of memory modules, where the kernel counts them (EDAC).
        type: int
      swap:
        description: Swap space. Less is a warning.
        type: str
      disks:
        description: Disks by size.
        type: list
        elements: dict
        suboptions:
          size:
            description: Size of each disk, such as V(3.84TB). Disks within 2 percent count.
            type: str
            required: true
          count:
            description: Number of such disks.
            type: int
            default: 1
      links:
        description: Network interfaces by speed. Those with hardware and a carrier count.
        type: list
        elements: dict
        suboptions:
          speed:
            description: Minimum speed in Mbit/s.
            type: int
            required: true
          count:
            description: Number of such interfaces.
            type: int
            default: 1
      gpus:
        description: Number of NVIDIA GPUs on the PCI bus, whatever their driver reports.
        type: int
      kernel_modules:
        description: Kernel modules that must be loaded or built in, such as V(nvidia_peermem).
        type: list
        elements: str
      libraries:
        description: Libraries that the dynamic loader must find, such as V(libcuda.so.1), or paths.
        type: list
        elements: str
      kernel:
        description: Version of the running kernel, as a shell pattern. Another one is a warning.
        type: str
      driver:
        description:
          - Version of the NVIDIA driver, as a shell pattern. Another one is a warning, none is
            critical.
        type: str
      firmware:
        description:
          - Versions of firmware by component, as shell patterns. Another one, or none, is a
            warning.
          - Components are V(bios), InfiniBand and RoCE adapters by their board (V(board_id) in
            C(/sys/class/infiniband)), and NVMe disks by their model. Several versions of one
            component are one text, in order and with commas.
        type: dict
  expected_hardware_file:
    description:
      - File with what this node must have, as C(mlfleet health --learn) writes it. A mapping
        C(expected_hardware) in JSON with the keys of O(expected_hardware).
      - A file that does not exist expects nothing. A file that is damaged or can not be read is
        V(unknown).
    type: path
    default: /var/lib/mlops-fleet/expected-hardware.json
  hardware_facts:
    description:
      - Whether to return RV(hardware), what this node has, in the form of O(expected_hardware).
    type: bool
    default: false
  error_window:
    description: How far back the journal or kernel log is searched for errors and OOM kills, in
      seconds.
    type: int
    default: 3600
  error_patterns:
    description: Kernel messages to look for in addition to the built-in rules.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the rule, used as the subject of the check.
        type: str
        required: true
      pattern:
        description: Regular expression to search for in messages of priority V(err) or higher.
        type: str
        required: true
      status:
        description: Verdict when a message matches.
        type: str
        choices: [warning, critical]
        default: warning
  disk_health:
    description:
      - Whether to query the health of disks through C(smartctl) or C(nvme), where they are
        installed. Needs root.
    type: bool
    default: true
  certificates:
    description:
      - Files with certificates in PEM or DER format whose expiry is checked. Of several
        certificates in a file, the first to expire counts.
    type: list
    elements: path
    default: []
  backups:
    description:
      - Directories that must hold a recent backup that is complete and verified.
      - Each source in a directory counts by itself. In a directory that several hosts share, only
        the backups of this host count; on a host that has none in it, those of each host by
        themselves.
      - A directory or backup that this user may not read is V(unknown). Nothing at all is critical.
      - Without limits of their own, those of V(backup_age) in O(limits) apply, 30 and 54 hours by
        default.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Directory of the backups, the O(mlops.fleet.model_backup#module:destination) of
          M(mlops.fleet.model_backup).
        type: path
        required: true
      source:
        description:
          - Count only backups of this directory. By default each source in O(backups[].path) counts
            that has no entry of its own.
          - Name the others if a source is no longer backed up.
        type: path
      warning:
        description: Age of the newest verified backup in hours that is a warning.
        type: float
      critical:
        description: Age of the newest verified backup in hours that is critical.
        type: float
  security_updates:
    description:
      - Whether to count pending security updates (apt, dnf, zypper). Package lists are not
        refreshed. This takes a second or two.
    type: bool
    default: false
  checks:
    description:
      - Run only these checks or groups of checks.
      - Groups are V(disk), V(memory), V(load), V(services), V(gpu), V(network), V(errors),
        V(processes), V(limits), V(hardware), V(system), V(certificates), V(updates) and V(backup).
    type: list
    elements: str
    default: []
  skip:
    description: Checks or groups of checks to leave out.
    type: list
    elements: str
    default: []
  timeout:
    description: Time limit for each probe, in seconds.
    type: float
    default: 5.0
  total_timeout:
    description: Time limit for all probes together, in seconds.
    type: float
    default: 30.0
  state_file:
    description:
      - File that stores the verdicts of earlier runs, so that the state of flapping checks is
        stable. Without it each run is independent.
      - The last directory of the path is created when it is missing. The file has mode 0640.
      - With it, checks have RV(checks[].since), and OOM kills are also counted since the last run.
    type: path
  raise_after:
    description: Number of observations in a row after which a state gets worse. Needs
      O(state_file).
    type: int
    default: 1
  clear_after:
    description: Number of observations in a row after which a state gets better. Needs
      O(state_file).
    type: int
    default: 2
  boot_grace:
    description:
      - For this many seconds after boot nothing new is raised, because services, network and GPUs
        are still starting. Needs O(state_file).
      - Persistent faults (full disks, memory errors, RAID, certificates and others) are raised
        nevertheless.
    type: int
    default: 600
seealso:
  - module: mlops.fleet.gpu_health
  - module: mlops.fleet.model_backup
  - module: mlops.fleet.alert
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Check the node
  mlops.fleet.node_health:
  register: node

- name: Show what is wrong and what to do
  ansible.builtin.debug:
    msg: "{{ node.status }}, recommended: {{ node.recommendation }} {{ node.reasons }}"

- name: Check an inference node with custom limits and services
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

- name: Check with stable verdicts and write metrics for Prometheus
  mlops.fleet.node_health:
    state_file: /var/lib/mlops-fleet/node-health.json
    raise_after: 3
    clear_after: 2
    textfile: /var/lib/prometheus/node-exporter/mlops_node.prom

- name: Check only storage, and stop here when it is critical
  mlops.fleet.node_health:
    checks: [disk, raid, zfs_pool, nvme_state, disk_health]
    expected_mounts: [/data]
    fail_on: critical

- name: Expect eight GPUs and what belongs to them
  mlops.fleet.node_health:
    checks: [expected_hardware]
    expected_hardware:
      cpus: 224
      memory: 2T
      gpus: 8
      disks:
        - {size: 3.84TB, count: 8}
      links:
        - {speed: 200000, count: 2}
      kernel_modules: [nvidia_peermem, ib_uverbs]
      libraries: [libcuda.so.1]
      driver: "570.*"

- name: Alert when backups stop
  mlops.fleet.node_health:
    checks: [backup_age]
    backups:
      - {path: /backup/models, source: /opt/ml/models, warning: 26, critical: 50}

# Options that several tasks share are set once, for the whole collection:
- name: Check all nodes
  hosts: gpu_nodes
  gather_facts: false
  module_defaults:
    group/mlops.fleet.all:
      fail_on: critical
    mlops.fleet.node_health:
      services: [docker, nvidia-persistenced]
      network: false
  tasks:
    - name: Check the node
      mlops.fleet.node_health:

    - name: Check the GPUs
      mlops.fleet.gpu_health:
"""

RETURN = r"""
timestamp:
  description: When the checks were made, ISO 8601 in UTC.
  returned: always
  type: str
  sample: "2026-01-31T14:30:00+00:00"
hostname:
  description: Host name of the node.
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
      description: One line that explains the status, with the value.
      type: str
      sample: "Disk usage: 65% on / (34.1 GiB free)"
    subject:
      description: What was checked, such as the mount point, the unit or the interface.
      type: str
      returned: when there are several
    value:
      description: The measured value.
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
      description: Source of the limits, V(default), V(user) or V(device).
      type: str
      returned: when there are limits
    action:
      description:
        - What to do, such as V(none), V(inspect), V(free_space), V(restart_app), V(reset_gpu),
          V(drain) or V(reboot).
      type: str
    domain:
      description: Whether the cause is the machine (V(node)) or the workload (V(user)).
      type: str
      returned: when the check did not pass
    since:
      description: When the check got this status, ISO 8601.
      type: str
      returned: with O(state_file)
    duration_ms:
      description: How long the probe of the check took, in milliseconds.
      type: float
      returned: when it ran in a separate process
    details:
      description: More data for programs, such as victims of OOM kills or names of failed units.
      type: dict
      returned: when there is more
summary:
  description: Counts and score.
  returned: always
  type: dict
  contains:
    total:
      description: Number of checks without skipped checks.
      type: int
    passed:
      description: Number of checks that passed.
      type: int
    warnings:
      description: Number of checks that count as a warning, V(unknown) included where it does.
      type: int
    failed:
      description: Number of checks that count as critical.
      type: int
    skipped:
      description: Number of skipped checks.
      type: int
    health_score:
      description: V(100) when all passed, from 50 up to below 100 with warnings only, below 50 with
        a critical check.
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
  description:
    - What to do with the node, V(none), V(inspect), V(drain) or V(reboot). The module never does
      it.
  returned: always
  type: str
reasons:
  description: Messages of the checks that RV(recommendation) is based on.
  returned: always
  type: list
  elements: str
domain:
  description: V(node) when the cause is the machine, V(user) when it is only the workload, else
    V(none).
  returned: always
  type: str
hardware:
  description:
    - What this node has, in the form of O(expected_hardware). Of kernel modules and libraries those
      of GPUs, fabric and parallel file systems, and the expected ones.
  returned: with O(hardware_facts)
  type: dict
  sample: {cpus: 224, memory: 2163870044160, gpus: 8, disks: [{size: 3840755982336, count: 8}], kernel: 6.8.0-1013-nvidia, firmware: {bios: 2.4.4}}
agent_version:
  description: Version of the agent (the command C(mlfleet)) on this node, V(null) where it is not
    installed in C(/opt/mlops-fleet).
  returned: always
  type: str
  sample: 0.1.0-1f2e3d4c5b6a
duration:
  description: How long the module took, in seconds.
  returned: always
  type: float
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.installed import agent_version
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run


def main() -> None:
    module = _shell.build(NodeOptions)

    def work() -> dict[str, t.Any]:
        options = NodeOptions.from_mapping(module.params)
        document = run(options, _shell.world(module), check=module.check_mode)
        return _shell.fail_on_verdict(
            {"changed": False, **document.to_dict(), "agent_version": agent_version()},
            options.fail_on,
        )

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
