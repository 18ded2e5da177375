# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inject errors into calls, in a process that found the doubles when it started: a mapping of calls
to [test, codes] on standard input, a list of what was wrong on standard output.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, sys.argv[1])
from _core.diagnostics import execute, facts, plan
from _core.diagnostics.options import DiagnosticsOptions
from _core.ports import World, silent

#: What fails while everything is given back does not change a verdict.
AFTERWARDS = {"cuCtxDestroy_v2", "cuMemFreeHost", "cuModuleUnload"}
#: Peer access that is enabled already is no error.
HARMLESS = {("cuCtxEnablePeerAccess", 704)}
NOTHING_STAYS = "contexts=0 memory=0 pinned=0"


def problem(call, code, planned, options, before, leak):
    """Return what is wrong with the verdict or with what stays, None when all is well."""
    outcome = execute.carry_out(planned, None, silent)
    failed = [
        check for check in plan.evaluate(options, planned, outcome, before)
        if check.counts_as == "critical"
    ]  # fmt: skip
    named = [check for check in failed if call in check.message and str(code) in check.message]
    expected = call not in AFTERWARDS and (call, code) not in HARMLESS
    if expected != bool(named) or len(failed) > len(named):
        return [check.message for check in failed] or "no failure"
    if leak.exists():
        stays = leak.read_text().splitlines()[-1]  # one line for each context that is destroyed
        leak.unlink()
        if stays != NOTHING_STAYS:
            return stays
    return None


def main():
    wrong = []
    zero = dict.fromkeys(("device_bandwidth", "host_to_device", "device_to_host"), 0)
    options = DiagnosticsOptions.from_mapping({"tolerance": 90, "expected": zero, "timeout": 20})
    before = facts.observe(options, World(run=None))
    decided = plan.decide(options, before)
    level = decided.level._replace(copy=1 << 16, repeats=1, patterns=1, compute=0.001)
    usual = os.environ["CUDA_DOUBLE"]
    with tempfile.TemporaryDirectory() as directory:
        leak = pathlib.Path(directory) / "leak"
        for call, (test, codes) in json.load(sys.stdin).items():
            pair = test == "peer"
            planned = decided._replace(
                level=level,
                gpus=decided.gpus[: 2 if pair else 1],
                tests=() if pair else (test,),
                peer=pair,
            )
            for code in codes:
                os.environ["CUDA_DOUBLE"] = (
                    f"{usual} memory=8388608 error.{call}={code} leak={leak}"
                )
                found = problem(call, code, planned, options, before, leak)
                if found is not None:
                    wrong.append([call, code, found])
    print(json.dumps(wrong))


if __name__ == "__main__":
    main()
