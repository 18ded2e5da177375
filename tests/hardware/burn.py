# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep one GPU busy for some seconds, or measure its copies, and print what was measured as JSON.

python3 burn.py compute 20
python3 burn.py copies
"""

from __future__ import annotations

import json
import sys

import cuda


def main() -> None:
    with cuda.Gpu() as gpu:
        facts = {
            "multiprocessors": gpu.multiprocessors,
            "capability": gpu.capability,
            "memory": gpu.memory(),
        }
        if sys.argv[1] == "copies":
            facts.update(gpu.copies())
        else:
            gpu.allocate(8 << 30 if gpu.memory()[0] > 16 << 30 else gpu.memory()[0] // 2)
            facts.update(gpu.compute(float(sys.argv[2])))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
