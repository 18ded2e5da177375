# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the run left on the nodes, checked with tools that are not ours."""

from __future__ import annotations

testinfra_hosts = ["reachable"]

BACKUPS = "/srv/ml/backups"


def backups(host):
    """The paths of the archives on a node, oldest first."""
    return host.check_output(f"ls -1 {BACKUPS}/models_backup_*.tar.gz").split()


def test_one_backup_exists_and_its_name_tells_the_time(host):
    """Two runs over unchanged models leave one archive."""
    found = backups(host)
    assert len(found) == 1
    assert (
        host.run(
            f"echo {found[0]} | grep -Eq '/models_backup_[0-9]{{8}}_[0-9]{{6}}\\.tar\\.gz$'"
        ).rc
        == 0
    )


def test_coreutils_agrees_with_the_checksum(host):
    for path in backups(host):
        assert host.file(path + ".sha256").exists
        done = host.run(f"cd {BACKUPS} && sha256sum --check --strict {path}.sha256")
        assert done.rc == 0, done.stdout + done.stderr


def test_tar_and_diff_find_every_model_unchanged(host):
    for path in backups(host):
        host.check_output(f"gzip --test {path}")
        done = host.run(
            f"rm -rf /tmp/back && mkdir /tmp/back && tar -xzf {path} -C /tmp/back && ls -A"
            " /tmp/back"
        )
        assert done.rc == 0, done.stderr
        top = done.stdout.split()
        root = f"/tmp/back/{top[0]}" if top == ["models"] else "/tmp/back"
        same = host.run(f"diff --recursive {root} /srv/ml/models")
        assert same.rc == 0, same.stdout
        assert host.file(f"{root}/llama-small/model-00002-of-00003.safetensors").exists


def test_no_unfinished_file_is_left(host):
    assert (
        host.check_output(f"find {BACKUPS} -name '*.part*' -o -name '*.tmp*' -o -name '*.partial*'")
        == ""
    )


def test_old_things_are_gone_and_fresh_ones_stay(host):
    kept = host.check_output("ls /srv/ml/experiments").split()
    assert kept == ["exp-001-lr-sweep", "exp-002-lr-sweep", "exp-003-lr-sweep"]
    kept = host.check_output("ls /srv/ml/checkpoints").split()
    assert kept == ["llama-small-step-03000", "llama-small-step-04000", "llama-small-step-05000"]


def test_models_were_not_touched(host):
    assert host.check_output("ls /srv/ml/models").split() == ["bert-classifier", "llama-small"]


def test_nothing_is_open_to_everybody(host):
    """What the run wrote is for its owner and group only."""
    places = f"{BACKUPS} /var/lib/mlops-fleet /var/log/mlops-fleet"
    found = host.run(
        f"find {places} /var/log -maxdepth 3 \\( -path '/srv/ml/*' -o -name '*mlops*' -o -name"
        " 'ml-*' \\) -perm /o=rwx 2>/dev/null"
    )
    assert found.stdout == ""


def test_the_node_is_still_well(host):
    assert host.check_output("systemctl is-system-running") == "running"
