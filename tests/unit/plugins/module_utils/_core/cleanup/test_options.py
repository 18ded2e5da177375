# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that can't be used end in one clear message; the others mean what the old scripts meant."""

from __future__ import annotations

import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import config
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import options
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.watermark import (
    parse_level,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    FleetError,
    OptionError,
    Refused,
)

DAY = 86400


def _given(**target):
    return {"targets": [{"path": "/data/x", "retention_days": 1, **target}]}


def test_the_old_scripts_defaults():
    options = CleanupOptions.from_mapping({})
    assert [
        (one.name, one.path, one.pattern, one.retention / DAY, one.age_by)
        for one in options.directories
    ] == [
        ("experiments", "/opt/ml/experiments", "*", 30, "newest"),
        ("checkpoints", "/opt/ml/checkpoints", "*", 7, "newest"),
        ("logs", "/var/log", "ml-*", 14, "newest"),
        ("temp", "/tmp", "ml-*", 0, "newest"),
    ]
    assert options.tools == ()


#: Days of what aggressive mode adds besides /tmp.
AGGRESSIVE = {
    "torch_hub": 30,
    "torchinductor": 7,
    "triton": 30,
    "coredumps": 7,
    "wandb": 30,
    "ray": 7,
    "torch_shm": 1,
    "nccl_shm": 1,
}


def test_the_old_environment_variables():
    environ = {
        "EXPERIMENTS_RETENTION": "60",
        "CHECKPOINTS_RETENTION": "3",
        "LOGS_RETENTION": "0.5",
        "AGGRESSIVE": "true",
        "EXPERIMENTS_DIR": "/tmp/test-experiments",
        "CHECKPOINTS_DIR": "/data/ck",
    }
    values, origin = config.merge(CleanupOptions, {}, environ, {})
    options = CleanupOptions.from_mapping(values)
    found = {one.name: (one.path, one.retention / DAY) for one in options.directories}
    assert found == {
        "experiments": ("/tmp/test-experiments", 60),
        "checkpoints": ("/data/ck", 3),
        "logs": ("/var/log", 0.5),
        "temp": ("/tmp", 0),
        **{name: found[name] for name in AGGRESSIVE},
        "tmp": ("/tmp", 3),
    }
    assert (
        options.tools == ("docker", "podman", "crictl", "pip", "apt", "uv", "conda", "huggingface")
        and origin["aggressive"] == "environment AGGRESSIVE"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/home",
        "/home/alice",
        "/root",
        "/etc",
        "/usr",
        "/usr/lib/x",
        "/opt",
        "/var",
        "/var/lib",
        "/tmp",
        "/var/log",
        "/data",
        "//",
        "/opt/../etc",
        "/proc/1",
        "/proc/self/root/etc",
        "//etc//x",
        "/./home/",
        "/home/alice/",
        "/usr/share/x",
        "/var/lib/docker",
        "/var/lib/docker/overlay2",
        "/var/lib/postgresql/15/main",
        "/boot/x",
        "/etc/mlops-fleet",
        "/opt/mlops-fleet",
        "/var/lib/mlops-fleet/state",
        os.path.expanduser("~"),
    ],
)
def test_dangerous_roots_are_refused(path):
    with pytest.raises(Refused):
        CleanupOptions.from_mapping(_given(path=path))


@pytest.mark.parametrize("path", ["", "relative", "./x", "a/b"])
def test_empty_and_relative_roots_are_refused(path):
    with pytest.raises(OptionError):
        CleanupOptions.from_mapping(_given(path=path))


def test_a_link_to_a_dangerous_root_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("/home")
    with pytest.raises(Refused):
        CleanupOptions.from_mapping(_given(path=str(tmp_path / "link")))
    with pytest.raises(Refused):
        CleanupOptions.from_mapping({"experiments_dir": "/home"})


@pytest.fixture
def users(tmp_path, monkeypatch):
    """A list of users of our own; bob's home is an ordinary directory."""
    (tmp_path / "passwd").write_text(
        f"root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::{tmp_path}/people/bob/:/bin/sh\nodd\nnone:x:2:2:::\n"
    )
    monkeypatch.setattr(options, "USERS", str(tmp_path / "passwd"))
    return tmp_path / "people"


def test_a_users_home_is_refused_wherever_it_lies(users, tmp_path):
    (tmp_path / "link").symlink_to(users / "bob")
    for path in (users / "bob", tmp_path / "link"):
        with pytest.raises(Refused, match="home directory of bob"):
            CleanupOptions.from_mapping(_given(path=str(path)))
    assert CleanupOptions.from_mapping(_given(path=str(users / "bob" / "runs"))).directories[
        0
    ].path == str(users / "bob" / "runs")


def test_homes_that_lie_in_a_root_stay(users, world, lab):
    for name in ("bob", "runs"):
        lab.unit(users, name)
    result = lab.clean(world, users)
    assert (
        lab.names(result["removed"]) == ["runs"]
        and "home directory of bob" in lab.reasons(result)["bob"]
    )


def test_the_message_names_where_a_link_leads(tmp_path):
    """The usual place may be a link to another disk; the disk as a whole is no root."""
    (tmp_path / "experiments").symlink_to("/data")
    with pytest.raises(Refused, match="experiments leads to /data, which is directly below /"):
        CleanupOptions.from_mapping({"experiments_dir": str(tmp_path / "experiments")})


@pytest.mark.parametrize(
    ("pattern", "fine"),
    [
        ("ml-*", True),
        ("ml*", True),
        ("m*", False),
        ("*", False),
        ("?l-*", False),
        ("[m]l-*", False),
    ],
)
def test_shared_directories_need_a_pattern_with_a_beginning(pattern, fine):
    if fine:
        assert (
            CleanupOptions.from_mapping(_given(path="/tmp", pattern=pattern)).directories[0].path
            == "/tmp"
        )
    else:
        with pytest.raises(Refused):
            CleanupOptions.from_mapping(_given(path="/tmp", pattern=pattern))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": []}, "empty"),
        ({"only": []}, "empty"),
        ({"only": ["nothing"]}, "nothing"),
        ({"only": ["docker"]}, "aggressive"),
        ({"experiments_retention": -1}, "at least 0"),
        ({"logs_retention": "soon"}, "number"),
        ({"experiments_dir": "relative"}, "absolute"),
        ({"age_by": "birth"}, "one of"),
        ({"brake": {"max_share": 2}}, "at most 1"),
        ({"brake": {"max_units": -1}}, "at least 0"),
        ({"require_backup": {}}, "required"),
        ({"unknown": 1}, "Unknown"),
        (_given(retention_days=None), "retention_days is required"),
        (_given(retention_days=-0.1), "at least 0"),
        (_given(retention_days=float("nan")), "number"),
        (_given(name="temp", retention_days=None), "retention_days is required"),
        (_given(pattern="a/b"), "slash"),
        (_given(pattern=".."), "names"),
        (_given(exclude=["a/b"]), "slash"),
        (_given(unit="tree"), "one of"),
        (_given(keep_last=-1), "at least 0"),
        ({"targets": _given()["targets"] * 2}, "Two targets"),
        (
            {"targets": [{"name": "docker", **_given()["targets"][0]}], "aggressive": True},
            "Two targets",
        ),
    ],
)
def test_options_that_can_not_be_used(given, message):
    with pytest.raises(FleetError, match=message):
        CleanupOptions.from_mapping(given)


def test_a_target_of_a_usual_name_takes_its_retention_from_the_option_of_that_name():
    given = {
        "targets": [
            {"name": "experiments", "path": "/data/x"},
            {"name": "mine", "path": "/data/y", "retention_days": 2},
        ],
        "experiments_retention": 60,
        "age_by": "mtime",
    }
    options = CleanupOptions.from_mapping(given)
    assert [(one.retention / DAY, one.age_by) for one in options.directories] == [
        (60, "mtime"),
        (2, "mtime"),
    ]


def test_only_limits_what_is_cleaned():
    options = CleanupOptions.from_mapping({"only": ["checkpoints", "apt"], "aggressive": True})
    assert [one.name for one in options.directories] == ["checkpoints"] and options.tools == (
        "apt",
    )


def _one(given):
    (target,) = CleanupOptions.from_mapping(given).directories
    return target


@pytest.mark.parametrize("option", ["experiments_dir", "checkpoints_dir"])
@pytest.mark.parametrize("path", ["/tmp", "/var/log", "/var/tmp", "/", "/home/bob", "/etc/x"])
def test_directories_of_built_in_targets_are_guarded(option, path):
    """Their pattern is *, so that they can't be directories that many programs share."""
    with pytest.raises(Refused):
        CleanupOptions.from_mapping({option: path})


def test_every_built_in_target_has_a_retention_that_was_written_down():
    given = {
        "experiments_retention": 1,
        "checkpoints_retention": 2,
        "logs_retention": 3,
        "aggressive": True,
    }
    built_in = CleanupOptions.from_mapping(given).directories
    assert {target.name: target.retention / DAY for target in built_in} == {
        "experiments": 1,
        "checkpoints": 2,
        "logs": 3,
        "temp": 0,
        **AGGRESSIVE,
        "tmp": 3,
    }


@pytest.mark.parametrize(
    ("environ", "name", "path"),
    [
        ({"HOME": "/h/u"}, "triton", "/h/u/.triton/cache"),
        ({"HOME": "/h/u", "TRITON_CACHE_DIR": "/data/t"}, "triton", "/data/t"),
        ({"HOME": "/h/u", "TRITON_CACHE_DIR": "relative"}, "triton", "/h/u/.triton/cache"),
        ({"HOME": "/h/u"}, "torch_hub", "/h/u/.cache/torch/hub/checkpoints"),
        ({"TORCH_HOME": "/data/torch/"}, "torch_hub", "/data/torch/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/data/c"}, "torch_hub", "/data/c/torch/hub/checkpoints"),
        ({"HOME": "/h/u"}, "wandb", "/h/u/wandb"),
        ({"WANDB_DIR": "/data/runs"}, "wandb", "/data/runs/wandb"),
        ({"RAY_TMPDIR": "/data/r"}, "ray", "/data/r/ray"),
        ({}, "torch_shm", "/dev/shm"),
        ({}, "coredumps", "/var/lib/systemd/coredump"),
    ],
)
def test_caches_are_where_their_programs_keep_them(monkeypatch, environ, name, path):
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME", "WANDB_DIR", "RAY_TMPDIR", "TRITON_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    (target,) = CleanupOptions.from_mapping({"aggressive": True, "only": [name]}).directories
    assert target.path == path


@pytest.mark.parametrize("pattern", ["*", "[ab]*", "n*"])
def test_shared_memory_is_cleaned_of_clear_names_only(pattern):
    with pytest.raises(Refused, match="in /dev"):
        _one({"targets": [{"path": "/dev/shm", "pattern": pattern, "retention_days": 1}]})
    for path in ("/dev", "/dev/shm/x", "/dev/mqueue"):
        with pytest.raises(Refused):
            _one({"targets": [{"path": path, "pattern": "nccl-*", "retention_days": 1}]})


def test_a_configured_target_named_temp_or_tmp_needs_a_retention():
    for name in ("temp", "tmp"):
        with pytest.raises(OptionError, match="retention_days is required"):
            _one({"targets": [{"name": name, "path": "/data/x"}]})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20%", 200),
        ("0.5%", 5),
        ("300", 300),
        ("2k", 2048),
        ("1.5 KiB", 1536),
        ("3KB", 3000),
        ("1G", 1 << 30),
        ("0%", None),
        ("100%", None),
        ("0", None),
        ("-5G", None),
        ("much", None),
    ],
)
def test_parse_level(text, size):
    level = parse_level(text)
    assert (None if level is None else level.of(1000)) == size


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({"when_below": "10%"}, "when_below"),
        ({"free_to": "10%", "when_below": "20%"}, "when_below"),
        ({"free_to": "much"}, "free_to"),
        ({"targets": [{"path": "/opt/x", "free_to": "10%"}]}, "targets[0].retention_days"),
        ({"targets": [{"path": "/opt/x", "keep_best": 2}]}, "targets[0].metric"),
        ({"targets": [{"path": "/opt/x", "keep_every": "0"}]}, "targets[0].keep_every"),
        ({"targets": [{"path": "/opt/x", "keep_every": "often"}]}, "targets[0].keep_every"),
        (
            {"targets": [{"path": "/opt/x", "keep_last": 1, "metric_file": "../x"}]},
            "targets[0].metric_file",
        ),
    ],
)
def test_levels_and_policies_are_checked(options, subject):
    with pytest.raises(OptionError) as refused:
        CleanupOptions.from_mapping(options)
    assert refused.value.subject == subject
