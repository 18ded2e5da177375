#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# long because most of it is documentation

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_health
short_description: Check the health of the NVIDIA GPUs of a node
version_added: "0.1.0"
description:
  - Queries the driver once, looks for driver errors (Xid) in the kernel log and for GPUs on the PCI
    bus, and returns one verdict with its reasons.
  - Limits and faults that the device reports take precedence over fixed numbers. These are the
    recovery action that the driver asks for, lost GPUs, failed or pending row remapping,
    uncorrected memory errors, Xids, the distance to the slowdown temperature and slowdown by the
    hardware.
  - A node without a GPU is not an error. Without a driver library and without an NVIDIA device on
    the PCI bus the status is V(skipped) and the exit code 0, unless O(expected_count) requires
    GPUs. A GPU without a working driver is critical.
  - The driver is queried in a separate process, so that a driver that hangs cannot hang the task.
    When one GPU does not answer, the others are queried in separate processes.
  - A value that a device does not have is null in RV(gpus), never 0.
  - With O(state_file), counters and incidents are remembered from run to run. Rates of corrected
    errors, PCIe replays and NVLink errors are then checked, and a GPU that fails again and again is
    reported whatever its state is now.
  - The module changes nothing on the node except the files named by O(metrics_csv), O(textfile) and
    O(state_file), and always reports C(changed=false).
extends_documentation_fragment:
  - mlops.fleet.attributes
  - mlops.fleet.verdict
attributes:
  check_mode:
    support: full
    details:
      - In check mode the GPUs are checked as usual, and no file is written.
  diff_mode:
    support: none
  platform:
    support: full
options:
  expected_count:
    description:
      - Number of GPUs that this node must have. Fewer is critical, more is a warning.
      - Without it, GPUs that are on the PCI bus but not in the driver are still detected, except in
        containers.
      - Set it to V(0) on nodes with a driver but without a GPU.
    type: int
  temperature_warning:
    description:
      - Warn above this core temperature in degrees Celsius.
      - It replaces the device's own warning limit (5 degrees before the slowdown, or above its
        maximum for operation).
      - The default is V(80) where the device has no limit of its own.
    type: float
  temperature_critical:
    description:
      - Critical above this core temperature in degrees Celsius. The device's own critical limit
        still applies.
      - The default is V(90) where the device has no limit of its own.
    type: float
  memory_warning:
    description:
      - Warn above this share of GPU memory in use, in percent. V(0) disables the check.
      - Full memory is normal on a training node and says nothing about its health. The default is
        that of the scripts that this module replaces. On training nodes set it to V(0), for all
        tasks through C(module_defaults).
      - The C(domain) of the check is V(user).
    type: float
    default: 90
  power_warning:
    description:
      - Warn above this share of the power limit in use, in percent. V(0) disables the check.
      - A GPU under full load draws as much as its limit allows. Set it to V(0) where that is
        normal, as with O(memory_warning).
    type: float
    default: 95
  metrics_csv:
    description:
      - Absolute path of a CSV file. One row per GPU is appended, under a lock and in one write. A
        new file begins with the header
        C(timestamp,gpu_id,name,temp,util_gpu,util_mem,mem_used,mem_total,power_draw,power_limit)
        first.
      - Times are local, memory is in MiB, power in W, and all numbers are integers. A field is
        empty if the GPU does not have the value.
      - A symbolic link is refused. If the file cannot be written, a check warns about it, and the
        other checks are not affected.
    type: path
  timeout:
    description:
      - Time limit for all queries to the driver together, in seconds. No answer within it is
        critical.
      - While a process of an earlier check is blocked in the kernel and cannot be killed, the
        driver is not queried again.
    type: float
    default: 30
  xid_window:
    description: How far back the kernel log is searched, in seconds, but not beyond the last boot.
    type: int
    default: 86400
  xid_overrides:
    description:
      - Levels of single Xid numbers, instead of those of NVIDIA's catalog. Each value is V(ignore),
        V(warning) or V(critical).
      - V(ignore) keeps the Xid in the result and excludes it from the verdict.
      - Numbers of NVSwitch errors (SXid, above 10000) can be given too.
    type: dict
  log_source:
    description:
      - Where to look for Xids. V(auto) uses the journal, or the kernel's ring buffer where there is
        no journal.
      - V(journal), V(dmesg), or the absolute path of a log file. The last 16 MiB of the file are
        read, and those of the rotated file with the suffix C(.1) if it was written within the
        window.
      - Only the kernel's own messages count. An Xid without a readable time is at most a warning.
      - V(none) disables the check.
      - Where the log cannot be read (not root, container), the message says that nothing was
        checked. The status is V(skipped) with V(auto) and V(unknown) with a source that you named.
    type: str
    default: auto
  state_file:
    description:
      - File in which the counters and incidents of each GPU are remembered, by UUID and serial
        number, so that a card keeps its record in another slot.
      - With it, the checks C(gpu_corrected_errors), C(gpu_pcie_replays), C(gpu_nvlink_errors),
        C(gpu_counters) and C(gpu_history) are made, and RV(gpus[].history) is returned. A GPU that
        was reset since the last run is no longer blamed for the Xids before, even if the kernel log
        has no line about the reset.
      - The last directory of the path is created when it is missing. The file has mode 0640.
      - A file that cannot be understood is renamed to the suffix C(.broken), and the memory starts
        over. A file of a later release is not changed; the check C(gpu_state_file) warns about it.
      - C(mlfleet gpu --history) prints its content.
    type: path
  keep_xids:
    description:
      - Keep critical and warning Xids in the verdict until a person clears them with
        C(mlfleet gpu --clear-xids GPU), even if the GPU was reset, the node rebooted, or O(xid_window)
        has passed. Needs O(state_file).
    type: bool
    default: false
  incidents_warning:
    description:
      - Warn about a GPU that had this number of incidents in 30 days, whatever its state is now.
        V(0) disables it. Needs O(state_file).
      - An incident is a critical or warning Xid, or a GPU that is lost, needs a recovery action,
        has uncorrected memory errors, row or page faults, or lost NVLinks. What happens within five
        minutes is one incident.
    type: int
    default: 3
  corrected_errors_warning:
    description:
      - Warn above this number of corrected memory errors per hour. V(0) disables the check.
      - Without O(state_file), the errors since the driver was loaded are divided by the uptime of
        the node, which finds only high rates.
    type: float
    default: 1000
  pcie_replays_warning:
    description:
      - Warn above this number of PCIe replays per minute. V(0) disables the check.
      - The default depends on the link, as in NVIDIA DCGM. It is 0.15, 0.3, 0.48, 0.96, 1.92 or
        3.84 per lane for generations 1 to 6, 30.72 for 16 lanes of generation 5.
    type: float
  nvlink_errors_warning:
    description:
      - Warn above this number of errors (replays and CRC errors) per minute of one NVLink. V(0)
        disables the check.
      - With O(state_file), a link that had to recover since the last run is always a warning.
    type: float
    default: 100
  backend:
    description:
      - How to query the driver. V(auto) uses NVML through the Python library C(nvidia-ml-py), or
        the program C(nvidia-smi) without it.
      - V(nvidia_smi) does not report NVLink, PCIe replays, fabric state and processes, nor the
        margin with some drivers.
      - V(amd_smi) queries AMD GPUs through the program C(amd-smi). It is experimental, because it
        was tested on samples in the published format only. V(auto) uses it on nodes with AMD GPUs
        and without NVIDIA's driver.
      - GPUs of other vendors are named in the message of the check C(gpu_driver), but not checked.
    type: str
    choices: [auto, nvml, nvidia_smi, amd_smi]
    default: auto
requirements:
  - NVIDIA driver
  - nvidia-ml-py or the program nvidia-smi
  - root, where only root can read the kernel log
author:
  - mlops.fleet contributors (@mlops-fleet)
seealso:
  - name: Analyzing Xid errors with the Xid catalog
    description: Meaning of the driver's error numbers.
    link: https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
"""

EXAMPLES = r"""
- name: Check the GPUs
  mlops.fleet.gpu_health:
  register: gpu

- name: Stop here when a GPU is broken or missing
  mlops.fleet.gpu_health:
    expected_count: 8
    fail_on: critical

- name: Ignore full memory and full power on training nodes
  module_defaults:
    mlops.fleet.gpu_health:
      memory_warning: 0
      power_warning: 0
  block:
    - name: Check the hardware only
      mlops.fleet.gpu_health:
        xid_overrides:
          "63": warning
          "43": ignore
        metrics_csv: /var/log/gpu-metrics.csv
        textfile: /var/lib/prometheus/node-exporter/mlops_gpu.prom

- name: Remember incidents and rates, and name the GPUs that fail again and again
  mlops.fleet.gpu_health:
    state_file: /var/lib/mlops-fleet/gpu.json
    incidents_warning: 3

- name: List the hot GPUs
  ansible.builtin.debug:
    msg: "{{ gpu.gpus | selectattr('temp', 'defined') | rejectattr('temp', 'none') | selectattr('temp', '>', 75) | map(attribute='id') }}"
"""

RETURN = r"""
timestamp:
  description: When the GPUs were checked, ISO 8601 in UTC.
  returned: always
  type: str
  sample: "2025-01-31T14:30:00+00:00"
hostname:
  description: Name of the node.
  returned: always
  type: str
  sample: gpu-17
duration:
  description: How long the module took, in seconds.
  returned: always
  type: float
  sample: 0.21
status:
  description: Verdict of all checks. V(skipped) means that there is no GPU.
  returned: always
  type: str
  sample: warning
exit_code:
  description: V(0) healthy or no GPU, V(1) warning, V(2) critical.
  returned: always
  type: int
  sample: 1
summary:
  description: Counts of the checks and the health score.
  returned: always
  type: dict
  sample: {exit_code: 1, failed: 0, health_score: 93.75, passed: 15, skipped: 0, status: warning, total: 16, warnings: 1}
checks:
  description: The checks. Causes come before their effects.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: Stable name of the check.
      type: str
      returned: always
      sample: gpu_temperature
    status:
      description: V(pass), V(warning), V(critical), V(unknown) or V(skipped).
      type: str
      returned: always
      sample: warning
    message:
      description: One line that explains the status.
      type: str
      returned: always
      sample: "GPU 0: temperature 86 °C, above 80 °C"
    subject:
      description:
        - The GPU, the PCI address of a GPU that the driver no longer lists, or the file that could
          not be written.
      type: str
      returned: when the check is about one GPU or file
      sample: GPU 0
    value:
      description: The measured value.
      type: raw
      returned: when there is one
      sample: 86
    unit:
      description: Unit of the value and its limits.
      type: str
      returned: when there is one
      sample: °C
    warn:
      description: Warning limit.
      type: raw
      returned: when there is one
      sample: 80
    crit:
      description: Critical limit.
      type: raw
      returned: when there is one
      sample: 90
    threshold_source:
      description: Source of the limit, V(device), V(default) or V(user).
      type: str
      returned: when there is a limit
      sample: user
    action:
      description: What to do, V(none), V(restart_app), V(inspect), V(reset_gpu), V(drain) or
        V(reboot).
      type: str
      returned: always
      sample: inspect
    domain:
      description: V(node) when the cause is the machine, V(user) when it is the workload.
      type: str
      returned: when the check did not pass
      sample: node
    since:
      description: When the driver stopped answering, ISO 8601 in UTC.
      type: str
      returned: with C(gpu_driver), while an earlier check still waits for an answer
      sample: "2025-01-31T14:25:00+00:00"
    duration_ms:
      description: How long the driver took to answer all queries, in milliseconds.
      type: float
      returned: with C(gpu_driver), when the driver was queried
      sample: 42.5
gpus:
  description: The GPUs in the order of the driver. A value that a GPU does not have is null.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Index of the GPU in the driver.
      type: int
      returned: always
      sample: 0
    name:
      description: Model.
      type: str
      returned: always
      sample: NVIDIA H100 80GB HBM3
    uuid:
      description: Unique ID of the GPU, which does not change with its index.
      type: str
      returned: always
      sample: GPU-4f2a9c10-0000-4d3e-9b1a-012345678900
    serial:
      description: Serial number of the board.
      type: str
      returned: always
      sample: "1654922000000"
    bus_id:
      description: PCI address.
      type: str
      returned: always
      sample: "00000000:18:00.0"
    vbios:
      description: Version of the video BIOS.
      type: str
      returned: always
      sample: 96.00.89.00.01
    temp:
      description: Core temperature in °C.
      type: int
      returned: always
      sample: 72
    temp_memory:
      description: Memory temperature in °C.
      type: int
      returned: always
      sample: 80
    margin:
      description: Distance to the nearest slowdown threshold in °C.
      type: int
      returned: always
      sample: 26
    fan:
      description: Fan speed in percent.
      type: int
      returned: always
      sample: 30
    util_gpu:
      description: Share of time in which a kernel ran, in percent.
      type: int
      returned: always
      sample: 85
    util_mem:
      description: Share of time in which the memory controller was busy, in percent.
      type: int
      returned: always
      sample: 90
    mem_used:
      description: Memory in use in MiB, without the memory that the driver reserves.
      type: int
      returned: always
      sample: 15000
    mem_total:
      description: Memory in MiB.
      type: int
      returned: always
      sample: 16384
    power_draw:
      description: Power draw in W.
      type: float
      returned: always
      sample: 250.0
    power_limit:
      description: Power limit in force in W.
      type: float
      returned: always
      sample: 300.0
    pstate:
      description: Performance state, V(0) is the fastest.
      type: int
      returned: always
      sample: 0
    clock_sm:
      description: Clock of the multiprocessors in MHz.
      type: int
      returned: always
      sample: 1980
    clock_mem:
      description: Clock of the memory in MHz.
      type: int
      returned: always
      sample: 2619
    clock_reasons:
      description: Why the clocks are below their maximum.
      type: list
      elements: str
      returned: always
      sample: [idle]
    ecc:
      description:
        - Error correction mode and error counts. Volatile counts are since the driver was loaded,
          aggregate counts over the GPU's lifetime.
      type: dict
      returned: always
      sample: {aggregate_corrected: 2, aggregate_uncorrected: 0, mode: true, volatile_corrected: 0, volatile_uncorrected: 0}
    sram_threshold:
      description: Whether the threshold of uncorrected SRAM errors is exceeded.
      type: bool
      returned: always
      sample: false
    remap:
      description: Remapped memory rows.
      type: dict
      returned: always
      sample: {corrected: 0, failure: false, pending: false, uncorrected: 0}
    retired:
      description: Retired memory pages of GPUs before Ampere.
      type: dict
      returned: always
      sample: {double_bit: 0, pending: false, single_bit: 2}
    recovery_action:
      description: Recovery action that the driver asks for.
      type: str
      returned: always
      sample: none
    nvlink:
      description:
        - Number of links, the numbers of those that are down, and the error counters of the links
          that had errors since the driver was loaded. They are null where the driver does not count
          them.
      type: dict
      returned: always
      sample: {down: [], errors: [{crc: 12, link: 0, recovery: 0, replay: 3}], links: 18}
    pcie:
      description: Current and maximum generation and width of the PCIe link, and replays.
      type: dict
      returned: always
      sample: {gen: 5, gen_max: 5, replays: 0, width: 16, width_max: 16}
    fabric:
      description: Registration with the NVLink fabric; state 3 with status 0 is complete.
      type: dict
      returned: always
      sample: {state: 3, status: 0}
    mig:
      description: Whether the GPU is split into instances (MIG).
      type: bool
      returned: always
      sample: false
    persistence:
      description: Whether the driver stays loaded while no process uses the GPU.
      type: bool
      returned: always
      sample: true
    processes:
      description: At most 32 processes on the GPU with the memory in MiB they use.
      type: list
      elements: dict
      returned: always
      sample: [{mem_used: 15000, pid: 4242}]
    process_count:
      description: Number of processes on the GPU.
      type: int
      returned: always
      sample: 1
    xids:
      description:
        - Driver errors of this GPU in the kernel log, with code, count, time of the last incident,
          level and action.
        - The count is that of incidents. Lines of one error from one process at most five minutes
          apart are one incident.
        - An error that a reset of the GPU or a reload of the driver cured has the level V(pass).
        - The code is null for failures that the driver logs without a number.
      type: list
      elements: dict
      returned: always
      sample: [{action: reboot, code: 79, count: 1, last: "2025-01-31T14:29:12+00:00", level: critical, text: GPU has fallen off the bus}]
    history:
      description:
        - What earlier runs remember of this GPU, null without O(state_file).
        - C(repeat_offender) is true from O(incidents_warning) incidents in 30 days on.
      type: dict
      returned: always
      sample:
        codes: ["79", "95"]
        corrected_errors_per_hour: 0.0
        days: 30
        incidents: 2
        last_incident: "2025-01-30T11:02:41+00:00"
        nvlink_errors_per_minute: 0.0
        pcie_replays_per_minute: 0.0
        repeat_offender: false
        since: "2024-11-02T08:00:00+00:00"
    status:
      description: Worst status of the checks of this GPU.
      type: str
      returned: always
      sample: pass
driver:
  description: The driver and how it was queried. Values are null where there is no driver.
  returned: always
  type: dict
  contains:
    backend:
      description: V(nvml), V(nvidia_smi) or V(amd_smi).
      type: str
      returned: always
      sample: nvml
    version:
      description: Version of the driver.
      type: str
      returned: always
      sample: 590.48.01
    nvml_version:
      description: Version of the NVML library.
      type: str
      returned: always
      sample: 13.590.48.01
    cuda_version:
      description: Newest CUDA version that the driver supports.
      type: str
      returned: always
      sample: "13.1"
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.run import run


def main() -> None:
    module = _shell.build(GpuOptions)

    def work() -> dict[str, t.Any]:
        options = GpuOptions.from_mapping(module.params)
        document = run(options, _shell.world(module), check=module.check_mode)
        return _shell.fail_on_verdict({"changed": False, **document.to_dict()}, options.fail_on)

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
