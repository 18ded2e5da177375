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
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError


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
