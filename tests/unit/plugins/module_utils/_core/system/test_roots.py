# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories that are refused, with the reason, and those that are opened without a link."""

from __future__ import annotations

import os
import re

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import NotUsable, Refused
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import roots

HOME = os.path.expanduser("~")
RELATIVE, DOTS = "is not an absolute path", "contains '..'"
SYSTEM, TOP, TREE = "is a system or home ", "is directly below /", " in "


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", RELATIVE),
        ("relative/x", RELATIVE),
        ("./x", RELATIVE),
        ("/", SYSTEM),
        ("//", SYSTEM),
        ("/home", SYSTEM),
        ("/home/", SYSTEM),
        ("/home/alice", SYSTEM),
        ("//home/alice", SYSTEM),
        ("/opt", SYSTEM),
        ("/srv", SYSTEM),
        ("/var/log", SYSTEM),
        ("/./home", SYSTEM),
        (HOME, SYSTEM),
        ("/data", TOP),
        ("/opt/../home", DOTS),
        ("/opt/ml/..", DOTS),
        ("/etc/x", TREE + "/etc"),
        ("/usr/lib/python3", TREE + "/usr/lib"),
        *((tree, "") for tree in roots.FORBIDDEN_TREES),
        *((tree + "/below", "") for tree in roots.FORBIDDEN_TREES),
        *((path, SYSTEM) for path in sorted(roots.DANGEROUS)),
    ],
)
@pytest.mark.parametrize("shared_ok", [False, True])
def test_dangerous_roots_are_refused(path, why, shared_ok):
    if shared_ok and path in roots.SHARED:
        assert roots.refuse_dangerous(path, "cleanup root", shared_ok) == path
        return
    with pytest.raises(Refused, match="cleanup root .*" + re.escape(why)) as refused:
        roots.refuse_dangerous(path, "cleanup root", shared_ok)
    assert refused.value.subject == path
    resolved = os.path.realpath(path) == os.path.normpath("/" + path.lstrip("/"))
    assert not resolved or "leads to" not in str(refused.value)


@pytest.mark.parametrize("path", sorted(roots.SHARED))
def test_shared_directories_are_refused_unless_asked_for(path):
    with pytest.raises(Refused):
        roots.refuse_dangerous(path, "cleanup root")


@pytest.mark.parametrize(
    "path",
    ["/opt/ml/experiments", "/home/alice/experiments", "/var/log/ml", "/data/ml/", "/etcetera/x"],
)
def test_ordinary_roots_are_accepted(path):
    assert roots.refuse_dangerous(path, "cleanup root") == path.rstrip("/")


def test_a_link_to_a_dangerous_root_is_refused(tmp_path):
    path = tmp_path / "innocent"
    path.symlink_to("/home")
    with pytest.raises(Refused, match=f"{path} leads to /home, which is a system"):
        roots.refuse_dangerous(str(path), "cleanup root")


def test_a_directory_is_opened_without_following_a_link(tmp_path):
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "real/below", f"/{tmp_path}//real/./below/"):
        fd = roots.open_directory(str(path))
        assert os.fstat(fd).st_ino == (tmp_path / "real" / "below").stat().st_ino
        os.close(fd)
    for where, why in (
        ("link/below", f"{tmp_path}/link is a symbolic link or not a "),
        ("file", f"{tmp_path}/file is a symbolic link or not a "),
        ("gone", f"{tmp_path}/gone: No such file or directory."),
    ):
        with pytest.raises(NotUsable, match=re.escape(why)):
            roots.open_directory(str(tmp_path / where))


def test_the_home_of_who_runs_it_is_refused_wherever_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/data/people/me")
    with pytest.raises(Refused, match=re.escape(SYSTEM)):
        roots.refuse_dangerous("/data/people/me", "cleanup root")
    assert roots.refuse_dangerous("/data/people/me/x", "cleanup root") == "/data/people/me/x"
