# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in use, asked one by one: the parts that back each other up in a whole run."""

from __future__ import annotations

import fcntl
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import inuse


@pytest.mark.parametrize("directory", [True, False])
def test_a_lock_is_seen_without_the_process_table(root, directory):
    """On a network filesystem the lock may be another host's; /proc shows nothing of it."""
    path = root / "unit"
    path.mkdir() if directory else path.write_text("x")
    fd, held = os.open(root, os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        assert not inuse.locked("unit", fd, directory)
        fcntl.flock(held, fcntl.LOCK_SH)
        assert inuse.locked("unit", fd, directory)
    finally:
        os.close(held)
        os.close(fd)
