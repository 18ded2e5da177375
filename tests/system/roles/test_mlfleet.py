# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node command, installed as the role installs it and started as timers and people start it."""

from __future__ import annotations

import base64
import csv
import http.server
import json
import os
import pathlib
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.action import agent_install
from ansible_collections.mlops.fleet.plugins.module_utils._core import agent, config
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import locks

ROOT = pathlib.Path(__file__).resolve().parents[3]


def archives(node):
    return sorted((node.directory / "backups").glob("models_backup_*.tar.gz"))


def test_the_bundle_is_the_same_every_time_and_holds_only_ours():
    first, second = agent_install.bundle(), agent_install.bundle()
    assert first == second and re.fullmatch(r"\d+\.\d+\.\d+-[0-9a-f]{12}", first[0])
    assert all(name.endswith(".py") and "__pycache__" not in name for name in agent_install.files())
    assert len(base64.b64encode(first[1])) < 800_000  # sent to each node with the module


def test_help_teaches_every_subcommand(command):
    overview = subprocess.run(
        [command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name in (
        "health",
        "gpu",
        "gpu-test",
        "backup",
        "backups",
        "verify",
        "restore",
        "cleanup",
        "maintenance",
        "alert",
        "config",
        "doctor",
    ):
        assert re.search(rf"^ +{name}\b", overview, re.M), name
        page = subprocess.run(
            [command, name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert "exit status" in page and "--json" in page


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["health", "--nonsense"],
        ["gpu", "--temperature-warning", "hot"],
        ["backup", "--compression-level", "12"],
    ],
)
def test_bad_calls_end_in_one_message_and_exit_3(node, words):
    done = node.run(*words)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    if words[1:]:
        assert words[1].lstrip("-").replace("-", "_") in done.stderr.replace("-", "_")


def test_health_says_the_same_as_the_old_script(node):
    document = node.json("health", "--no-network", check=None)
    assert {"timestamp", "hostname", "checks", "summary"} <= set(document)
    done = node.run(
        "health",
        "--disk-warn",
        "1",
        "--disk-crit",
        "99",
        "--mem-warn",
        "94",
        "--no-network",
        "--checks",
        "disk_usage memory_usage",
    )
    assert done.returncode in (0, 1) and "score" in done.stdout


def test_health_prints_for_nagios_and_ci(node):
    node.settings["health"] = {
        "checks": ["memory_usage"],
        "memory_warning": "@0:100",
        "memory_critical": "~:",
    }
    done = node.run("health", "--format", "nagios", "--no-alert", check=1)
    assert done.returncode == 1 and re.match(
        r"NODE WARNING - Memory usage: \d+% .*, score 50 \| 'memory_usage'=[\d.]+%;@0:100"
        r" 'health_score'=50;;;0;100\n",
        done.stdout,
    )
    done = node.run("health", "--format", "junit", "--no-alert", check=1)
    assert (
        done.returncode == 1
        and done.stdout.startswith('<?xml version="1.0"')
        and 'tests="1" failures="0"' in done.stdout
    )


def test_what_health_learned_is_expected(node):
    path = node.directory / "expected.json"
    node.settings["health"] = {
        "checks": ["expected_hardware"],
        "expected_hardware_file": str(path),
    }
    rehearsal = node.run("health", "--learn", "--dry-run", check=0)
    assert f"would be written to {path}" in rehearsal.stdout and not path.exists()
    assert "goes with --learn" in node.run("health", "--dry-run", check=3).stderr
    learned = node.json("health", "--learn", check=0)
    assert json.loads(path.read_text()) == learned
    document = node.json("health", "--no-alert", check=0)
    assert {check["status"] for check in document["checks"]} == {"pass"}
    content = json.loads(path.read_text())
    content["expected_hardware"]["cpus"] += 1
    path.write_text(json.dumps(content))
    done = node.run("health", "--no-alert", check=2)
    assert re.search(r"CPUs: \d+ of \d+ expected", done.stdout)


def test_gpu_json_csv_and_exit_codes(node, gpus):
    metrics = node.directory / "gpu.csv"
    env = {**gpus("h100x8"), "METRICS_FILE": str(metrics)}
    document = json.loads(node.run("gpu", "--json", env=env, check=0).stdout)
    assert [gpu["id"] for gpu in document["gpus"]] == list(range(8)) and all(
        isinstance(gpu["temp"], (int, float)) for gpu in document["gpus"]
    )
    with metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert (
        metrics.read_text().splitlines()[0]
        == "timestamp,gpu_id,name,temp,util_gpu,util_mem,mem_used,mem_total,power_draw,power_limit"
    )
    assert [int(row["gpu_id"]) for row in rows] == list(range(8)) and re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", rows[0]["timestamp"]
    )
    assert node.run("gpu", env={**env, "TEMP_THRESHOLD": "1"}).returncode == 1
    faulty = node.run("gpu", "--verbose", env={**gpus("faulty"), "METRICS_FILE": str(metrics)})
    assert faulty.returncode == 2 and "CRITICAL" in faulty.stdout
    assert "[CRITICAL]" in node.log


def test_the_command_and_the_module_give_the_same_document(node, gpus, tmp_path):
    env = gpus("faulty")
    ours = json.loads(node.run("gpu", "--json", "--log-source", "none", env=env).stdout)
    collections = str(ROOT / ".build" / "collections")
    python = pathlib.Path(sys.executable)
    options = "log_source=none metrics_csv=" + str(tmp_path / "m.csv")
    argv = [
        python.parent / "ansible",
        "localhost",
        "-m",
        "mlops.fleet.gpu_health",
        "-a",
        options,
        "-e",
        f"ansible_python_interpreter={python}",
    ]
    full = {
        **os.environ,
        **env,
        "ANSIBLE_COLLECTIONS_PATH": collections,
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }
    out = subprocess.run(argv, env=full, capture_output=True, text=True, check=True).stdout
    theirs = json.loads(out[out.index("{") :])

    def plain(document):
        checks = [
            {key: value for key, value in check.items() if key not in ("duration_ms", "since")}
            for check in document["checks"]
        ]
        return checks, document["summary"], document["gpus"]

    assert plain(ours) == plain(theirs)


def test_backup_verify_damage_restore(node):
    before = sorted(node.directory.iterdir())
    dry = node.run("backup", "--dry-run", check=0)
    assert (
        "would be made" in dry.stdout
        and not archives(node)
        and [p for p in sorted(node.directory.iterdir()) if p.suffix not in (".json", ".log")]
        == before
    )
    node.run("backup", check=0)
    (archive,) = archives(node)
    subprocess.run(
        ["sha256sum", "-c", "--quiet", f"{archive.name}.sha256"], cwd=archive.parent, check=True
    )
    assert "No new backup needed" in node.run("backup", check=0).stdout and len(archives(node)) == 1
    assert "verified" in node.run("verify", check=0).stdout
    assert node.run("backup", "--verify", str(archive), check=0).stdout.strip().endswith("verified")
    node.run("restore", str(node.directory / "back"), check=0)
    subprocess.run(["diff", "-r", node.directory / "models", node.directory / "back"], check=True)
    again = node.run("restore", str(node.directory / "back"), check=0).stdout
    assert "already; nothing to restore" in again and "Restored" not in again
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 4
    archive.write_bytes(data)
    damaged = node.run("backup", "--verify", str(archive), check=2)
    assert "DAMAGED" in damaged.stdout and archive.name in damaged.stdout
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[CRITICAL\] .*DAMAGED", node.log, re.M)


def test_a_restore_drill(node):
    """It needs no destination and leaves nothing but the proof, shown wherever backups are."""
    home = node.config.parent
    scratch = home / "scratch"
    scratch.mkdir()
    words = ("restore", "--drill", "--scratch", str(scratch))
    assert "no complete backup" in node.run(*words, check=1).stderr
    assert "needs a bucket" in node.run(*words, "--s3", check=3).stderr
    assert "needs a bucket" in node.run("verify", "--s3", check=3).stderr
    assert "destination is required. Call mlfleet restore" in node.run("restore", check=3).stderr
    assert "drill and destination" in node.run(*words, str(home / "new"), check=3).stderr
    name = node.json("backup")["backup"]["name"]
    assert "Last restore proof: none" in node.run("status").stdout
    assert f"from {name}, compare and remove" in node.run(*words, "--dry-run", check=0).stdout
    assert node.json("backups")["last_restore_proof"] is None
    assert f"from {name} in" in node.run(*words, "--backup", "random", check=0).stdout
    proof = node.json(*words)["last_restore_proof"]
    assert proof["backup"] == name and proof["files"] == 1
    assert node.json("backups")["last_restore_proof"] == proof
    assert node.json("status")["backup"]["last_restore_proof"] == proof
    for command in ("backups", "status"):
        assert f"Last restore proof: {proof['at']}, {name}" in node.run(command).stdout
    assert os.listdir(scratch) == [] and "compared and removed" in node.log


def test_paths_of_the_command_line_are_meant_from_where_one_is(node):
    archive = node.json("backup")["backup"]["path"]
    name = os.path.basename(archive)
    assert (
        f"{archive}: verified"
        in node.run("backup", "--verify", f"backups/{name}", cwd=node.directory, check=0).stdout
    )
    assert (
        f"{archive}: verified"
        in node.run("verify", f"./{name}", cwd=node.directory / "backups", check=0).stdout
    )
    node.run("restore", "back", "--backup", f"backups/{name}", cwd=node.directory, check=0)
    assert (node.directory / "back" / "weights.bin").exists()
    assert (
        "No new backup needed"
        in node.run(
            "backup",
            "--source",
            "models",
            "--destination",
            "../" + node.directory.name + "/backups",
            cwd=node.directory,
        ).stdout
    )


def test_the_examples_of_the_help_are_valid_calls(command, tmp_path):
    """Each is parsed as it stands, by a command whose work is left out."""
    program = (
        "import shlex, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from mlops_fleet.mlfleet import commands, parser\n"
        "for name in commands.NAMES:\n"
        "    command = commands.load(name)\n"
        "    for line in command.examples:\n"
        "        arguments = shlex.split(line.split('mlfleet ' + name)[-1].split(' | ')[0])\n"
        "        assert parser.parse([name, *arguments]).command is command, line\n"
    )
    current = command.parent.parent / "opt" / "current"
    subprocess.run([sys.executable, "-c", program, os.path.realpath(current)], check=True)


@pytest.mark.parametrize(
    "words",
    [
        ("backup", "--verify", ""),
        ("verify", ""),
        ("restore", "/tmp/x/y", "--backup", ""),
        ("cleanup", "--only", ""),
    ],
)
def test_an_empty_word_is_never_taken_for_no_word(node, words):
    """--verify "$FILE" with an unset variable must neither make a backup nor succeed."""
    node.run(*words, check=3)
    assert (
        not (node.directory / "backups").exists()
        and (node.directory / "experiments" / "old").exists()
    )


def test_a_list_can_be_emptied(node):
    node.settings["health"] = {"checks": ["service"], "services": ["ssh"], "network": False}
    assert "ssh" not in node.run("health", "--services", "", "--verbose").stdout


def test_backups_are_listed_with_why_each_is_kept(node):
    made = node.json("backup")["backup"]
    (listed,) = node.json("backups")["backups"]
    assert {key: listed[key] for key in made} == made
    assert (listed["where"], listed["kept"]) == ("local", "newest verified backup")
    heading, line = node.run("backups", check=0).stdout.splitlines()
    assert heading.split() == ["BACKUP", "CREATED", "SIZE", "FILES", "WHERE", "KEPT", "STATE"]
    assert line.startswith(made["name"]) and "  newest verified backup  " in line
    os.truncate(made["path"], 10)
    assert "the archive is 10 bytes long" in node.run("backups", made["path"], check=0).stdout


def test_what_can_not_be_verified_ends_with_2(node):
    for words in (
        ("backup", "--verify", "/nowhere/models_backup_20250131_020000.tar.gz"),
        ("verify", "/nowhere"),
    ):
        assert "/nowhere" in node.run(*words, check=2).stderr


def test_both_targets_can_be_named(node):
    node.settings.pop("cleanup")
    result = node.json("cleanup", "--experiments-only", "--checkpoints-only", "--dry-run")
    assert [target["name"] for target in result["targets"]] == ["experiments", "checkpoints"]


def test_backup_without_a_source_fails_with_1(node):
    done = node.run("backup", env={"MODEL_DIR": str(node.directory / "nowhere")})
    assert done.returncode == 1 and "nowhere" in done.stderr and "Traceback" not in done.stderr


def test_s3_sync_needs_a_bucket_and_a_bucket_alone_does_nothing(node):
    assert node.run("backup", "--s3-sync").returncode == 3
    done = node.run("backup", env={"S3_BUCKET": "some-bucket"}, check=0)
    assert "Copy" not in done.stdout


def test_cleanup(node):
    dry = node.run("cleanup", "--dry-run", check=0)
    assert "would remove" in dry.stdout and (node.directory / "experiments" / "old").exists()
    done = node.run("cleanup", check=0)
    assert (
        not (node.directory / "experiments" / "old").exists()
        and (node.directory / "experiments" / "new").exists()
    )
    assert "Freed" in done.stdout and "Freed" in node.log


def test_maintenance_order_skips_and_exit_status(node):
    done = node.run("maintenance", check=0)
    assert len(archives(node)) == 1 and not (node.directory / "experiments" / "old").exists()
    assert [line.split()[-2] for line in done.stderr.splitlines() if line.endswith("started")] == [
        "health",
        "gpu",
        "backup",
        "cleanup",
    ]
    report = node.json("maintenance", "--skip-health", "--skip-gpu", check=0)
    assert [phase["message"] for phase in report["hosts"][0]["phases"][:2]] == ["switched off"] * 2


def test_maintenance_never_cleans_after_a_failed_backup(node):
    done = node.run("maintenance", "--continue-on-error", env={"MODEL_DIR": "/nowhere/models"})
    assert done.returncode == 1 and (node.directory / "experiments" / "old").exists()
    assert "cleanup never runs without it" in node.log


@pytest.mark.parametrize(
    "words", [["maintenance"], ["backup"], ["cleanup"], ["restore", "/nowhere/new"]]
)
def test_jobs_never_overlap_and_say_so(node, words):
    with locks.lock(os.path.join(locks.lock_directory(), "jobs.lock"), "job"):
        done = node.run(*words)
        assert (
            done.returncode == 3
            and f"Another job of mlfleet is running (process {os.getpid()} holds" in done.stderr
            and not archives(node)
        )
        assert node.run("backup", "--dry-run").returncode == 0


def test_a_job_can_wait_for_another(node):
    with locks.lock(os.path.join(locks.lock_directory(), "jobs.lock"), "job"):
        waiting = threading.Thread(target=node.run, args=("backup", "--wait", "30"))
        waiting.start()
        time.sleep(1)
        assert not archives(node)
    waiting.join()
    assert len(archives(node)) == 1


def test_precedence_and_where_options_come_from(node, command):
    node.settings["gpu"] = {"temperature_warning": 70, "memory_warning": 80}
    shown = node.json("config", env={"TEMP_THRESHOLD": "75"}, check=0)["options"]["gpu"]
    assert shown["temperature_warning"] == {"value": 75, "from": "environment TEMP_THRESHOLD"}
    assert (
        shown["memory_warning"] == {"value": 80, "from": "file"}
        and shown["power_warning"]["from"] == "default"
    )
    done = node.run("config", "--check", env={"TEMP_THRESHOLD": "75"}, check=0)
    assert re.search(
        r"^gpu\.temperature_warning +75.* environment TEMP_THRESHOLD$", done.stdout, re.MULTILINE
    )
    assert node.run("config", "--check", "--quiet", check=0).stdout.count("\n") == 1
    done = node.run("gpu", env={"TEMP_THRESHOLD": "hot"}, check=3)
    assert "It comes from environment TEMP_THRESHOLD" in done.stderr
    node.settings["gpu"] = {"temperature_warnin": 70}
    done = node.run("config", "--check", check=3)
    assert f"It comes from {node.config}. Did you mean temperature_warning?" in done.stdout
    node.config.write_text("{broken")
    done = subprocess.run(
        [command, "config", "--config", node.config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3 and "line 1" in done.stderr


def test_the_installed_command_reads_the_configuration_it_was_told(tmp_path):
    version, data = agent_install.bundle()
    for name, limit in (("one", 71), ("two", 72)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"gpu": {"temperature_warning": limit}}))
    agent.install(
        str(tmp_path / "opt"),
        str(tmp_path / "bin"),
        sys.executable,
        version,
        data,
        config=str(tmp_path / "one.json"),
    )
    again = agent.install(
        str(tmp_path / "opt"),
        str(tmp_path / "bin"),
        sys.executable,
        version,
        data,
        config=str(tmp_path / "two.json"),
        check=True,
    )
    assert again["changed"], "another configuration is another command"
    for env, limit in (({}, 71), ({"MLFLEET_CONFIG": str(tmp_path / "two.json")}, 72)):
        done = subprocess.run(
            [tmp_path / "bin" / "mlfleet", "config", "--json"],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["options"]["gpu"]["temperature_warning"] == {
            "value": limit,
            "from": "file",
        }


def test_secrets_are_no_flags_and_never_shown(node, command):
    page = subprocess.run(
        [command, "backup", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--s3-bucket" in page and "secret-key" not in page
    node.settings["backup"]["s3"] = {
        "bucket": "b",
        "access_key": "AKIAHUSH",
        "secret_key": "hushhush",
    }
    for words in (["config"], ["config", "--json"], ["config", "--check", "--verbose"]):
        done = node.run(*words)
        assert "hush" not in (done.stdout + done.stderr).lower()


@pytest.fixture
def webhook():
    """A webhook's address, and what it received."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", seen
    server.shutdown()
    server.server_close()


def test_alerts_of_the_old_variables_reach_a_webhook_once(node, gpus, webhook):
    address, seen = webhook
    metrics = str(node.directory / "m.csv")
    env = {**gpus("faulty"), "ALERT_WEBHOOK": address, "METRICS_FILE": metrics}
    for dummy in range(2):
        assert node.run("gpu", env=env).returncode == 2
    assert len(seen) == 1


def test_a_call_at_a_terminal_sends_alerts_only_when_asked_to(node, webhook):
    address, seen = webhook
    node.settings["health"].update(memory_warning=0.01, memory_critical=0.02)
    main, other = pty.openpty()
    env = {"ALERT_WEBHOOK": address}
    try:
        done = node.run("health", env=env, stdin=other)
        assert "no alert was sent: this call was made by hand" in done.stderr and seen == []
        node.run("health", env={**env, "MLFLEET_SCHEDULED": "1"}, stdin=other)
        assert len(seen) == 1
        node.settings["alert"]["cooldown"] = 0
        node.run("health", "--alert", env=env, stdin=other)
        assert len(seen) == 2
        assert node.run("health", "--alert", "--no-alert", env=env).returncode == 3
    finally:
        os.close(main)
        os.close(other)


def test_no_boto3_and_no_ansible_is_imported_for_gpu(command, node):
    node.config.write_text("{}")
    program = (
        f"import runpy, sys\nsys.argv = ['mlfleet', 'gpu', '--config', {str(node.config)!r},"
        f" '--log-file', {str(node.directory / 'l')!r}]\ntry:\n    runpy.run_path({str(command)!r},"
        " run_name='__main__')\nexcept SystemExit:\n    pass\nprint([name for name in ('boto3',"
        " 'ansible', 'smtplib', 'psutil', 'tarfile') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_colours_and_progress_only_on_a_terminal(node, command):
    assert "\033[" not in node.run("backup", check=0).stdout
    node.config.write_text(json.dumps(node.settings))
    main, other = pty.openpty()
    child = subprocess.Popen(
        [command, "verify", "--config", node.config, "--log-file", node.directory / "l"],
        stdout=other,
        stderr=other,
        env={"PATH": os.environ["PATH"]},
    )
    os.close(other)
    shown = b""
    while True:
        try:
            data = os.read(main, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(main)
    assert child.wait() == 0 and b"\033[K" in shown and b"verified" in shown


def test_every_part_of_the_configuration_has_a_table():
    for part in config.PARTS:
        table = config.option_set(part).TABLE
        assert table and all(option.help for option in table), part


def test_doctor_finds_what_is_wrong(node):
    document = node.json("doctor")
    checks = {check["check"]: check for check in document["checks"]}
    assert checks["job backup"]["status"] == "pass" and checks["backup space"]["value"] > 0
    assert checks["alerts"]["status"] == "warning"
    node.settings["backup"]["source"] = "/nowhere/models"
    node.settings["gpu"] = {"expected": 8}
    node.config.touch()
    node.config.chmod(0o644)
    done = node.run("doctor", check=2)
    assert (
        "/nowhere/models" in done.stdout
        and "expected_count" in done.stdout
        and "0644" in done.stdout
    )


def test_a_cleanup_that_the_doctor_starts_only_rehearses_for_a_time(node):
    later, earlier = (
        {"MLFLEET_REHEARSE_CLEANUP_UNTIL": str(int(time.time()) + offset)} for offset in (600, -1)
    )
    old = node.directory / "experiments" / "old"
    assert "Would free" in node.run("cleanup", env=later, check=0).stdout and old.exists()
    said = node.run("maintenance", env=later, check=0).stdout
    assert (
        "(cleanup rehearsed: nothing was changed)" in said
        and old.exists()
        and list((node.directory / "backups").glob("*.tar.gz"))
    )
    assert "cleanup: pass" in node.log and "rehearsed, nothing was changed: 1 removed" in node.log
    assert "Freed" in node.run("cleanup", env=earlier, check=0).stdout and not old.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_another_user_can_run_what_needs_no_root():
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("no system Python that another user can start")
    version, data = agent_install.bundle()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        agent.install(
            str(directory / "opt"), str(directory / "bin"), "/usr/bin/python3", version, data
        )
        argv = [
            directory / "bin" / "mlfleet",
            "gpu",
            "--config",
            directory / "none.json",
            "--log-source",
            "none",
        ]
        done = subprocess.run(
            argv,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (
        done.returncode == 0
        and "nothing to check" in done.stdout
        and "no log is written" in done.stderr
    )


def test_a_call_by_hand_uses_the_environment_file_as_the_timer_does(node, tmp_path):
    del node.settings["backup"]["destination"]
    conf, other = tmp_path / "ml-automation.conf", tmp_path / "other"
    conf.write_text(f'# by hand\nexport BACKUP_DIR="{other}"\nset -a\nRETENTION_DAYS=7 # a week\n')
    env = {"MLFLEET_ENVIRONMENT_FILE": str(conf)}
    shown = node.run("config", env=env, check=3)
    (line,) = re.findall(r"^backup: .*$|^wrong: backup: .*$", shown.stdout, re.M)
    assert f"{conf}, line 4 (RETENTION_DAYS)" in line
    assert f"{conf}, line 3: not understood" in shown.stderr + shown.stdout

    conf.write_text(f'export BACKUP_DIR="{other}"\n')
    node.run("backup", env=env, check=0)
    assert len(list(other.glob("models_backup_*.tar.gz"))) == 1
    document = node.json("config", env=env)
    assert document["options"]["backup"]["destination"] == {"value": str(other), "from": str(conf)}
    mine = node.json("config", env={**env, "BACKUP_DIR": "/mine"})["options"]["backup"]
    assert mine["destination"] == {"value": "/mine", "from": "environment BACKUP_DIR"}
    # As a unit whose systemd has read the file.
    unit = {**env, "INVOCATION_ID": "0123", "BACKUP_DIR": str(other)}
    conf.write_text(f"BACKUP_DIR={other}\n")
    unit_options = node.json("config", env=unit)["options"]["backup"]
    assert unit_options["destination"] == {"value": str(other), "from": str(conf)}


def test_the_exported_variables_are_those_of_the_file(node, tmp_path):
    conf = tmp_path / "ml-automation.conf"
    conf.write_text("MODEL_DIR=\"/srv/it's mine\"\nPATH=/nowhere\nexport LOG_FILE='$x'\n")
    script = node.run("config", "--export", env={"MLFLEET_ENVIRONMENT_FILE": str(conf)}, check=0)
    done = subprocess.run(
        ["bash", "-c", script.stdout + 'printf "%s|%s" "$MODEL_DIR" "$LOG_FILE"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "/srv/it's mine|$x" and "PATH" not in script.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_that_this_user_may_not_read_is_not_absent(tmp_path, command):
    conf = tmp_path / "ml-automation.conf"
    conf.write_text("BACKUP_DIR=/other\n")
    conf.chmod(0o600)
    os.chown(conf, 65534, 65534)
    no_override = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    done = subprocess.run(
        [*no_override, str(command), "config", "--config", str(tmp_path / "config.json")],
        env={"PATH": os.environ["PATH"], "MLFLEET_ENVIRONMENT_FILE": str(conf)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{conf} can't be read by root (Permission denied)" in done.stderr


@pytest.mark.parametrize("words", [["backup"], ["cleanup"], ["maintenance"]])
def test_a_scheduled_job_waits_and_then_gives_way_with_a_warning(node, words):
    scheduled = {"MLFLEET_SCHEDULED": "1"}
    with locks.lock(os.path.join(locks.lock_directory(), "jobs.lock"), "job"):
        done = node.run(*words, "--wait", "0.3", env=scheduled, check=75)
        assert f"waiting up to 0.3 s for {pathlib.Path(sys.executable).parent}"[:24] in done.stderr
        assert f"warning: Another job of mlfleet is running (process {os.getpid()}" in done.stderr
        assert ", since 20" in done.stderr and "[WARNING] Another job" in node.log
        assert not archives(node)
    node.run(*words, env=scheduled, check=0)


def test_status_shows_what_it_can_with_a_configuration_that_can_not_be_used(node):
    node.settings["backup"]["retention_days"] = "x"
    screen = node.run("status", check=1).stdout
    assert "LAST RUN" in screen and "none known: Option retention_days is 'x'" in screen
    node.settings["alert"]["cooldown"] = "y"
    assert "Open problems: unknown, Option cooldown" in node.run("status", check=1).stdout


def test_how_a_job_of_cron_ended_is_kept(node, tmp_path):
    """Of a run by hand nothing is kept: ``mlfleet status`` is about the schedule."""
    state = tmp_path / "state"
    state.mkdir()
    ends = state / "last"
    by_cron = {"MLFLEET_SCHEDULED": "1", "MLOPS_FLEET_STATE_DIR": str(state)}
    node.run("backup", env={"MLOPS_FLEET_STATE_DIR": str(state)}, check=0)
    assert not ends.exists()
    node.run("backup", env=by_cron, check=0)
    node.run("restore", "--drill", "--scratch", str(tmp_path), env=by_cron, check=0)
    node.settings["cleanup"] = {"targets": [{"name": "x", "path": "/", "retention_days": 1}]}
    node.run("cleanup", env=by_cron, check=1)
    kept = {path.stem: json.loads(path.read_text())["result"] for path in ends.glob("job-*")}
    assert kept["job-backup"] == kept["job-restore_drill"] == {"exit_code": 0, "message": ""}
    assert kept["job-cleanup"]["exit_code"] == 1 and kept["job-cleanup"]["message"]


def test_repeated_list_flags_add_up_for_every_list_option(node, command):
    parse = (
        "import json, sys\nsys.path.insert(0, sys.argv[1])\nfrom mlops_fleet._core import"
        " config\nfrom mlops_fleet.mlfleet import commands, parser\ncount = 0\nfor command in"
        " map(commands.load, commands.NAMES):\n    for option in"
        " config.option_set(command.part).TABLE if command.part else ():\n        if option.type !="
        " 'list' or option.suboptions or option.secret or option.name in command.leave_out:\n      "
        "      continue\n        flag = '--' + option.name.replace('_', '-')\n        given ="
        " parser.parse([command.name, flag, 'a,b', flag, 'c d', *option.flags[:1], *['e' for dummy"
        " in option.flags[:1]]])\n        expected = ['a', 'b', 'c', 'd', *['e' for dummy in"
        " option.flags[:1]]]\n        assert parser.flags_given(given)[option.name] == expected,"
        " flag\n        assert parser.flags_given(parser.parse([command.name, flag,"
        " '']))[option.name] == []\n        count += 1\nprint(count)\n"
    )
    version = os.path.realpath(command.parents[1] / "opt" / "current")
    done = subprocess.run(
        [sys.executable, "-c", parse, version], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and int(done.stdout) > 5, done.stderr
    document = node.json("health", "--checks", "memory", "--checks", "load,uptime")
    assert {check["check"] for check in document["checks"]} >= {"memory_usage", "uptime"}


def test_what_was_removed_and_restored_is_listed_by_name(node):
    node.run("backup", check=0)
    old = node.directory / "experiments" / "old"
    assert f"removed {old}" in node.run("cleanup", check=0).stdout and not old.exists()
    target = node.directory / "restored"
    target.mkdir()
    (target / "mine.txt").write_text("x")
    words = ("restore", str(target), "--replace")
    rehearsed = node.run(*words, "--dry-run", check=0).stdout
    assert "would be removed mine.txt" in rehearsed and "would be restored weights.bin" in rehearsed
    assert (target / "mine.txt").exists()
    done = node.run(*words, check=0).stdout
    assert "removed mine.txt" in done and "restored weights.bin" in done and "1 file from" in done
    assert not (target / "mine.txt").exists()


def test_backups_are_listed_by_name_newest_first(node):
    node.run("backup", check=0)
    (archive,) = archives(node)
    listing = node.json("backups")
    assert [backup["path"] for backup in listing["backups"]] == [str(archive)]
    dummy, line = node.run("backups", check=0).stdout.splitlines()
    assert line.split()[0] == archive.name and line.endswith("verified")
