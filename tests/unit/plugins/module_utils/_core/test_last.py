# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Last results: written whole, never through a link, read back by the fleet report as if they had
been registered.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import textwrap

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors, last
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import collected
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import report as fleet

NOW = 1_800_000_000.0
HOUR = 3600
PLAYBOOK = pathlib.Path(__file__).resolve().parents[5] / "playbooks" / "collect.yml"
PASSED = {"status": "pass", "checks": [], "summary": {"total": 3, "passed": 3}}


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def keep(state):
    state.mkdir()

    def keep(age=0, **results):
        assert last.keep_all(results, NOW - age, str(state / "last")) == ""

    return keep


def _script(state):
    """Return the playbook's own command."""
    text = PLAYBOOK.read_text(encoding="utf-8")
    script = text.partition("ansible.builtin.raw: |\n")[2].partition("      register:")[0]
    return re.sub(r"\{\{.*?\}\}", str(state), textwrap.dedent(script))


def fetch(state):
    """Run it as a node's shell does; a terminal ends lines with a carriage return, too."""
    done = subprocess.run(["sh", "-c", _script(state)], capture_output=True, text=True, check=True)
    return {"stdout": done.stdout.replace("\n", "\r\n"), "rc": 0}


def read(state, **max_age):
    return collected.results(fetch(state), NOW, {**collected.MAX_AGE, **max_age})


def test_what_was_kept_is_what_the_report_gets(state, keep):
    keep(health=PASSED, gpu=PASSED)
    keep(backup={"failed": True, "msg": "no space"})
    results = read(state)
    assert (results["health"], results["gpu"]) == (PASSED, PASSED)
    assert results["cleanup"] == {"failed": True, "msg": collected.NOT_YET}
    report = fleet.assemble(["n"], lambda host, phase: results[phase], timestamp=NOW)
    assert [phase["status"] for phase in report["hosts"][0]["phases"]] == [
        "pass",
        "pass",
        "failed",
        "failed",
    ]


@pytest.mark.parametrize(
    ("age", "limit", "old"),
    [(2 * HOUR, 2.0, False), (2 * HOUR + 1, 2.0, True), (-HOUR, 2.0, False), (1, 0.0, True)],
)
def test_an_old_result_is_a_failed_phase(state, keep, age, limit, old):
    keep(age, health=PASSED)
    result = read(state, health=limit)["health"]
    assert ("old, at most" in result.get("msg", "")) is old
    assert (result == PASSED) is not old


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version":1}', '{"version":1,"phase":"gpu","time":1,"result":{}}']
)
def test_what_is_damaged_is_a_failed_phase(state, keep, content):
    keep(health=PASSED)
    (state / "last" / "health.json").write_text(content)
    assert "damaged" in read(state)["health"]["msg"] or content == ""
    assert read(state)["health"]["failed"] is True


def test_a_later_version_is_named(state, keep):
    keep(health=PASSED)
    path = state / "last" / "health.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    assert "has version 2, known is 1" in read(state)["health"]["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user")
@pytest.mark.parametrize("closed", ["state", "last", "file"])
def test_what_a_user_may_not_see_is_not_missing(state, keep, closed):
    keep(health=PASSED)
    path = {"state": state, "last": state / "last", "file": state / "last" / "health.json"}[closed]
    for directory in (state, *state.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    (state / "last").chmod(0o755)
    path.chmod(0)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", _script(state)],
        capture_output=True,
        text=True,
        check=True,
    )
    results = collected.results({"stdout": done.stdout}, NOW, collected.MAX_AGE)
    assert "may not read" in results["health"]["msg"]


def test_before_the_first_run_everything_is_missing(tmp_path):
    results = read(tmp_path / "gone")
    assert {result["msg"] for result in results.values()} == {collected.NOT_YET}


def test_a_host_that_cannot_be_reached(state):
    unreachable = {"unreachable": True, "msg": "no route to host"}
    assert collected.results(unreachable, NOW, collected.MAX_AGE)["gpu"] == unreachable
    assert collected.results({"stdout": "", "msg": "sudo: a password is required"}, NOW, {})[
        "backup"
    ] == {"failed": True, "msg": "sudo: a password is required"}


def test_no_link_is_followed(state, keep, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (state / "last").symlink_to(target)
    assert "symbolic link" in last.keep_all({"health": PASSED}, NOW, str(state / "last"))
    assert list(target.iterdir()) == []


def test_a_long_list_is_shortened(state, keep):
    keep(cleanup={"removed": [{"path": str(n)} for n in range(500)], "plan": [1], "freed_bytes": 7})
    kept = last.read("cleanup", str(state / "last")).result
    assert (len(kept["removed"]), kept["removed_count"], kept["freed_bytes"]) == (100, 500, 7)
    assert "plan" not in kept
    with pytest.raises(errors.NotUsable):
        (state / "last" / "cleanup.json").write_text("x")
        last.read("cleanup", str(state / "last"))
    assert last.read("gpu", str(state / "last")) is None
