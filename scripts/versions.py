# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions that the collection supports and is tested with.

Files that other tools read (requirements.txt, meta/runtime.yml, tests/config.yml, ...) repeat some
of them; tests/unit/test_versions.py compares every such place with this file. Change a version here
first, then what that test names.
"""

from __future__ import annotations

TARGET_PYTHONS = (
    "3.9",
    "3.10",
    "3.11",
    "3.12",
    "3.13",
    "3.14",
)  # what nodes run: _core, modules and the node command
ANSIBLE_FLOOR = "2.18"  # meta/runtime.yml
# The ansible-core lines of `make test`, each with the Python it is tested on, by the name of its
# environment under .build/.
ANSIBLE_LINES = {"dev": ("2.19", "3.11"), "core221": ("2.21", "3.13")}
# The lines of the workflows, each with the Pythons its controller runs on.
ANSIBLE_MATRIX = {
    "2.18": ("3.11", "3.12", "3.13"),
    "2.19": ("3.11", "3.12", "3.13"),
    "2.20": ("3.12", "3.13"),
    "2.21": ("3.12", "3.13"),
}
CONTROLLER_PYTHON = "3.11"  # what scripts/ and the oldest line of `make test` need
# The oldest versions of optional libraries on the nodes.
LIBRARIES = {"psutil": "5.6", "nvidia-ml-py": "11.450", "boto3": "1.28"}
DEBIAN_RELEASES = ("bookworm", "trixie")  # what the booted nodes run
