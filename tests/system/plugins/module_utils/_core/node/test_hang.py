# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hangs must not hang the check: dead FUSE mounts, programs that ignore SIGTERM, probes left
over from an earlier run.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import (
    filesystems,
    network,
    probes,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.probes import Probe, Prober
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.procfs import Process

LONG = f"61.{os.getpid()}"  # seconds, and a name nobody else's process has
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[5]
RUN = f"""
import json, os, subprocess, sys, time
sys.path.insert(0, {str(ROOT / ".build" / "collections")!r})
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.probes import Probe
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
def none(argv, **more):
    raise CommandFailed(argv[0] + " is not installed")
def probes():
    found = []
    for name in os.listdir("/proc"):
        try:
            stat = open("/proc/" + name + "/stat").read()
        except OSError:
            continue
        # Only this mount's probe: other interpreters run the same tests beside this one.
        if "(" + Probe("mount", sys.argv[3]).mark + ")" in stat and stat.rpartition(")")[2].split()[0] not in "ZX":
            found.append(int(name))
    return sorted(found)
result = []
for number in range(2):
    begun = time.monotonic()
    document = run(NodeOptions.from_mapping(json.loads(sys.argv[1])), World(run=none)).to_dict()
    took = time.monotonic() - begun
    time.sleep(0.3)
    result.append(dict(document, took=took, probes=probes()))
    time.sleep(float(sys.argv[2]))
print(json.dumps(result))
"""

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK), reason="needs root and /dev/fuse"
)


def _dead(mode, directory, given, pause, *more):
    """Check twice with dead mounts at ``directory`` and the directories ``more``."""
    for point in (directory, *more):
        point.mkdir()
    argv = [
        sys.executable,
        str(HERE / "dead_fuse.py"),
        mode,
        ":".join(map(str, (directory, *more))),
        sys.executable,
        "-c",
        RUN,
        json.dumps(given),
        str(pause),
        str(directory),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0 and "Operation not permitted" in done.stderr:
        pytest.skip("mount namespaces are not allowed here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _bad(document):
    return [
        (check["check"], check["subject"])
        for check in document["checks"]
        if check["status"] in ("critical", "unknown")
    ]


@needs_fuse
def test_a_dead_mount_fails_alone_within_the_deadline(tmp_path):
    dead = tmp_path / "dead"
    first, second = _dead("pending", dead, {"checks": ["disk", "memory", "load", "processes"]}, 0)
    for document in (first, second):
        assert document["took"] < 8
        assert _bad(document) == [("mount_responds", str(dead))]
        assert document["probes"] == [], "the probe's process is gone"
        assert [
            check["message"] for check in document["checks"] if check["check"] == "mount_responds"
        ] == [f"{dead} (fuse.dead): no answer within 5 s"]
        assert document["summary"]["passed"] >= 6, (
            "the other mounts and groups were judged all the same"
        )
        assert (document["recommendation"], document["exit_code"]) == ("drain", 2)


@needs_fuse
def test_a_probe_that_cannot_be_killed_is_reported_and_not_started_again(tmp_path):
    dead = tmp_path / "dead"
    first, second = _dead(
        "swallow", dead, {"checks": ["disk", "processes"], "timeout": 1}, 0
    )  # the second run at once
    assert first["took"] < 4 and second["took"] < 4
    assert _bad(first) == _bad(second) == [("mount_responds", str(dead))]
    assert len(first["probes"]) == 1 and second["probes"] == first["probes"], "no second probe"
    message = next(
        check["message"] for check in second["checks"] if check["check"] == "mount_responds"
    )
    assert "hung since 2" in message and f"process {first['probes'][0]}" in message


@needs_fuse
@pytest.mark.parametrize("mode", ["pending", "swallow"])
def test_fifty_dead_mounts_cost_one_deadline(tmp_path, mode):
    points = [tmp_path / f"dead{number}" for number in range(50)]
    given = {"checks": ["disk"], "timeout": 2}
    documents = _dead(mode, points[0], given, 0, *points[1:])
    for document in documents:
        assert document["took"] < 2 + 4
        assert sorted(_bad(document)) == sorted(("mount_responds", str(path)) for path in points)
    hung = [
        check["message"] for check in documents[1]["checks"] if "hung since" in check["message"]
    ]
    assert len(hung) == (50 if mode == "swallow" else 0), "no second probe where one still waits"


def _stubborn(argv, timeout=30.0, env=None, stdin=None):
    """A runner without a deadline of its own, around a program that ignores SIGTERM."""
    done = subprocess.run(
        ["sh", "-c", f"trap '' TERM; sleep {LONG}"], capture_output=True, text=True, check=False
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


def test_a_gpu_tool_that_ignores_sigterm_is_critical_in_time(tmp_path, clock, options, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 0.2; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def command(argv, timeout=30.0, env=None, stdin=None):
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{argv[0]} did not answer") from error
        return CommandResult(done.returncode, done.stdout, done.stderr)

    begun = time.monotonic()
    document = run(options(checks=["gpu"], timeout=1.5), World(run=command, clock=clock)).to_dict()
    assert time.monotonic() - begun < 4 and document["status"] == "critical"
    if document["checks"][0]["check"] == "gpu_driver":  # no real driver here that answers beside it
        assert document["summary"]["total"] == 1
    time.sleep(0.3)
    assert (
        subprocess.run(["pgrep", "-f", str(tool)], capture_output=True, check=False).returncode == 1
    ), "it was killed for good"


def _sleepers():
    return subprocess.run(
        ["pgrep", "-fc", f"^sleep {LONG}$"], capture_output=True, text=True, check=False
    ).stdout.strip()


def test_a_program_that_never_ends_costs_its_own_check_only(machine, options, monkeypatch):
    (machine.root / "run/systemd/system").mkdir(parents=True)
    machine.put("/var/log/journal/abc/system.journal", "")
    world = World(
        run=_stubborn, clock=machine.world.clock, root=str(machine.root), hostname="n1", environ={}
    )
    begun = time.monotonic()
    document = run(options(timeout=1, checks=["services", "errors", "limits"]), world).to_dict()
    assert time.monotonic() - begun < 3
    found = {check["check"]: check for check in document["checks"]}
    assert (
        found["service"]["status"] == "unknown"
        and "no answer within 1 s" in found["service"]["message"]
    )
    assert (
        found["journal_errors"]["status"] == "unknown" and found["oom_kills"]["status"] == "skipped"
    ), "one cause counts once"
    assert "file_descriptors" in found
    time.sleep(0.1)
    assert _sleepers() == "0", "what the probe started was killed with it"


def test_all_probes_together_have_a_deadline(machine, options, monkeypatch):
    monkeypatch.setattr(network, "connect", lambda target, timeout: time.sleep(30))
    begun = time.monotonic()
    given = options(
        checks=["network_target"],
        network_targets=["a:1", "b:1", "c:1"],
        timeout=20,
        total_timeout=1,
    )
    document = run(given, machine.world).to_dict()
    assert time.monotonic() - begun < 3 and document["summary"]["failed"] == 3


def test_only_our_own_old_process_counts_as_a_hanging_probe(world, machine, options, monkeypatch):
    mark = Probe("mount", "/x").mark
    monkeypatch.setattr(probes, "STUCK_SECONDS", 0.1)

    def hanging(one, name, timeout, uptime, where=world):
        prober = Prober(where, timeout, 30, [one])
        prober.uptime = uptime
        return prober.still_hanging(name)

    own = Process(os.getpid(), mark, "D", 1, 0, 0.0)
    assert hanging(own, Probe("mount", "/x"), 5, 100) == own
    assert hanging(own, Probe("mount", "/y"), 5, 100) is None
    assert hanging(own._replace(state="Z"), Probe("mount", "/x"), 5, 100) is None, (
        "a dead one waits for nothing"
    )
    assert hanging(own, Probe("mount", "/x"), 5, 4) is None, "a check that runs right now"
    tool = own._replace(name="nvidia-smi", pid=77)
    machine.put("/proc/77/stat", "77 (nvidia-smi) D 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0 0")
    machine.put("/proc/77/status", "voluntary_ctxt_switches:\t5\n")
    assert (
        hanging(tool, Probe("gpu"), 5, 100, machine.world) == tool
        and hanging(tool._replace(state="S"), Probe("gpu"), 5, 100, machine.world) is None
    )
    asked = tool._replace(name="smartctl")
    machine.put("/proc/77/stat", "77 (smartctl) D 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0 0")
    assert hanging(asked, Probe("disk", "sda"), 5, 100, machine.world) == asked, (
        "nobody knows about which disk"
    )
    machine.put("/proc/77/cmdline", "/usr/sbin/smartctl\0-H\0/dev/sdb\0")
    assert hanging(asked, Probe("disk", "sdb"), 5, 100, machine.world) == asked
    assert hanging(asked, Probe("disk", "sda"), 5, 100, machine.world) is None, (
        "the other disks are asked all the same"
    )
    machine.put("/proc/77/stat", "77 (nvidia-smi) D 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0 0")
    monkeypatch.setattr(
        probes.time,
        "sleep",
        lambda seconds: machine.put("/proc/77/status", "voluntary_ctxt_switches:\t6\n"),
    )
    assert hanging(tool, Probe("gpu"), 5, 100, machine.world) is None, (
        "nvidia-smi -l, which waits for something now and then"
    )
    if os.geteuid() == 0:
        other = subprocess.Popen(["sleep", "30"], preexec_fn=lambda: os.setuid(65534))
        try:
            assert hanging(own._replace(pid=other.pid), Probe("mount", "/x"), 5, 100) is None, (
                "anybody may take any name"
            )
        finally:
            other.kill()
            other.wait()


def test_a_real_childs_name_is_the_mark():
    probe = Probe("mount", "/a/very/long/path")
    name = probes.marked(probe, lambda: open("/proc/self/comm", encoding="ascii").read().strip())
    outcome = isolate.call(name, 5)
    assert outcome.value == probe.mark and len(outcome.value) < 16


def test_when_all_local_mounts_hang_the_guilty_one_is_named(options, machine, monkeypatch):
    machine.put(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /bad rw - ext4 /dev/sdb1 rw\n",
    )

    def probe(paths):
        if "/bad" in paths:
            time.sleep(30)
        return {path: filesystems.usage("/") for path in paths}

    monkeypatch.setattr(filesystems, "probe", probe)
    document = run(options(checks=["disk"], timeout=0.5), machine.world).to_dict()
    assert _bad(document) == [("mount_responds", "/bad")]
    assert [check["subject"] for check in document["checks"] if check["check"] == "disk_usage"] == [
        "/"
    ]
