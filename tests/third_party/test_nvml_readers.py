# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other people's GPU readers on the simulated GPUs: gpustat and nvitop must say what the scenario
says, and so must we.

They come from a virtual environment of their own (``MLOPS_READERS_VENV``, default
``.build/readers``), our module runs through ``ansible`` of ``MLOPS_DEV_VENV`` (default
``.build/dev``). Neither knows that there is no GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
READERS = pathlib.Path(os.environ.get("MLOPS_READERS_VENV") or ROOT / ".build" / "readers")
DEV = pathlib.Path(os.environ.get("MLOPS_DEV_VENV") or ROOT / ".build" / "dev")
MIB = 1 << 20

_SPEC = importlib.util.spec_from_file_location(
    "nvml_double_harness", ROOT / "tests" / "nvml_double" / "harness.py"
)
harness = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(harness)

# Everything nvitop's library says of each GPU, None where it says "N/A".
NVITOP = """
import json
from nvitop import NA, Device
clean = lambda value: None if value is NA else value
print(json.dumps([{
    "name": clean(d.name()), "uuid": clean(d.uuid()), "temp": clean(d.temperature()), "util_gpu": clean(d.gpu_utilization()),
    "util_mem": clean(d.memory_utilization()), "mem_used": clean(d.memory_used()), "mem_total": clean(d.memory_total()),
    "power_draw": clean(d.power_usage()), "power_limit": clean(d.power_limit()), "fan": clean(d.fan_speed()), "bus_id": clean(d.bus_id()),
    "ecc": clean(d.total_volatile_uncorrected_ecc_errors()), "clocks": clean(d.graphics_clock()), "pstate": clean(d.performance_state()),
    "persistence": clean(d.persistence_mode()), "pids": {p: q.gpu_memory() for p, q in d.processes().items()},
} for d in Device.all()]))
"""


@pytest.fixture(scope="module", autouse=True)
def library():
    if not harness.compiler():
        pytest.skip("no C compiler (gcc) to build the simulated GPUs")
    return harness.build()


def need_readers():
    missing = [tool for tool in ("gpustat", "nvitop") if not (READERS / "bin" / tool).exists()]
    if missing:
        pytest.skip(
            f"{READERS} has no {' and '.join(missing)}: python3 -m venv {READERS} &&"
            f" {READERS}/bin/pip install gpustat nvitop"
        )


def run(argv, scenario, timeout=60, check=True, **extra):
    env = {**harness.environment(scenario), **extra}
    done = subprocess.run(
        [str(a) for a in argv],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def gpustat(scenario):
    need_readers()
    return json.loads(run([READERS / "bin" / "gpustat", "--json"], scenario))["gpus"]


def nvitop(scenario):
    need_readers()
    return json.loads(run([READERS / "bin" / "python", "-c", NVITOP], scenario))


def ours(scenario):
    """The result of our module, run as people run it."""
    if not (ROOT / "plugins" / "modules" / "gpu_health.py").exists():
        pytest.skip("mlops.fleet.gpu_health is not in this checkout")
    if not (DEV / "bin" / "ansible").exists():
        pytest.skip(f"no ansible in {DEV}")
    interpreter = f"ansible_python_interpreter={DEV / 'bin' / 'python'}"
    out = run(
        [
            DEV / "bin" / "ansible",
            "localhost",
            "-i",
            "localhost,",
            "-c",
            "local",
            "-m",
            "mlops.fleet.gpu_health",
            "-a",
            "backend=nvml",
            "-e",
            interpreter,
        ],
        scenario,
        check=False,  # a module that fails says so in its output, which is then shown
        ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".build" / "collections"),
        ANSIBLE_NOCOLOR="1",
        ANSIBLE_LOCALHOST_WARNING="False",
    )
    assert "SUCCESS => {" in out, out
    return json.loads(out[out.index("SUCCESS => {") + len("SUCCESS => ") :])


def read_scenario(name):
    """The GPUs of a shipped scenario as mappings, read by an interpreter of the format that is not
    the library's.
    """
    defaults, gpus, keys = {}, {}, {}
    for line in harness.scenario_path(name).read_text(encoding="utf-8").splitlines():
        header = re.fullmatch(r"\[(system|gpu)(?: (\d+))?\]", line.strip())
        if header and header[1] == "system":
            keys = {}
        elif header and header[2] is None:
            keys = defaults
        elif header:
            keys = gpus.setdefault(int(header[2]), {})
        elif "=" in line and not line.startswith("#"):
            key, dummy, value = line.partition("=")
            keys[key.strip()] = value.strip()
    return [{**defaults, **gpus[index]} for index in sorted(gpus)]


def size(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def expectations(gpu):
    """What a reader must show of one GPU; None where the scenario leaves the key out."""

    def value(key, convert=int):
        return convert(gpu[key]) if key in gpu else None

    return {
        "name": gpu["name"],
        "uuid": gpu["uuid"],
        "temp": value("temp.gpu"),
        "util_gpu": value("util.gpu"),
        "util_mem": value("util.memory"),
        "mem_used": value("memory.used", size) // MIB,
        "mem_total": value("memory.total", size) // MIB,
        "power_draw": value("power.usage") / 1000,
        "power_limit": value("power.enforced_limit") / 1000,
    }


def close(seen, wanted):
    """Equal, with readers free to round power and sizes to whole watts and MiB."""
    return seen == wanted or (
        None not in (seen, wanted)
        and not isinstance(wanted, str)
        and abs(float(seen) - float(wanted)) <= 0.51
    )


def assert_same(seen, wanted, who):
    different = {
        key: (seen[key], wanted[key])
        for key in wanted
        if key in seen and not close(seen[key], wanted[key])
    }
    assert not different, f"{who} differs (theirs, scenario's): {different}"


PROFILES = ["h100x8", "h100x8_busy", "a100x4", "l40s", "rtx4080", "faulty"]
# nvitop reads temperatures only through a call that drivers of branch 535 do not have, and shows
# N/A.
NVITOP_WITHOUT_TEMPERATURE = {"a100x4"}


def gpustat_row(gpu):
    names = {
        "name": "name",
        "uuid": "uuid",
        "temp": "temperature.gpu",
        "util_gpu": "utilization.gpu",
        "mem_used": "memory.used",
        "mem_total": "memory.total",
        "power_draw": "power.draw",
        "power_limit": "enforced.power.limit",
    }
    return {ours: gpu[theirs] for ours, theirs in names.items()}


def nvitop_row(gpu):
    row = dict(gpu)
    row["name"] = gpu["name"] if gpu["name"].startswith("NVIDIA ") else f"NVIDIA {gpu['name']}"
    row["mem_used"], row["mem_total"] = gpu["mem_used"] // MIB, gpu["mem_total"] // MIB
    row["power_draw"], row["power_limit"] = gpu["power_draw"] / 1000, gpu["power_limit"] / 1000
    return row


@pytest.mark.parametrize("profile", PROFILES)
def test_gpustat_reads_the_scenario(profile):
    wanted = [expectations(gpu) for gpu in read_scenario(profile)]
    seen = gpustat(profile)
    assert [gpu["index"] for gpu in seen] == list(range(len(wanted)))
    for theirs, scenario in zip(seen, wanted):
        assert_same(gpustat_row(theirs), scenario, "gpustat")


@pytest.mark.parametrize("profile", PROFILES)
def test_nvitop_reads_the_scenario(profile):
    gpus = read_scenario(profile)
    seen = nvitop(profile)
    assert len(seen) == len(gpus)
    for theirs, gpu in zip(seen, gpus):
        row = nvitop_row(theirs)
        if profile in NVITOP_WITHOUT_TEMPERATURE:
            assert row.pop("temp") is None
        assert_same(row, expectations(gpu), "nvitop")
        assert theirs["bus_id"] == gpu["pci.bus_id"]
        assert theirs["ecc"] == (
            int(gpu["ecc.volatile.uncorrected"]) if "ecc.volatile.uncorrected" in gpu else None
        )
        assert theirs["clocks"] == int(gpu["clock.graphics"])
        assert theirs["pstate"] == f"P{gpu['pstate']}"
        assert theirs["fan"] == (int(gpu["fan"]) if "fan" in gpu else None)
        assert theirs["persistence"] == ("Enabled" if gpu["persistence"] == "1" else "Disabled")


def test_both_see_the_same_real_process(tmp_path):
    """A GPU process is a real process here: this test itself."""
    scenario = harness.write_scenario(
        tmp_path / "s.ini", base="l40s", gpus=[{"procs.compute": f"{os.getpid()}:{3 << 30}"}]
    )
    assert [(p["pid"], p["gpu_memory_usage"]) for p in gpustat(scenario)[0]["processes"]] == [
        (os.getpid(), 3072)
    ]
    assert nvitop(scenario)[0]["pids"] == {str(os.getpid()): 3 << 30}


def test_nvitops_screen(tmp_path):
    need_readers()
    text = run([READERS / "bin" / "nvitop", "--once", "--no-unicode"], "h100x8_busy")
    assert "Driver Version: 590.48.01" in text
    assert "CUDA Driver Version: 13.1" in text
    assert (
        len(re.findall(r"59C\s+P0\s+629W / 700W \|\s+74\.22GiB / 79\.65GiB \|\s+100%", text)) == 8
    )


def test_a_lost_gpu_is_lost_for_everyone():
    seen = gpustat("lost")
    assert seen[0]["temperature.gpu"] == 41
    assert seen[1] == {"index": 1, "name": "((GPU is lost))", "processes": None}
    text = run([READERS / "bin" / "nvitop", "--once", "--no-unicode"], "lost", check=False)
    assert "lost" in text.lower()


def test_no_driver_is_an_error_for_everyone():
    need_readers()
    for tool in ("gpustat", "nvitop"):
        argv = [READERS / "bin" / tool] + (["--once"] if tool == "nvitop" else [])
        done = subprocess.run(
            [str(a) for a in argv],
            env=harness.environment("no_driver"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0, tool
        assert "driver" in (done.stdout + done.stderr).lower(), tool


# ---- our module beside them
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_our_module_agrees_with_both(profile):
    result = ours(profile)
    wanted = [expectations(gpu) for gpu in read_scenario(profile)]
    mine = result["gpus"]
    assert [int(gpu["id"]) for gpu in mine] == list(range(len(wanted)))
    for gpu, expected in zip(mine, wanted):
        assert_same(
            {key: gpu[key] for key in expected}, expected, "gpu_health"
        )  # every key of the contract has to be there
    for gpu, theirs in zip(mine, gpustat(profile)):
        assert_same(
            gpustat_row(theirs),
            {
                key: gpu[key]
                for key in (
                    "uuid",
                    "temp",
                    "util_gpu",
                    "mem_used",
                    "mem_total",
                    "power_draw",
                    "power_limit",
                )
            },
            "gpustat",
        )
    for gpu, theirs in zip(mine, nvitop(profile)):
        keys = (
            "uuid",
            "temp",
            "util_gpu",
            "util_mem",
            "mem_used",
            "mem_total",
            "power_draw",
            "power_limit",
        )
        row = nvitop_row(theirs)
        if profile in NVITOP_WITHOUT_TEMPERATURE:
            row.pop("temp")
        assert_same(row, {key: gpu[key] for key in keys}, "nvitop")


def test_our_module_goes_on_where_gpustat_gives_up():
    """A driver of branch 470 with a current nvidia-ml-py: gpustat stops with an error, nvitop has
    neither temperature nor memory.
    """
    need_readers()
    stopped = subprocess.run(
        [READERS / "bin" / "gpustat", "--json"],
        env=harness.environment("driver470"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert stopped.returncode != 0
    (theirs,) = nvitop("driver470")
    assert (theirs["temp"], theirs["mem_total"], theirs["power_draw"]) == (None, None, 118000)
    (gpu,) = ours("driver470")["gpus"]
    (expected,) = [expectations(gpu) for gpu in read_scenario("driver470")]
    expected["mem_used"] += 551  # the first memory call counts what the driver reserves as used
    assert_same({key: gpu[key] for key in expected}, expected, "gpu_health")


def test_our_module_keeps_what_it_cannot_read_empty(tmp_path):
    """Where the others say null, we do not say 0."""
    keys = {"temp.gpu": None, "power.usage": None, "util.gpu": None, "util.memory": None}
    scenario = harness.write_scenario(tmp_path / "s.ini", base="l40s", gpus=[keys])
    gpu = ours(scenario)["gpus"][0]
    assert [gpu[key] for key in ("temp", "power_draw", "util_gpu", "util_mem")] == [None] * 4
    theirs = gpustat(scenario)[0]
    assert [theirs[key] for key in ("temperature.gpu", "power.draw", "utilization.gpu")] == [
        None
    ] * 3


def test_our_module_and_a_lost_gpu():
    mine = {int(gpu["id"]): gpu for gpu in ours("lost")["gpus"]}
    assert mine[0]["temp"] == gpustat("lost")[0]["temperature.gpu"] == 41
    assert mine.get(1, {}).get("temp") is None
