# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links that leave the source: reported, refused, or followed, each tree once."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import archive
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import report


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    """A source of one model, and a disk beside it with another one."""
    root = tmp_path / "models"
    (root / "bert").mkdir(parents=True)
    (root / "bert" / "weights").write_text("bert")
    big = tmp_path / "mnt" / "big"
    (big / "v1").mkdir(parents=True)
    (big / "v1" / "weights").write_text("big")
    (big / "latest").symlink_to("v1")
    return root


def stored(result, tmp_path) -> dict[str, str | None]:
    """Unpack with tar; return content, or the target of a link, by path; None: a directory."""
    target = tmp_path / "unpacked"
    subprocess.run(["rm", "-rf", target], check=True)
    target.mkdir()
    subprocess.run(["tar", "xf", result.backup["path"], "-C", target], check=True)
    tree: dict[str, str | None] = {}
    for path in sorted(target.rglob("*")):
        name = str(path.relative_to(target))
        if path.is_symlink():
            tree[name] = "-> " + os.readlink(path)
        else:
            tree[name] = None if path.is_dir() else path.read_text()
    return tree


def names_of(tree):
    return sorted(name for name, content in tree.items() if content and content[:3] != "-> ")


def test_by_default_the_phase_is_a_warning(back_up, source, tmp_path):
    assert back_up().to_dict()["status"] == "pass"
    (source / "current").symlink_to(tmp_path / "mnt" / "big")
    for dummy in range(2):  # also where no new backup is needed
        result = back_up().to_dict()
        assert result["status"] == "warning"
        assert result["outside_links"] == [f"current -> {tmp_path}/mnt/big"]
    entry = report.phase_entry("backup", result, {}, "", False)
    assert entry["status"] == "warning" and "current -> " in entry["message"]
    assert report.host_entry("node1", {"backup": result})["status"] == "warning"


def test_fail_makes_no_backup(back_up, source, destination):
    back_up(outside_links="fail")
    (source / "current").symlink_to("/mnt/big")
    for check in (True, False):
        with pytest.raises(errors.Refused, match=r"1 link of .* current -> /mnt/big"):
            back_up(outside_links="fail", check=check)
    assert len(list(destination.glob("*.tar.gz"))) == 1


def test_what_a_link_names_is_stored_in_its_place(
    back_up, source, tmp_path, look, bring_back, restored
):
    (source / "current").symlink_to(tmp_path / "mnt" / "big")
    (source / "one file").symlink_to("../mnt/big/v1/weights")
    result = back_up(outside_links="follow")
    assert result.to_dict()["status"] == "pass" and result.to_dict()["outside_links"] == []
    assert stored(result, tmp_path) == {
        "bert": None,
        "bert/weights": "bert",
        "current": None,
        "current/latest": "-> v1",
        "current/v1": None,
        "current/v1/weights": "big",
        "one file": "-> current/v1/weights",
    }
    assert look(verify="full")["verified"]
    assert bring_back().files == 2
    assert (restored / "one file").read_text() == "big"
    assert back_up(outside_links="follow").changed is False
    (tmp_path / "mnt" / "big" / "v1" / "weights").write_text("new")
    assert stored(back_up(outside_links="follow"), tmp_path)["current/v1/weights"] == "new"


def test_a_file_alone_is_stored_once(back_up, source, tmp_path):
    for name in ("a", "b"):
        (source / name).symlink_to(tmp_path / "mnt" / "big" / "v1" / "weights")
    tree = stored(back_up(outside_links="follow"), tmp_path)
    assert (tree["a"], tree["b"]) == ("big", "-> a")


def test_the_outer_tree_is_stored_whole(back_up, source, tmp_path):
    big = tmp_path / "mnt" / "big"
    (source / "a").symlink_to(big / "v1")
    (source / "b").symlink_to(big / "latest")
    (source / "c").symlink_to(big)
    (source / "inside").symlink_to("c/v1")
    tree = stored(back_up(outside_links="follow"), tmp_path)
    assert tree["c/v1/weights"] == "big"
    assert [tree[name] for name in ("a", "b", "inside")] == ["-> c/v1"] * 3
    assert names_of(tree) == ["bert/weights", "c/v1/weights"]


def test_links_in_what_is_followed(back_up, source, tmp_path):
    big, other = tmp_path / "mnt" / "big", tmp_path / "mnt" / "other"
    other.mkdir()
    (other / "tokenizer").write_text("words")
    (other / "back").symlink_to(big)
    (big / "sibling").symlink_to("../other")
    (big / "absolute").symlink_to(big / "v1")
    (big / "home").symlink_to(source / "bert")
    (source / "current").symlink_to(big)
    tree = stored(back_up(outside_links="follow"), tmp_path)
    assert tree["current/sibling/tokenizer"] == "words"
    assert tree["current/sibling/back"] == "-> .."
    assert tree["current/absolute"] == "-> v1"
    assert tree["current/home"] == "-> ../bert"
    assert names_of(tree) == ["bert/weights", "current/sibling/tokenizer", "current/v1/weights"]


def test_loops_and_parents_are_left_alone(back_up, source, tmp_path, destination):
    (source / "loop").symlink_to(tmp_path / "mnt" / "loop")
    (tmp_path / "mnt" / "loop").symlink_to(source / "loop")
    (source / "gone").symlink_to("/no such disk/model")
    (source / "parent").symlink_to("..")
    (source / "root").symlink_to("/")
    (source / "self").symlink_to("../models")
    (source / "bert" / "up").symlink_to("..")
    (source / "backups").symlink_to(destination)
    destination.mkdir()
    (tmp_path / "mnt" / "big" / "parent").symlink_to(tmp_path)
    (source / "current").symlink_to(tmp_path / "mnt" / "big")
    result = back_up(outside_links="follow")
    tree = stored(result, tmp_path)
    assert names_of(tree) == ["bert/weights", "current/v1/weights"]
    assert tree["self"] == "-> ." and tree["bert/up"] == "-> .."
    left = result.to_dict()["outside_links"]
    assert sorted(line.split(" ")[0] for line in left) == [
        "backups",
        "current/parent",
        "gone",
        "loop",
        "parent",
        "root",
    ]
    assert result.to_dict()["status"] == "warning"
    assert back_up(outside_links="follow").changed is False


def test_patterns_leave_out_what_is_followed(back_up, source, tmp_path):
    (source / "current").symlink_to(tmp_path / "mnt" / "big")
    tree = stored(back_up(outside_links="follow", exclude=["current/v1"]), tmp_path)
    assert sorted(tree) == ["bert", "bert/weights", "current", "current/latest"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_file_systems_in_between(back_up, source, tmp_path, mounted):
    other = tmp_path / "other"
    (other / "inner").mkdir(parents=True)
    (other / "inner" / "weights").write_text("mounted")
    (tmp_path / "mnt" / "disk").mkdir()
    (tmp_path / "mnt" / "alias").mkdir()
    (tmp_path / "mnt" / "big" / "mounted").mkdir()
    (source / "current").symlink_to(tmp_path / "mnt" / "big")
    (source / "disk").symlink_to(tmp_path / "mnt" / "disk")
    (source / "same").symlink_to(tmp_path / "mnt" / "alias")

    def look():
        result = back_up(outside_links="follow")
        tree = stored(result, tmp_path)
        assert names_of(tree) == [
            "bert/weights",
            "current/mounted/inner/weights",
            "current/v1/weights",
        ]
        assert tree["disk"] == "-> current/mounted" and tree["same"] == "-> bert"
        assert result.to_dict()["status"] == "pass"

    mounted(
        [
            (tmp_path / "other", tmp_path / "mnt" / "disk", None, ""),
            (tmp_path / "other", tmp_path / "mnt" / "big" / "mounted", None, ""),
            (source / "bert", tmp_path / "mnt" / "alias", None, ""),
        ],
        look,
    )


def test_a_directory_that_becomes_a_link_is_not_followed_unseen(
    back_up, source, tmp_path, monkeypatch
):
    """What is stored is what was walked: a component that turns into a link starts the run over."""
    big = tmp_path / "mnt" / "big"
    (source / "current").symlink_to(big)
    real = archive.write
    calls = []

    def write(*arguments):
        if not calls:
            (big / "v1").rename(big / "v2")
            (big / "v1").symlink_to("v2")
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(archive, "write", write)
    result = back_up(outside_links="follow")
    assert len(calls) == 2
    tree = stored(result, tmp_path)
    assert (tree["current/v1"], tree["current/v2/weights"]) == ("-> v2", "big")
