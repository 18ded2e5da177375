# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks over several hosts, real modules, real files; what they leave is read with other
tools.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess

import pytest


def archives(home: pathlib.Path) -> list[pathlib.Path]:
    return sorted((home / "backups").glob("models_backup_*.tar.gz"))


def listing(directory: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_two_good_hosts_and_one_that_is_gone(fleet):
    homes = [fleet.host("n1"), fleet.host("n2")]
    fleet.gone()
    run = fleet.run()
    assert run.rc != 0, run
    report = fleet.report()
    assert {entry["host"]: entry["status"] for entry in report["hosts"]} | {
        "gone": "unreachable"
    } == {entry["host"]: entry["status"] for entry in report["hosts"]}
    assert report["failed_hosts"] == ["gone"] and report["summary"]["backups_verified"] == 2
    assert (
        run.recap["gone"]["failed"] == 1
        and run.recap["n1"]["failed"] == run.recap["n2"]["failed"] == 0
    )
    for home in homes:
        (archive,) = archives(home)
        listed = subprocess.run(
            ["tar", "-tzf", archive], capture_output=True, text=True, check=True
        ).stdout
        assert "weights.bin" in listed
        subprocess.run(
            ["sha256sum", "--check", "--quiet", f"{archive.name}.sha256"],
            cwd=archive.parent,
            check=True,
        )
        assert (
            not (home / "experiments" / "old").exists() and (home / "experiments" / "new").exists()
        )
    page = (fleet.reports / "latest.html").read_text()
    assert (
        all(name in page for name in ("n1", "n2", "gone"))
        and "http://" not in page
        and "https://" not in page
    )
    assert "HOST" in run.out and "gone: health unreachable" in run.out
    assert "gone needs attention: health unreachable" in run.out and "n1 needs" not in run.out
    assert (fleet.reports / "latest.json").stat().st_mode & 0o007 == 0

    again = fleet.run()
    assert all(again.recap[host]["changed"] == 0 for host in ("n1", "n2")), again


def test_cleanup_never_follows_a_failed_backup(fleet):
    good, bad = fleet.host("good"), fleet.host("bad", maintenance_continue_on_error=True)
    for path in sorted((bad / "models").iterdir()):
        path.unlink()
    (bad / "models").rmdir()
    run = fleet.run()
    assert run.rc != 0
    found = fleet.phases("bad")
    assert (
        found["backup"]["status"] == "failed" and str(bad / "models") in found["backup"]["message"]
    )
    assert found["cleanup"]["status"] == "skipped" and (bad / "experiments" / "old").exists()
    assert fleet.report()["failed_hosts"] == ["bad"] and not (good / "experiments" / "old").exists()


def test_a_failed_phase_stops_the_later_ones_unless_told_otherwise(fleet):
    for name, go_on in (("stops", False), ("goes", True)):
        fleet.host(
            name,
            maintenance_continue_on_error=go_on,
            maintenance_health_services=["not a service name"],
            maintenance_health_checks=None,
        )
    assert fleet.run().rc != 0
    assert [one["status"] for one in fleet.phases("stops").values()] == [
        "failed",
        "skipped",
        "skipped",
        "skipped",
    ]
    assert "health failed" in fleet.phases("stops")["backup"]["message"]
    assert (
        fleet.phases("goes")["backup"]["status"] == "pass"
        and fleet.phases("goes")["cleanup"]["status"] == "pass"
    )


def test_none_reachable_is_an_error_with_a_report(fleet):
    fleet.gone("a")
    fleet.gone("b")
    run = fleet.run()
    assert run.rc != 0 and "None of the 2 targeted hosts could be reached." in run.out
    assert fleet.report()["errors"] and fleet.report()["exit_code"] == 2


def test_no_host_matched_is_an_error(fleet):
    fleet.host("n1")
    for arguments in (
        ["-e", "maintenance_hosts=nobody"],
        ["-e", "maintenance_hosts=gpu", "--limit", "n1"],
    ):
        run = fleet.run("maintenance", *arguments)
        assert run.rc != 0 and "No host matched" in run.out, run


def test_an_empty_inventory_is_an_error(fleet):
    run = fleet.run()
    assert run.rc != 0 and "No host matched" in run.out, run


def test_check_mode_on_a_virgin_node_is_clean_and_changes_nothing(fleet):
    home = fleet.host("n1")
    fleet.host("empty", models=False)
    before = listing(home)
    run = fleet.run("maintenance", "--check", "--diff")
    assert run.rc == 0, run
    assert (
        listing(home) == before
        and not fleet.reports.exists()
        and not (fleet.directory / "empty").exists()
    )
    assert "would fail" in run.out  # the host without models is told what a real run would say


def test_limit_reports_only_the_hosts_of_the_limit(fleet):
    fleet.host("n1")
    fleet.host("n2")
    assert fleet.run("maintenance", "--limit", "n2").rc == 0
    assert [entry["host"] for entry in fleet.report()["hosts"]] == ["n2"]


def test_phases_can_be_switched_off(fleet):
    home = fleet.host("n1", maintenance_run_backup=False, maintenance_run_gpu=False)
    assert fleet.run().rc == 0
    found = fleet.phases("n1")
    assert found["backup"]["message"] == found["gpu"]["message"] == "switched off"
    # The user switched the backup off, so cleanup may run.
    assert not (home / "experiments" / "old").exists() and not (home / "backups").exists()


def test_phases_can_be_left_out_by_tags(fleet):
    home = fleet.host("n1")
    run = fleet.run("maintenance", "--tags", "health,cleanup")
    assert run.rc == 0 and "left out by tags: gpu, backup" in run.out, run
    assert (
        list(fleet.phases("n1")) == ["health", "cleanup"]
        and not (home / "experiments" / "old").exists()
    )
    run = fleet.run("maintenance", "--skip-tags", "cleanup,gpu")
    assert run.rc == 0 and list(fleet.phases("n1")) == ["health", "backup"], run
    run = fleet.run("maintenance", "--tags", "helth")
    assert run.rc != 0 and "No phase ran" in run.out, run


def test_one_phase_playbooks(fleet):
    home = fleet.host("n1")
    assert fleet.run("backup").rc == 0
    assert len(archives(home)) == 1 and (home / "experiments" / "old").exists()
    assert list(fleet.phases("n1")) == ["backup"]
    run = fleet.run("verify_backups")
    assert run.rc == 0 and "1 backup verified" in run.out, run
    scratch = fleet.directory / "scratch"
    scratch.mkdir()
    run = fleet.run("restore_drill", "-e", json.dumps({"restore_drill_scratch": str(scratch)}))
    assert run.rc == 0 and archives(home)[0].name in run.out and not list(scratch.iterdir()), run
    restored = fleet.directory / "restored"
    run = fleet.run("restore", "-e", json.dumps({"restore_destination": str(restored)}))
    assert run.rc == 0, run
    assert subprocess.run(["diff", "-r", home / "models", restored], check=False).returncode == 0
    assert fleet.run("restore").rc != 0

    for playbook, variable in (
        ("restore", "restore_s3"),
        ("verify_backups", "verify_backups_s3"),
        ("restore_drill", "restore_drill_s3"),
    ):
        away = {
            variable: {
                "bucket": "models",
                "endpoint_url": "http://127.0.0.1:9",
                "access_key": "a",
                "secret_key": "b",
            }
        }
        run = fleet.run(
            playbook,
            "-e",
            json.dumps({"restore_destination": str(fleet.directory / "new"), **away}),
        )
        assert run.rc != 0 and "s3://models/" in run.out, run

    archive = archives(home)[0]
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    run = fleet.run("verify_backups")
    assert run.rc != 0 and archive.name in run.out, run
    run = fleet.run("restore_drill", "-e", json.dumps({"restore_drill_scratch": str(scratch)}))
    assert run.rc != 0 and archive.name in run.out and not list(scratch.iterdir()), run


def test_the_brake_holds_back_the_rest_of_the_fleet(fleet):
    fleet.host("a", models=False)
    homes = [fleet.host("b"), fleet.host("c")]
    run = fleet.run(
        "maintenance", "-e", "maintenance_serial=1", "-e", "maintenance_max_fail_percentage=20"
    )
    assert run.rc != 0
    report = fleet.report()
    assert {entry["host"]: entry["status"] for entry in report["hosts"]} == {
        "a": "failed",
        "b": "held",
        "c": "held",
    }
    assert not any(archives(home) for home in homes) and "1 of 1 hosts failed" in run.out


def test_groups_one_after_the_other_and_a_brake_for_each(fleet):
    only = {"maintenance_run_backup": False, "maintenance_run_cleanup": False}
    broken = {"maintenance_health_services": ["no name"], "maintenance_health_checks": None}
    for name in ("a1", "a2", "b1", "b2", "other", "first"):
        fleet.host(name, models=False, **only, **(broken if name == "a1" else {}))
    fleet.groups = {"canary": ["first"], "rack_a": ["a1", "a2"], "rack_b": ["b1", "b2"]}
    rollout = {
        "maintenance_canary": "canary",
        "maintenance_batches": "rack_a, rack_b",
        "maintenance_brake_groups": "rack_a,rack_b",
        "maintenance_max_fail_percentage": 20,
        "maintenance_run_gpu": False,
    }
    run = fleet.run("maintenance", "-e", json.dumps({**rollout, "maintenance_serial": 1}))
    states = {entry["host"]: entry["status"] for entry in fleet.report()["hosts"]}
    assert run.rc == 2 and states.pop("a1") == "failed" and states.pop("a2") == "held", run
    assert not {"held", "failed"} & set(states.values()) and len(states) == 4
    assert "1 of 1 hosts of the group rack_a failed" in run.out, run

    fleet.hosts["first"].update(broken)
    run = fleet.run("maintenance", "-e", json.dumps(rollout), "--limit", "first,b1,other")
    states = {entry["host"]: entry["status"] for entry in fleet.report()["hosts"]}
    assert states == {"first": "failed", "b1": "held", "other": "held"}, run
    assert run.out.count("PLAY [Maintain the nodes]") == 3, run


def play(fleet, *tasks, **keywords):
    """Write a playbook of the test's own; return its path."""
    path = fleet.directory / "mine.yml"
    common = {"hosts": "fleet", "gather_facts": False, "ignore_unreachable": True}
    path.write_text(json.dumps([{**common, "tasks": list(tasks), **keywords}]))
    return str(path)


ROLE = {"ansible.builtin.import_role": {"name": "mlops.fleet.maintenance"}}
SHOW_CHECKS = {
    "ansible.builtin.debug": {
        "msg": (
            "CHECKS {{ maintenance_result_health.checks | map(attribute='check') | unique | sort }}"
        )
    },
    "tags": ["always"],
}


def test_module_defaults_reach_the_phases(fleet):
    home = fleet.host("n1", maintenance_health_checks=None, maintenance_run_cleanup=False)
    defaults = {
        "mlops.fleet.model_backup": {"force": True},
        "mlops.fleet.node_health": {"checks": ["{{ 'memory' }}"]},
        "group/mlops.fleet.s3": {"source": "/never-used"},
    }
    playbook = play(fleet, ROLE, SHOW_CHECKS, module_defaults=[defaults])
    for count in (1, 2):
        run = fleet.run(playbook)
        assert run.rc == 0 and len(archives(home)) == count, run
        checks = run.out.partition("CHECKS ")[2].partition("]")[0]
        assert "'memory_usage'" in checks and "'disk_usage'" not in checks, run


def test_answers_of_a_survey_are_text(fleet):
    home = fleet.host("n1", maintenance_health_checks='["memory"]')
    answers = {
        "maintenance_gpu_expected_count": "",
        "maintenance_gpu_temperature_warning": "",
        "maintenance_health_disk_warning": "75",
        "maintenance_health_network": "false",
        "maintenance_backup_s3": "",
        "maintenance_backup_keep_last": "3",
        "maintenance_run_gpu": "",
        "maintenance_run_cleanup": "no",
        "maintenance_backup_throttle": "",
        "maintenance_max_fail_percentage": "",
        "maintenance_continue_on_error": "",
    }
    for playbook in ("maintenance", play(fleet, ROLE)):  # the role with Ansible's validation too
        run = fleet.run(playbook, "-e", json.dumps(answers))
        assert run.rc == 0, run
    assert archives(home) and (home / "experiments" / "old").exists()
    run = fleet.run("maintenance", "-e", json.dumps({"maintenance_gpu_expected_count": "many"}))
    assert run.rc != 0 and "The variable maintenance_gpu_expected_count can't be used" in run.out


def test_the_gpus_are_checked_in_one_phase(fleet):
    fleet.host("n1", maintenance_health_checks=None, maintenance_run_backup=False)
    playbook = play(fleet, ROLE, SHOW_CHECKS)
    run = fleet.run(playbook)
    assert run.rc == 0 and "'gpu'" in run.out and "'gpu_driver'" not in run.out, run
    for arguments in (
        ["--tags", "health"],
        ["--skip-tags", "gpu"],
        ["-e", "maintenance_run_gpu=false"],
        ["-e", "maintenance_health_gpu=true"],
    ):
        run = fleet.run(playbook, *arguments)
        assert run.rc == 0 and "'gpu'" not in run.out and "'gpu_driver'" in run.out, run


def test_a_phase_runs_asynchronously_and_shows_no_secret(fleet):
    home = fleet.host("n1")
    secret = {
        "maintenance_backup_s3": {
            "bucket": "models",
            "endpoint_url": "http://127.0.0.1:9",
            "access_key": "a",
            "secret_key": "canary-secret",
        }
    }
    backup = {"mlops.fleet.maintenance_phase": {"phase": "backup"}, "async": 60, "poll": 1}
    show = {"ansible.builtin.debug": {"msg": "MADE {{ made.backup.verified }}"}}
    run = fleet.run(play(fleet, {**backup, "register": "made"}, show))
    assert run.rc == 0 and "MADE True" in run.out and len(archives(home)) == 1, run
    for mode in ([], ["--check", "--diff"]):
        run = fleet.run("maintenance", "-vvv", "-e", json.dumps(secret), *mode)
        assert "127.0.0.1:9" in run.out and run.out.count("canary-secret") == 0, mode


def test_the_second_run_says_what_changed_and_sends_one_alert(fleet):
    sent = fleet.directory / "sent"
    handler = {"command": ["/bin/sh", "-c", f"echo x >> {sent}"]}
    homes = [fleet.host(name, fleet_report_alert=handler) for name in ("n1", "n2")]
    first = fleet.run("backup")
    assert first.rc == 0 and not sent.exists(), first
    good = fleet.report()["timestamp"]
    for home in homes:
        (home / "models" / "weights.bin").unlink()
        (home / "models").rmdir()
    run = fleet.run("backup", "--diff")
    changes = fleet.report()["changes"]
    assert [fault["check"] for fault in changes["new"]] == ["backup_failed"] * 2, run
    assert "+ n1 backup_failed failed:" in run.out and "+ n2 backup_failed" in run.out
    assert sent.read_text() == "x\n", run
    assert "2 new" in (fleet.reports / "latest.md").read_text()
    again = fleet.run("backup")
    assert [entry["backed_up"] for entry in fleet.report()["hosts"]] == [good, good]
    assert fleet.report()["changes"]["unchanged"] == 2 and sent.read_text() == "x\n", again


def test_the_history_is_kept_in_a_git_repository(fleet):
    home = fleet.host("n1")
    repository = fleet.directory / "reports.git"
    git = ["git", "-C", str(repository)]
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", repository], check=True)
    sent = fleet.directory / "sent"
    alert = {"command": ["/bin/sh", "-c", f"echo x >> {sent}"]}
    common = {"fleet_report_alert": alert, "fleet_report_alert_when": "always"}

    def run(place, **more):
        variables = {**common, "fleet_report_history": place, **more}
        return fleet.run("backup", "-e", json.dumps(variables))

    assert run(f"git+{repository}", fleet_report_dir="").rc == 0
    (home / "models" / "weights.bin").unlink()
    (home / "models").rmdir()
    failed = run(f"git+{repository}")
    assert failed.rc == 2 and ": 1 new\n" in failed.out, failed
    assert fleet.report()["changes"]["new"][0]["host"] == "n1" and len(fleet.report()["trend"]) == 1
    log = subprocess.run([*git, "log", "--format=%s"], capture_output=True, text=True, check=True)
    assert log.stdout.count("Add the run") == 2 and len(sent.read_text().split()) == 2

    away = run(f"git+http://u:canary-9d@127.0.0.1:9/{repository.name}")
    assert away.rc == 2 and "127.0.0.1:9" in away.out and "canary-9d" not in away.out, away
    assert "Report: " in away.out and len(list(fleet.reports.glob("m*.html"))) == 2
    assert len(sent.read_text().split()) == 3


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs root, to mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_each_trouble_is_named_once_and_the_others_are_maintained(fleet, small_disk):
    homes = [fleet.host("n1"), fleet.host("n2")]
    fleet.host("full", maintenance_backup_dir=str(small_disk))
    fleet.host("misread", maintenance_model_dir=str(fleet.directory / "missing"))
    fleet.gone()
    run = fleet.run()
    assert run.rc == 2 and fleet.report()["failed_hosts"] == ["full", "misread", "gone"], run
    assert all(archives(home) and not (home / "experiments" / "old").exists() for home in homes)
    causes = {cause["check"]: cause["hosts"] for cause in fleet.report()["causes"][:1]}
    assert causes == {"unreachable": ["gone"]} and len(fleet.report()["causes"]) == 3
    titles = {cause["hosts"][0]: cause["title"] for cause in fleet.report()["causes"]}
    assert "space" in titles["full"] and "missing" in titles["misread"]
    assert (
        fleet.directory / "full" / "experiments" / "old"
    ).exists()  # no cleanup without a backup
    assert sorted(path.name for path in small_disk.iterdir() if path.suffix != ".lock") == []

    again = fleet.run()
    assert again.rc == 2 and fleet.report()["changes"]["unchanged"] == 3, again
    assert not any(counts["changed"] for counts in again.recap.values()), again
