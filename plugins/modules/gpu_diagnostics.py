#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_diagnostics
short_description: Test NVIDIA GPUs under load
version_added: "0.2.0"
description:
  - Exercises each GPU and reports what it measured, to decide whether a card can go back into
    service. M(mlops.fleet.gpu_health) asks the driver; this module makes the GPU work.
  - Writes patterns over the memory and reads them back, times copies inside the GPU, to and from
    the host, and between GPUs, and runs a calculation whose correct result is known, so that silent
    corruption is found on a single GPU too.
  - Needs nothing but the driver (C(libcuda.so.1)) and what M(mlops.fleet.gpu_health) needs. No
    compiler, no CUDA toolkit.
  - Never runs on a GPU that a process uses, leaves at least 5 % of the memory free, resets nothing,
    and ends at its deadline even when the driver hangs. When the module is killed, its processes on
    the GPUs are killed with it.
  - One run per node at a time.
  - The memory test, the known result, and the figures were checked on an NVIDIA H100 80GB HBM3
    (driver 580.159.04). Copies between GPUs have so far run on a simulated driver only.
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Reports in RV(would_test) which GPUs would be tested, and tests none.
  diff_mode:
    support: none
  platform:
    support: full
options:
  level:
    description:
      - How thorough the tests are.
      - V(quick) writes 2 patterns over half of the free memory and calculates for 2 seconds, at
        most 20 seconds for 8 GPUs.
      - V(standard) writes 8 patterns over nearly all of it and calculates for 20 seconds, at most 3
        minutes.
      - V(soak) calculates for O(soak_time).
    type: str
    choices: [quick, standard, soak]
    default: quick
  tests:
    description:
      - Tests to run.
      - V(device_bandwidth) times copies inside the GPU, V(host_bandwidth) copies from and to
        page-locked memory of the host, V(memory) checks patterns, V(compute) checks and times
        arithmetic, V(peer) times and checks copies between every pair of GPUs.
    type: list
    elements: str
    choices: [device_bandwidth, host_bandwidth, memory, compute, peer]
    default: [device_bandwidth, host_bandwidth, memory, compute, peer]
  engine:
    description:
      - What tests the GPUs.
      - V(builtin) needs nothing but the driver.
      - V(dcgm) runs C(dcgmi diag) of NVIDIA DCGM, which must be installed, at its level 1 for
        O(level=quick), 2 for O(level=standard) and 3 for O(level=soak). Its tests become checks of
        this module; O(tests) is ignored. A failure that DCGM calls a matter of configuration is a
        warning.
      - V(nvbandwidth) runs NVIDIA's C(nvbandwidth), which must be installed, for the tests
        V(host_bandwidth) and V(peer).
      - The mapping of both was tested on samples in the published formats, not on a node where they
        are installed.
    type: str
    choices: [builtin, dcgm, nvbandwidth]
    default: builtin
  gpus:
    description:
      - Numbers of the GPUs to test, counted from 0 in the order of C(nvidia-smi). All by default.
    type: list
    elements: int
  when_busy:
    description:
      - What to do when a process uses one of the GPUs.
      - V(fail) tests nothing and fails the task, V(skip) tests the others.
    type: str
    choices: [fail, skip]
    default: fail
  expected:
    description:
      - Figures that each GPU must reach, less O(tolerance).
      - Without them, copies inside the GPU are compared with the data sheet of known models, copies
        to the host with the PCI Express link, and all figures with the median of at least 3 GPUs of
        the same model in the node.
    type: dict
    suboptions:
      device_bandwidth:
        description: Copies inside the GPU in GB/s, bytes read and written together.
        type: float
      host_to_device:
        description: Copies from page-locked memory of the host in GB/s.
        type: float
      device_to_host:
        description: Copies to page-locked memory of the host in GB/s.
        type: float
      peer:
        description: Copies to another GPU in GB/s.
        type: float
      compute:
        description: Single-precision arithmetic of the test's own kernel in TFLOP/s. It is not the
          peak of the data sheet.
        type: float
  tolerance:
    description: Percent by which a GPU may stay below the expected figure or below its peers.
    type: float
    default: 10
  soak_time:
    description: Seconds that a soak calculates.
    type: int
    default: 600
  state_file:
    description:
      - File in which the figures of the last 10 runs of each GPU are remembered, by UUID.
      - With it, the check C(gpu_test_record) warns when a GPU is slower than the median of its own
        earlier runs by more than O(tolerance).
      - The last directory of the path is created when it is missing.
    type: path
  timeout:
    description:
      - Seconds for all tests together, 60 for V(quick), 300 for V(standard), O(soak_time) and 300
        for V(soak) by default.
      - A test that has not ended by then is a hung GPU.
    type: float
  fail_on:
    description:
      - Minimum verdict that fails the task. The verdict itself is always returned.
    type: str
    choices: [critical, warning, never]
    default: never
seealso:
  - module: mlops.fleet.gpu_health
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Test the GPUs before the node goes back into service
  mlops.fleet.gpu_diagnostics:
    level: standard
    fail_on: warning

- name: Test the free GPUs of a node that works
  mlops.fleet.gpu_diagnostics:
    when_busy: skip
    tests: [memory, compute]

- name: Compare with figures of this model
  mlops.fleet.gpu_diagnostics:
    expected:
      device_bandwidth: 3000
      host_to_device: 54
      device_to_host: 54
"""

RETURN = r"""
timestamp:
  description: When the tests began, ISO 8601 in UTC.
  returned: always
  type: str
  sample: "2026-11-28T03:12:00+00:00"
hostname:
  description: The node's own host name.
  returned: always
  type: str
checks:
  description: One entry per GPU and figure, in the shape of M(mlops.fleet.gpu_health).
  returned: always
  type: list
  elements: dict
  sample:
    - check: gpu_test_memory
      status: pass
      message: "GPU 0: 74.7 GiB read back as written, 8 patterns"
      subject: GPU 0
      value: 0
      action: none
      domain: node
summary:
  description: Number of checks by status, score and verdict.
  returned: always
  type: dict
status:
  description: Worst verdict of all checks.
  returned: always
  type: str
exit_code:
  description: The same as a number, V(0) for healthy, V(1) for warnings, V(2) for critical.
  returned: always
  type: int
level:
  description: The level that ran.
  returned: always
  type: str
gpus:
  description: The GPUs of the node with RV(gpus[].tested) and the extremes of temperature, power
    and clock during the tests.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Number of the GPU.
      type: int
    name:
      description: Its model.
      type: str
    uuid:
      description: Its UUID.
      type: str
    bus_id:
      description: Its address on the PCI bus.
      type: str
    tested:
      description: Whether it was tested.
      type: bool
    sensors:
      description: Highest temperature in °C, highest power in W, lowest clock under load in MHz,
        reasons of slower clocks.
      type: dict
measured:
  description: The figures.
  returned: always
  type: dict
  contains:
    gpus:
      description: By number of the GPU and test. Rates are in GB/s (10⁹ bytes) and TFLOP/s.
      type: dict
    pairs:
      description: Copies between GPUs with source, target, rate, whether the way is direct, and
        words that arrived wrong.
      type: list
      elements: dict
would_test:
  description: Numbers of the GPUs that were tested, or in check mode would be.
  returned: always
  type: list
  elements: int
duration:
  description: How long the module took, in seconds.
  returned: always
  type: float
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.options import (
    DiagnosticsOptions,
)


def main() -> None:
    module = _shell.build(DiagnosticsOptions)

    def work() -> dict[str, t.Any]:
        options = DiagnosticsOptions.from_mapping(module.params)
        document = run.run(options, _shell.world(module), check=module.check_mode)
        return _shell.fail_on_verdict({"changed": False, **document.to_dict()}, options.fail_on)

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
