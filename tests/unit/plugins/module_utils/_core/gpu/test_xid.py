# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Xids: every row of NVIDIA's table from a kernel message to its level."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import (
    reading,
    xid,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.recovery import recovery
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import kernel_log

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


def events(*lines, overrides=None, driver="590.48.01", gap=600):
    """Return the events of messages that are ``gap`` seconds apart."""
    records = [
        kernel_log.Record(NOW + gap * number, text.strip()) for number, text in enumerate(lines)
    ]
    return xid.events(xid.find(records), overrides, driver)


def read(*lines):
    """Return the events of log lines with their own stamps."""
    return xid.events(xid.find(kernel_log.dated(lines, 0.0, World(run=None))), None, "590.48.01")


@pytest.mark.parametrize(
    ("code", "status"),
    [(c, "critical") for c in CRITICAL]
    + [(c, "warning") for c in WARNING + UNLISTED]
    + [(c, "pass") for c in APPLICATION + RECORDED],
)
def test_every_row_of_the_table(code, status):
    (event,) = events(line(code))
    finding = xid.finding([event])
    assert (finding.status, finding.value, event.meaning.number) == (status, 1, code)
    assert (finding.action == "none") == (status == "pass")
    assert f"Xid {code} (" in finding.message


def test_the_table_is_complete():
    assert sorted(entry.number for entry in xid.CATALOG) == sorted(
        {*CRITICAL, *WARNING, *APPLICATION, *RECORDED, *range(144, 151), 154}
    )


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
        (
            f"[  100.200000] NVRM: Xid (PCI:{BUS}): 79, pid='<unknown>', name=<unknown>, GPU has"
            " fallen off the bus."
        ),
        f"[  100.300000] NVRM: GPU {BUS}.0: GPU has fallen off the bus.",
        f"[  100.300000] NVRM: GPU {BUS}.0: GPU serial number is 1654922000000.",
        "[  100.400000] NVRM: A GPU crash dump has been created. If possible, please run",
        "               NVRM: nvidia-bug-report.sh as root to collect this data before",
        (
            f"[  100.500000] NVRM: Xid (PCI:{BUS}): 154, pid='<unknown>', GPU recovery action"
            " changed from 0x0 (None) to 0x2 (Node Reboot Required)"
        ),
        "[  100.600000] NVRM: GPU 0000:99:00.0: GPU has fallen off the bus.",
    ]
    assert [
        (event.bus[1], event.meaning.number, event.count, event.action) for event in read(*told)
    ] == [
        (0x41, 79, 1, "reboot"),
        (0x41, 154, 1, "reboot"),
        (0x99, 79, 1, "reboot"),
    ]
    again = [*told, f"[  490.000000] NVRM: GPU {BUS}.0: GPU has fallen off the bus."]
    assert read(*again)[0].count == 2


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
    assert [(one.bus, one.meaning.number) for one in events(text)] == [((0, 0x41, 0), 79)]


@pytest.mark.parametrize(
    "bus", [f"PCI:{BUS}", BUS, f"PCI:0000{BUS}", f"PCI:{BUS} GPU-I:05", f"PCI:{BUS}.0"]
)
def test_forms_of_the_bus_id(bus):
    assert [(one.bus, one.meaning.number) for one in events(line(79, bus=bus))] == [
        ((0, 0x41, 0), 79)
    ]


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
            f"NVRM: The NVIDIA GPU {BUS}.0\nNVRM: (PCI ID: 10de:26b9) installed in this system"
            " has\nNVRM: fallen off the bus and is not responding to commands."
        ],
    ],
)
def test_off_the_bus_without_a_number(lines):
    found = events(*lines)
    assert [(one.bus, one.meaning.number, one.level, one.action) for one in found] == [
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


# --- time
# --------------------------------------------------------------------------------------------------------------


# --- faults that real logs have shown ---------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "overrides", "level", "text"),
    [
        ([None], None, "warning", "GPU has fallen off the bus, at an unknown time"),
        ([None, None], None, "warning", "GPU has fallen off the bus, at an unknown time"),
        ([None, 1.0], None, "critical", "GPU has fallen off the bus"),
        ([1.0, None], None, "critical", "GPU has fallen off the bus"),
        ([None], {"79": "critical"}, "critical", "GPU has fallen off the bus"),
    ],
)
def test_an_error_of_unknown_age_is_less_than_critical(times, overrides, level, text):
    records = [kernel_log.Record(when, line(79)) for when in times]
    (event,) = xid.events(xid.find(records), overrides)
    assert (event.level, event.text, event.action) == (level, text, "reboot")


@pytest.mark.parametrize(
    ("code", "chosen", "level", "action"),
    [
        (79, "ignore", "pass", "none"),
        (79, "warning", "warning", "reboot"),
        (43, "warning", "warning", "inspect"),
        (43, "critical", "critical", "inspect"),
        (31, "critical", "critical", "restart_app"),
    ],
)
def test_an_override_has_an_action(code, chosen, level, action):
    (event,) = events(line(code), overrides={str(code): chosen})
    assert (event.level, event.action, event.source) == (level, action, "user")


def test_an_address_counts_for_the_two_messages_after_it():
    named, other = f"NVRM: GPU {BUS}.0: something", "NVRM: something else"
    lost = "NVRM: fallen off the bus and is not responding to commands."
    assert [event.bus for event in events(named, other, lost)] == [(0, 0x41, 0)]
    assert [event.bus for event in events(named, other, other, lost)] == [None]
    assert [event.bus for event in events(other, lost)] == [None]


def test_lines_of_one_crash_are_one_incident():
    crash = [
        line(13, "pid=77, name=python3, Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0)"),
        line(13, "pid=77, name=python3, Graphics SM Global Exception on (GPC 7, TPC 7, SM 0)"),
        line(13, "pid=77, name=python3, Graphics Exception: ESR 0x1=0x2"),
    ]
    (event,) = events(*crash, gap=0)
    assert (event.count, xid.finding([event]).status) == (1, "pass")
    (event,) = events(*crash, gap=xid.BURST_GAP)
    assert event.count == 1, "up to this gap"
    (event,) = events(*crash, gap=xid.BURST_GAP + 1)
    assert (event.count, xid.finding([event]).status) == (3, "warning")


def test_the_repeat_rule_counts_incidents_of_different_processes_at_once():
    lines = [
        line(31, f"pid={pid}, name=python3, MMU Fault") for pid in (77, 78, 79) for dummy in "ab"
    ]
    (event,) = events(*lines, gap=1)
    assert (event.count, xid.finding([event]).status) == (3, "warning")


def changed(before, after):
    return line(154, f"GPU recovery action changed from 0x{before:x} (x) to 0x{after:x} (y)")


LOADED = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  590.48.01"


@pytest.mark.parametrize("reset", [changed(1, 0), LOADED])
@pytest.mark.parametrize(
    ("code", "after"),
    [(95, "pass"), (48, "pass"), (119, "pass"), (94, "pass"), (79, "critical"), (64, "critical"), (92, "warning")],
)  # fmt: skip
def test_a_reset_that_was_done_ends_what_it_cures(code, after, reset):
    before, dummy = events(line(code), changed(0, 1))
    assert before.level != "pass"
    cured = events(line(code), changed(0, 1), reset)[0]
    assert (cured.level, cured.count) == (after, 1)
    assert ("over since the reset" in cured.text) == (after == "pass")
    again = events(line(code), changed(0, 1), reset, line(code))[0]
    assert (again.level, again.count, again.text) == (before.level, 2, before.text)


def test_a_reset_of_another_gpu_ends_nothing():
    other = changed(1, 0).replace(BUS, "0000:61:00")
    assert events(line(95), other)[0].level == "critical"


def test_application_errors_before_a_reset_do_not_count():
    lines = [line(31), line(31), LOADED, line(31)]
    (event,) = events(*lines)
    assert (event.count, xid.finding([event]).status) == (3, "pass")


@pytest.mark.parametrize(
    ("message", "name", "bus"),
    [
        (f"NVRM: GPU {BUS}.0: RmInitAdapter failed! (0x62:0x40:2168)", "rm_init_failed", BUS),
        (
            (
                "NVRM: GPU6 _kgspBootGspRm: (the GPU is likely in a bad state and may need to be"
                " reset)"
            ),
            "bad_state",
            None,
        ),
        (
            (
                "NVRM: GPU0 _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with"
                " booting gsp"
            ),
            "bad_state",
            None,
        ),
        ("NVRM: GPU0 _issueRpcAndWait: rpcRecvPoll timedout for fn 76!", "gsp_timeout", None),
        ("NVRM: GPU0 rpcRecvPoll: GSP RPC timeout", "gsp_timeout", None),
    ],
)
def test_failures_without_a_number(message, name, bus):
    (event,) = events(message, message, gap=1)
    assert (event.label, event.level, event.action, event.count) == (
        name,
        "critical",
        "reset_gpu",
        1,
    )
    assert (event.bus and reading.display_bus(event.bus)) == bus
    assert event.to_dict()["code"] is None
    assert xid.finding([event]).message == event.text
    assert events(message, LOADED)[0].level == "pass"


def test_gpus_with_a_number_of_the_driver_only_are_separate():
    bad = "NVRM: GPU{} _kgspBootGspRm: (the GPU is likely in a bad state and may need to be reset)"
    found = events(bad.format(6), bad.format(7), bad.format(6), gap=1)
    assert [(event.text.partition(":")[0], event.count) for event in found] == [
        ("GPU6", 1),
        ("GPU7", 1),
    ]


def test_a_failure_that_also_has_a_number_is_one():
    timeout = "NVRM: GPU0 _issueRpcAndWait: rpcRecvPoll timedout for fn 76!"
    for order in ([line(119), timeout], [timeout, line(119)]):
        assert [event.label for event in events(*order, gap=5)] == ["119"]
    far = events(timeout, line(119), gap=xid.SAME_FAULT + 1)
    assert [event.label for event in far] == ["gsp_timeout", "119"]


@pytest.mark.parametrize(
    ("driver", "text", "action"),
    [
        ("580.95.05", "reset the GPU's bus", "reboot"),
        ("599.1", "reset the GPU's bus", "reboot"),
        ("600.1", "recover the IMEX domain", "inspect"),
        ("615.71", "recover the IMEX domain", "inspect"),
        (None, "depending on the driver's branch", "inspect"),
        ("beta", "depending on the driver's branch", "inspect"),
    ],
)
def test_recovery_action_5_depends_on_the_branch(driver, text, action):
    """As NVML_GPU_RECOVERY_ACTION_* of nvidia-ml-py 13.580 and 13.615 name it."""
    (event,) = events(changed(0, 5), driver=driver)
    assert (event.level, event.action, text in event.text) == ("critical", action, True)


@pytest.mark.parametrize(
    ("number", "level", "action"),
    [
        (0, "pass", "none"),
        (1, "critical", "reset_gpu"),
        (2, "critical", "reboot"),
        (3, "warning", "drain"),
        (4, "critical", "drain"),
        (6, "critical", "reboot"),
        (7, "critical", "reboot"),
        (8, "critical", "inspect"),
    ],
)
def test_every_other_recovery_action_is_the_same_in_all_branches(number, level, action):
    wanted = recovery(number, "580.1")
    assert (wanted.level, wanted.action) == (level, action)
    assert wanted == recovery(number, "615.1") == recovery(number, None)
    assert ("unknown" in wanted.text) == (number == 8)
