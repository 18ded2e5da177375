# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a timer counts from now.

That systemd then starts nothing is tested on booted nodes (molecule/schedule).
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import timers
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult

NOW = 1_000_000.0
TIMER = timers.Timer(
    "ml-backup.timer", True, True, False, True, (("*-*-* 02:00:00", NOW + 3600.0),)
)
OTHER = (("*-*-* 20:22:00", NOW - 60.0),)
DUE = TIMER._replace(elapses=(("*-*-* 02:00:00", NOW),))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # A new description or random delay: what was missed is still made up for.
        (TIMER, TIMER, False),
        (TIMER, TIMER._replace(elapses=OTHER), True),
        (TIMER._replace(active=False), TIMER, True),
        (TIMER._replace(active=False, elapses=()), TIMER, True),
        # The stamp of a timer that was not persistent can be of any age.
        (TIMER._replace(persistent=False), TIMER, True),
        (TIMER._replace(persistent=False), TIMER._replace(persistent=False), True),
        (TIMER, TIMER._replace(persistent=False), True),
        # Due by the old calendar and waiting for its random delay.
        (DUE, TIMER._replace(elapses=OTHER), False),
        (DUE._replace(active=False), TIMER, True),
        (TIMER._replace(elapses=(("2020-01-01", 0.0),)), TIMER, True),
    ],
)
def test_a_timer_counts_from_now_unless_a_run_was_due(before, after, expected):
    assert timers.counts_from_now(before, after, NOW) is expected


SHOWN = """Id=ml-backup.timer
LoadState=loaded
ActiveState={active}
UnitFileState=enabled
NeedDaemonReload={stale}
Persistent=yes
TimersCalendar={{ OnCalendar=*-*-* 02:00:00 ; next_elapse=Sun 2026-11-29 02:00:00 UTC }}
TimersCalendar={{ OnCalendar=Sun *-*-* 03:00:00 ; next_elapse=n/a }}
"""


class Systemd:
    """Answers as systemctl does; the calendar is what it was."""

    def __init__(self, active="active", stale="no"):
        self.text = SHOWN.format(active=active, stale=stale)
        self.verbs = []
        self.status = 0

    def __call__(self, argv, timeout=30.0, env=None, stdin=None):
        assert argv[0] == "systemctl" and env == {"TZ": "UTC"}
        if argv[1] == "show":
            service = "Id=ml-backup.service\nNeedDaemonReload=no\n"
            shown = [self.text if unit.endswith(".timer") else service for unit in argv[3:]]
            return CommandResult(0, "\n".join(shown), "")
        self.verbs.append(argv[1])
        return CommandResult(self.status, "", "no such luck")


def activate(world, tmp_path, systemd, check=False):
    options = timers.TimerOptions.from_mapping({"units": ["ml-backup.service", "ml-backup.timer"]})
    return timers.activate(options, replace(world, run=systemd, root=str(tmp_path)), check)


def test_what_systemd_shows_is_read():
    lines = SHOWN.format(active="active", stale="yes").splitlines()
    timer = timers.timer_of([tuple(line.split("=", 1)) for line in lines])
    assert timer == timers.Timer(
        "ml-backup.timer",
        True,
        True,
        True,
        True,
        (("*-*-* 02:00:00", 1795917600.0), ("Sun *-*-* 03:00:00", 0.0)),
    )


def test_a_running_timer_is_left_alone(world, tmp_path):
    systemd = Systemd()
    assert activate(world, tmp_path, systemd)["changed"] is False
    assert systemd.verbs == []


def test_a_stopped_timer_starts_with_a_stamp_of_now(world, tmp_path):
    systemd = Systemd(active="inactive")
    stamp = tmp_path / "var/lib/systemd/timers/stamp-ml-backup.timer"
    stamp.parent.mkdir(parents=True)
    stamp.write_text("")
    os.utime(stamp, (0, 0))
    result = activate(world, tmp_path, systemd)
    assert result["counting_from_now"] == result["started"] == ["ml-backup.timer"]
    assert systemd.verbs == ["start"] and stamp.stat().st_mtime > 1_000_000


def test_an_unchanged_calendar_keeps_its_stamp(world, tmp_path):
    systemd = Systemd(stale="yes")
    result = activate(world, tmp_path, systemd)
    assert systemd.verbs == ["stop", "daemon-reload", "start"]
    assert result["started"] == ["ml-backup.timer"] and result["counting_from_now"] == []
    assert not (tmp_path / "var").exists()


def test_a_leftover_of_a_killed_run_is_removed(world, tmp_path):
    directory = tmp_path / "run/systemd/system/ml-backup.timer.d"
    directory.mkdir(parents=True)
    (directory / "mlops-fleet-start.conf").write_text("[Timer]\nPersistent=yes\n")
    activate(world, tmp_path, Systemd(), check=True)
    assert directory.exists()
    activate(world, tmp_path, Systemd())
    assert not directory.exists()


def test_check_mode_changes_nothing(world, tmp_path):
    systemd = Systemd(active="inactive")
    assert activate(world, tmp_path, systemd, check=True)["changed"] is True
    assert systemd.verbs == [] and list(tmp_path.iterdir()) == []


def test_a_refusal_has_its_reason(world, tmp_path):
    systemd = Systemd(active="inactive")
    systemd.status = 1
    with pytest.raises(CommandFailed, match=r"systemctl start .* failed: no such luck"):
        activate(world, tmp_path, systemd)
