# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong around the command: libraries, files, pipes, signals.

It says so in a line and leaves nothing half-made.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from ansible_collections.mlops.fleet.plugins.action import agent_install
from ansible_collections.mlops.fleet.plugins.module_utils._core import agent

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")


def shell(script, node, command, **options):
    """Run a shell line in which mlfleet is the installed command with the node's configuration."""
    node.config.write_text(json.dumps(node.settings))
    env = {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "CONFIG": str(node.config),
        "LOG": str(node.directory / "job.log"),
    }
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_a_missing_library_is_named_with_interpreter_and_command(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python3"
    version, data = agent_install.bundle()
    agent.install(str(tmp_path / "opt"), str(tmp_path / "bin"), str(python), version, data)
    argv = [
        tmp_path / "bin" / "mlfleet",
        "health",
        "--no-network",
        "--config",
        tmp_path / "none",
        "--log-file",
        tmp_path / "log",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert (
        f"psutil for {python}" in done.stderr and f"{python} -m pip install psutil" in done.stderr
    )
    assert (
        "psutil"
        in json.loads(
            subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False).stdout
        )["error"]["message"]
    )
    assert "[ERROR] Missing Python library psutil" in (tmp_path / "log").read_text()


def test_the_distributions_python_is_told_the_distributions_package():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.prefix = sys.base_prefix = '/usr'\nfrom"
        " ansible_collections.mlops.fleet.plugins.module_utils._core import errors;"
        " print(errors.install_command(sys.argv[2]))"
    )
    path = str(pathlib.Path(__file__).resolve().parents[3] / ".build" / "collections")

    def ask(python, library):
        argv = [python, "-c", program, path, library]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    said = ask(sys.executable, "psutil")
    closed = list(pathlib.Path("/usr/lib").glob("python3*/EXTERNALLY-MANAGED"))
    if closed:  # PEP 668
        distributions = f"/usr/bin/{closed[0].parent.name}"
        command = f"{distributions} -m pip install --break-system-packages nvidia-ml-py"
        assert ask(distributions, "nvidia-ml-py").startswith(command)
    tools = [tool for tool in ("apt-get", "dnf", "zypper") if os.path.exists("/usr/bin/" + tool)]
    assert said == (
        f"{tools[0]} install python3-psutil" if tools else f"{sys.executable} -m pip install psutil"
    )


#: Commands that look at backups, and how they may end where that is not permitted.
LOOKING_AT_BACKUPS = (
    (["verify"], {3}),
    (["backups"], {0, 3}),
    (["status"], {1}),
    (["doctor"], {2}),
    (["restore", "/tmp/mlfleet-test/restored", "--dry-run"], {1}),
    (["restore", "--drill", "--dry-run"], {1}),
)


@as_root
@pytest.mark.parametrize("denied", ["above", "listing", "search", "files"])
def test_backups_that_this_user_may_not_read_are_neither_absent_nor_damaged(denied):
    """Every command that looks at backups, as another user."""
    version, data = agent_install.bundle()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        agent.install(
            str(directory / "opt"), str(directory / "bin"), "/usr/bin/python3", version, data
        )
        (directory / "models").mkdir()
        (directory / "models" / "weights").write_text("x")
        (directory / "config.json").write_text("{}")
        (directory / "volume").mkdir(mode=0o755)
        backups = directory / "volume" / "backups"
        environ = {
            "PATH": "/usr/bin",
            "MODEL_DIR": str(directory / "models"),
            "BACKUP_DIR": str(backups),
            "MLOPS_FLEET_STATE_DIR": str(directory / "state"),
        }

        def run(*arguments, **given):
            return subprocess.run(
                [directory / "bin" / "mlfleet", *arguments, "--config", directory / "config.json"],
                cwd="/",
                env=environ,
                capture_output=True,
                text=True,
                check=False,
                **given,
            )

        assert run("backup").returncode == 0
        modes = {"listing": 0o700, "search": 0o744, "files": 0o755}
        backups.chmod(modes.get(denied, 0o755))
        if denied == "above":
            backups.parent.chmod(0o700)
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        for arguments, statuses in LOOKING_AT_BACKUPS:
            done = run(*arguments, **nobody)
            assert done.returncode in statuses, (arguments, done.stdout, done.stderr)
            lines = (done.stdout + done.stderr).splitlines()
            about = "\n".join(line for line in lines if str(backups) in line)
            assert "ermission denied" in about, (arguments, lines)
            for wrong in ("DAMAGED", "damaged", "no complete", "no verified", "yet"):
                assert wrong not in about, arguments


@as_root
def test_an_unreadable_configuration_says_who_may_read_it():
    version, data = agent_install.bundle()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        agent.install(
            str(directory / "opt"), str(directory / "bin"), "/usr/bin/python3", version, data
        )
        (directory / "etc").mkdir(mode=0o750)
        os.chown(directory / "etc", 0, 4)
        (directory / "etc" / "config.json").write_text("{}")
        argv = [directory / "bin" / "mlfleet", "gpu", "--config", directory / "etc" / "config.json"]
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
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert (
        "can't be read by nobody" in done.stderr
        and "root or as a member of the group adm" in done.stderr
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{broken", "line 1"),
        (b"[]", "JSON object"),
        (b'{"gpus": {}}', "unknown section 'gpus'"),
        (b'{"gpu": 7}', "'gpu' must be an object"),
        (b'{"gpu": {"temperature_warning": "hot"}}', "temperature_warning"),
        (b"\xff\xfe{}", "config.json"),
        (b"[" * 100_000, "ended unexpectedly: RecursionError"),
    ],
)
def test_a_broken_configuration_is_one_message(command, tmp_path, content, words):
    (tmp_path / "config.json").write_bytes(content)
    argv = [command, "gpu", "--config", tmp_path / "config.json", "--log-file", tmp_path / "log"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and words in done.stderr and len(done.stderr.splitlines()) == 1, (
        done.stderr
    )


def test_a_byte_order_mark_is_no_fault(command, tmp_path):
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"gpu": {"temperature_warning": 71}}')
    done = subprocess.run(
        [command, "config", "--json", "--config", tmp_path / "config.json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["options"]["gpu"]["temperature_warning"] == {
        "value": 71,
        "from": "file",
    }


def test_a_configuration_that_was_named_and_is_not_there_is_said(command, tmp_path):
    done = subprocess.run(
        [command, "gpu", "--config", tmp_path / "confg.json", "--log-file", tmp_path / "log"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.returncode == 0
        and "there is no configuration" in done.stderr
        and "defaults are in force" in done.stderr
    )


def test_a_lock_directory_that_can_not_be_made_is_named(node):
    done = node.run("backup", env={"MLOPS_FLEET_LOCK_DIR": "/nowhere/locks"})
    assert (
        done.returncode in (1, 3)
        and "Can't make the lock directory /nowhere/locks" in done.stderr
        and "fault of mlfleet" not in done.stderr
    )


def test_a_current_directory_that_is_gone(node, command):
    done = shell(
        "mkdir gone && cd gone && rmdir ../gone && mlfleet verify x.tar.gz; echo $?",
        node,
        command,
        cwd=node.directory,
    )
    assert "give a full path" in done.stderr and done.stdout.strip() == "3", done.stderr


def test_a_reader_that_goes_away_is_no_error(node, command):
    done = shell("mlfleet config --config $CONFIG | head -1", node, command)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("OPTION")
    done = shell("mlfleet backup --help | true", node, command)
    assert done.stderr == ""
    # The work is done and logged all the same, and the exit status is the job's.
    done = shell(
        "mlfleet backup --json --config $CONFIG --log-file $LOG 2>/dev/null | sleep 0",
        node,
        command,
    )
    assert (
        done.returncode == 0
        and len(list((node.directory / "backups").glob("models_backup_*.tar.gz"))) == 1
        and "Backup made" in node.log
    )
    done = shell(
        "mlfleet backup --config $CONFIG --source /nowhere --log-file $LOG 2> >(true)",
        node,
        command,
    )
    assert done.returncode == 1 and "/nowhere" in node.log


def test_closed_streams_never_become_our_files(node, command):
    for closed in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        done = shell(
            f"mlfleet backup --force --json --config $CONFIG --log-file $LOG {closed}",
            node,
            command,
        )
        assert done.returncode == 0, closed
    backups = node.directory / "backups"
    assert len(list(backups.glob("models_backup_*.tar.gz"))) >= 1
    for sums in backups.glob("*.sha256"):
        subprocess.run(["sha256sum", "-c", "--quiet", sums.name], cwd=backups, check=True)
    assert "{" not in node.log


def test_a_result_that_can_not_be_written_is_said(node, command):
    done = shell("mlfleet config --json --config $CONFIG > /dev/full", node, command)
    assert (
        done.returncode == 3 and "No space left" in done.stderr and "Traceback" not in done.stderr
    )


def test_file_names_of_any_bytes_can_be_told(node):
    name = os.fsencode(node.directory / "models") + b"/bad-\xff-name"
    with open(name, "wb") as stream:
        stream.write(b"x")
    plain = node.run("backup", "--exclude", "x", check=0, env={"LC_ALL": "C.UTF-8"})
    assert "Backup made" in plain.stdout
    restored = node.run("verify", "--json", check=0, env={"LC_ALL": "en_US.ISO-8859-1"})
    json.loads(restored.stdout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_backup_leaves_nothing_half_and_ends_by_the_signal(node, command, number):
    # Random data and the highest level: seconds of work.
    for part in range(6):
        (node.directory / "models" / f"big{part}.bin").write_bytes(os.urandom(24_000_000))
    node.settings["backup"]["compression_level"] = 9
    node.config.write_text(json.dumps(node.settings))
    argv = [command, "backup", "--config", node.config, "--log-file", node.directory / "job.log"]
    # A test run in the background may have been told to ignore SIGHUP; children would inherit that.
    child = subprocess.Popen(
        argv,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    backups = node.directory / "backups"
    deadline = time.monotonic() + 30
    while not (
        backups.is_dir()
        and any(path.stat().st_size for path in backups.glob(".models_backup_*.tmp"))
    ):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(number)
    started = time.monotonic()
    said = child.stderr.read()
    assert child.wait(30) == -number and time.monotonic() - started < 10
    assert "stopped by " + number.name in said and "Traceback" not in said
    assert [path.name for path in backups.iterdir() if "models_backup_" in path.name] == []
    assert f"[ERROR] backup stopped by {number.name}" in node.log
    node.run("backup", "--compression-level", "1", check=0)


def test_nohup_is_respected(node, command):
    node.config.write_text(json.dumps(node.settings))
    script = (
        "trap '' HUP; exec mlfleet health --config $CONFIG --log-file $LOG & sleep 0.1; kill -HUP"
        " $!; wait $!"
    )
    assert shell(script, node, command).returncode in (0, 1)


def test_a_log_that_is_a_link_or_a_pipe_is_not_written(node):
    target = node.directory / "target"
    target.write_text("")
    log = node.directory / "job.log"
    log.symlink_to(target)
    done = node.run("cleanup", "--dry-run", check=0)
    assert "symbolic link" in done.stderr and target.read_text() == ""
    log.unlink()
    os.mkfifo(log)
    assert "no log is written" in node.run("cleanup", "--dry-run", check=0).stderr


def test_an_unexpected_error_is_one_line_and_the_traceback_on_request(node, tmp_path, command):
    """A damaged installation: one module of the core ends in an error nobody thought of."""
    version, data = agent_install.bundle()
    agent.install(str(tmp_path / "opt"), str(tmp_path / "bin"), sys.executable, version, data)
    broken = tmp_path / "opt" / "current" / "mlops_fleet" / "_core" / "output" / "human.py"
    broken.write_text("raise ZeroDivisionError('odd')\n")
    argv = [tmp_path / "bin" / "mlfleet", "config", "--config", tmp_path / "none"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1
    assert "ZeroDivisionError: odd" in done.stderr and "MLFLEET_DEBUG=1" in done.stderr
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "MLFLEET_DEBUG": "1"}
    )
    assert done.returncode == 3 and "Traceback" in done.stderr and "human.py" in done.stderr


@pytest.fixture(scope="module")
def complete(command, tmp_path_factory):
    """Ask a real bash what it offers for a line; the cursor is at its end."""
    script = tmp_path_factory.mktemp("completion") / "mlfleet"
    script.write_text(
        subprocess.run([command, "completion"], capture_output=True, text=True, check=True).stdout
    )

    def ask(*words, cwd="/"):
        program = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        program += (
            '$(complete -p mlfleet | sed "s/.*-F //;s/ .*//"); printf "%s\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", program, "bash", script, *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=cwd,
        )
        assert not done.stderr.replace(
            "bash: line 1: compopt: not currently executing completion function", ""
        ).strip(), done.stderr
        return done.stdout.split()

    return ask


def test_bash_completes_subcommands_flags_values_and_files(complete, tmp_path):
    names = (
        "status health gpu gpu-test doctor backup backups verify restore cleanup maintenance config"
        " alert completion help --help --version"
    ).split()
    assert complete("mlfleet", "") == names
    assert complete("mlfleet", "re") == ["restore"]
    assert complete("mlfleet", "backup", "--s3-bu") == ["--s3-bucket"]
    assert complete("mlfleet", "backup", "--compression", "") == ["gzip", "zstd", "none"]
    assert (
        complete("mlfleet", "gpu", "--backend", "=", "nv")
        == complete("mlfleet", "gpu", "--backend", "nv")
        == ["nvml", "nvidia_smi"]
    )
    assert complete("mlfleet", "gpu", "--timeout", "") == []
    (tmp_path / "models_backup_x.tar.gz").touch()
    for words in (
        ["verify"],
        ["backup", "--verify"],
        ["restore", "--backup", "x"],
        ["gpu", "--json", "--config"],
    ):
        assert complete("mlfleet", *words, "models_b", cwd=tmp_path) == ["models_backup_x.tar.gz"]
    assert "secret" not in " ".join(complete("mlfleet", "backup", "--"))


def test_every_flag_of_the_help_is_offered(complete, command):
    for name in ("health", "gpu", "backup", "cleanup", "alert"):
        page = subprocess.run(
            [command, name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        flags = {
            word.rstrip(",:")
            for line in page.splitlines()
            if line.startswith("  -")
            for word in line.split()
            if word.startswith("--")
        }
        assert flags <= set(complete("mlfleet", name, "--")), name


def test_a_program_that_prints_without_end_is_stopped(node):
    node.settings["alert"].update(command=["/usr/bin/yes"], command_timeout=60)
    began = time.monotonic()
    (channel,) = node.json("alert", "--msg", "the disk is full", "--severity", "critical", check=1)[
        "channels"
    ]
    assert "more than 64 MiB" in channel["detail"] and time.monotonic() - began < 50
