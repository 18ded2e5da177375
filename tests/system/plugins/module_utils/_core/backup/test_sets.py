# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of archives after every kind of death, and after random histories."""

from __future__ import annotations

import os
import random
import shutil

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import catalogue, names
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as making
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

DAY = 86400


def test_a_run_that_dies_leaves_the_last_set_whole(world, few, destination, tmp_path, dies, look):
    (few / "llama").mkdir()
    (few / "llama" / "weights").write_text("llama")

    def run(source=few):
        options = {"source": str(source), "destination": str(destination), "layout": "per_model"}
        return making.run(BackupOptions.from_mapping({**options, "keep_last": 1}), world)

    def listed():
        return {
            backup["name"]: (backup["problems"], backup["verified"])
            for backup in look(verify="full")["backups"]
        }

    first = run().backup["name"]
    kept = tmp_path / "kept"
    shutil.copytree(destination, kept)
    (few / "bert" / "weights").write_bytes(b"new")
    steps = 0
    for dummy in dies.everywhere(run):
        steps += 1
        backups = listed()
        assert backups[first] == ([], True)
        assert all(state == ([], True) for state in backups.values())
        shutil.rmtree(destination)
        shutil.copytree(kept, destination)
    assert steps > 40
    assert len(listed()) == 2


class Killed(BaseException):
    """Ends a run like a signal."""


class History:
    """A source and a destination, and random things that happen to them."""

    def __init__(self, seed, root, clock):
        self.dice, self.clock = random.Random(seed), clock
        self.source, self.destination = root / "models", root / "backups"
        self.source.mkdir(parents=True)
        for number in range(3):
            self.change(number)

    def change(self, number):
        model = self.source / f"m{number}"
        model.mkdir(exist_ok=True)
        (model / "weights").write_text(str(self.dice.random()))

    def step(self, monkeypatch):
        dice = self.dice
        self.clock.time += dice.choice([1, 3600, DAY, 10 * DAY, 400 * DAY, -3600, -3 * DAY])
        for dummy in range(dice.randrange(3)):
            self.change(dice.randrange(5))
        if dice.random() < 0.2 and len(os.listdir(self.source)) > 1:
            shutil.rmtree(self.source / dice.choice(sorted(os.listdir(self.source))))
        given = {
            "source": str(self.source),
            "destination": str(self.destination),
            "layout": dice.choice(["per_model", "per_model", "per_model", "single"]),
            "verify": dice.random() < 0.8,
            "retention_days": dice.choice([0, 1, 30]),
            "keep_last": dice.choice([0, 1, 2, 5]),
            "keep_monthly": dice.choice([0, 2]),
            "workers": 1,
        }
        world = World(run=None, clock=self.clock, hostname=dice.choice(["a", "a", "b"]))
        with monkeypatch.context() as patch:
            if dice.random() < 0.3:
                self.kill(patch, dice.randrange(30))
            try:
                making.run(BackupOptions.from_mapping(given), world)
            except Killed:
                pass

    @staticmethod
    def kill(patch, moment):
        """Let the process do nothing any more after so many steps, as if it were dead."""
        count = 0

        def until(real):
            def call(*arguments, **named):
                nonlocal count
                count += 1
                if count > moment:
                    raise Killed
                return real(*arguments, **named)

            return call

        for name in ("rename", "replace", "unlink", "fsync"):
            patch.setattr(os, name, until(getattr(os, name)))


@pytest.mark.parametrize("seed", range(10))
def test_no_archive_that_a_kept_set_names_is_ever_removed(seed, tmp_path, clock, monkeypatch):
    history = History(seed, tmp_path, clock)
    whole: set[str] = set()
    for dummy in range(10):
        history.step(monkeypatch)
        backups = catalogue.listing(str(history.destination))
        assert not [item.problems for item in backups if item.is_set and item.problems]
        newest = catalogue.newest(backups, clock.time)
        assert newest is not None or not whole, "the last good backup is gone"
        whole = {item.name for item in backups if item.complete}
    named = {archive["name"] for item in backups for archive in item.archives}
    present = {name for name in os.listdir(history.destination) if names.is_member(name)}
    assert named <= present
