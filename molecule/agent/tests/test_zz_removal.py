# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal under a running job; then what only bare nodes show: a package that is missing,
accounts that are there."""

from __future__ import annotations

import re

from playing import NODES, next_second, node, play, role, starts_since

testinfra_hosts = ["local://"]


def test_zz_uninstalled_the_node_is_as_before():
    for name in NODES:
        # Rotated logs are ours too; a file of another program in our directory is not.
        node(name).check_output(
            "logrotate --force --state /tmp/rotation.state /etc/logrotate.d/mlops-fleet; rm "
            "/tmp/rotation.state"
        )
        # A backup is running (it waits for its turn), and files of the accounts are left in a
        # directory of ours.
        node(name).check_output(
            "systemd-run --unit=holder flock /run/lock/mlops-fleet/jobs.lock sleep 600; sleep "
            "1; systemctl start --no-block ml-backup.service;"
            " install -o mlops-fleet -g mlops-fleet /dev/null /backup/models/kept"
        )
    node("node12").check_output("touch /opt/mlops-fleet/not-ours")
    moment = next_second()
    done = play("mlops.fleet.uninstall")
    assert done.returncode == 0, done.stdout
    for name in NODES:
        assert starts_since(node(name), moment) == []
        node(name).check_output("systemctl stop holder.service")
        assert (
            node(name).check_output("systemctl list-units --all --no-legend 'ml-*' 'gpu-*'") == ""
        )
        kept = "stat --format='%U:%G %a' /backup /backup/models /backup/models/kept"
        assert node(name).check_output(kept).splitlines() == [
            "root:root 755",
            "root:root 750",
            "root:root 755",
        ]
        assert node(name).run("find / -xdev '(' -nouser -o -nogroup ')'").stdout == ""
        node(name).check_output("rm -r /backup/models")
    remaining = node("node12").check_output("find /opt/mlops-fleet/")
    assert remaining == "/opt/mlops-fleet/\n/opt/mlops-fleet/not-ours"
    node("node12").check_output("rm /opt/mlops-fleet/not-ours")
    again = play("mlops.fleet.uninstall")
    assert again.returncode == 0, again.stdout
    assert re.search(r"node13 .* changed=0 ", again.words.partition("RECAP")[2])
    for name in NODES:
        host = node(name)
        difference = host.run("/root/list_files.sh | diff /root/before -").stdout
        assert difference == "", f"{name}:\n{difference}"
        assert host.run("getent passwd mlops-fleet || getent group mlops-fleet").rc != 0
        assert host.run("ls /srv/ml/backups/models_backup_*.tar.gz").rc == 0, "backups stay"


#: Takes psutil from the node and leaves it in a repository of its own, the only one that there is.
LOCAL_REPOSITORY = """
set -e
umask 022
mkdir -p /srv/repository/psutil/DEBIAN
cd /srv/repository
dpkg-query --listfiles python3-psutil | while read -r path; do
    [ -f "$path" ] || continue
    mkdir -p "psutil${path%/*}"
    cp -a "$path" "psutil$path"
done
dpkg-query --status python3-psutil | grep -v ^Status: > psutil/DEBIAN/control
dpkg-deb --build psutil psutil.deb
{
    dpkg-deb --field psutil.deb
    echo "Filename: ./psutil.deb"
    echo "Size: $(stat --format=%s psutil.deb)"
    echo "SHA256: $(sha256sum < psutil.deb | cut -d' ' -f1)"
} > Packages
dpkg --purge python3-psutil
rm -f /etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:/srv/repository ./" > /etc/apt/sources.list
"""


#: Its directory stays after a removal, so that an import alone proves nothing.
USE_PSUTIL = "/usr/bin/python3 -c 'import psutil; psutil.Process()'"


def test_zzz_a_missing_library_is_installed_as_a_package():
    """Together with the next test; after the removal, because packages stay."""
    node("node12").check_output("sh -c %s", LOCAL_REPOSITORY)
    assert node("node12").run(USE_PSUTIL).rc != 0


def test_zzz_accounts_and_directories_that_were_there_before_stay_as_they_are():
    own = {
        "agent_user": "mluser",
        "agent_group": "mlteam",
        "agent_backup_dir": "/srv/mine",
        "agent_config_dir": "/etc/my-fleet",
    }
    look = "getent passwd mluser; getent group; stat -c '%U %G %a' /srv/mine"
    before = {}
    for name in NODES:
        node(name).check_output(
            "useradd --create-home --comment Person --shell /bin/bash mluser; groupadd mlteam; "
            "install -d -o mluser -g mluser /srv/mine"
        )
        before[name] = node(name).check_output(look)
    for state in ("present", "absent"):
        done = role(agent_state=state, **own)
        assert done.returncode == 0, done.stdout
        for name in NODES:
            assert node(name).check_output(look) == before[name], state
            if state == "present":
                assert node(name).run(USE_PSUTIL).rc == 0
                assert node(name).run("dpkg-query --show python3-apt").rc != 0
                assert "can be used (/etc/my-fleet/config.json)" in node(name).check_output(
                    "mlfleet config --check"
                )
    for name in NODES:
        assert (
            not node(name).file("/etc/my-fleet").exists
            and not node(name).file("/usr/local/bin/mlfleet").exists
        )
        node(name).check_output("userdel --remove mluser; groupdel mlteam; rmdir /srv/mine")
