# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the GPU part in a process that finds the simulated NVML library; one JSON request and answer
per line.

A process of its own: the library, once loaded, stays in a process, and other tests must not find it
there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

COLLECTIONS = sys.argv[1]
sys.path.insert(0, COLLECTIONS)

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    CommandFailed,
    FleetError,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import (
    driver,
    facts,
    plan,
    reading,
    run,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World


def run_command(argv, timeout=30.0, env=None, stdin=None):
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **(env or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{argv[0]}: {error}") from error
    return CommandResult(done.returncode, done.stdout, done.stderr)


class Clock:
    def __init__(self, now):
        self.time = now

    def now(self):
        return self.time

    def monotonic(self):
        return time.monotonic()


def answer(request):
    for name, value in request.get("env", {}).items():
        os.environ[name] = value
    options = GpuOptions.from_mapping(request["options"])
    world = World(
        run=run_command,
        clock=Clock(request["now"]),
        root=request["root"],
        hostname="node",
        environ=request.get("world_env", {}),
    )
    if request["what"] == "run":
        started = time.monotonic()
        document = run.run(options, world, check=not request.get("write", True)).to_dict()
        return {**document, "wall": time.monotonic() - started}
    # Without fork: many rounds in a short time.
    answers = driver.session()
    sys.modules["pynvml"].nvmlShutdown()
    reading.refuse_impossible(answers)
    decided = plan.decide(options, facts.Facts(answers))
    return {
        "checks": [{**check.to_dict(), "counts_as": check.counts_as} for check in decided.checks],
        "gpus": [report.to_dict() for report in decided.gpus],
    }


def main():
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except FleetError as error:
            found = {"error": error.to_dict()}
        except Exception as error:
            found = {"crash": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
