# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import WriteFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.output.prometheus import (
    METRICS,
    Sample,
    of_checks,
    render,
    write,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import Check

PROMTOOL = shutil.which("promtool")

CHECKS = [
    Check("gpu_state", "pass", "fine", subject="GPU 0"),
    Check("gpu_state", "critical", "lost", subject="GPU 1"),
    Check("gpu_state", "warning", "said twice", subject="GPU 1"),
    Check("gpu_nvlink", "skipped", "no link", subject="GPU 0"),
    Check("gpu_ecc", "unknown", "unreadable", subject="GPU 0"),
]


def test_checks_become_one_sample_each_the_worst_where_a_subject_comes_twice():
    text = render(of_checks("gpu", CHECKS, 1738333800.9))
    assert text.splitlines()[:5] == [
        (
            "# HELP mlops_gpu_check_status Result of one GPU check: 0 pass, 1 warning, 2 critical,"
            " 3 unknown."
        ),
        "# TYPE mlops_gpu_check_status gauge",
        'mlops_gpu_check_status{check="gpu_state",subject="GPU 0"} 0',
        'mlops_gpu_check_status{check="gpu_state",subject="GPU 1"} 2',
        'mlops_gpu_check_status{check="gpu_ecc",subject="GPU 0"} 3',
    ]
    assert "mlops_gpu_exit_code 2\n" in text
    assert "mlops_gpu_last_run_timestamp_seconds 1738333800\n" in text
    assert "nvlink" not in text


def test_what_is_not_known_has_no_line():
    assert (
        render(
            [
                Sample("mlops_gpu_temperature_celsius", {"gpu": "0"}, None),
                Sample("mlops_gpu_devices", {}, 1),
            ]
        ).count("\n")
        == 3
    )


def test_labels_are_escaped():
    assert 'name="a\\"b\\\\c\\nd"' in render([Sample("mlops_gpu_info", {"name": 'a"b\\c\nd'}, 1)])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (True, "1"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
        (10**15, "1000000000000000"),
    ],
)
def test_numbers(value, text):
    assert render([Sample("mlops_gpu_devices", {}, value)]).endswith(f"mlops_gpu_devices {text}\n")


def test_unregistered_and_doubled_samples_are_refused():
    with pytest.raises(ValueError, match="not registered"):
        render([Sample("mlops_made_up", {}, 1)])
    with pytest.raises(ValueError, match="two samples"):
        render([Sample("mlops_gpu_devices", {}, 1), Sample("mlops_gpu_devices", {}, 2)])


def test_write_replaces_whole_and_is_world_readable(tmp_path):
    path = tmp_path / "gpu.prom"
    path.write_text("old")
    os.chmod(path, 0o600)
    write(str(path), [Sample("mlops_gpu_info", {"name": "\udcff"}, 1)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.read_text().endswith('mlops_gpu_info{name="?"} 1\n')
    assert os.listdir(tmp_path) == ["gpu.prom"]


def test_write_without_directory_is_one_clear_error(tmp_path):
    with pytest.raises(WriteFailed, match="Can't write"):
        write(str(tmp_path / "no" / "gpu.prom"), [])


@pytest.mark.skipif(
    PROMTOOL is None, reason="promtool (Debian package prometheus) is not installed"
)
def test_promtool_finds_nothing_to_complain_about():
    samples = [Sample(name, {"label": 'a"b\\c\nd'}, 0.5) for name in METRICS.names]
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=render(samples),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
