# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try the GPU check and the diagnostics on a real NVIDIA GPU, idle and busy, and keep what the
hardware says.

    python3 tests/hardware/check_gpu.py OUTPUT_DIRECTORY

Needs Linux, an NVIDIA driver, Python 3.9 and nvidia-ml-py; no network, no compiler. For each state
it runs the check through NVML and through nvidia-smi, compares both with each other and with
``nvidia-smi -q -x``, measures how long it took, and writes a scenario of the NVML double, the XML,
and a query as CSV, without serial numbers. Exits with 1 when something disagrees.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import capture

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUSY_SECONDS = 25
_CHECK = """
import json, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from _core.errors import CommandFailed, FleetError
from _core.ports import CommandResult, World
def run(argv, timeout=30.0, env=None, stdin=None):
    try:
        done = subprocess.run(
            list(argv), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
    except OSError as error:
        raise CommandFailed(str(error)) from error
    return CommandResult(done.returncode, done.stdout, done.stderr)
start = time.perf_counter()
try:
    if sys.argv[2] == "diagnostics":
        from _core.diagnostics import run as part
        from _core.diagnostics.options import DiagnosticsOptions
        options = DiagnosticsOptions.from_mapping(json.loads(sys.argv[3]))
    else:
        from _core.gpu import run as part
        from _core.gpu.options import GpuOptions
        options = GpuOptions.from_mapping({"backend": sys.argv[2]})
    result = part.run(options, World(run=run)).to_dict()
except FleetError as error:
    result = {"checks": [], "gpus": [], "status": "error"}
    result["error"] = f"{type(error).__name__}: {error}"
result["seconds"] = round(time.perf_counter() - start, 3)
print(json.dumps(result))
"""


def run_core(*arguments: str) -> dict:
    """Run a check of the core in a process of its own, as a module does; return its document."""
    argv = [sys.executable, "-c", _CHECK, str(ROOT / "plugins/module_utils"), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"checks": [], "gpus": [], "status": "traceback", "error": done.stderr[-2000:]}
    return json.loads(done.stdout)


def diagnose(level: str, output: Path) -> list[str]:
    """Run the diagnostics; return what did not pass."""
    result = run_core("diagnostics", json.dumps({"level": level}))
    (output / f"diagnostics_{level}.json").write_text(
        anonymous(json.dumps(result, indent=1)), encoding="utf-8"
    )
    print(f"diagnostics {level}: {result['status']} in {result['seconds']} s")
    for check in result["checks"]:
        print("   ", check["status"], check["message"])
    problems = [result["error"]] if result.get("error") else []
    problems += [
        check["message"] for check in result["checks"] if check["status"] not in ("pass", "skipped")
    ]
    return [f"diagnostics {level}: {problem}" for problem in problems]


def smi(*arguments: str) -> str:
    return subprocess.run(
        ["nvidia-smi", *arguments], capture_output=True, text=True, check=True
    ).stdout


def anonymous(text: str) -> str:
    """Replace serial numbers, UUIDs and the like."""
    text = re.sub(
        r"(GPU|MIG)-[0-9a-f]{8}-[0-9a-f-]{27}", r"\1-00000000-0000-4000-8000-000000000000", text
    )
    text = re.sub(
        r"(<(?:serial|board_serial|pdi|gpu_guid|chassis_serial_number)>)[^<]*", r"\g<1>0", text
    )
    return re.sub(r"(<(?:clusterUUID|cluster_uuid)>)[^<]*", r"\g<1>0", text)


def _number(text: str | None) -> float | None:
    match = re.match(r"-?[0-9.]+", (text or "").strip())
    return float(match.group()) if match else None


def disagreements(nvml: dict, other: dict, page: str) -> list[str]:
    """Return what the two back ends and nvidia-smi's page say differently; readings that move have
    a margin.
    """
    problems = []
    for label, result in (("nvml", nvml), ("nvidia_smi", other)):
        if result.get("error"):
            problems.append(f"{label}: {result['error']}")
    for one, two, xml in zip(nvml["gpus"], other["gpus"], ElementTree.fromstring(page).iter("gpu")):
        # name -> (margin, where the page has it)
        fields = {
            "name": (None, "product_name"),
            "vbios": (None, "vbios_version"),
            "temp": (6, "temperature/gpu_temp"),
            "mem_total": (1, "fb_memory_usage/total"),
            "mem_used": (64, "fb_memory_usage/used"),
            "power_limit": (1, "gpu_power_readings/current_power_limit"),
        }
        for name, (margin, path) in fields.items():
            text = xml.findtext(path)
            values = [one.get(name), two.get(name), text if margin is None else _number(text)]
            if margin is None:
                same = len(set(values)) == 1
            else:
                numbers = [value for value in values if value is not None]
                same = len(numbers) == 3 and max(numbers) - min(numbers) <= margin
            if not same:
                problems.append(
                    f"GPU {one.get('id')} {name}: NVML {values[0]!r}, nvidia-smi back end"
                    f" {values[1]!r}, page {values[2]!r}"
                )
    if len(nvml["gpus"]) != len(other["gpus"]):
        problems.append(f"NVML shows {len(nvml['gpus'])} GPUs, nvidia-smi {len(other['gpus'])}")
    return problems


def look(state: str, output: Path) -> list[str]:
    """Check and capture the machine in one state; return the problems."""
    page = smi("-q", "-x")
    nvml, other = run_core("nvml"), run_core("nvidia_smi")
    title = f"Captured: {nvml['gpus'][0]['name'] if nvml['gpus'] else 'no GPU'}, {state}."
    (output / f"{state}.ini").write_text(capture.scenario(title), encoding="utf-8")
    (output / f"{state}.xml").write_text(anonymous(page), encoding="utf-8")
    (output / f"{state}.json").write_text(
        anonymous(json.dumps([nvml, other], indent=1)), encoding="utf-8"
    )
    for label, result in (("nvml", nvml), ("nvidia_smi", other)):
        bad = [
            f"{check['check']} {check['status']}: {check['message']}"
            for check in result["checks"]
            if check["status"] not in ("pass", "skipped")
        ]
        print(f"{state} {label}: {result['status']} in {result.get('seconds')} s; {bad}")
    return [f"{state}: {problem}" for problem in disagreements(nvml, other, page)]


def main() -> int:
    output = Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    problems = look("idle", output)
    problems += diagnose("quick", output) + diagnose("standard", output)
    burn = [sys.executable, str(HERE / "burn.py")]
    copies = subprocess.run([*burn, "copies"], capture_output=True, text=True, check=False)
    print("copies in GB/s:", copies.stdout or copies.stderr[-500:])
    with subprocess.Popen(
        [*burn, "compute", str(BUSY_SECONDS)], stdout=subprocess.PIPE, text=True
    ) as load:
        time.sleep(10)
        problems += look("busy", output)
        refused = run_core("diagnostics", "{}")
        print("diagnostics while busy:", refused.get("error") or refused["status"])
        if not str(refused.get("error")).startswith("Refused"):
            problems.append("the diagnostics ran on a busy GPU")
        measured = load.communicate()[0]
    print("compute:", measured)
    problems += (
        []
        if load.returncode == 0 and json.loads(measured)["distinct_results"] == 1
        else ["compute failed or its results differ"]
    )
    time.sleep(3)
    problems += look("after", output)
    for problem in problems:
        print("PROBLEM", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
