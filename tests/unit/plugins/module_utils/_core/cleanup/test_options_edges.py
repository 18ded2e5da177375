# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Home directories, and hints about targets that do not exist."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import options
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.targets import BUILT_IN
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError, Refused


def test_home_directories_of_whatever_the_list_of_users_holds(tmp_path, monkeypatch):
    users = tmp_path / "passwd"
    users.write_text(
        "a:x:1:1::/home/a:/bin/sh\nshort:x:1\nnone:x:2:2::nonexistent:/bin/sh\n"
        "b:x:3:3:://srv//b/:/bin/sh\ntwin:x:4:4::/home/a:\nfive:x:1:1:/gecos\n"
    )
    monkeypatch.setattr(options, "USERS", str(users))
    assert options.homes() == {"/home/a": "a", "/srv/b": "b"}
    monkeypatch.setattr(options, "USERS", str(tmp_path / "gone"))
    assert options.homes() == {}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("docker", "only with aggressive"), ("nothing_like_this", "Known: ")],
)
def test_a_target_that_does_not_exist(name, hint):
    with pytest.raises(OptionError, match=hint):
        CleanupOptions.from_mapping({"only": [name]}).built_in_targets({})


def test_age_and_level_of_the_whole_of_tmp_are_its_own():
    given = {"aggressive": True, "age_by": "mtime", "free_to": "20%", "when_below": "10%"}
    targets = {target.name: target for target in CleanupOptions.from_mapping(given).directories}
    own = (targets["tmp"].age_by, targets["tmp"].free_to, targets["tmp"].when_below)
    assert own == ("newest", None, None)
    logs = targets["logs"]
    assert logs.age_by == "mtime"
    assert (logs.free_to.share, logs.when_below.share) == (0.2, 0.1)


def _target(**given):
    """The target that the options make of one entry; options of the whole begin with ``all_``."""
    whole = {name[4:]: given.pop(name) for name in list(given) if name.startswith("all_")}
    entry = {"path": "/data/x", **given}
    (target,) = CleanupOptions.from_mapping({"targets": [entry], **whole}).directories
    return target


@pytest.mark.parametrize(
    ("given", "days"),
    [
        ({"retention_days": 3}, 3),
        ({"retention_days": 3, "keep_last": 1}, 3),
        ({"keep_last": 1}, 0),
        ({"keep_best": 1, "metric": "loss"}, 0),
        ({"keep_every": "100", "layout": "auto"}, 0),
        ({"layout": "auto", "free_to": "20%"}, 0),
        ({"layout": "auto", "all_free_to": "20%"}, 0),
        ({"name": "logs"}, 14),
        ({"name": "logs", "all_logs_retention": 5}, 5),
        ({"name": "logs", "keep_last": 1}, 14),
        ({}, None),
        ({"layout": "auto"}, None),
        ({"free_to": "20%"}, None),
        ({"all_free_to": "20%"}, None),
        ({"name": "temp"}, None),
        ({"name": "triton"}, None),
    ],
)
def test_for_how_long_a_target_keeps_units_must_be_known(given, days):
    if days is not None:
        assert _target(**given).retention == days * 86400
        return
    with pytest.raises(OptionError, match=r"targets\[0\]\.retention_days is required"):
        _target(**given)


@pytest.mark.parametrize(
    ("given", "by_run"),
    [
        ({}, False),
        ({"group_by": "run"}, True),
        ({"group_by": "target"}, False),
        ({"layout": "auto"}, True),
        ({"layout": "auto", "group_by": "target"}, False),
        ({"layout": "auto", "group_by": "run"}, True),
    ],
)
def test_runs_are_counted_apart_where_a_layout_knows_them(given, by_run):
    assert _target(retention_days=1, **given).by_run is by_run


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ({}, (None, None)),
        ({"free_to": "20%"}, (0.2, 0.2)),
        ({"free_to": "20%", "when_below": "10%"}, (0.2, 0.1)),
        ({"all_free_to": "30%"}, (0.3, 0.3)),
        ({"all_free_to": "30%", "all_when_below": "5%"}, (0.3, 0.05)),
        ({"all_free_to": "30%", "free_to": "20%"}, (0.2, 0.2)),
        ({"all_free_to": "30%", "all_when_below": "5%", "when_below": "6%"}, (0.3, 0.06)),
    ],
)
def test_the_levels_of_a_target_go_before_those_of_all(given, levels):
    target = _target(retention_days=1, **given)
    shares = tuple(level and level.share for level in (target.free_to, target.when_below))
    assert shares == levels


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("metrics.json", True),
        ("eval/metrics.json", True),
        ("..metrics", True),
        ("/etc/passwd", False),
        ("../metrics.json", False),
        ("a/../b", False),
        ("a//b", False),
    ],
)
def test_a_file_with_metrics_is_below_its_unit(path, good):
    given = {"retention_days": 1, "metric_file": path}
    if good:
        assert _target(**given).metric_file == path
        return
    with pytest.raises(OptionError, match="metric_file"):
        _target(**given)


def test_the_best_need_a_metric():
    with pytest.raises(OptionError, match="keep_best needs"):
        _target(keep_best=1)
    target = _target(keep_best=2, metric="loss")
    assert (target.keep_best, target.metric, target.mode) == (2, "loss", "min")


@pytest.mark.parametrize(
    ("path", "shared_ok", "good"),
    [
        ("/dev/shm", True, True),
        ("/dev/shm", False, False),
        ("/dev/shm/x", True, False),
        ("/dev/shm/", True, False),
        ("/tmp", True, True),
        ("/tmp", False, False),
        ("/var/lib/systemd/coredump", True, True),
        ("/var/lib/systemd/coredump", False, False),
        ("/data/x", False, True),
    ],
)
def test_which_roots_are_refused(path, shared_ok, good):
    if good:
        assert options.refuse_root(path, shared_ok) == path
        return
    with pytest.raises(Refused):
        options.refuse_root(path, shared_ok)


def test_a_cleanable_directory_that_is_a_link_is_looked_at_like_any_other(tmp_path, monkeypatch):
    link = tmp_path / "shm"
    link.symlink_to("/etc")
    monkeypatch.setattr(options, "CLEANABLE", frozenset({str(link)}))
    with pytest.raises(Refused):
        options.refuse_root(str(link), True)


def test_a_link_to_somebodys_home_is_refused(tmp_path, monkeypatch):
    home = tmp_path / "deep" / "alice"
    home.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    users = tmp_path / "passwd"
    users.write_text(f"alice:x:1:1::{home}:/bin/sh\n")
    monkeypatch.setattr(options, "USERS", str(users))
    for path in (home, tmp_path / "link"):
        with pytest.raises(Refused, match="home directory of alice"):
            options.refuse_root(str(path), False)


@pytest.mark.parametrize(
    ("given", "shared_ok"),
    [
        ({"pattern": "ml-*", "path": "/tmp"}, True),
        ({"pattern": "*", "path": "/tmp"}, None),
        ({"pattern": "m*", "path": "/tmp"}, None),
        ({"pattern": "*"}, False),
    ],
)
def test_a_shared_directory_needs_a_pattern_that_says_what_is_meant(given, shared_ok):
    if shared_ok is not None:
        assert _target(retention_days=1, **given).shared_ok is shared_ok
        return
    with pytest.raises(Refused):
        _target(retention_days=1, **given)


@pytest.mark.parametrize("name", ["experiments_dir", "checkpoints_dir"])
def test_the_usual_places_are_never_shared_directories(name):
    with pytest.raises(Refused):
        CleanupOptions.from_mapping({name: "/tmp"})


@pytest.mark.parametrize(
    ("quarantine", "seconds"), [(None, None), ("3d", 259200), ("0.2s", 1), ("90s", 90)]
)
def test_how_long_removed_units_are_held(quarantine, seconds):
    given = {"targets": [{"path": "/data/x", "retention_days": 1}], "quarantine": quarantine}
    assert CleanupOptions.from_mapping(given).held_for == seconds


@pytest.mark.parametrize(
    ("only", "names", "tools"),
    [
        (["logs"], ["logs"], ()),
        (["pip"], [], ("pip",)),
        (["tmp", "logs", "docker"], ["logs", "tmp"], ("docker",)),
    ],
)
def test_only_what_is_named_is_cleaned(only, names, tools):
    made = CleanupOptions.from_mapping({"aggressive": True, "only": only})
    assert [target.name for target in made.directories] == names
    assert made.tools == tools


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"only": []}, "Option only is an empty list"),
        ({"only": ["tmp"]}, "exists only with aggressive"),
        ({"only": ["docker"]}, "exists only with aggressive"),
        ({"only": ["logs", "moon"]}, "Known: experiments, checkpoints, logs, temp"),
        ({"targets": []}, "Option targets is an empty list"),
        ({"undo": "r"}, "undo needs state=restored"),
        (
            {"targets": [{"path": "/data/x", "name": "a", "retention_days": 1}] * 2},
            "Two targets are named a",
        ),
        (
            {
                "targets": [{"path": "/data/x", "name": "docker", "retention_days": 1}],
                "aggressive": True,
            },
            "Two targets are named docker",
        ),
    ],
)
def test_what_contradicts_is_refused(given, problem):
    with pytest.raises(OptionError, match=problem):
        CleanupOptions.from_mapping(given)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"retention": "moon"}, "has no retention: there is no option moon"),
        ({"path_option": "moon"}, "there is no option moon"),
        ({"retention": "logs_retention", "path_option": "experiments_dir"}, None),
        ({"retention": 0.0}, None),
    ],
)
def test_a_built_in_target_names_options_that_exist(change, problem):
    entry = next(iter(BUILT_IN))._replace(**change)
    if problem is None:
        options.check_built_in(entry)
        return
    with pytest.raises(TypeError, match=problem):
        options.check_built_in(entry)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        (None, (0, 0.0)),
        ("1", (1, 0.0)),
        ("500", (500, 0.0)),
        ("30m", (0, 1800.0)),
        ("0", None),
        ("0s", None),
        ("-5", None),
        ("often", None),
    ],
)
def test_an_interval_is_a_number_of_steps_or_a_time(text, interval):
    if interval is not None:
        assert options._interval(text, "x") == interval
        return
    with pytest.raises(OptionError, match="a number of steps or a period"):
        options._interval(text, "x")


@pytest.mark.parametrize(
    ("free_to", "when_below", "target", "problem"),
    [
        (None, None, None, None),
        ("20%", None, None, None),
        ("20%", "20%", None, None),
        ("20%", "21%", None, "must not be larger"),
        ("5G", "5G", None, None),
        ("5G", "6G", None, "must not be larger"),
        ("20%", "6G", None, None),
        ("5G", "90%", None, None),
        (None, "5%", None, "needs free_to"),
        (None, "5%", "20%", None),
    ],
)
def test_less_space_starts_a_cleanup_than_it_leaves(free_to, when_below, target, problem):
    given = {"targets": [{"path": "/data/x", "retention_days": 1, "free_to": target}]}
    given.update(free_to=free_to, when_below=when_below)
    if problem is None:
        assert CleanupOptions.from_mapping(given).directories
        return
    with pytest.raises(OptionError, match=problem):
        CleanupOptions.from_mapping(given)


@pytest.mark.parametrize(
    ("given", "age_by"),
    [
        ({}, "newest"),
        ({"age_by": "mtime"}, "mtime"),
        ({"all_age_by": "atime"}, "atime"),
        ({"age_by": "mtime", "all_age_by": "atime"}, "mtime"),
    ],
)
def test_the_age_of_a_target_goes_before_that_of_all(given, age_by):
    assert _target(retention_days=1, **given).age_by == age_by


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"path": "/backup"}, "/backup"),
        ({"s3": {"bucket": "b", "prefix": "/n/"}}, "s3://b/n"),
        ({"path": "/backup", "s3": {"bucket": "b"}}, "/backup and s3://b"),
        ({"max_age_hours": 5}, None),
    ],
)
def test_an_interlock_needs_a_place_of_backups(given, place):
    targets = [{"path": "/data/x", "retention_days": 1}]
    asked = {"targets": targets, "require_backup": given}
    if place is not None:
        assert CleanupOptions.from_mapping(asked).require_backup.place == place
        return
    with pytest.raises(OptionError, match=r"require_backup\.path is required"):
        CleanupOptions.from_mapping(asked)
