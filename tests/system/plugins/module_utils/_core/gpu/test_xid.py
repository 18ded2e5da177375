# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Xids from a log to the verdict of a node, and the logs themselves."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import (
    facts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import kernel_log

ROOT = pathlib.Path(__file__).resolve().parents[6]
NOW = 1_800_000_000.0
#: GPU 0 of the scenario l40s.
BUS = "0000:41:00"


def line(code, text="pid=4711, name=python3, something", bus=f"PCI:{BUS}"):
    return f"NVRM: Xid ({bus}): {code}, {text}"


def changed(before, after):
    return line(154, f"GPU recovery action changed from 0x{before:x} (x) to 0x{after:x} (y)")


def run(node, *lines, **options):
    return node.gpus("l40s").run(log_source=node.log(*lines), **options)


def test_an_error_is_reported_with_its_gpu(node, check):
    document = run(node, line(95))
    result = check(document, "gpu_xid")
    assert (result["status"], result["subject"], result["value"]) == ("critical", "GPU 0", 1)
    (event,) = document["gpus"][0]["xids"]
    assert {**event, "last": None} == {
        "code": 95,
        "count": 1,
        "last": None,
        "level": "critical",
        "action": "reset_gpu",
        "text": "uncontained memory error",
    }


@pytest.mark.parametrize("code", [8, 13, 31, 105, 139])
def test_three_application_errors_on_one_gpu_are_a_warning(node, check, code):
    assert check(run(node, *[line(code)] * 2), "gpu_xid")["status"] == "pass"
    assert check(run(node, *[line(code)] * 3), "gpu_xid")["status"] == "warning"


def test_different_application_errors_count_together_and_recorded_ones_do_not(node, check):
    assert check(run(node, line(13), line(31), line(69)), "gpu_xid")["status"] == "warning"
    assert check(run(node, *[line(43)] * 9), "gpu_xid")["status"] == "pass"


def test_overrides_go_both_ways_and_have_the_last_word(node, check):
    assert check(run(node, line(79), xid_overrides={"79": "ignore"}), "gpu_xid")["status"] == "pass"
    assert (
        check(run(node, line(63), xid_overrides={"63": "critical"}), "gpu_xid")["status"]
        == "critical"
    )
    assert (
        check(run(node, *[line(31)] * 9, xid_overrides={"31": "ignore"}), "gpu_xid")["status"]
        == "pass"
    )
    assert (
        check(run(node, line(145, "Fatal"), xid_overrides={"145": "warning"}), "gpu_xid")["status"]
        == "warning"
    )
    assert run(node, line(79), xid_overrides={"79": "ignore"})["gpus"][0]["xids"][0]["count"] == 1
    assert (
        check(run(node, line(13), xid_overrides={13: "warning"}), "gpu_xid")["threshold_source"]
        == "user"
    )
    assert (
        check(run(node, *[line(31)] * 3, xid_overrides={13: "critical"}), "gpu_xid")[
            "threshold_source"
        ]
        == "default"
    )


@pytest.mark.parametrize(
    "overrides", [{"79": "fatal"}, {"seventy": "ignore"}, {"-1": "ignore"}, {"²": "ignore"}]
)
def test_bad_overrides_are_one_clear_error(node, overrides):
    error = run(node, line(79), xid_overrides=overrides)["error"]
    assert (error["kind"], error["subject"]) == ("OptionError", "xid_overrides")


def test_a_gpu_that_is_gone_from_the_driver_is_reported_by_its_address(node, check):
    found = check(run(node, line(79, bus="PCI:0000:99:00")), "gpu_xid", "0000:99:00")
    assert (found["status"], found["action"]) == ("critical", "reboot")


@pytest.mark.parametrize("scenario", ["hang_init", "version_mismatch", "no_driver"])
def test_why_the_driver_died_is_told_even_when_it_shows_no_gpu(node, check, scenario):
    document = node.gpus(scenario).run(
        log_source=node.log(line(119, "Timeout after 45s of waiting for RPC response")), timeout=1
    )
    assert "GSP RPC timeout" in check(document, "gpu_xid", BUS)["message"]
    assert document.get("wall", 0) < 2


@pytest.mark.parametrize("source", ["path", "auto"])
def test_an_unreadable_log_is_not_called_clean(node, check, source, tmp_path):
    # The worker's root has no /dev/kmsg and its PATH no journalctl.
    node.env["PATH"] = str(node.bin)
    document = node.gpus("l40s").run(
        log_source=str(tmp_path / "none.log") if source == "path" else source
    )
    found = check(document, "gpu_xid")
    assert found["status"] == ("unknown" if source == "path" else "skipped")
    assert "not checked" in found["message"]
    assert document["exit_code"] == (1 if source == "path" else 0)


def test_a_log_that_does_not_answer_is_told_in_time(node, check):
    os.mkfifo(node.directory / "kern.fifo")
    document = node.gpus("l40s").run(log_source=str(node.directory / "kern.fifo"), timeout=1)
    found = check(document, "gpu_xid")
    assert (found["status"], document["wall"] < 2) == ("unknown", True)
    assert "took longer" in found["message"]


def test_relative_log_path_is_refused(node):
    assert node.gpus("l40s").run(log_source="kern.log")["error"]["subject"] == "log_source"


def iso(when):
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00 node kernel: ", time.gmtime(when))


def test_window(node, check):
    for age, status in ((3500, "critical"), (3700, "pass")):
        document = run(node, iso(NOW - age) + line(79), xid_window=3600)
        assert check(document, "gpu_xid")["status"] == status


def test_an_error_without_a_readable_time_is_less_than_critical_and_says_so(node, check):
    document = run(node, "[99999999999999.0] " + line(79))
    result = check(document, "gpu_xid")
    assert (result["status"], result["action"]) == ("warning", "reboot")
    assert "at an unknown time" in result["message"]
    assert document["gpus"][0]["xids"][0]["last"] is None
    both = run(node, "[99999999999999.0] " + line(79), iso(NOW - 9) + line(79))
    assert check(both, "gpu_xid")["status"] == "critical"
    chosen = run(node, "[99999999999999.0] " + line(79), xid_overrides={"79": "critical"})
    assert check(chosen, "gpu_xid")["status"] == "critical"


def test_nothing_from_before_the_last_boot(node, check):
    (node.root / "proc/stat").write_text(f"cpu 1 2 3\nbtime {int(NOW) - 600}\n")
    assert check(run(node, iso(NOW - 500) + line(79)), "gpu_xid")["status"] == "critical"
    assert check(run(node, iso(NOW - 700) + line(79)), "gpu_xid")["status"] == "pass"
    assert check(run(node, "[  100.000000] " + line(79)), "gpu_xid")["status"] == "critical", (
        "seconds since boot"
    )


def test_kernel_buffer(node, check):
    (node.root / "proc/stat").write_text(f"btime {int(NOW) - 7200}\n")
    (node.root / "dev").mkdir()
    block = (
        f"NVRM: The NVIDIA GPU {BUS}.0\\x0aNVRM: (PCI ID: 10de:26b9) installed in this system"
        " has\\x0aNVRM: fallen off the bus and is not responding."
    )
    (node.root / "dev/kmsg").write_text(
        "6,1,100000000,-;NVRM: loading\n"
        f" SUBSYSTEM=pci\n3,2,7000000000,-;{block}\n3,3,90000000,-;{line(46)}\n"
    )
    document = node.gpus("l40s").run(log_source="dmesg", xid_window=3600)
    assert [one["code"] for one in document["gpus"][0]["xids"]] == [79], "and not the old 46"


def test_journal(node, check):
    """Against the journal's program as a stand-in; the real one is asked on booted nodes."""
    program = node.bin / "journalctl"
    program.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        f"*--lines=1*) echo '{NOW - 5} node kernel: last' ;;\n"
        "*--grep*) echo 'Compiled without pattern matching support' >&2; exit 1 ;;\n"
        f"*) printf '%s\\n' '{NOW - 9} node kernel: NVRM: The NVIDIA GPU {BUS}.0' '     NVRM: (PCI"
        " ID: 10de:26b9) installed in this system has' "
        f"'     NVRM: fallen off the bus and is not responding' '{NOW - 8} node kernel: {line(31)}'"
        " ;;\nesac\n"
    )
    program.chmod(0o755)
    document = node.gpus("l40s").run(log_source="auto")
    assert [(one["code"], one["count"]) for one in document["gpus"][0]["xids"]] == [
        (79, 1),
        (31, 1),
    ]
    program.write_text("#!/bin/sh\nexit 0\n")
    found = check(node.run(log_source="journal"), "gpu_xid")
    assert found["status"] == "unknown" and "may not read" in found["message"]


JOURNALD = "/lib/systemd/systemd-journald"


#: A journal of its own that takes what is written to a pipe for the kernel's messages; nothing
#: reaches the machine's own log.
OWN_JOURNAL = f"""
set -e
mount -t tmpfs none /run && mount -t tmpfs none /var/log
mkdir -p /run/systemd/journal /run/log/journal && mkfifo /run/kmsg && mount --bind /run/kmsg /dev/kmsg
exec 9<>/run/kmsg
{JOURNALD} 2>/dev/null & trap "kill $!" EXIT
now=$(cut -d. -f1 /proc/uptime)000000
for message in "$@"; do
  number=$((${{number:-0}} + 1))
  printf '3,%s,%s,-;%s\\n' $number $now "$message" >&9
  for wait in $(seq 100); do
    [ $(journalctl --dmesg --quiet --output=cat --output-fields=PRIORITY --lines=all 2>/dev/null | wc -l) -ge $number ] && break
    [ $wait -lt 100 ] || exit 77
    sleep 0.05
  done
done
"$PYTHON" -c "$READ" "$ROOT"
"""


READ = """
import json, os, subprocess, sys
sys.path.insert(0, sys.argv[1] + "/.build/collections")
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import facts, reading, xid
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World
def run(argv, timeout=30.0, env=None, stdin=None):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env={**os.environ, "LC_ALL": "C"})
    return CommandResult(done.returncode, done.stdout, done.stderr)
logs = [facts.read_errors("auto", window, 10, World(run=run)) for window in (3600, 1)]
events = [[[reading.display_bus(event.bus), event.meaning.number, event.count]
           for event in xid.events(log.entries)] for log in logs]
print(json.dumps([[log.source, log.problem, own] for log, own in zip(logs, events)]))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(JOURNALD) or not shutil.which("unshare"),
    reason="needs root, unshare and systemd-journald",
)
def test_the_real_journal():
    messages = [
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  590.48.01",
        f"NVRM: Xid (PCI:{BUS}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        f"NVRM: GPU {BUS}.0: GPU has fallen off the bus.",
        (
            "NVRM: The NVIDIA GPU 0000:18:00.0\\x0aNVRM: (PCI ID: 10de:26b9) installed in this"
            " system has\\x0aNVRM: fallen off the bus and is not responding"
        ),
        f"NVRM: Xid (PCI:{BUS} GPU-I:05): 31, pid=4711, name=python",
        "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
        "usb 1-1: new device",
    ]
    env = {**os.environ, "PYTHON": sys.executable, "READ": READ, "ROOT": str(ROOT)}
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        OWN_JOURNAL,
        "sh",
        *messages,
    ]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode == 77 or "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no journal of our own here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    wide, narrow = json.loads(done.stdout)
    assert wide == ["journal", "", [[BUS, 79, 1], ["0000:18:00", 79, 1], [BUS, 31, 1]]]
    assert narrow[:2] == ["journal", ""]


def test_a_large_file_is_read_from_its_end(node, check):
    path = node.log()
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(iso(NOW - 9) + line(79) + "\n")
        stream.write(("x" * 1023 + "\n") * (kernel_log.TAIL // 1024))
    node.gpus("l40s")
    assert check(node.run(log_source=path), "gpu_xid")["status"] == "pass"
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(iso(NOW - 9) + line(79) + "\n")
    assert check(node.run(log_source=path), "gpu_xid")["status"] == "critical"


def test_what_was_just_rotated_away_still_counts(node, check):
    path = node.log()
    with open(path + ".1", "w", encoding="ascii") as stream:
        stream.write(iso(NOW - 100) + line(79) + "\n" + iso(NOW - 9000) + line(46) + "\n")
    os.utime(path + ".1", (NOW - 50, NOW - 50))
    found = check(node.gpus("l40s").run(log_source=path, xid_window=3600), "gpu_xid")
    assert (found["status"], found["value"]) == ("critical", 1)
    os.utime(path + ".1", (NOW - 4000, NOW - 4000))
    assert check(node.run(log_source=path, xid_window=3600), "gpu_xid")["status"] == "pass"


def test_the_real_kernel_log_is_read_to_its_end():
    """Only read: a line written there would stay, and be found on this machine, until the next
    boot.
    """
    try:
        os.close(
            os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        )  # its mode says nothing: the kernel may keep it from users
    except OSError as error:
        pytest.skip(f"the kernel log can't be read here: {error.strerror}")
    log = facts.read_errors("dmesg", 60, 5, World(run=None))
    assert (log.source, log.problem) == ("dmesg", "")


def test_only_the_kernels_own_lines_count(node, check):
    quoted = f"root : COMMAND=/bin/grep {line(79)} /var/log/syslog"
    document = run(node, f"{NOW - 9} node sudo[9]: {quoted}", f"{NOW - 8} node kernel: {quoted}")
    assert check(document, "gpu_xid")["message"] == "GPU 0: no Xid in the kernel log"


@pytest.mark.parametrize(
    ("driver", "text", "action"),
    [
        ("580.95.05", "reset the GPU's bus", "reboot"),
        ("590.48.01", "reset the GPU's bus", "reboot"),
        ("615.71", "recover the IMEX domain", "inspect"),
    ],
)
def test_recovery_action_5_depends_on_the_branch(node, check, driver, text, action):
    """As NVML_GPU_RECOVERY_ACTION_* of nvidia-ml-py 13.580 and 13.615 name it."""
    node.gpus("l40s", system={"driver_version": driver}, gpus=[{"field.230": "5:u32"}])
    state = check(node.quick(), "gpu_state")
    assert (state["action"], text in state["message"]) == (action, True)
