# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the Ansible side of every module, which is in _module.

A packed module compiles this file twice and all others once, so there is nothing else in it.

Private to this collection; no interface is promised to others.
"""

from __future__ import annotations

# First, because it makes the imports below cheaper.
from . import _packed  # noqa: F401  # isort: skip  # pylint: disable=unused-import

from ._module import argument_spec, build, execute, fail_on_verdict, world

__all__ = ("argument_spec", "build", "execute", "fail_on_verdict", "world")
