# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of NVSwitches, the fabric manager, and the NVLink5 errors of GPUs by unit."""

from __future__ import annotations

import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import nvlink5, nvswitch, xid
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.kernel_log import Record

PLACE = "nvidia-nvswitch1: SXid (PCI:0000:84:00.0): "


def evaluate(*texts, overrides=None, when=1000.0):
    records = [Record(when, text) for text in texts]
    return [
        (check.subject, check.status, check.action)
        for check in nvswitch.evaluate(nvswitch.find(records), None, overrides)
    ]


@pytest.mark.parametrize(
    ("text", "status", "action"),
    [
        ("12028, Fatal, Link 07 egress nonposted PRIV error", "critical", "drain"),
        ("12028, Non-fatal, Link 32 egress non-posted PRIV error (First)", "warning", "inspect"),
        ("12028, Nonfatal, Link 32 x", "warning", "inspect"),
        ("20034, Fatal, Link 30 LTSSM Fault Up", "critical", "drain"),
        ("20034, Non-fatal, Link 30 LTSSM Fault Up", "warning", "inspect"),
        ("20034, Link 30 LTSSM Fault Up", "critical", "drain"),
        ("12020, Fatal, Link 46 egress sequence ID error", "critical", "reboot"),
        ("23005, Non-fatal, Link 1 ingress packet burst error", "critical", "reboot"),
        ("11021, Non-fatal, Link 1 ECC", "pass", "none"),
        ("11021, Fatal, Link 1 ECC", "critical", "drain"),
        ("20001, Non-fatal, Link 1 TX Replay Error", "pass", "none"),
        ("28006, Non-fatal, Link 46 MC TS crumbstore MCTO (First)", "warning", "inspect"),
        ("99999, Link 1 fatal for all", "warning", "inspect"),
        ("99999, Fatal", "critical", "drain"),
    ],
)
def test_levels_by_fatality_and_table(text, status, action):
    assert evaluate(PLACE + text) == [("NVSwitch 1", status, action)]
    assert evaluate("NVRM: " + PLACE + text) == [("NVSwitch 1", status, action)]


@pytest.mark.parametrize(
    ("level", "text", "expected"),
    [
        ("ignore", "12028, Fatal, x", ("pass", "none")),
        ("critical", "20001, Non-fatal, x", ("critical", "inspect")),
    ],
)
def test_the_users_level_has_the_last_word(level, text, expected):
    (found,) = evaluate(PLACE + text, overrides={text.partition(",")[0]: level})
    assert found[1:] == expected


def test_lines_of_details_and_bursts_are_one_error_of_each_switch():
    lines = [
        (100.0, PLACE + "22013, Non-fatal, Link 60 Minion Link DLREQ interrupt"),
        (100.0, PLACE + "22013, Severity 0 Engine instance 60 Sub-engine instance 00"),
        (100.1, PLACE + "22013, Data {0x0000003c, 0x0000003c}"),
        (101.0, PLACE + "20034, Fatal, Link 30 LTSSM Fault Up"),
        (102.0, PLACE + "20034, Non-fatal, Link 31 LTSSM Fault Up"),
        (900.0, PLACE + "20034, Fatal, Link 30 LTSSM Fault Up"),
        (900.0, PLACE.replace("1:", "2:", 1) + "11012, Non-fatal, Link 1 x"),
        (900.0, "NVRM: Xid (PCI:0000:84:00): 74, x"),
    ]
    records = [Record(when, text) for when, text in lines]
    first, second = nvswitch.evaluate(nvswitch.find(records), None)
    assert (first.status, first.value, first.message) == (
        "critical",
        3,
        (
            "NVSwitch 1: SXid 20034 (fatal, Link 30 LTSSM Fault Up) 2 times, "
            "SXid 22013 (nonfatal, Link 60 Minion Link DLREQ interrupt)"
        ),
    )
    assert (second.subject, second.status, second.domain) == ("NVSwitch 2", "pass", None)


def test_without_a_time_it_is_at_most_a_warning():
    assert evaluate(PLACE + "12028, Fatal, x", when=None) == [("NVSwitch 1", "warning", "drain")]
    assert not list(xid.find([Record(1.0, "NVRM: " + PLACE + "12028, Fatal")])), "no error of a GPU"


def test_a_node_with_a_fatal_switch_error(node, check):
    log = node.log(f"{1_799_999_000.0} node kernel: {PLACE}12028, Fatal, Link 07 PRIV error")
    document = node.gpus("h100x8").run(log_source=log)
    found = check(document, "gpu_sxid")
    assert (found["status"], found["subject"], document["exit_code"]) == (
        "critical",
        "NVSwitch 1",
        2,
    )
    assert all(gpu["xids"] == [] for gpu in document["gpus"])


# --- the fabric manager -----------------------------------------------------------------------


def fabric(node, running=True, log=""):
    (node.root / "proc/driver/nvidia-nvswitch/devices/0000:84:00.0").mkdir(parents=True)
    if running:
        (node.root / "proc/77").mkdir()
        (node.root / "proc/77/comm").write_text("nv-fabricmanage\n")
    else:
        program = node.bin / "systemctl"
        program.write_text("#!/bin/sh\necho failed\nexit 3\n")
        program.chmod(0o755)
    (node.root / "var/log").mkdir(parents=True)
    (node.root / "var/log/fabricmanager.log").write_text(log)
    return node.gpus("h100x8").run()


def test_the_fabric_manager_runs(node, check):
    found = check(fabric(node), "gpu_fabric_manager")
    assert (found["status"], found["message"]) == ("pass", "the fabric manager runs (1 NVSwitch)")


def test_the_fabric_manager_does_not_run(node, check):
    found = check(fabric(node, running=False), "gpu_fabric_manager")
    assert (found["status"], found["action"]) == ("critical", "inspect")
    assert "1 NVSwitch, but the fabric manager is failed" in found["message"]


def test_errors_in_the_log_of_the_fabric_manager(node, check):
    def stamp(ago):
        return time.strftime("%b %d %Y %H:%M:%S", time.localtime(1_800_000_000.0 - ago))

    log = (
        f"[{stamp(3 * 86400)}] [ERROR] [tid 7] too old\n[{stamp(60)}] [INFO] [tid 7] fine\n"
        f"[{stamp(60)}] [ERROR] [tid 7] failed to train link 3\n[garbage] [ERROR] x\n"
    )
    found = check(fabric(node, log=log), "gpu_fabric_manager")
    assert (found["status"], found["value"]) == ("warning", 1)
    assert found["message"].endswith("the last: failed to train link 3")


def test_a_node_without_switches_has_no_fabric_manager(node):
    names = {entry["check"] for entry in node.gpus("h100x8").run()["checks"]}
    assert not names & {"gpu_sxid", "gpu_fabric_manager"}


# --- NVLink5 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text", "level", "meaning"),
    [
        (145, "RLW_REMAP Nonfatal XC0 i0 Link 03 (0x4 0x1 0x0)", "warning", "nonfatal NVLink5 error of address remapping (RLW_REMAP) on link 3"),
        (145, "RLW_REMAP Nonfatal XC0 i0 Link 03 (0x4 0x00000040 0x0)", "critical", "fatal NVLink5 error of address remapping (RLW_REMAP) on link 3"),
        (149, "NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x0)", "critical", "fatal NVLink5 error of link event (NETIR_LINK_EVT) on link 8"),
        (149, "NETIR_MFDE_EVENT Nonfatal XC0 i0 Link 08 (0x1 0x00000003)", "warning", "nonfatal NVLink5 error of link firmware (NETIR_MFDE_EVENT) on link 8"),
        (149, "NETIR_MFDE_EVENT Nonfatal XC0 i0 Link 08 (0x1 0x00000005)", "critical", "fatal NVLink5 error of link firmware (NETIR_MFDE_EVENT) on link 8"),
        (150, "MSE_WATCHDOG (0x0 0x0)", "critical", "fatal NVLink5 error of link microcontroller watchdog (MSE_WATCHDOG)"),
        (144, "SAW_MVB Nonfatal XC0 i0 Link 0 (0x1 0x8)", "warning", "nonfatal NVLink5 error of message and virtual buffer (SAW_MVB) on link 0"),
        (147, "TREX Nonfatal, a fatal one came before", "warning", "nonfatal NVLink5 error of traffic generator (TREX)"),
        (147, "NEW_UNIT Fatal XC0", "critical", "fatal NVLink5 error of NEW_UNIT"),
        (147, "recovered from a fatal state", "warning", "NVLink5 error"),
        (148, ", pid=7, name=x, RLW_CTRL Nonfatal XC0 i0 Link 01 (0x1)", "warning", "nonfatal NVLink5 error of link wrapper control (RLW_CTRL) on link 1"),
    ],
)  # fmt: skip
def test_nvlink5_errors_by_unit_and_severity(code, text, level, meaning):
    found = nvlink5.meaning(xid.CATALOG[str(code)], text)
    assert (found.level, found.text) == (level, meaning)
    assert found.action == ("reset_gpu" if level == "critical" else "inspect")
