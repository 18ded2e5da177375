# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A night over thirteen hosts, of which six have troubles: the others are maintained, and each
trouble is reported once.
"""

from __future__ import annotations

import json
import sys

import pytest
from conftest import BIN, ROOT, command

GOOD = [f"n{number}" for number in range(1, 8)]
TROUBLED = {"hanging": "", "dead": ",full", "disk": ",full", "gpu": "", "full": ",full"}
#: Trouble of a host: what its phases must say, by phase, and the text of the cause.
TROUBLES = {
    "gone": ("health", "unreachable", ""),
    "hanging": ("health", "unreachable", "hangs"),
    "dead": ("backup", "failed", "did not end within"),
    "disk": ("backup", "failed", "Input/output error"),
    "gpu": ("gpu", "critical", "fallen off"),
    "full": ("backup", "failed", "space"),
}
VARIABLES = {
    "maintenance_model_dir": "/srv/ml/models",
    "maintenance_backup_dir": "/srv/ml/backups",
    "maintenance_health_checks": ["memory", "disk", "services"],
    "maintenance_health_services": ["ssh", "cron"],
    "maintenance_continue_on_error": True,
    "maintenance_cleanup_targets": [
        {
            "name": "experiments",
            "path": "/srv/ml/experiments",
            "retention_days": 30,
            "age_by": "mtime",
        }
    ],
    "maintenance_health_time_limit": 120,
    "maintenance_gpu_time_limit": 120,
    "maintenance_backup_time_limit": 120,
    "maintenance_cleanup_time_limit": 120,
}
NOBODY = "-F /dev/null -o ConnectTimeout=3 -o BatchMode=yes"
HOSTS = {
    **{name: {} for name in GOOD},
    "hanging": {"maintenance_health_time_limit": 5},
    "dead": {"maintenance_model_dir": "/srv/dead/models", "maintenance_backup_time_limit": 5},
    "disk": {"maintenance_model_dir": "/srv/broken"},
    "gpu": {"maintenance_gpu_expected_count": 2, "maintenance_gpu_log_source": "none"},
    "full": {},
    "gone": {"ansible_host": "10.88.255.254", "ansible_ssh_common_args": NOBODY},
}


def break_nodes(fleet) -> None:
    for name in fleet.names:
        fleet.copy(ROOT / "scripts/sample.py", name, "/root/sample.py")
        fleet.on(name, "python3 /root/sample.py /srv/ml && mkdir -p /srv/ml/backups")
    fleet.on("full", "mount -t tmpfs -o size=200k tmpfs /srv/ml/backups")
    dead = ROOT / "tests/system/plugins/module_utils/_core/node/dead_fuse.py"
    serve = "mkdir -p {1} && (setsid python3 /root/{0} >/root/fuse.log 2>&1 </dev/null &) && "
    serve += "until grep {1} /proc/mounts; do sleep 0.1; done"
    fleet.copy(dead, "dead", "/root/dead.py")
    fleet.on("dead", serve.format("dead.py pending+everybody /srv/dead sleep 9999", "/srv/dead"))
    fleet.copy(ROOT / "tests/fleet/failing_fuse.py", "disk", "/root/failing.py")
    fleet.on("disk", serve.format("failing.py /srv/broken", "/srv/broken"))
    library = fleet.directory / "libnvidia-ml.so.1"
    command("make", "--silent", "-C", ROOT / "tests/nvml_double", f"OUTPUT={library}")
    fleet.on("gpu", "mkdir -p /usr/local/lib/nvml-double /etc/nvml-double")
    fleet.copy(library, "gpu", "/usr/local/lib/nvml-double/")
    lost = ROOT / "tests/nvml_double/scenarios/lost.ini"
    fleet.copy(lost, "gpu", "/etc/nvml-double/scenario.ini")
    pynvml = command(sys.executable, "-c", "import pynvml; print(pynvml.__file__)").stdout.strip()
    fleet.copy(pynvml, "gpu", "/usr/lib/python3/dist-packages/pynvml.py")
    fleet.on("gpu", "echo /usr/local/lib/nvml-double > /etc/ld.so.conf.d/double.conf; ldconfig")


def stop_sshd(fleet, inventory) -> None:
    """Let a connection be made and kept open; then its sshd stands still."""
    argv = [BIN / "ansible", "-i", inventory, "hanging", "-m", "ansible.builtin.raw", "-a", "true"]
    command(*argv, env=fleet.environment, cwd=fleet.directory)
    fleet.on("hanging", "pkill -STOP -x sshd")


@pytest.fixture(scope="module")
def inventory(fleet):
    """The broken nodes: twelve, and an address where nobody answers."""
    fleet.up(
        {**dict.fromkeys(GOOD, "bookworm"), **{n: f"bookworm{f}" for n, f in TROUBLED.items()}}
    )
    break_nodes(fleet)
    path = fleet.directory / "hosts.json"
    fleet.inventory(path, {**VARIABLES, "fleet_report_dir": str(fleet.reports)}, HOSTS)
    return path


def check_report(report) -> None:
    hosts = {entry["host"]: entry for entry in report["hosts"]}
    assert set(hosts) == set(HOSTS) and report["exit_code"] == 2
    assert set(report["failed_hosts"]) == set(TROUBLES)
    for name in GOOD:
        phases = {phase["phase"]: phase["status"] for phase in hosts[name]["phases"]}
        assert phases["health"] in ("pass", "warning") and phases["gpu"] == "skipped", hosts[name]
        assert phases["backup"] == phases["cleanup"] == "pass", hosts[name]
        assert hosts[name]["backup"]["verified"] is True
    for name, (phase_name, status, text) in TROUBLES.items():
        (phase,) = (entry for entry in hosts[name]["phases"] if entry["phase"] == phase_name)
        assert phase["status"] == status and text in phase["message"], hosts[name]
        causes = [c for c in report["causes"] if name in c["hosts"] and c["status"] != "warning"]
        assert len(causes) == 1, (name, causes)
    (cause,) = (c for c in report["causes"] if c["hosts"] == ["dead"])
    assert cause["check"] == "mount_responds" and "backup" in cause["title"], cause
    assert hosts["gpu"]["phases"][2]["status"] == "pass"  # its models are backed up all the same


def check_nodes(fleet) -> None:
    """Look at the nodes themselves."""
    count = "ls /srv/ml/backups/models_backup_*.tar.gz | wc -l; ls /srv/ml/experiments"
    for name in [*GOOD, "gpu"]:
        archives, *experiments = fleet.on(name, count).split()
        assert archives == "1" and experiments and "old" not in " ".join(experiments), name
    remains = "ls -A /srv/ml/backups | grep -v lock; pgrep -fa '[A]nsiballZ'"
    for name in ("dead", "disk", "full"):
        left = fleet.on(name, remains, check=False)
        assert left == "", (name, left)


def test_the_others_are_maintained_and_each_trouble_is_reported_once(fleet, inventory):
    try:
        stop_sshd(fleet, inventory)
        first = fleet.run(inventory, "mlops.fleet.maintenance")
        assert first.rc == 2, first
        check_report(fleet.report())
        check_nodes(fleet)
        assert all(first.changed[name] >= 2 for name in GOOD), first
        for name in HOSTS:
            needs_attention = f"{name} needs attention" in first.out
            assert needs_attention == (name in TROUBLES), first

        second = fleet.run_as_awx(inventory, "mlops.fleet.maintenance")
        assert second.rc == 2 and not any(second.changed.values()), second
        check_report(fleet.report())
        assert fleet.report()["changes"]["unchanged"] >= len(TROUBLES), second
        assert not fleet.report()["changes"]["new"], second
        assert set(second.artifact["failed_hosts"]) == set(TROUBLES), second
        assert second.artifact["exit_code"] == 2 and second.artifact["changes"]["new"] == 0
        assert json.loads(json.dumps(second.artifact))["run"]["hosts"]
        check_nodes(fleet)
    finally:
        fleet.on("hanging", "pkill -CONT -x sshd", False)
