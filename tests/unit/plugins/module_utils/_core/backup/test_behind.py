# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs behind the reader's back keep their order, their errors come out, and nothing stays open."""

from __future__ import annotations

import contextlib
import errno
import os
import threading

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.behind import Behind


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def test_jobs_keep_their_order_and_files_are_closed(tmp_path):
    before = descriptors()
    with contextlib.closing(Behind()) as behind:
        for number in range(3):
            fd = os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT)
            for digit in range(200):
                behind.run(os.write, fd, b"%d," % digit)
                if digit % 7 == 0:
                    behind.settle()
            behind.synchronise([fd])
        behind.finish()
        assert descriptors() == before
    for number in range(3):
        assert (tmp_path / str(number)).read_text() == "".join(f"{digit}," for digit in range(200))


def test_memory_may_be_used_again_after_the_second_settle(tmp_path):
    """What came before the first call is written when it returns, however slow that is."""
    room, ready = bytearray(b"old"), threading.Event()
    with contextlib.closing(Behind()) as behind:
        fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
        behind.run(lambda: ready.wait(10))
        behind.run(os.write, fd, memoryview(room))
        behind.settle()
        threading.Timer(0.05, ready.set).start()
        behind.settle()
        room[:] = b"new"
        behind.synchronise([fd])
        behind.finish()
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("where", ["run", "settle", "wait", "synchronise", "finish"])
def test_the_error_of_a_full_disk_comes_out_and_files_are_closed(where):
    before = descriptors()
    with contextlib.closing(Behind()) as behind, pytest.raises(OSError) as raised:
        fd = os.open("/dev/full", os.O_WRONLY)
        behind.run(os.write, fd, b"x")
        behind.synchronise([fd])
        for dummy in range(20):
            if where == "run":
                behind.run(os.getpid)
            elif where == "synchronise":
                behind.synchronise([])
            else:
                getattr(behind, where)()
    assert raised.value.errno == errno.ENOSPC
    assert descriptors() == before
