# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import config
from ansible_collections.mlops.fleet.plugins.module_utils._core.config import from_environment
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import (
    Option,
    OptionSet,
    option,
    read_table,
)


class S3(OptionSet):
    bucket: str = option(required=True, help="Name of the bucket.")
    secret_key: str | None = option(secret=True, help="Key.")


class Sample(OptionSet):
    source: str = option(
        type="path", required=True, env=("MODEL_DIR",), help="Directory to back up."
    )
    destination: str = option(type="path", default="/backup/models", help="Where backups go.")
    level: int = option(type="int", default=6, minimum=0, maximum=9, help="Compression level.")
    mode: str = option(choices=("new", "replace"), default="new", help="Mode.")
    services: list[str] = option(
        type="list", elements="str", default=["docker"], help="Units to check."
    )
    force: bool = option(type="bool", default=False, help="Force.")
    ratio: float | None = option(type="float", help="Ratio.")
    s3: S3 | None = option(type="dict", suboptions=S3, help="Object storage.")
    rules: list[dict[str, Any]] | None = option(
        type="list",
        elements="dict",
        suboptions=(
            Option("root", type="path", required=True),
            Option("keep", type="int", minimum=0),
        ),
        help="Rules.",
    )


def read(**given):
    return Sample.from_mapping({"source": "/opt/ml/models", **given})


def test_defaults_and_conversion():
    found = read(level="7", services="docker nginx", force="yes", ratio="0.5")
    assert (found.source, found.level, found.services, found.force, found.ratio) == (
        "/opt/ml/models",
        7,
        ["docker", "nginx"],
        True,
        0.5,
    )
    assert found.destination == "/backup/models" and found.s3 is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"level": 12}, ["level", "12", "at most 9"]),
        ({"level": -1}, ["level", "at least 0"]),
        ({"level": "six"}, ["level", "'six'", "whole number"]),
        ({"level": 6.5}, ["whole number"]),
        ({"level": True}, ["whole number"]),
        ({"ratio": "nan"}, ["ratio", "number"]),
        ({"source": "models"}, ["source", "'models'", "absolute path"]),
        ({"source": ["/a"]}, ["source", "must be a path"]),
        ({"mode": ["new"]}, ["mode", "must be text"]),
        ({"source": ""}, ["source", "empty"]),
        ({"source": None}, ["source", "required"]),
        ({"destination": ""}, ["destination", "empty"]),
        ({"source": "/a\0b"}, ["NUL"]),
        ({"mode": "nwe"}, ["mode", "one of new, replace"]),
        ({"force": "perhaps"}, ["force", "true or false"]),
        ({"services": ["a", ""]}, ["services[1]", "empty"]),
        ({"sevices": ["a"]}, ["Unknown option sevices", "services"]),
        ({"s3": {"bukket": "b"}}, ["s3.bukket", "s3.bucket"]),
        ({"s3": {}}, ["s3.bucket", "required"]),
        ({"rules": [{"root": "/a/b"}, {"root": "c"}]}, ["rules[1].root", "absolute"]),
        ({"rules": [{"root": "/a/b", "keep": -2}]}, ["rules[0].keep", "at least 0"]),
    ],
)
def test_bad_values_end_in_one_clear_message(given, words):
    with pytest.raises(OptionError) as caught:
        read(**given)
    for word in words:
        assert word in str(caught.value)


def test_unanswered_survey_questions_mean_default():
    assert read(level="", mode="", ratio="").level == 6


def test_secrets_are_hidden_also_in_errors():
    found = read(s3={"bucket": "b", "secret_key": "hush"})
    assert found.s3.secret_key == "hush"
    assert "hush" not in repr(found.to_dict()) and found.to_dict()["s3"]["bucket"] == "b"
    with pytest.raises(OptionError) as caught:
        read(s3={"bucket": "b", "secret_key": ["hush"]})
    assert "hush" not in str(caught.value)


def test_old_environment_variables():
    assert from_environment(Sample.TABLE, {"MODEL_DIR": "/m", "OTHER": "1"}) == {
        "source": ("/m", "MODEL_DIR")
    }
    assert from_environment(Sample.TABLE, {"MODEL_DIR": ""}) == {}


def test_defaults_are_not_shared_between_instances():
    read().services.append("x")
    assert read().services == ["docker"]


def declare(annotation="str", **description):
    """Return an option set with one option, declared as in a part."""
    body = {"sample": option(**description)}
    if annotation:
        body["__annotations__"] = {"sample": annotation}
    return type("Declared", (OptionSet,), body)


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ({}, "no help text"),
        ({"type": "text", "help": "x"}, "unknown type 'text'"),
        ({"type": "list", "help": "x"}, "needs elements"),
        ({"elements": "str", "help": "x"}, "needs elements"),
        ({"required": True, "default": "a", "help": "x"}, "required and has a default"),
        ({"annotation": None, "help": "x"}, "no type annotation"),
    ],
)
def test_an_incomplete_declaration_is_an_error_at_import(description, problem):
    with pytest.raises(TypeError, match=problem):
        declare(**description)


def test_a_misspelled_option_is_no_attribute():
    assert declare(help="x").from_mapping({}).sample is None
    for name in ("smaple", "TABEL", "values"):
        with pytest.raises(AttributeError):
            getattr(declare(help="x").from_mapping({}), name)
    with pytest.raises(AttributeError):
        assert Sample.source is None  # a value belongs to an instance


def _option_sets(base=OptionSet):
    for cls in base.__subclasses__():
        yield cls
        yield from _option_sets(cls)


BASES = {"str": "str", "path": "str", "int": "int", "float": "float", "bool": "bool", "raw": "Any"}


def _annotation(entry):
    """Return what the annotation of an option must begin with."""
    if entry.type in ("dict", "list") and isinstance(entry.suboptions, type):
        inner = entry.suboptions.__name__
        return inner if entry.type == "dict" else f"list[{inner}]"
    if entry.type == "list":
        return f"list[{BASES.get(entry.elements, 'dict[str, Any]')}]"
    return BASES.get(entry.type, "dict[str, Any]")


@pytest.mark.parametrize("part", [*config.PARTS])
def test_annotations_say_what_the_table_says(part):
    """A type checker sees the annotations, the shells see the table: they must not differ."""
    config.option_set(part)
    for cls in _option_sets():
        if not cls.__module__.startswith("ansible_collections."):
            continue
        for entry in cls.TABLE:
            annotations = {
                key: text
                for base in cls.__mro__
                for key, text in vars(base).get("__annotations__", {}).items()
            }
            if entry.name not in annotations:
                continue
            optional = not entry.required and entry.default is None and entry.type != "raw"
            expected = _annotation(entry) + (" | None" if optional else "")
            assert annotations[entry.name] == expected, f"{cls.__name__}.{entry.name}"


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"name": "a"}, "a"),
        ({"old": "a"}, "a"),
        ({"name": None, "old": "a"}, "a"),
        ({"old": None, "name": "a"}, "a"),
        ({"old": "a", "name": None}, "a"),
        ({"name": "a", "old": None}, "a"),
        ({"name": None, "old": None}, "default"),
        ({"name": "a", "old": "b"}, "b"),
    ],
)
def test_an_alias_that_is_not_given_hides_nothing(given, value):
    table = (Option("name", aliases=("old",), default="default", help="x"),)
    assert read_table(table, given) == {"name": value}
