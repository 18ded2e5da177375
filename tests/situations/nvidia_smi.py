# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for nvidia-smi: answers its queries from the JSON file named by NVIDIA_SMI_ANSWERS,
field by field.
"""

from __future__ import annotations

import json
import os
import sys

with open(os.environ["NVIDIA_SMI_ANSWERS"], encoding="utf-8") as stream:
    ANSWERS = json.load(stream)
QUERY = next(argument for argument in sys.argv if argument.startswith("--query-"))
KIND, _equal, FIELDS = QUERY.partition("=")
for gpu in ANSWERS["rows" if KIND == "--query-remapped-rows" else "gpus"]:
    print(", ".join(gpu.get(field, "[N/A]") for field in FIELDS.split(",")))
