# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node command with one archive per model, and with links out of the source."""

from __future__ import annotations

import json


def test_a_set_is_made_listed_verified_and_one_model_of_it_restored(node):
    for model in ("bert", "llama"):
        (node.directory / "many" / model).mkdir(parents=True)
        (node.directory / "many" / model / "weights").write_text(model)
    (node.directory / "many" / "current").symlink_to("/mnt/big")
    environment = {
        "MODEL_DIR": str(node.directory / "many"),
        "BACKUP_DIR": str(node.directory / "b"),
    }
    made = node.run("backup", "--layout", "per_model", env=environment, check=0)
    assert "models_backup_" in made.stdout and ".set.json (2 files" in made.stdout
    assert "links out of the source" in made.stdout and "current -> /mnt/big" in made.stdout
    listed = node.run("backups", "--json", env=environment, check=0)
    (backup,) = json.loads(listed.stdout)["backups"]
    assert backup["layout"] == "per_model" and len(backup["archives"]) == 3
    node.run("verify", backup["path"], env=environment, check=0)
    back = str(node.directory / "back")
    node.run("restore", back, "--model", "llama", env=environment, check=0)
    assert (node.directory / "back" / "llama" / "weights").read_text() == "llama"
    assert not (node.directory / "back" / "bert").exists()
    report = json.loads(
        node.run("maintenance", "--skip-health", "--skip-gpu", "--json", env=environment).stdout
    )
    phases = {phase["phase"]: phase for phase in report["hosts"][0]["phases"]}
    assert phases["backup"]["status"] == "warning"
    assert "current -> /mnt/big" in phases["backup"]["message"]
