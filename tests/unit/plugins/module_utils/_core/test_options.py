# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import Option, OptionSet, from_environment


class Sample(OptionSet):
    TABLE = (
        Option("source", type="path", required=True, env=("MODEL_DIR",), help="What to back up."),
        Option("destination", type="path", default="/backup/models"),
        Option("level", type="int", default=6, minimum=0, maximum=9),
        Option("mode", choices=("new", "replace"), default="new"),
        Option("services", type="list", elements="str", default=["docker"]),
        Option("force", type="bool", default=False),
        Option("ratio", type="float"),
        Option("s3", type="dict", suboptions=(Option("bucket", required=True), Option("secret_key", secret=True))),
        Option(
            "rules",
            type="list",
            elements="dict",
            suboptions=(Option("root", type="path", required=True), Option("keep", type="int", minimum=0)),
        ),
    )


def read(**given):
    return Sample.from_mapping({"source": "/opt/ml/models", **given})


def test_defaults_and_conversion():
    found = read(level="7", services="docker nginx", force="yes", ratio="0.5")
    assert (found.source, found.level, found.services, found.force, found.ratio) == ("/opt/ml/models", 7, ["docker", "nginx"], True, 0.5)
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
    assert found.s3["secret_key"] == "hush"
    assert "hush" not in repr(found.to_dict()) and found.to_dict()["s3"]["bucket"] == "b"
    with pytest.raises(OptionError) as caught:
        read(s3={"bucket": "b", "secret_key": ["hush"]})
    assert "hush" not in str(caught.value)


def test_old_environment_variables():
    assert from_environment(Sample.TABLE, {"MODEL_DIR": "/m", "OTHER": "1"}) == {"source": ("/m", "MODEL_DIR")}
    assert from_environment(Sample.TABLE, {"MODEL_DIR": ""}) == {}


def test_defaults_are_not_shared_between_instances():
    read().services.append("x")
    assert read().services == ["docker"]
