# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet gpu --history`` and ``--clear-xids``: what checks of this node remember."""

from __future__ import annotations

import time


def test_history_is_printed_and_xids_are_cleared(node, gpus):
    log = node.directory / "kern.log"
    log.write_text(
        f"{time.time() - 60:.6f} node kernel: NVRM: Xid (PCI:0000:18:00): 95, pid=1, name=x,"
        " Uncontained\n"
    )
    state = node.directory / "gpu.json"
    node.settings["gpu"] = {"log_source": str(log), "metrics_csv": None, "state_file": str(state)}
    env = gpus("h100x8")
    document = node.json("gpu", "--no-alert", env=env, check=2)
    assert document["gpus"][0]["history"]["codes"] == ["95"]
    text = node.run("gpu", "--history", check=0).stdout
    assert "Xid 95" in text and text.count("last seen at") == 8
    (first,) = [gpu for gpu in node.json("gpu", "--history", check=0)["gpus"] if gpu["incidents"]]
    for arguments in (("--history", "--dry-run"), ("--dry-run",)):
        assert "--dry-run" in node.run("gpu", *arguments, check=3).stderr
    rehearsal = node.run("gpu", "--clear-xids", first["uuid"], "--dry-run", check=0).stdout
    assert rehearsal == f"{first['uuid']}: would mark 1 incident as dealt with (Xid 95)\n"
    assert node.json("gpu", "--clear-xids", first["uuid"], check=0) == {
        "cleared": 1,
        "incidents": {first["uuid"]: ["95"]},
    }
    assert "Nothing to mark" in node.run("gpu", "--clear-xids", "all", check=0).stdout
    assert node.json("gpu", "--no-alert", env=env, check=0)["gpus"][0]["xids"][0]["level"] == "pass"
    assert "Known: GPU-" in node.run("gpu", "--clear-xids", "GPU-x", check=3).stderr
    del node.settings["gpu"]["state_file"]
    assert "no state_file is configured" in node.run("gpu", "--history", check=3).stderr
