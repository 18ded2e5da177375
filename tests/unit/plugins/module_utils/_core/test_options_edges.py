# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Option tables: what inherits, what is empty, what the environment holds."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.config import from_environment
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import (
    OptionSet,
    option,
)


class Inner(OptionSet):
    level: int = option(type="int", default=1, env=("LEVEL",), help="x")


class Base(OptionSet):
    anything: object = option(type="raw", default=None, help="x")
    entries: list[str] = option(
        type="list", elements="str", choices=("a", "b"), default=[], help="x"
    )
    number: int = option(type="int", default=1, minimum=1, maximum=3, help="x")
    name: str = option(default="x", env=("OLD_NAME", "OLDER_NAME"), help="x")


class Derived(Base):
    number: int = option(type="int", default=2, minimum=2, maximum=3, help="x")
    inner: Inner = option(type="dict", suboptions=Inner, default={}, help="x")


def test_an_option_declared_again_replaces_the_inherited_one():
    names = [entry.name for entry in Derived.TABLE]
    assert sorted(names) == ["anything", "entries", "inner", "name", "number"]
    assert Derived.default("number") == 2
    with pytest.raises(OptionError, match="at least 2"):
        Derived.from_mapping({"number": 1})


@pytest.mark.parametrize("value", ["text", 7, [1], None, True])
def test_a_raw_value_stays_what_it_is(value):
    assert Base.from_mapping({"anything": value}).anything == value


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_entry_of_a_list_is_named(empty):
    with pytest.raises(OptionError, match=r"entries\[1\] is empty"):
        Base.from_mapping({"entries": ["a", empty]})


def test_limits_and_choices_of_a_list_are_those_of_its_entries():
    assert Base.from_mapping({"entries": ["a", "b"]}).entries == ["a", "b"]
    with pytest.raises(OptionError, match=r"entries\[0\] is 'c', but must be one of a, b"):
        Base.from_mapping({"entries": ["c"]})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"OLD_NAME": ""}, {}),
        ({"OLDER_NAME": "b"}, {"name": ("b", "OLDER_NAME")}),
        ({"OLD_NAME": "a", "OLDER_NAME": "b"}, {"name": ("a", "OLD_NAME")}),
        ({"LEVEL": "3"}, {"inner": ({"level": "3"}, "LEVEL")}),
    ],
)
def test_variables_of_the_old_scripts(environ, expected):
    assert from_environment(Derived.TABLE, environ) == expected
