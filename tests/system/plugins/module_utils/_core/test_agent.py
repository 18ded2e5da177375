# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import os
import pathlib
import random
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import agent, installed
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    CommandFailed,
    NotUsable,
    Refused,
    VerificationFailed,
)

PROGRAM = "import sys\n\n\ndef main():\n    print({name!r}, __file__)\n    return 7\n"


def bundle(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return raw.getvalue()


def release(name):
    return bundle(
        {
            "__init__.py": "",
            "mlfleet.py": PROGRAM.format(name=name),
            "_core/__init__.py": "",
            "VERSION": name,
        }
    )


def version(letter):
    return f"0.1.0-{letter * 12}"


@pytest.fixture
def place(tmp_path, monkeypatch):
    # Nodes keep compiled files beside the sources; the sessions keep theirs elsewhere.
    monkeypatch.setattr(sys, "pycache_prefix", None)

    def install(letter, check=False):
        return agent.install(
            str(tmp_path / "opt"),
            str(tmp_path / "bin"),
            sys.executable,
            version(letter),
            release(letter),
            check,
        )

    install.directory, install.command = tmp_path / "opt", tmp_path / "bin" / "mlfleet"
    return install


def run(command):
    done = subprocess.run([str(command)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.split()[:1]


def tree(directory):
    return sorted(str(path.relative_to(directory)) for path in pathlib.Path(directory).rglob("*"))


def test_check_install_run_and_again(place, tmp_path):
    assert place("a", check=True)["changed"] and tree(tmp_path) == []
    assert place("a")["after"] == {
        "current": version("a"),
        "previous": "",
        "versions": [version("a")],
    }
    assert run(place.command) == (7, ["a"])
    before = tree(tmp_path)
    assert not place("a", check=True)["changed"] and not place("a")["changed"]
    assert tree(tmp_path) == before


def test_the_command_is_compiled_and_readable_by_everyone(place):
    old = os.umask(0o077)
    try:
        place("a")
    finally:
        os.umask(old)
    package = place.directory / "current" / agent.PACKAGE
    assert list(package.glob("__pycache__/mlfleet.*.pyc"))
    for path in [place.directory, place.command, *package.rglob("*.py")]:
        assert path.stat().st_mode & 0o044 == 0o044, path


def test_a_second_run_opens_the_command_again(place):
    place("a")
    place.command.chmod(0o700)
    assert place("a")["changed"] and place.command.stat().st_mode & 0o777 == 0o755
    assert not place("a")["changed"]


def test_upgrade_keeps_one_old_version_and_rolls_back(place):
    for letter in "abc":
        place(letter)
    assert agent.installed(str(place.directory)) == {
        "current": version("c"),
        "previous": version("b"),
        "versions": [version("b"), version("c")],
    }
    assert agent.roll_back(str(place.directory), check=True)["changed"] and run(place.command) == (
        7,
        ["c"],
    )
    agent.roll_back(str(place.directory))
    assert run(place.command) == (7, ["b"])


def test_nothing_to_roll_back_to(place):
    place("a")
    with pytest.raises(NotUsable, match="no previous version"):
        agent.roll_back(str(place.directory))


def test_a_running_job_stays_on_its_version(place):
    slow = (
        "import time\n\n\ndef main():\n    time.sleep(1)\n    from mlops_fleet import late\n   "
        " print(late.NAME)\n"
    )
    for letter in "ab":
        files = bundle({"__init__.py": "", "mlfleet.py": slow, "late.py": f"NAME = {letter!r}\n"})
        agent.install(
            str(place.directory), str(place.command.parent), sys.executable, version(letter), files
        )
        if letter == "a":
            job = subprocess.Popen([str(place.command)], stdout=subprocess.PIPE, text=True)
            time.sleep(0.4)
    assert job.communicate()[0].strip() == "a"


@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "evil.so", ".hidden.py", "_core/evil"]
)
def test_a_bundle_with_foreign_files_installs_nothing(tmp_path, name):
    with pytest.raises(VerificationFailed, match="does not belong"):
        agent.install(
            str(tmp_path / "opt"),
            str(tmp_path / "bin"),
            sys.executable,
            version("a"),
            bundle({"__init__.py": "", name: "x"}),
        )
    assert (
        agent.installed(str(tmp_path / "opt"))["versions"] == []
        and not (tmp_path / "bin" / "mlfleet").exists()
    )


def test_damaged_bundle(tmp_path):
    with pytest.raises(NotUsable):
        agent.install(
            str(tmp_path / "opt"),
            str(tmp_path / "bin"),
            sys.executable,
            version("a"),
            release("a")[:60],
        )
    assert agent.installed(str(tmp_path / "opt"))["versions"] == []


@pytest.mark.parametrize(
    ("directory", "interpreter"),
    [("/usr", "/usr/bin/python3"), ("/opt/x", "python3"), ("/opt/x", "/with blank/python3")],
)
def test_bad_options(directory, interpreter, tmp_path):
    with pytest.raises(Refused):
        agent.install(directory, str(tmp_path), interpreter, version("a"), release("a"))


def test_killed_at_any_moment_the_command_still_runs(place, tmp_path):
    place("a")
    (tmp_path / "b.tgz").write_bytes(release("b"))
    program = (
        "import sys\nfrom ansible_collections.mlops.fleet.plugins.module_utils._core import"
        f" agent\nbundle = open({str(tmp_path / 'b.tgz')!r},"
        f" 'rb').read()\nagent.install({str(place.directory)!r}, {str(place.command.parent)!r},"
        f" sys.executable, {version('b')!r}, bundle)\n"
    )
    random.seed(4)
    for dummy in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
        )
        time.sleep(random.uniform(0.03, 0.25))
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert run(place.command) in [(7, ["a"]), (7, ["b"])]
    place("b")
    assert run(place.command) == (7, ["b"])


def test_removal_takes_ours_and_nothing_else(place, tmp_path):
    place("a")
    place("b")
    (place.directory / "notes.txt").write_text("mine")
    assert (
        agent.remove(str(place.directory), str(place.command.parent), check=True)["changed"]
        and place.command.exists()
    )
    agent.remove(str(place.directory), str(place.command.parent))
    assert tree(tmp_path) == ["bin", "opt", "opt/notes.txt"]
    assert not agent.remove(str(place.directory), str(place.command.parent))["changed"]


def test_a_foreign_command_of_that_name_stays(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mlfleet").write_text("#!/bin/sh\n")
    assert not agent.remove(str(tmp_path / "opt"), str(tmp_path / "bin"))["changed"]
    assert (tmp_path / "bin" / "mlfleet").exists()


def test_removal_takes_what_a_killed_installation_left(place, tmp_path):
    place("a")
    (tmp_path / "opt" / "versions" / f".{version('b')}.tmp" / "mlops_fleet").mkdir(parents=True)
    assert agent.remove(str(tmp_path / "opt"), str(tmp_path / "bin"))["changed"]
    assert not (tmp_path / "opt").exists()


def test_the_interpreter_must_be_a_python_new_enough(world, tmp_path):
    agent.check_interpreter(world.run, sys.executable)
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\necho 3 8\n")
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho no such option >&2; exit 2\n")
    for path, words in ((old, "is Python 3.8"), (other, "no such option")):
        path.chmod(0o755)
        with pytest.raises(NotUsable, match=words):
            agent.check_interpreter(world.run, str(path))
    with pytest.raises(CommandFailed, match="missing"):
        agent.check_interpreter(world.run, str(tmp_path / "missing"))


def test_the_stamp_of_an_installation_can_be_read(tmp_path):
    assert installed.agent_version(str(tmp_path / "opt")) is None
    agent.install(
        str(tmp_path / "opt"),
        str(tmp_path / "bin"),
        sys.executable,
        version("a"),
        release(version("a")),
    )
    assert installed.agent_version(str(tmp_path / "opt")) == version("a")
