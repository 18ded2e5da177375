# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Xids: every row of NVIDIA's table from a kernel log line to the verdict, and reading the log itself."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import xid
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

ROOT = pathlib.Path(__file__).resolve().parents[6]
NOW = 1_800_000_000.0
#: GPU 0 of the scenario l40s.
BUS = "0000:41:00"

CRITICAL = [
    46,
    48,
    54,
    62,
    64,
    74,
    79,
    95,
    109,
    110,
    119,
    120,
    136,
    140,
    143,
    151,
    155,
    156,
    158,
    167,
    169,
    171,
    172,
    173,
]
WARNING = [78, 92, 94, 121, 157, 159, 162, 163, 164, 165, 166, 168, 170]
APPLICATION = [
    8,
    11,
    13,
    25,
    31,
    32,
    39,
    40,
    41,
    60,
    68,
    69,
    70,
    71,
    72,
    75,
    76,
    77,
    80,
    82,
    83,
    84,
    85,
    86,
    88,
    89,
    *range(96, 106),
    *range(126, 136),
    139,
]
RECORDED = [14, 37, 38, 43, 44, 45, 63, 66, 67, 93, 106, 107, 108, 137, 141, 152, 153, 160, 161]
UNLISTED = [1, 7, 9, 12, 24, 36, 61, 65, 73, 81, 87, 118, 125, 138, 142, 174, 999]


def line(code, text="pid=4711, name=python3, something", bus=f"PCI:{BUS}"):
    return f"NVRM: Xid ({bus}): {code}, {text}"


def events(*lines, overrides=None):
    return xid.judge(xid.find((None, one) for one in lines), overrides)


def run(node, *lines, **options):
    return node.gpus("l40s").run(log_source=node.log(*lines), **options)


@pytest.mark.parametrize(
    ("code", "status"),
    [(c, "critical") for c in CRITICAL]
    + [(c, "warning") for c in WARNING + UNLISTED]
    + [(c, "pass") for c in APPLICATION + RECORDED],
)
def test_every_row_of_the_table(node, check, code, status):
    document = run(node, line(code))
    found = check(document, "gpu_xid")
    assert (found["status"], found["subject"], found["value"]) == (status, "GPU 0", 1)
    assert [(one["code"], one["level"]) for one in document["gpus"][0]["xids"]] == [(code, status)]
    assert (found["action"] == "none") == (status == "pass")


def test_the_table_is_complete():
    assert sorted(xid.CATALOG) == sorted(
        {*CRITICAL, *WARNING, *APPLICATION, *RECORDED, *range(144, 151), 154}
    )


@pytest.mark.parametrize("code", [8, 13, 31, 105, 139])
def test_three_application_errors_on_one_gpu_are_a_warning(node, check, code):
    assert check(run(node, *[line(code)] * 2), "gpu_xid")["status"] == "pass"
    assert check(run(node, *[line(code)] * 3), "gpu_xid")["status"] == "warning"


def test_different_application_errors_count_together_and_recorded_ones_do_not(node, check):
    assert check(run(node, line(13), line(31), line(69)), "gpu_xid")["status"] == "warning"
    assert check(run(node, *[line(43)] * 9), "gpu_xid")["status"] == "pass"


@pytest.mark.parametrize("code", range(144, 151))
def test_nvlink5_errors_are_what_their_line_says(code):
    tail = "XC0 i0 Link 03 (0x00000004 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000)"
    assert [one.level for one in events(line(code, f"RLW_SRC_TRACK Nonfatal {tail}"))] == [
        "warning"
    ]
    assert [one.level for one in events(line(code, f"RLW_SRC_TRACK Fatal {tail}"))] == ["critical"]
    assert [
        one.level
        for one in events(line(code, "Nonfatal"), line(code, "Fatal"), line(code, "Nonfatal"))
    ] == ["critical"]
    assert [one.level for one in events(line(code, "garbled"))] == ["warning"]
    assert [one.level for one in events(line(code, f"RLW_SRC_TRACK Non-Fatal {tail}"))] == [
        "warning"
    ]
    assert [one.level for one in events(line(code, f"RLW_SRC_TRACK NON_FATAL {tail}"))] == [
        "warning"
    ]
    assert [one.level for one in events(line(code, f"RLW_SRC_TRACK FATAL {tail}"))] == ["critical"]


@pytest.mark.parametrize(
    ("target", "level"),
    [
        (0, "pass"),
        (1, "critical"),
        (2, "critical"),
        (3, "warning"),
        (4, "critical"),
        (5, "critical"),
        (0x9, "critical"),
    ],
)
def test_154_is_its_target_action(target, level):
    assert [
        one.level
        for one in events(
            line(154, f"GPU recovery action changed from 0x0 (None) to 0x{target:x} (Words)")
        )
    ] == [level]


def test_154_newest_word_counts():
    done = [
        line(154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset)"),
        line(154, "GPU recovery action changed from 0x1 (Reset) to 0x0 (None)"),
    ]
    assert [(one.level, one.count) for one in events(*done)] == [("pass", 2)]


def test_a_fall_that_is_told_in_several_ways_is_one():
    """As current drivers log it."""
    told = [
        f"[  100.100000] NVRM: GPU at PCI:{BUS}: GPU-4f2a9c10-0000-4d3e-9b1a-012345678900",
        "[  100.100000] NVRM: GPU Board Serial Number: 1654922000000",
        f"[  100.200000] NVRM: Xid (PCI:{BUS}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        f"[  100.300000] NVRM: GPU {BUS}.0: GPU has fallen off the bus.",
        f"[  100.300000] NVRM: GPU {BUS}.0: GPU serial number is 1654922000000.",
        "[  100.400000] NVRM: A GPU crash dump has been created. If possible, please run",
        "               NVRM: nvidia-bug-report.sh as root to collect this data before",
        f"[  100.500000] NVRM: Xid (PCI:{BUS}): 154, pid='<unknown>', GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
        "[  100.600000] NVRM: GPU 0000:99:00.0: GPU has fallen off the bus.",
    ]
    dated = list(xid.dated(told, 0.0, World(run=None)))
    assert [
        (one.bus[1], one.code, one.count, one.action) for one in xid.judge(xid.find(dated))
    ] == [
        (0x41, 79, 1, "reboot"),
        (0x41, 154, 1, "reboot"),
        (0x99, 79, 1, "reboot"),
    ]
    again = [*told, f"[  190.000000] NVRM: GPU {BUS}.0: GPU has fallen off the bus."]
    assert xid.judge(xid.find(xid.dated(again, 0.0, World(run=None))))[0].count == 2


@pytest.mark.parametrize(
    "text",
    [
        f"NVRM: Xid (PCI:{BUS}): 79, pid=1234, name=python, GPU has fallen off the bus.",
        f"NVRM: Xid (PCI:{BUS}): 79, GPU has fallen off the bus.",
        f"NVRM: Xid (PCI:{BUS}): 79",
        f"NVRM: Xid ({BUS}):  79, Channel 00000010\r",
        f"NVRM[1]: Xid (PCI:{BUS}): 79, as the journal shows a line written to /dev/kmsg",
    ],
)
def test_forms_of_the_line(text):
    assert [(one.bus, one.code) for one in events(text)] == [((0, 0x41, 0), 79)]


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


@pytest.mark.parametrize(
    "bus", [f"PCI:{BUS}", BUS, f"PCI:0000{BUS}", f"PCI:{BUS} GPU-I:05", f"PCI:{BUS}.0"]
)
def test_forms_of_the_bus_id(bus):
    assert [(one.bus, one.code) for one in events(line(79, bus=bus))] == [((0, 0x41, 0), 79)]


@pytest.mark.parametrize(
    "lines",
    [
        [f"NVRM: GPU {BUS}.0: GPU has fallen off the bus."],
        [f"NVRM: GPU at PCI:{BUS}: GPU has fallen off the bus"],
        [
            f"NVRM: The NVIDIA GPU {BUS}.0",
            "NVRM: (PCI ID: 10de:26b9) installed in this system has",
            "NVRM: fallen off the bus and is not responding to commands.",
        ],
        [
            f"NVRM: The NVIDIA GPU {BUS}.0\nNVRM: (PCI ID: 10de:26b9) installed in this system has\nNVRM: fallen off the bus and is not responding to commands."
        ],
    ],
)
def test_off_the_bus_without_a_number(lines):
    found = events(*lines)
    assert [(one.bus, one.code, one.level, one.action) for one in found] == [
        ((0, 0x41, 0), 79, "critical", "reboot")
    ]


def test_switch_errors_and_other_lines_are_not_counted():
    assert not events(
        "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  590.48.01",
        f"NVRM: GPU at PCI:{BUS}: GPU-4f2a9c10",
        "usb 1-1: Xid (0000:41:00): 79",
        "something has fallen off the busy table",
    )


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
    os.mkfifo(node.folder / "kern.fifo")
    document = node.gpus("l40s").run(log_source=str(node.folder / "kern.fifo"), timeout=1)
    found = check(document, "gpu_xid")
    assert (found["status"], document["wall"] < 2) == ("unknown", True)
    assert "took longer" in found["message"]


def test_relative_log_path_is_refused(node):
    assert node.gpus("l40s").run(log_source="kern.log")["error"]["subject"] == "log_source"


# --- time --------------------------------------------------------------------------------------------------------------


def stamps(when):
    local = time.localtime(when)
    return {
        "journalctl": f"{when:.6f} node kernel: ",
        "iso": time.strftime("%Y-%m-%dT%H:%M:%S.123456+00:00 node kernel: ", time.gmtime(when)),
        "iso_z": time.strftime("%Y-%m-%dT%H:%M:%SZ node kernel: ", time.gmtime(when)),
        "iso_compact": time.strftime("%Y-%m-%dT%H:%M:%S,123456+0000 ", time.gmtime(when)),
        "short_precise": time.strftime("%b %e %H:%M:%S.123456 node kernel: ", local),
        "short_full": time.strftime("%a %Y-%m-%d %H:%M:%S UTC node kernel: ", time.gmtime(when)),
        "syslog": time.strftime("%b %e %H:%M:%S node kernel: [12.3] ", local),
        "dmesg_T": time.strftime("[%a %b %e %H:%M:%S %Y] ", local),
    }


@pytest.mark.parametrize("form", sorted(stamps(NOW)))
def test_window(node, check, form):
    assert (
        check(run(node, stamps(NOW - 3500)[form] + line(79), xid_window=3600), "gpu_xid")["status"]
        == "critical"
    )
    assert (
        check(run(node, stamps(NOW - 3700)[form] + line(79), xid_window=3600), "gpu_xid")["status"]
        == "pass"
    )


@pytest.mark.parametrize(
    "stamp",
    [
        "[99999999999999.0] ",
        "6,1,99999999999999999999,-;",
        "9999-12-31T23:59:59-14:00 ",
        "2026-13-45T99:99:99Z ",
        "Feb 30 25:61:61 ",
    ],
)
def test_a_time_that_is_none_leaves_the_line_undated(node, check, stamp):
    document = run(node, stamp + line(79))
    assert check(document, "gpu_xid")["status"] == "critical"
    assert document["gpus"][0]["xids"][0]["last"] is None


def test_nothing_from_before_the_last_boot(node, check):
    (node.root / "proc/stat").write_text(f"cpu 1 2 3\nbtime {int(NOW) - 600}\n")
    assert check(run(node, stamps(NOW - 500)["iso"] + line(79)), "gpu_xid")["status"] == "critical"
    assert check(run(node, stamps(NOW - 700)["iso"] + line(79)), "gpu_xid")["status"] == "pass"
    assert check(run(node, "[  100.000000] " + line(79)), "gpu_xid")["status"] == "critical", (
        "seconds since boot"
    )


def test_kernel_buffer(node, check):
    (node.root / "proc/stat").write_text(f"btime {int(NOW) - 7200}\n")
    (node.root / "dev").mkdir()
    block = f"NVRM: The NVIDIA GPU {BUS}.0\\x0aNVRM: (PCI ID: 10de:26b9) installed in this system has\\x0aNVRM: fallen off the bus and is not responding."
    (node.root / "dev/kmsg").write_text(
        f"6,1,100000000,-;NVRM: loading\n SUBSYSTEM=pci\n3,2,7000000000,-;{block}\n3,3,90000000,-;{line(46)}\n"
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
        f"*) printf '%s\\n' '{NOW - 9} node kernel: NVRM: The NVIDIA GPU {BUS}.0' '     NVRM: (PCI ID: 10de:26b9) installed in this system has' "
        f"'     NVRM: fallen off the bus and is not responding' '{NOW - 8} node kernel: {line(31)}' ;;\nesac\n"
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
#: A journal of its own that takes what is written to a pipe for the kernel's messages; nothing reaches the machine's own log.
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
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import xid
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World
def run(argv, timeout=30.0, env=None, stdin=None):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env={**os.environ, "LC_ALL": "C"})
    return CommandResult(done.returncode, done.stdout, done.stderr)
logs = [xid.read("auto", window, 10, World(run=run)) for window in (3600, 1)]
print(json.dumps([[log.source, log.problem, [[xid.shown(one.bus), one.code, one.count] for one in xid.judge(log.finds)]] for log in logs]))
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
        "NVRM: The NVIDIA GPU 0000:18:00.0\\x0aNVRM: (PCI ID: 10de:26b9) installed in this system has\\x0aNVRM: fallen off the bus and is not responding",
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
        stream.write(line(79) + "\n")
        stream.write(("x" * 1023 + "\n") * (xid.TAIL // 1024))
    node.gpus("l40s")
    assert check(node.run(log_source=path), "gpu_xid")["status"] == "pass"
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(line(79) + "\n")
    assert check(node.run(log_source=path), "gpu_xid")["status"] == "critical"


def test_what_was_just_rotated_away_still_counts(node, check):
    path = node.log()
    with open(path + ".1", "w", encoding="ascii") as stream:
        stream.write(
            stamps(NOW - 100)["iso"] + line(79) + "\n" + stamps(NOW - 9000)["iso"] + line(46) + "\n"
        )
    os.utime(path + ".1", (NOW - 50, NOW - 50))
    found = check(node.gpus("l40s").run(log_source=path, xid_window=3600), "gpu_xid")
    assert (found["status"], found["value"]) == ("critical", 1)
    os.utime(path + ".1", (NOW - 4000, NOW - 4000))
    assert check(node.run(log_source=path, xid_window=3600), "gpu_xid")["status"] == "pass"


def test_the_real_kernel_log_is_read_to_its_end():
    """Only read: a line written there would stay, and be found on this machine, until the next boot."""
    try:
        os.close(
            os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        )  # its mode says nothing: the kernel may keep it from users
    except OSError as error:
        pytest.skip(f"the kernel log can't be read here: {error.strerror}")
    log = xid.read("dmesg", 60, 5, World(run=None))
    assert (log.source, log.problem) == ("dmesg", "")
