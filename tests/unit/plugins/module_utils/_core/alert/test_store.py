# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One state of a node's alerts, kept by root and the agent's user together."""

from __future__ import annotations

import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import store
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import Refused
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

AGENT, ANN = 65533, 65532
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def node(tmp_path):
    for parent in [*tmp_path.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    state = tmp_path / "var/lib/mlops-fleet"
    state.mkdir(parents=True, mode=0o755)
    os.chown(state, AGENT, AGENT)
    return World(run=None, root=str(tmp_path), environ={"HOME": str(state)})


def as_user(uid, work):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            text = str(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


def count_saved(node):
    """Save once more what is there; return how often it was saved."""
    state = store.Store(store.default_directory(node), node)
    state.prepare()
    with state.locked(0):
        memory = state.load()
        assert state.save(memory)
        return state.load().saved


def test_root_and_the_agents_user_share_one_state_whoever_begins(node):
    assert count_saved(node) == 1
    assert as_user(AGENT, lambda: count_saved(node)) == "2"
    assert count_saved(node) == 3
    directory = node.state(store.NODE)
    for name in ("state.json", "lock"):
        status = os.stat(os.path.join(directory, name))
        assert (status.st_uid, status.st_mode & 0o777) == (AGENT, 0o600)
    assert os.stat(directory).st_mode & 0o777 == 0o700


def test_what_the_user_kept_in_its_home_is_taken_over(node):
    earlier = os.path.join(node.environ["HOME"], ".local/state/mlops-fleet/alert")

    def keep():
        os.makedirs(earlier)
        state = store.Store(earlier, node)
        return state.save(state.load()._replace(salt="kept"))

    assert as_user(AGENT, keep) == "True"
    taken = as_user(
        AGENT, lambda: (count_saved(node), store.Store(node.state(store.NODE), node).load().salt)
    )
    assert taken == "(2, 'kept')" and count_saved(node) == 3


def test_other_users_do_not_keep_the_nodes_alerts(node):
    assert as_user(ANN, lambda: store.belongs_to_others(node)) == "True"
    assert as_user(AGENT, lambda: store.belongs_to_others(node)) == "False"
    assert store.belongs_to_others(node) is False
    own = as_user(ANN, lambda: store.default_directory(node))
    assert own == os.path.join(node.environ["HOME"], ".local/state/mlops-fleet/alert")


def test_root_follows_no_link_in_the_place_of_the_directory(node, tmp_path):
    (tmp_path / "victim").mkdir(mode=0o700)
    os.symlink(tmp_path / "victim", node.state(store.NODE))
    with pytest.raises(Refused, match="can't be opened"):
        store.Store(node.state(store.NODE), node).prepare()
    assert os.listdir(tmp_path / "victim") == []
