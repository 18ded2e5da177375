# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many plain files in one directory, which are removed without moving them aside: what happens to
the others meanwhile.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import in_place, watch
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import root as roots

DAY = 86400
FILES = 30
#: The file that something happens to; the oldest file is removed first.
LAST = f"f{FILES - 1:04}"


@pytest.fixture(params=["watched since the first look", "watched since the removal"])
def many(request, root, clock, monkeypatch):
    """A root with many files, of which LAST is the newest; all are old."""
    if request.param == "watched since the removal":
        monkeypatch.setattr(roots.Root, "touches", None)
    monkeypatch.setattr(in_place, "MANY", FILES // 2)
    for number in range(FILES):
        path = root / f"f{number:04}"
        path.write_text("x")
        os.utime(path, (1e9 + number, 1e9 + number))
    clock.time = time.time() + 40 * DAY
    return root


def _when_the_first_goes(monkeypatch, action):
    """Call an action right before the first file is unlinked."""
    real, pending = os.unlink, [action]

    def unlink(*arguments, **options):
        if pending:
            pending.pop()()
        return real(*arguments, **options)

    monkeypatch.setattr(os, "unlink", unlink)


def _moves(monkeypatch):
    """Return the list that receives each move."""
    moves, real = [], os.rename

    def rename(*arguments, **options):
        moves.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(os, "rename", rename)
    return moves


def test_nothing_is_moved_where_nothing_happens(world, many, monkeypatch, lab):
    moves = _moves(monkeypatch)
    result = lab.clean(world, many, keep_last=1, exclude=["f0003"])
    assert result["removed_count"] == FILES - 2 and not moves
    assert sorted(os.listdir(many)) == ["f0003", LAST]
    assert "excluded" in lab.reasons(result)["f0003"]


def test_few_files_are_moved_aside(world, root, monkeypatch, lab):
    for number in range(10):
        (root / f"f{number}").write_text("x")
    moves = _moves(monkeypatch)
    assert lab.clean(world, root, retention_days=0)["removed_count"] == 10 and len(moves) == 10


def test_a_file_that_a_process_opens_meanwhile_stays(world, many, monkeypatch, lab):
    held = []
    _when_the_first_goes(monkeypatch, lambda: held.append(open(many / LAST, "a")))
    result = lab.clean(world, many)
    held[0].close()
    assert "in use" in lab.reasons(result)[LAST] and os.listdir(many) == [LAST]


def test_a_file_that_was_read_meanwhile_goes_all_the_same(world, many, monkeypatch, lab):
    moves = _moves(monkeypatch)
    _when_the_first_goes(monkeypatch, (many / LAST).read_text)
    assert lab.clean(world, many)["removed_count"] == FILES
    assert [arguments[0] for arguments in moves] == [LAST], "only this one needed a closer look"


def test_a_file_that_was_mapped_and_closed_before_stays(world, many, lab):
    """The descriptor is closed; only the mapping is left."""
    with open(many / LAST, "r+b") as stream:
        mapping = mmap.mmap(stream.fileno(), 1)
    result = lab.clean(world, many)
    mapping.close()
    assert "in use" in lab.reasons(result)[LAST] and os.listdir(many) == [LAST]


@pytest.mark.parametrize("how", ["written", "replaced", "touched", "mode"])
def test_a_file_that_changes_meanwhile_stays(world, many, monkeypatch, lab, how):
    path = many / LAST

    def change():
        if how == "written":
            path.write_text("new")
        elif how == "replaced":
            (many.parent / "new").write_text("new")
            os.rename(many.parent / "new", path)
        elif how == "touched":
            os.utime(path)
        else:
            path.chmod(0o600)

    _when_the_first_goes(monkeypatch, change)
    result = lab.clean(world, many)
    assert os.listdir(many) == [LAST] and LAST in lab.reasons(result)
    assert path.read_text() == ("new" if how in ("written", "replaced") else "x")


def test_a_file_that_a_new_link_names_stays(world, many, monkeypatch, lab):
    _when_the_first_goes(monkeypatch, lambda: (many / "latest").symlink_to(LAST))
    result = lab.clean(world, many, pattern="f*")
    assert "latest" in lab.reasons(result)[LAST] and sorted(os.listdir(many)) == [LAST, "latest"]


def test_where_events_are_lost_the_others_are_moved_aside(world, many, monkeypatch, lab):
    moves = _moves(monkeypatch)

    def lose():
        monkeypatch.setattr(watch.NameWatch, "names", lambda self: None)
        open(many / LAST).close()

    _when_the_first_goes(monkeypatch, lose)
    assert lab.clean(world, many)["removed_count"] == FILES and len(moves) == FILES - 1
    assert os.listdir(many) == []


def test_without_a_watch_all_are_moved_aside(world, many, monkeypatch, lab):
    def fail(*_arguments, **_options):
        raise OSError(24, "too many watches")

    for module in (in_place, roots):
        monkeypatch.setattr(module, "NameWatch", fail)
    moves = _moves(monkeypatch)
    assert lab.clean(world, many)["removed_count"] == FILES == len(moves)


def _exchange(first, second, stop):
    libc = ctypes.CDLL(None)
    while not stop.is_set():
        libc.renameat2(-100, os.fsencode(first), -100, os.fsencode(second), 2)
        time.sleep(0)


def test_files_exchanged_for_links_cost_nothing_outside(world, many, tmp_path, lab):
    """Attackers exchange files for links to a victim all the time; a link may go, what it leads to
    may not.
    """
    victim = tmp_path / "victim"
    victim.mkdir()
    stop, attackers = multiprocessing.Event(), []
    for number in range(0, FILES, FILES // 2):
        target = victim / str(number)
        target.write_text("precious")
        link = tmp_path / f"link-{number}"
        link.symlink_to(target)
        arguments = (many / f"f{number + 7:04}", link, stop)
        attackers.append(multiprocessing.Process(target=_exchange, args=arguments))
    for attacker in attackers:
        attacker.start()
    try:
        lab.clean(world, many)
    finally:
        stop.set()
        for attacker in attackers:
            attacker.join()
    assert [path.read_text() for path in victim.iterdir()] == ["precious"] * len(attackers)


def test_a_stopped_run_has_recorded_what_is_gone(world, many, monkeypatch, lab):
    real, count = os.unlink, []

    def unlink(*arguments, **options):
        count.append(1)
        if len(count) == 20:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        lab.clean(world, many)
    monkeypatch.undo()
    assert len(os.listdir(many)) == FILES - 19, "nothing but files, and none of them moved"
    assert lab.clean(world, many)["removed_count"] == FILES - 19
