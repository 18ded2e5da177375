# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print as a JSON list which of the packages named by the arguments are missing on this node.

A library that this Python imports is not missing, whoever installed it. For other packages the
package database is asked. No repository is needed, and nothing is changed.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys

#: Library as package names have it -> module to import.
MODULES = {
    "boto3": "boto3",
    "nvidia-ml-py": "pynvml",
    "psutil": "psutil",
    "pynvml": "pynvml",
}


def is_importable(package: str) -> bool:
    module = MODULES.get(re.sub(r"^python3?[0-9.]*-", "", package))
    if module is None:
        return False
    try:
        imported = importlib.import_module(module)
    except (ImportError, OSError, AttributeError, RuntimeError, SystemError, ValueError):
        return False
    # A directory that the removal of a package has left is imported, too: as a namespace without a
    # file.
    return getattr(imported, "__file__", None) is not None


def is_in_database(package: str) -> bool:
    for *argv, expected in (
        ("dpkg-query", "--show", "--showformat=${db:Status-Status}", package, r"installed"),
        ("rpm", "--query", "--whatprovides", package, r".+"),
    ):
        if shutil.which(argv[0]):
            result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            if result.returncode == 0 and re.fullmatch(expected, result.stdout.strip(), re.DOTALL):
                return True
    return False


sys.stdout.write(
    json.dumps(
        [
            package
            for package in sys.argv[1:]
            if not is_importable(package) and not is_in_database(package)
        ]
    )
)
