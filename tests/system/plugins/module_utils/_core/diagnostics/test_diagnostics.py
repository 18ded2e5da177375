# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The diagnostics on simulated GPUs: planted faults are found and named, and nothing stays
behind.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics import kernels

ROOT = pathlib.Path(__file__).resolve().parents[6]
WORKER = pathlib.Path(__file__).with_name("worker.py")


def _load_harness():
    path = ROOT / "tests" / "cuda_double" / "harness.py"
    spec = importlib.util.spec_from_file_location("cuda_harness", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


harness = _load_harness()
pytestmark = pytest.mark.skipif(
    not harness.nvml.compiler(), reason="no C compiler for the simulated GPUs"
)
ARGV = [sys.executable, str(WORKER), str(ROOT / "plugins" / "module_utils")]


def environment(scenario="captured_h100_idle", **more):
    env = harness.environment(scenario)
    env["MLOPS_FLEET_LOCK_DIR"] = os.environ["MLOPS_FLEET_LOCK_DIR"]
    return {**env, **more}


def diagnose(*runs, scenario="captured_h100_idle"):
    """Return the documents of runs, each a pair of planted faults and options."""
    done = subprocess.run(
        ARGV,
        input=json.dumps(runs),
        env=environment(scenario),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(done.stdout)


def bad(document):
    return [check for check in document["checks"] if check["status"] not in ("pass", "skipped")]


def test_a_healthy_gpu_calculates_what_an_h100_calculated():
    """The double calculates with the CPU: the same answer from two independent makers."""
    (document,) = diagnose(["", {"tests": ["memory", "compute"], "timeout": 3}])
    assert document["status"] == "pass", document["checks"]
    figures = document["measured"]["gpus"]["0"]
    assert figures["compute"]["fingerprint"] == kernels.ANSWER and figures["compute"]["wrong"] == 0
    assert figures["memory"]["bytes"] == 32 << 20 and figures["memory"]["patterns"] == 2
    assert document["gpus"][0]["tested"] and document["gpus"][0]["sensors"]["readings"] > 0


def test_planted_faults_are_found_and_named():
    memory, once, always, crowded = diagnose(
        ["flip.0=1000:0xff", {"tests": ["memory"]}],
        ["wrong.0=3", {"tests": ["compute"], "timeout": 2}],
        ["wrong.0=-1", {"tests": ["compute"], "timeout": 2}],
        ["memory=1048576", {"tests": ["memory"]}],
    )
    (check,) = bad(memory)
    assert (
        check["check"] == "gpu_test_memory"
        and check["action"] == "drain"
        and "offset 0xfa0" in check["message"]
    )
    assert {sample["offset"] for sample in check["details"]["samples"]} == {4000}
    assert [check["check"] for check in bad(once)] == [
        "gpu_test_compute"
    ] and "silent corruption" in bad(once)[0]["message"]
    assert [check["check"] for check in bad(always)] == [
        "gpu_test_compute"
    ] and "every time" in bad(always)[0]["message"]
    assert [check["status"] for check in bad(crowded)] == ["unknown"] and crowded[
        "status"
    ] == "critical"


def test_a_slow_gpu_and_a_broken_link_among_eight():
    (document,) = diagnose(
        [
            "slow.3=100000 broken.2.5=1 slowpair.6.1=300000",
            {
                "tests": ["device_bandwidth", "peer"],
                "tolerance": 75,
                "expected": {"device_bandwidth": 0},
            },
        ],
        scenario="h100x8",
    )
    checks = bad(document)
    assert {check["subject"] for check in checks if check["check"] == "gpu_test_peers"} == {"GPU 3"}
    wrong = [check for check in checks if check["status"] == "critical"]
    assert [check["subject"] for check in wrong] == ["GPU 2 to GPU 5"] and "1 word" not in wrong[0][
        "subject"
    ]
    slow = {
        check["subject"]
        for check in checks
        if check["check"] == "gpu_test_peer" and check["status"] == "warning"
    }
    assert "GPU 6 to GPU 1" in slow and all(
        subject.startswith(("GPU 3", "GPU 6")) for subject in slow
    )
    assert len(document["measured"]["pairs"]) == 56


CALLS = sorted(
    set(
        re.findall(
            r'CALL\("(\w+)"\)',
            (ROOT / "tests/cuda_double/cuda_double.c").read_text(encoding="utf-8"),
        )
    )
)
PAIRS_ONLY = {
    "cuDeviceCanAccessPeer",
    "cuCtxEnablePeerAccess",
    "cuMemcpyPeerAsync",
    "cuCtxSetCurrent",
}
#: What fails while everything is given back does not change a verdict.
AFTERWARDS = {"cuCtxDestroy_v2", "cuMemFreeHost", "cuModuleUnload"}


def test_every_call_may_fail_and_nothing_stays(tmp_path):
    """One error in each call: a critical verdict that names the call, memory freed, context
    destroyed.
    """
    calls = [call for call in CALLS if call not in PAIRS_ONLY]
    assert len(calls) > 18
    given = {
        "tests": ["device_bandwidth", "host_bandwidth", "memory", "compute"],
        "timeout": 2,
        "tolerance": 90,
    }
    given["expected"] = {"device_bandwidth": 0, "host_to_device": 0, "device_to_host": 0}
    codes = (1, 2, 100, 214, 700, 719, 999)
    runs = [
        [
            f"error.{call}={codes[place % len(codes)]} leak={tmp_path / call}",
            {**given, "timeout": 1},
        ]
        for place, call in enumerate(calls)
    ]
    for call, document in zip(calls, diagnose(*runs)):
        failed = [check for check in bad(document) if check["check"] == "gpu_test"]
        if call in AFTERWARDS:
            assert not failed, (call, document["checks"])
        else:
            assert document["status"] == "critical" and call in failed[0]["message"], (
                call,
                document["checks"],
            )
        leak = tmp_path / call
        if leak.exists():  # not where no context could be made
            assert set(leak.read_text().split()) <= {"contexts=0", "memory=0", "pinned=0"}, (
                call,
                leak.read_text(),
            )


#: Every error of CUDA's driver interface (CUresult in cuda.h, releases 11 to 13).
CODES = [
    number
    for first, last in (
        (1, 9), (34, 34), (36, 36), (46, 46), (100, 102), (200, 202), (205, 227), (300, 304),
        (400, 402), (500, 500), (600, 600), (700, 722), (800, 812), (900, 918), (999, 999),
    )
    for number in range(first, last + 1)
]  # fmt: skip
#: The test that makes a call, where it is not the memory test.
MADE_BY = {
    "cuCtxSynchronize": "compute",
    "cuMemAllocHost_v2": "host_bandwidth",
    "cuMemFreeHost": "host_bandwidth",
    "cuMemcpyDtoDAsync_v2": "device_bandwidth",
    "cuMemcpyDtoHAsync_v2": "host_bandwidth",
    "cuMemcpyHtoDAsync_v2": "host_bandwidth",
    **dict.fromkeys(PAIRS_ONLY, "peer"),
}


@pytest.mark.parametrize("test", sorted({"memory", *MADE_BY.values()}))
def test_every_error_in_every_call(test):
    calls = [call for call in CALLS if MADE_BY.get(call, "memory") == test]
    script = WORKER.with_name("error_matrix.py")
    done = subprocess.run(
        [sys.executable, str(script), ARGV[2]],
        input=json.dumps({call: [test, CODES] for call in calls}),
        env=environment("a100x4"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("call", sorted(PAIRS_ONLY))
def test_calls_between_gpus_may_fail(call):
    (document,) = diagnose([f"error.{call}=719", {"tests": ["peer"]}], scenario="a100x4")
    assert document["status"] == "critical" and call in bad(document)[0]["message"]


def test_a_kernel_that_never_returns_ends_at_the_deadline():
    begun = time.monotonic()
    (document,) = diagnose(
        ["hang.cuCtxSynchronize=1", {"tests": ["memory", "compute"], "timeout": 2}]
    )
    assert time.monotonic() - begun < 12
    (check,) = bad(document)
    assert (
        check["status"] == "critical"
        and "test compute hung" in check["message"]
        and check["action"] == "reset_gpu"
    )
    assert "memory" in document["measured"]["gpus"]["0"], "what was measured before it is kept"


def _children(pid):
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listing.stdout.split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_process_on_the_gpu(number):
    runs = [["hang.cuCtxSynchronize=1", {"tests": ["compute"], "timeout": 60}]]
    with subprocess.Popen(
        ARGV, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment(), text=True
    ) as child:
        child.stdin.write(json.dumps(runs))
        child.stdin.close()
        deadline = time.monotonic() + 20
        while len(started := _children(child.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        child.send_signal(number)
    deadline = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{pid}") for pid in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(started) == 2 and not [pid for pid in started if os.path.exists(f"/proc/{pid}")]


def test_a_busy_gpu_is_refused_and_the_others_are_tested():
    refused, others = diagnose(
        ["", {}], ["", {"when_busy": "skip", "tests": ["memory"]}], scenario="captured_h100_busy"
    )
    assert refused["error"] == "Refused" and "Nothing was tested" in refused["message"]
    assert others["gpus"][0]["tested"] is False and others["summary"]["skipped"] == 1
    (unknown,) = diagnose(["", {"gpus": [4]}])
    assert unknown["error"] == "NotUsable" and "GPU 4" in unknown["message"]


def test_two_runs_at_once():
    runs = json.dumps([["hang.cuCtxSynchronize=1", {"tests": ["compute"], "timeout": 4}]])
    with subprocess.Popen(
        ARGV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    ) as first:
        first.stdin.write(runs)
        first.stdin.close()
        deadline = time.monotonic() + 20
        while len(_children(first.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        (second,) = diagnose(["", {"tests": ["memory"]}])
        assert second["error"] == "LockBusy" and str(first.pid) in second["message"]


def test_without_the_cuda_library_the_error_says_so():
    env = environment()
    env["LD_LIBRARY_PATH"] = env["LD_LIBRARY_PATH"].split(os.pathsep, 1)[1]
    runs = json.dumps([["", {"tests": ["memory"]}]])
    done = subprocess.run(ARGV, input=runs, env=env, capture_output=True, text=True, check=False)
    (document,) = json.loads(done.stdout)
    assert (
        document["status"] == "critical"
        and "CUDA's library can't be loaded" in bad(document)[0]["message"]
    )


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100"])
def test_the_kernels_assemble(architecture, tmp_path):
    assembler = shutil.which("ptxas")
    if assembler is None:
        pytest.skip("ptxas of the CUDA toolkit is not installed (PyPI: nvidia-cuda-nvcc)")
    (tmp_path / "kernels.ptx").write_text(kernels.PTX)
    argv = [
        assembler,
        f"-arch={architecture}",
        str(tmp_path / "kernels.ptx"),
        "-o",
        str(tmp_path / "kernels.cubin"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
