# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees, real processes and private mount namespaces for the cleanup's tests."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import pathlib
import stat
import subprocess
import time
import types

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate

CLONE_NEWNS = 0x00020000
DAY = 86400


def unit(root, name, files=("model.bin", "logs/train.log"), size=5000):
    """Make a unit with these files in it."""
    for one in files:
        path = pathlib.Path(root) / name / one
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    (pathlib.Path(root) / name).mkdir(parents=True, exist_ok=True)
    return pathlib.Path(root) / name


def _put(path, data=b"x" * 64):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _archive(whole):
    """The bytes that torch.save() writes, as far as a reader of both ends can see."""
    return b"PK\x03\x04" + b"x" * 100 + (b"PK\x05\x06" + bytes(18) if whole else b"")


def checkpoint(run, layout, step, whole=True, loss=None):
    """Write a checkpoint as a library lays it out, shards first, and then what it writes last; return its path.

    ``loss`` is written where the library writes metrics. An incomplete one has only its first shards.
    """
    run = pathlib.Path(run)
    if layout == "transformers":
        path = run / f"checkpoint-{step}"
        _put(path / "model.safetensors")
        if whole:
            log = [] if loss is None else [{"step": step, "eval_loss": loss}]
            _put(
                path / "trainer_state.json",
                json.dumps({"global_step": step, "log_history": log}).encode(),
            )
    elif layout == "megatron":
        path = run / f"iter_{step:07}"
        _put(path / "mp_rank_00/model_optim_rng.pt")
        if whole:
            _put(run / "latest_checkpointed_iteration.txt", str(step).encode())
    elif layout == "deepspeed":
        path = run / f"global_step{step}"
        _put(path / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
        _put(path / "mp_rank_00_model_states.pt")
        if whole:
            _put(run / "latest", path.name.encode())
    elif layout == "orbax":
        path = run / (str(step) if whole else f"{step}.orbax-checkpoint-tmp-17")
        _put(path / "default/d/0")
        if whole:
            _put(path / "_CHECKPOINT_METADATA", b"{}")
    elif layout == "torch_dcp":
        path = run / f"step-{step}"
        _put(path / "__0_0.distcp")
        if whole:
            _put(path / ".metadata")
    else:
        name = f"epoch={step // 100}-step={step}" + ("" if loss is None else f"-val_loss={loss}")
        path = run / "checkpoints" / f"{name}.ckpt"
        _put(path, _archive(whole))
    if loss is not None and layout not in ("lightning", "transformers"):
        _put(path / "metrics.json", json.dumps({"val_loss": loss}).encode())
    return path


def image(root):
    """Everything that can be told about a tree but access times, as one text."""
    lines = []
    for directory, directories, files in os.walk(root):
        for name in sorted([*directories, *files, "."]):
            path = os.path.join(directory, name)
            found = os.lstat(path)
            content = (
                hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
                if stat.S_ISREG(found.st_mode)
                else ""
            )
            lines.append(
                f"{path} {found.st_ino} {found.st_mode:o} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {content}"
            )
    return "\n".join(sorted(lines))


def clean(world, path, check=False, tell=None, **more):
    """Run a cleanup of one target, 30 days unless told otherwise; return its result as a mapping."""
    whole = {
        name: more.pop(name)
        for name in ("brake", "in_use", "only", "report_path", "require_backup", "age_by")
        if name in more
    }
    target = {"name": "t", "path": str(path), "retention_days": 30, **more}
    extra = {"tell": tell} if tell else {}
    return run.run(
        CleanupOptions.from_mapping({"targets": [target], **whole}), world, check=check, **extra
    ).to_dict()


def names(entries):
    return sorted(os.path.basename(one["path"]) for one in entries)


def reasons(result):
    return {os.path.basename(one["path"]): one["reason"] for one in result["kept"]}


def in_namespace(function):
    """Run a function in a forked child with a private mount namespace; return its value."""
    libc = ctypes.CDLL(None, use_errno=True)

    def inner():
        if libc.unshare(CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        return function()

    return value(isolate.call(inner, 60))


def value(outcome):
    assert not outcome.timed_out
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True)


def as_nobody(function):
    """Run a function in a forked child as the user nobody; return its value."""

    def inner():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.environ.pop("MLOPS_FLEET_LOCK_DIR")  # it belongs to root
        return function()

    return value(isolate.call(inner, 60))


def can_mount():
    try:
        in_namespace(lambda: None)
    except Exception:
        return False
    return True


def require_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


def require_mounts():
    require_root()
    if not can_mount():
        pytest.skip("may not mount here")


@pytest.fixture
def lab():
    """The functions of this file; pytest's importlib mode gives tests no other way to share them."""
    return types.SimpleNamespace(
        **{name: one for name, one in globals().items() if isinstance(one, types.FunctionType)}
    )


@pytest.fixture
def clock(clock):
    """A clock that stands weeks ahead of the machine's, whatever the date, so that what a test makes is old."""
    clock.time = float(int(time.time()) + 51 * DAY)
    return clock


@pytest.fixture(autouse=True)
def no_agent(tmp_path, monkeypatch):
    """Leave the state of an agent on this machine alone."""
    monkeypatch.setenv("MLOPS_FLEET_STATE_DIR", str(tmp_path / "no-agent"))


@pytest.fixture
def root(tmp_path):
    """An empty cleanup root."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def fresh_clock(clock):
    """Turn the clock to the present."""
    clock.time = time.time()
    return clock
