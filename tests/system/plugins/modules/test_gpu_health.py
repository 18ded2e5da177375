# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it: ad hoc, through AnsiballZ, in processes of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import time

import pytest
import yaml

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import (
    checks,
    execute,
    memory,
    nvswitch,
    plan,
    trends,
    xid,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.modules import gpu_health
from ansible_collections.mlops.fleet.tests import docs_pages

ROOT = pathlib.Path(__file__).resolve().parents[4]
ANSIBLE = pathlib.Path(sys.executable).with_name("ansible")


def _harness():
    path = ROOT / "tests" / "nvml_double" / "harness.py"
    spec = importlib.util.spec_from_file_location("nvml_harness", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(scenario, *arguments, python=sys.executable, check=False, env=None, **options):
    harness = _harness()
    if scenario and not harness.compiler():
        pytest.skip("no C compiler to build the simulated NVML library")
    base = (
        harness.environment(scenario)
        if scenario
        else {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    )
    command = [
        str(ANSIBLE),
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-m",
        "mlops.fleet.gpu_health",
        "-a",
        json.dumps({"log_source": "none", **options}),
    ]
    command += [
        "-e",
        f"ansible_python_interpreter={python}",
        *(["--check"] if check else []),
        *arguments,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **base,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "collections"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_NOCOLOR": "1",
            **(env or {}),
        },
    )
    assert "Traceback (most recent call last)" not in done.stdout + done.stderr, done.stdout
    found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
    assert found, done.stdout + done.stderr
    return {**json.loads(found[1]), "failed": done.returncode != 0}


def test_a_faulty_gpu_is_a_result_and_a_failure_only_on_request(tmp_path):
    found = run("faulty", metrics_csv=str(tmp_path / "x.csv"), check=True)
    assert (found["failed"], found["changed"], found["exit_code"], found["status"]) == (
        False,
        False,
        2,
        "critical",
    )
    assert [gpu["status"] for gpu in found["gpus"]] == ["pass", "critical"]
    assert not os.listdir(tmp_path)
    failed = run("faulty", fail_on="critical")
    assert (
        failed["failed"]
        and failed["exit_code"] == 2
        and "uncorrected memory errors" in failed["msg"]
    )


def test_without_pynvml_it_is_named_with_the_interpreter(tmp_path):
    bare = tmp_path / "bin" / "python3"
    bare.parent.mkdir()
    bare.write_text(
        f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -S "$@"\n'
    )  # no site-packages
    bare.chmod(0o755)
    found = run(None, python=str(bare), expected_count=1)
    assert found["failed"] and "nvidia-ml-py" in found["msg"] and "Python" in found["msg"]
    assert run(None, python=str(bare))["status"] == "skipped"


def test_nvidia_smi_that_ignores_sigterm_is_left_behind_in_time(tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/bash\ntrap '' TERM INT HUP\necho $$ > "
        + str(tmp_path / "pid")
        + "\nwhile :; do sleep 1; done\n"
    )
    program.chmod(0o755)
    found = run(
        None, backend="nvidia_smi", timeout=1, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    )
    assert "does not answer" in found["checks"][0]["message"]
    assert found["duration"] < 2
    pid = int((tmp_path / "pid").read_text())
    for _attempt in range(50):
        if not os.path.exists(f"/proc/{pid}"):
            break
        time.sleep(0.1)
    else:
        pytest.fail("nvidia-smi still runs")


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="needs root and setpriv to become somebody else",
)
def test_without_root_the_log_is_called_unread_and_not_clean(tmp_path):
    """The module runs as nobody; ad hoc it would need a home, so the core's reader is asked in a
    child.
    """
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import facts\n"
        "from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World\n"
        "print(facts.read_errors('dmesg', 60, 5, World(run=None)).problem)\n"
    )
    with open("/proc/sys/kernel/dmesg_restrict", encoding="ascii") as stream:
        if stream.read().strip() != "1" and stat.S_IMODE(os.stat("/dev/kmsg").st_mode) & 0o004:
            pytest.skip("everybody may read the kernel log here")
    copy = tmp_path / "c"
    shutil.copytree(ROOT / "plugins", copy / "ansible_collections/mlops/fleet/plugins")
    for directory in [*tmp_path.parents[:2], tmp_path]:
        directory.chmod(0o755)
    done = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            code,
            str(copy),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "can't be read" in done.stdout, done.stdout + done.stderr


def test_documentation_and_option_table_say_the_same():
    documented = yaml.safe_load(gpu_health.DOCUMENTATION)["options"]
    spec = _shell.argument_spec(GpuOptions.TABLE)
    shared = {"fail_on", "textfile"}
    assert set(documented) == set(spec) - shared
    for name, option in documented.items():
        assert option["type"] == spec[name]["type"], name
        assert option.get("default") == spec[name].get("default"), name
        assert option.get("choices") == spec[name].get("choices"), name


def test_page_and_runbook_have_every_check_and_the_page_the_catalogs_xids():
    checked = [*checks.CHECKS, *plan.NODE_CHECKS, *execute.WRITERS, *trends.TREND_CHECKS]
    checked += [*nvswitch.SWITCH_CHECKS, memory.STATE_FILE]
    rows = docs_pages.rows("gpu_health")
    documented = set(re.findall(r"``(gpu_[a-z_]+)``", " ".join(row[0] for row in rows)))
    entries = {name for name in docs_pages.runbook_entries() if re.match(r"gpu_(?!test)", name)}
    assert documented == {entry.name for entry in checked}
    assert {entry.runbook for entry in checked} <= entries <= documented

    def numbers(text):
        found = set()
        for first, last in re.findall(r"\b(\d+)(?:–(\d+))?", re.sub(r"\(.*?\)", "", text)):
            found |= set(range(int(first), int(last or first) + 1))
        return found

    levels = {
        row[0].split(";")[0] + (" often" if "3 or more" in row[0] else ""): numbers(row[1])
        for row in rows
        if re.search(r"\d+, |–150", row[1])
    }
    for level, wanted in levels.items():
        seen = {entry.number for entry in xid.CATALOG if _row(entry.number, entry) == level}
        assert seen == wanted, level
    assert sum(map(len, levels.values())) == len(xid.CATALOG)


def _row(code, meaning):
    if code == 154 or 144 <= code <= 150:
        return "by the message"
    if meaning.level == "pass":
        return "recorded often" if meaning.repeats else "recorded"
    return meaning.level


def test_what_is_returned_is_documented():
    documented = yaml.safe_load(gpu_health.RETURN)
    found = run("h100x8", fail_on="never")
    faulty = run("faulty")
    assert {key for check in found["checks"] + faulty["checks"] for key in check} <= set(
        documented["checks"]["contains"]
    )
    for name in ("ecc", "pcie", "remap", "nvlink", "fabric"):
        assert set(found["gpus"][0][name]) == set(documented["gpus"]["contains"][name]["sample"]), (
            name
        )
    assert set(found) - {"changed", "failed", "invocation", "warnings"} <= set(documented)
    assert set(found["gpus"][0]) == set(documented["gpus"]["contains"])
    assert set(found["driver"]) == set(documented["driver"]["contains"])
