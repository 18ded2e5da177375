# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that hang, long backups, and a run that is interrupted."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

LIMIT = 15


def script(path: pathlib.Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def running(text: str) -> list[str]:
    """Command lines of processes that hold a text."""
    lines = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            lines.append(line)
    return lines


def test_hosts_that_hang_do_not_hold_the_others(fleet):
    """On one the module hangs, on another the connection, after it was made, whatever is run."""
    pid = fleet.directory / "pid"
    limit = {
        "maintenance_health_time_limit": str(LIMIT),
        "maintenance_gpu_time_limit": str(LIMIT),
        "maintenance_run_cleanup": False,
    }
    home = fleet.host("good", **limit)
    python = script(
        fleet.directory / "python", f"echo $$ > {pid}", "trap '' INT", "while :; do sleep 1; done"
    )
    fleet.host("module", ansible_python_interpreter=python, **limit)
    ssh = script(fleet.directory / "ssh", f"exec sleep 1{os.getpid()}")
    fleet.host(
        "connection",
        ansible_connection="ssh",
        ansible_ssh_executable=ssh,
        ansible_ssh_pipelining=True,
        maintenance_continue_on_error=True,
        **limit,
    )
    began = time.monotonic()
    run = fleet.run("maintenance", "--forks", "3")
    assert time.monotonic() - began < 10 * LIMIT and run.rc == 2, run
    assert fleet.phases("good")["backup"]["status"] == "pass" and list(home.glob("backups/m*.gz"))
    phases = fleet.phases("module")
    assert phases["health"]["status"] == "failed" and phases["backup"]["status"] == "skipped"
    assert f"within {LIMIT}.0 s (maintenance_health_time_limit)" in phases["health"]["message"]
    phases = fleet.phases("connection")
    assert phases["health"]["status"] == "unreachable", run
    assert "The host hangs" in phases["health"]["message"]
    assert {phases[name]["status"] for name in ("gpu", "backup", "cleanup")} == {"skipped"}
    assert fleet.report()["failed_hosts"] == ["module", "connection"]
    assert len([cause for cause in fleet.report()["causes"] if cause["count"]]) == 2
    assert not pathlib.Path(f"/proc/{pid.read_text().strip()}").exists()
    assert running(f"sleep 1{os.getpid()}") == []


def test_a_long_backup_says_how_far_it_is(fleet):
    home = fleet.host("n1", maintenance_run_cleanup=False, maintenance_backup_compression_level=9)
    (home / "models" / "large.bin").write_bytes(os.urandom(1_000_000) * 1200)
    progress = ["-e", "maintenance_backup_progress=1"]
    run = fleet.run("backup", *progress)
    assert run.rc == 0 and fleet.phases("n1")["backup"]["message"].startswith("new backup"), run
    assert "[n1] backup: write: " in run.out or "[n1] backup: verify: " in run.out, run
    assert " %, " in run.out and "of 1.1" in run.out, run
    left = pathlib.Path("~/.ansible_async").expanduser()
    assert not left.exists() or not list(left.glob("mlops-fleet-*"))

    (home / "models" / "large.bin").write_bytes(os.urandom(1_000_000) * 1300)
    late = fleet.run("backup", *progress, "-e", "maintenance_backup_time_limit=1")
    assert late.rc == 2 and "did not end within 1.0 s" in late.out, late
    assert len(list(home.glob("backups/models_backup_*.tar.gz"))) == 1
    assert list(home.glob("backups/.*.tmp")) == []  # stopped, not killed


def test_interrupted_in_the_middle_of_a_backup(fleet):
    """Ctrl-C: the terminal sends SIGINT to all processes of the run."""
    home = fleet.host("n1", maintenance_run_cleanup=False, maintenance_backup_compression_level=9)
    fleet.run("gpu")  # writes the inventory
    (home / "models" / "large.bin").write_bytes(os.urandom(1_000_000) * 300)
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env["ANSIBLE_COLLECTIONS_PATH"] = str(
        pathlib.Path(__file__).resolve().parents[2] / ".build" / "collections"
    )
    command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook")]
    command += ["-i", str(fleet.directory / "inventory.json"), "mlops.fleet.maintenance"]
    process = subprocess.Popen(
        command,
        cwd=fleet.directory,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    end = time.monotonic() + 120
    while not list(home.glob("backups/.*.tmp")):
        assert time.monotonic() < end and process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode != 0, out
    end = time.monotonic() + 30
    while running(str(home)) and time.monotonic() < end:
        time.sleep(0.1)
    assert running(str(home)) == []
    assert [path.name for path in (home / "backups").iterdir() if path.suffix != ".lock"] == []
    again = fleet.run("backup")
    assert again.rc == 0 and len(list(home.glob("backups/models_backup_*.tar.gz"))) == 1, again
    assert json.loads((fleet.reports / "latest.json").read_text())["failed_hosts"] == []
