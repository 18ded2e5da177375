# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for nvidia-smi: answers --query-gpu and --query-remapped-rows from a JSON file, in the
real program's words.

NVIDIA_SMI_ANSWERS names the file: C(gpus) (field -> text; a text instead of a mapping is printed as
the line), C(unknown) (fields this version does not have), C(rows), C(exit), C(output) (printed
instead of all), C(hang) (ignores SIGTERM and sleeps), C(hang_rows) (the same, for the rows only).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time


def main():
    with open(os.environ["NVIDIA_SMI_ANSWERS"], encoding="utf-8") as stream:
        answers = json.load(stream)
    if answers.get("hang") or (answers.get("hang_rows") and "remapped" in sys.argv[1]):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    if "output" in answers:
        sys.stdout.write(answers["output"])
        return answers.get("exit", 0)
    asked = next(word for word in sys.argv if word.startswith("--query-"))
    name, _equal, fields = asked.partition("=")
    fields = fields.split(",")
    for field in fields:
        if field in answers.get("unknown", ()):
            sys.stdout.write(f'Field "{field}" is not a valid field to query.\n\n')
            return 2
    for gpu in answers.get("rows" if name == "--query-remapped-rows" else "gpus", ()):
        sys.stdout.write(
            gpu if isinstance(gpu, str) else ", ".join(gpu.get(field, "[N/A]") for field in fields)
        )
        sys.stdout.write("\n")
    return answers.get("exit", 0)


if __name__ == "__main__":
    sys.exit(main())
