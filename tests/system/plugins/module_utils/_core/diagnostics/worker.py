# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run diagnostics in a process that found the doubles when it started: a list of [planted faults,
options] on standard input, a list of documents or errors on standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

sys.path.insert(0, sys.argv[1])
from _core.diagnostics import run
from _core.diagnostics.options import DiagnosticsOptions
from _core.errors import CommandFailed, FleetError
from _core.ports import CommandResult, World


def command(argv, timeout=30.0, env=None, stdin=None):
    try:
        done = subprocess.run(
            list(argv), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(str(error)) from error
    return CommandResult(done.returncode, done.stdout, done.stderr)


def main():
    answers = []
    usual = os.environ["CUDA_DOUBLE"]
    for planted, given in json.load(sys.stdin):
        os.environ["CUDA_DOUBLE"] = f"{usual} {planted}"
        try:
            document = run.run(DiagnosticsOptions.from_mapping(given), World(run=command))
            answers.append(document.to_dict())
        except FleetError as error:
            answers.append({"error": type(error).__name__, "message": str(error)})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
