# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three backup modules as Ansible runs them: ad hoc, through AnsiballZ, in processes of their
own.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from ansible_collections.mlops.fleet.plugins.doc_fragments import restic as restic_fragment
from ansible_collections.mlops.fleet.plugins.doc_fragments import s3 as s3_fragment
from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    InfoOptions,
    RestoreOptions,
)
from ansible_collections.mlops.fleet.plugins.modules import (
    model_backup,
    model_backup_info,
    model_restore,
)

ROOT = pathlib.Path(__file__).resolve().parents[4]
ANSIBLE = pathlib.Path(sys.executable).with_name("ansible")
MODULES = {
    "model_backup": (model_backup, BackupOptions, s3_fragment.ModuleDocFragment.COPIES),
    "model_backup_info": (
        model_backup_info,
        InfoOptions,
        s3_fragment.ModuleDocFragment.DOCUMENTATION,
    ),
    "model_restore": (model_restore, RestoreOptions, s3_fragment.ModuleDocFragment.DOCUMENTATION),
}


def run(module, *arguments, python=sys.executable, env=None, **options):
    """Run the module; returns its result, with the whole output as C(output)."""
    command = [
        str(ANSIBLE),
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-m",
        f"mlops.fleet.{module}",
        "-a",
        json.dumps(options),
    ]
    command += ["-e", f"ansible_python_interpreter={python}", *arguments]
    mine = {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "collections"),
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **mine, **(env or {})},
    )
    assert "Traceback (most recent call last)" not in done.stdout + done.stderr, done.stdout
    found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
    assert found, done.stdout + done.stderr
    return {
        **json.loads(found[1]),
        "failed": done.returncode != 0,
        "output": done.stdout + done.stderr,
    }


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    (root / "model.bin").write_bytes(os.urandom(100_000))
    with open(os.fsencode(root) + b"/bad\xff\nname", "wb") as stream:
        stream.write(b"x")
    os.mkfifo(os.fsencode(root) + b"/pipe\xfe")
    return root


def test_the_whole_way(source, tmp_path):
    given = {"source": str(source), "destination": str(tmp_path / "b")}
    preview = run("model_backup", "--check", "--diff", **given)
    assert (
        preview["changed"]
        and "+models_backup_" in preview["output"]
        and not (tmp_path / "b").exists()
    )
    made = run("model_backup", **given)
    assert (
        made["changed"]
        and made["backup"]["verified"]
        and made["notes"] == ["not backed up: pipe\\udcfe (pipe)"]
    )
    assert not run("model_backup", "--check", **given)["changed"]
    found = run("model_backup_info", path=given["destination"], verify="full")
    assert (found["changed"], found["verified"], found["latest"]["name"]) == (
        False,
        True,
        made["backup"]["name"],
    )
    back = {"path": given["destination"], "destination": str(tmp_path / "r" / "x")}
    assert run("model_restore", "--check", "--diff", **back)["changed"]
    restored = run("model_restore", "--diff", **back)
    assert (
        restored["changed"]
        and restored["restored"]["verified"]
        and "bad\\udcff\\nname" in restored["output"]
    )
    assert not run("model_restore", **back)["changed"]
    for module, result in (
        ("model_backup", made),
        ("model_backup_info", found),
        ("model_restore", restored),
    ):
        documented = yaml.safe_load(MODULES[module][0].RETURN)
        returned = set(result) - {"changed", "failed", "invocation", "warnings", "output", "diff"}
        assert returned <= set(documented)
        for name in returned:
            value = (
                result[name][0] if isinstance(result[name], list) and result[name] else result[name]
            )
            if isinstance(value, dict) and "contains" in documented[name]:
                assert set(value) <= set(documented[name]["contains"]), name
        assert not {"rc", "items", "keys", "values"} & set(result)


@pytest.mark.parametrize(
    ("module", "options", "text"),
    [
        ("model_backup", {"source": "/nonexistent/models"}, "does not exist"),
        ("model_backup", {"compression_level": 12}, "at most 9"),
        ("model_backup", {"source": ""}, "is empty"),
        ("model_restore", {"destination": "/srv/x", "path": "/nonexistent"}, "no complete backup"),
    ],
)
def test_one_clear_message(module, options, text, tmp_path):
    given = {"destination": str(tmp_path / "b"), **options} if module == "model_backup" else options
    found = run(module, **given)
    assert found["failed"] and text in found["msg"] and "\n" not in found["msg"]
    assert os.listdir(tmp_path) == []


def test_without_boto3_it_is_named_with_the_interpreter(source, tmp_path):
    bare = tmp_path / "bin" / "python3"
    bare.parent.mkdir()
    bare.write_text(
        "#!/bin/sh\nexec"
        f' {sys._base_executable if hasattr(sys, "_base_executable") else sys.executable} -S "$@"\n'
    )
    bare.chmod(0o755)
    found = run(
        "model_backup",
        python=bare,
        source=str(source),
        destination=str(tmp_path / "b"),
        s3={"bucket": "b"},
    )
    assert found["failed"] and "boto3" in found["msg"] and "to store copies in S3" in found["msg"]


def test_secrets_are_never_shown(source, tmp_path):
    s3 = {
        "bucket": "b",
        "endpoint_url": "http://127.0.0.1:9",
        "access_key": "AKSESAME",
        "secret_key": "opensesame",
        "session_token": "tokensesame",
    }
    found = run("model_backup", "-vvv", source=str(source), destination=str(tmp_path / "b"), s3=s3)
    assert found["failed"] and "Could not connect" in found["msg"]
    shown = found["output"].partition("localhost | FAILED")[2]
    assert "sesame" not in shown.lower()
    found = run(
        "model_backup_info", "-vvv", s3={"bucket": "b", "endpoint_url": "http://joe:opensesame@h"}
    )
    assert found["failed"] and "sesame" not in found["output"].partition("localhost | FAILED")[2]


def same(documented, spec, where=""):
    assert set(documented) == set(spec), where
    for name, option in documented.items():
        for key in ("type", "default", "choices", "elements"):
            assert option.get(key) == spec[name].get(key), f"{where}{name}: {key}"
        assert bool(option.get("required")) == bool(spec[name].get("required")), name
        if "suboptions" in option:
            same(option["suboptions"], spec[name]["options"], f"{name}.")


@pytest.mark.parametrize("name", MODULES)
def test_documentation_and_option_table_say_the_same(name):
    module, options, fragment = MODULES[name]
    documented = {
        **yaml.safe_load(fragment)["options"],
        **yaml.safe_load(restic_fragment.ModuleDocFragment.DOCUMENTATION)["options"],
        **yaml.safe_load(module.DOCUMENTATION)["options"],
    }
    spec = _shell.argument_spec(options.TABLE)
    same(documented, spec)
    for secret in ("access_key", "secret_key", "session_token"):
        assert spec["s3"]["options"][secret]["no_log"] is True


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_backup_whose_connection_is_lost_leaves_nothing(tmp_path, ending):
    """sshd hangs up when the controller is gone."""
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.mkdir()
    destination.mkdir()
    with (source / "large.bin").open("wb") as stream:
        for dummy in range(300):
            stream.write(os.urandom(1_000_000))
    arguments = {"source": str(source), "destination": str(destination), "compression_level": 9}
    (tmp_path / "arguments").write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    process = subprocess.Popen(
        [sys.executable, "-m", model_backup.__name__, str(tmp_path / "arguments")],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".build" / "collections")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(ending, signal.SIG_DFL),  # a test run may ignore it
    )
    end = time.monotonic() + 60
    while not list(destination.glob(".*.tmp")):
        assert time.monotonic() < end and process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(ending)
    result = json.loads(process.communicate(timeout=60)[0])
    assert result["failed"] and result["msg"] == f"Stopped by {ending.name}.", result
    assert [path.name for path in destination.iterdir()] == [".models_backup.lock"]
