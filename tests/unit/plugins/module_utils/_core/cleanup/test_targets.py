# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names a target matches, and built-in targets that say everything about themselves."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import (
    options,
    targets,
    tools,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.targets import (
    BuiltIn,
    Target,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.units import PlainFile
from ansible_collections.mlops.fleet.plugins.module_utils._core.registry import Registry


def _target(pattern="*", **more):
    return Target("t", "/x", 0.0, pattern, **more)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "a", True),
        ("*", ".a", False),
        (".*", ".a", True),
        (".*", ".mlops-fleet-trash-0123456789abcdef", False),
        ("*", "lost+found", False),
        ("*", "aquota.user", False),
        ("*", "quota.group", False),
        ("ML-*", "ml-a", False),
        ("[!k]*", "a", True),
        ("[!k]*", "keep", False),
        ("[!k]*", ".b", False),
        ("[^k]*", "a", True),
        ("[^k]*", "keep", False),
        ("[^k]*", ".b", False),
        ("[[]*", "[a", True),
        ("a]*", "a]b", True),
        ("[!a]*", ".b", False),
    ],
)
def test_patterns_are_the_shells(pattern, name, matches):
    assert _target(pattern).matches(name) is matches


@pytest.mark.parametrize("pattern", ["[!k]*", "[^k]*"])
def test_exclusions_are_patterns_of_the_shell(pattern):
    excluded = _target(exclude=(pattern, "x"))
    assert excluded.excluded.match("a") and not excluded.excluded.match("keep")
    assert _target().excluded is None


@pytest.mark.parametrize(
    ("unit", "kind", "fits"),
    [
        ("any", "dir", True),
        ("any", "file", True),
        ("any", "link", True),
        ("dir", "dir", True),
        ("dir", "file", False),
        ("dir", "link", False),
        ("file", "dir", False),
        ("file", "file", True),
        ("file", "link", True),
    ],
)
def test_kinds_of_units(unit, kind, fits):
    assert _target(unit=unit).fits(kind) is fits


COMPLETE = BuiltIn("datasets", "/opt/ml/datasets", "*", "logs_retention", "Data sets")


@pytest.mark.parametrize("missing", [None, ""])
@pytest.mark.parametrize("field", ["path", "pattern", "retention", "documentation"])
def test_an_incomplete_built_in_target_fails_at_import(field, missing):
    registry = Registry("built-in cleanup target", (), targets.BUILT_IN.required)
    with pytest.raises(TypeError, match=f"datasets is incomplete: it has no {field}"):
        registry.add(COMPLETE._replace(**{field: missing}))
    registry.add(COMPLETE)


def test_a_built_in_target_without_a_retention_can_not_even_be_written():
    with pytest.raises(TypeError, match="retention"):
        BuiltIn("datasets", "/opt/ml/datasets", "*", documentation="Data sets")


@pytest.mark.parametrize(
    "change", [{"retention": "datasets_retention"}, {"path_option": "data_dir"}]
)
def test_a_built_in_target_that_names_no_option_fails_at_import(change):
    with pytest.raises(TypeError, match="there is no option da"):
        options.check_built_in(COMPLETE._replace(**change))
    options.check_built_in(COMPLETE)


@pytest.mark.parametrize("field", ["documentation", "retention", "observe", "clean"])
def test_an_incomplete_tool_fails_at_import(field):
    registry = Registry("cleanup tool", (), tools.TOOLS.required)
    with pytest.raises(TypeError, match=f"docker is incomplete: it has no {field}"):
        registry.add(tools.TOOLS["docker"]._replace(**{field: None}))


@pytest.mark.parametrize(
    ("retention", "now", "cutoff"),
    [
        (0.0, 1e9, None),
        (1.5, 10.0, 8_500_000_000),
        (86400.0, 1e9, 999_913_600 * 10**9),
        (1.0, 4e9 + 0.25, (4 * 10**9 - 1) * 10**9 + 250_000_000),
    ],
)
def test_the_cutoff_is_exact(retention, now, cutoff):
    assert targets.cutoff(Target("t", "/x", retention), now) == cutoff


def test_a_target_is_careful_by_default():
    target = Target("t", "/x", 1.0)
    assert (target.keep_last, target.shared_ok, target.exclude) == (0, False, ())
    assert (COMPLETE.aggressive, COMPLETE.shared_ok, COMPLETE.exclude) == (False, False, ())


@pytest.mark.parametrize(
    ("more", "plain", "keeps"),
    [
        ({}, True, False),
        ({"keep_last": 1}, True, True),
        ({"exclude": ("a",)}, True, False),
        ({"layout": "auto"}, False, True),
        ({"metric": "loss"}, False, True),
        ({"every_steps": 5}, False, True),
        ({"every_seconds": 5.0}, False, True),
        ({"by_run": True}, False, True),
    ],
)
def test_what_looks_into_units_and_what_keeps_some_whatever_their_age(more, plain, keeps):
    target = _target(**more)
    assert (target.plain, target.keeps) == (plain, keeps)


NAMES = ("a", "ml-a", ".a", ".mlops-fleet-trash-0123456789abcdef", "lost+found", "quota.user")


@pytest.mark.parametrize(
    ("pattern", "units"),
    [
        ("*", ["a", "ml-a"]),
        ("ml-*", ["ml-a"]),
        (".*", [".a"]),
        (".mlops-fleet-*", []),
        ("lost*", []),
        ("lost+found", []),
    ],
)
@pytest.mark.parametrize("unit", ["any", "file", "dir"])
def test_plain_files_are_units_by_the_same_rule_as_names(pattern, units, unit):
    target = _target(pattern, unit=unit)
    assert target.select(NAMES) == units
    fitting = target.fitting()
    assert (fitting is None) is (pattern == "*")
    files = [
        PlainFile(name, 1, 0, 0, 0o100644, 0, 0, 1)
        for name in NAMES
        if fitting is None or fitting(name)
    ]
    kept = [] if unit == "dir" else units
    assert [file.name for file in target.units_of(files)] == kept


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("12h", 43200),
        ("3d", 259200),
        ("2w", 1209600),
        ("1.5 h", 5400),
        (" 1d ", 86400),
        ("3", None),
        ("d", None),
        ("3y", None),
        ("-3d", None),
        ("3d 4h", None),
    ],
)
def test_a_period_has_a_unit(text, seconds):
    assert targets.period(text) == seconds


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, "/home/alice/.cache/x"),
        ({"A": "/data/a/"}, "/data/a/sub"),
        ({"A": "/data/a", "B": "/data/b"}, "/data/a/sub"),
        ({"A": "relative", "B": "/data/b"}, "/data/b"),
        ({"A": ""}, "/home/alice/.cache/x"),
    ],
)
def test_a_variable_moves_a_built_in_target(monkeypatch, environ, place):
    monkeypatch.setenv("HOME", "/home/alice")
    moved = COMPLETE._replace(path="~/.cache/x", variables=(("A", "/sub"), ("B", "")))
    assert moved.place(environ) == place


def test_only_tmp_as_a_whole_is_shared_without_a_pattern_and_only_what_was_asked_for_goes_at_once():
    built_in = list(targets.BUILT_IN)
    assert [entry.name for entry in built_in if entry.shared_ok] == ["tmp"]
    assert [entry.name for entry in built_in if entry.retention == 0] == ["temp"]
    days = {entry.name: entry.retention for entry in built_in if entry.aggressive}
    assert days == {
        "torch_hub": 30,
        "torchinductor": 7,
        "triton": 30,
        "coredumps": 7,
        "wandb": 30,
        "ray": 7,
        "torch_shm": 1,
        "nccl_shm": 1,
        "tmp": 3,
    }
