# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import csv
import fcntl
import multiprocessing
import os
import resource
import signal
import stat
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import WriteFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import metrics
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.plan import GpuReport
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.reading import Gpu

HEADER = "timestamp,gpu_id,name,temp,util_gpu,util_mem,mem_used,mem_total,power_draw,power_limit"


def report(**changes):
    values = {
        "id": 0,
        "name": "Tesla V100",
        "temp": 72,
        "util_gpu": 85,
        "util_mem": 90,
        "mem_used": 15000,
        "mem_total": 16384,
        "power_draw": 250.3,
        "power_limit": 300.0,
        **changes,
    }
    return GpuReport(Gpu(**values), (), "pass", None)


V100 = report()
THEN = time.mktime((2025, 1, 31, 14, 30, 0, 0, 0, -1))


def test_the_old_scripts_lines_exactly(tmp_path):
    path = tmp_path / "gpu-metrics.csv"
    metrics.append_csv(str(path), [V100], THEN)
    metrics.append_csv(str(path), [V100], THEN + 300)
    assert (
        path.read_bytes().decode()
        == f"{HEADER}\n2025-01-31 14:30:00,0,Tesla V100,72,85,90,15000,16384,250,300\n2025-01-31"
        " 14:35:00,0,Tesla V100,72,85,90,15000,16384,250,300\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_an_empty_file_gets_the_header_too(tmp_path):
    path = tmp_path / "x.csv"
    path.touch()
    metrics.append_csv(str(path), [V100], THEN)
    assert path.read_text().startswith(HEADER + "\n")


@pytest.mark.parametrize("rest", ["2025-01-31 14:2", HEADER])
def test_a_row_does_not_go_on_where_a_crash_stopped(tmp_path, rest):
    path = tmp_path / "x.csv"
    path.write_text(f"{HEADER}\n{rest}")
    metrics.append_csv(str(path), [V100], THEN)
    assert path.read_text().splitlines()[1:] == [
        rest,
        "2025-01-31 14:30:00,0,Tesla V100,72,85,90,15000,16384,250,300",
    ]


def test_unknown_is_empty_and_names_are_quoted(tmp_path):
    path = tmp_path / "x.csv"
    metrics.append_csv(
        str(path),
        [report(name='NVIDIA "A", B', temp=None, power_draw=None, util_gpu=0)],
        THEN,
    )
    with open(path, newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    assert (row["name"], row["temp"], row["power_draw"], row["util_gpu"]) == (
        'NVIDIA "A", B',
        "",
        "",
        "0",
    )


def test_no_gpu_leaves_no_file(tmp_path):
    metrics.append_csv(str(tmp_path / "x.csv"), [], THEN)
    assert not os.listdir(tmp_path)


def test_a_link_is_refused_and_its_target_untouched(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "x.csv").symlink_to(tmp_path / "target")
    with pytest.raises(WriteFailed, match="symbolic link"):
        metrics.append_csv(str(tmp_path / "x.csv"), [V100], THEN)
    assert (tmp_path / "target").read_text() == "precious"


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(WriteFailed):
        metrics.append_csv(str(tmp_path / "x.csv"), [V100], THEN)


def _many(path):
    for _round in range(40):
        metrics.append_csv(path, [V100, report(id=1)], THEN)


def test_writers_at_once_leave_one_header_and_whole_lines(tmp_path):
    path = tmp_path / "x.csv"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_many, args=(str(path),)) for _number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    lines = path.read_text().splitlines()
    assert lines[0] == HEADER
    assert lines.count(HEADER) == 1
    assert len(lines) == 1 + 4 * 40 * 2
    assert all(line.count(",") == 9 for line in lines)


def test_a_disk_that_is_full_leaves_no_half_line(tmp_path):
    path = tmp_path / "x.csv"
    metrics.append_csv(str(path), [V100], THEN)
    before = path.read_bytes()

    def full():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, len(before) + 10))
        try:
            metrics.append_csv(str(path), [V100], THEN)
        except WriteFailed:
            os._exit(7)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=full)
    child.start()
    child.join(30)
    assert (child.exitcode, path.read_bytes()) == (7, before)


def test_a_lock_that_is_never_given_back_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "LOCK_PATIENCE", 0.1)
    path = tmp_path / "x.csv"
    with open(path, "w", encoding="ascii") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(WriteFailed, match="lock"):
            metrics.append_csv(str(path), [V100], THEN)
