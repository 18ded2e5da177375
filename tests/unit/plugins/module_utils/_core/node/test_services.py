# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units, as systemctl 252 and 257 print them."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import services
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World


def _block(
    name, load="loaded", active="inactive", sub="dead", result="success", restarts=0, kind="simple"
):
    """What systemctl show prints of a unit for the properties that are asked for."""
    return f"Id={name}\nNames={name}\nLoadState={load}\nActiveState={active}\nSubState={sub}\nResult={result}\nNRestarts={restarts}\nType={kind}\n"


#: Of booted Debian 12 and 13 nodes.
SHOW = {
    "docker.service": _block("docker.service", load="not-found"),
    "ssh.service": _block("ssh.service", active="active", sub="running", kind="notify"),
    "broken.service": _block(
        "broken.service", active="failed", sub="failed", result="exit-code", restarts=5
    ),
    "loop.service": _block(
        "loop.service", active="activating", sub="auto-restart", result="exit-code", restarts=4
    ),
    "stopped.service": _block("stopped.service"),
    "ml-backup.service": _block("ml-backup.service", kind="oneshot"),
    "train.service": _block("train.service", active="activating", sub="start", kind="oneshot"),
    "web.service": _block("web.service", active="activating", sub="start-pre"),
    "bye.service": _block("bye.service", active="deactivating", sub="stop-sigterm"),
    "again.service": _block(
        "again.service",
        active="activating",
        sub="auto-restart-queued",
        result="exit-code",
        kind="oneshot",
    ),
    "off.service": _block("off.service", load="masked"),
    "data.mount": (
        "Id=data.mount\nLoadState=loaded\nActiveState=active\nSubState=mounted\nResult=success\n"
    ),
}
BAD = (
    "broken.service loaded failed failed Broken\nloop.service loaded activating auto-restart Loop\n"
)


def systemctl(argv, timeout=30.0, env=None, stdin=None):
    assert argv[0] == "systemctl" and timeout <= 5
    if argv[1] == "list-units":
        return CommandResult(0, BAD, "")
    return CommandResult(0, "\n".join(SHOW[name] for name in argv[argv.index("--") + 1 :]), "")


@pytest.fixture
def booted(machine):
    (machine.root / "run/systemd/system").mkdir(parents=True)
    return World(run=systemctl, clock=machine.world.clock, root=str(machine.root))


def _found(world, options, restarts=None):
    return services.decide(services.observe(world, options, 5), options, restarts)


def test_services(booted, options):
    given = options(
        services=[
            "ssh",
            "docker",
            "broken",
            "loop",
            "stopped",
            "ml-backup",
            "off",
            "data.mount",
            "train",
            "web",
            "bye",
            "again",
        ]
    )
    found = {
        check.subject: (check.status, check.message)
        for check in _found(booted, given)
        if check.check == "service"
    }
    assert found == {
        "ssh": ("pass", "Service ssh: active (running)"),
        "docker": ("critical", "Unknown service docker: systemd knows no unit docker.service"),
        "broken": ("critical", "Service broken: failed (failed, exit-code)"),
        "loop": ("critical", "Service loop: activating (auto-restart, exit-code)"),
        "stopped": ("critical", "Service stopped: inactive (dead)"),
        "ml-backup": ("pass", "Service ml-backup: at rest, last run succeeded"),
        "off": ("critical", "Service off: masked"),
        "data.mount": ("pass", "Service data.mount: active (mounted)"),
        "train": ("pass", "Service train: a run is under way"),
        "web": ("warning", "Service web: activating (start-pre)"),
        "bye": ("warning", "Service bye: deactivating (stop-sigterm)"),
        "again": ("critical", "Service again: activating (auto-restart-queued, exit-code)"),
    }


def test_the_default_service_may_be_absent_or_masked(booted, options, monkeypatch):
    assert [
        (check.status, check.message)
        for check in _found(booted, options())
        if check.check == "service"
    ] == [("skipped", "Service docker: not installed")]
    monkeypatch.setitem(SHOW, "docker.service", _block("docker.service", load="masked"))
    assert [check.status for check in _found(booted, options()) if check.check == "service"] == [
        "skipped"
    ], "nobody named it here, somebody switched it off"


def test_failed_units_do_not_count_the_named_ones_again(booted, options):
    assert [
        check.value for check in _found(booted, options()) if check.check == "failed_units"
    ] == [1]
    assert [
        check.value
        for check in _found(booted, options(services=["broken"]))
        if check.check == "failed_units"
    ] == [0]


def test_flapping_is_told_by_the_journal_or_by_systemds_counter(booted, options):
    def flapping(restarts, **given):
        return next(
            check
            for check in _found(booted, options(**given), restarts)
            if check.check == "flapping_units"
        )

    assert flapping(None).message == "Flapping units: 1: loop.service (4 restarts)"
    assert (
        flapping({"a.service": 3, "b.service": 2}).message
        == "Flapping units: 1: a.service (3 restarts)"
    )
    assert (
        flapping({"a.service": 3}, flapping_restarts=4).status == "pass"
        and flapping({}).status == "pass"
    )


def test_without_systemd_all_is_skipped(machine, options):
    assert {check.status for check in _found(machine.world, options())} == {"skipped"}


def test_an_incomplete_answer_is_no_verdict(booted, options):
    def half(argv, **more):
        return CommandResult(1, "", "Failed to connect to bus: Connection refused")

    booted.run = half
    with pytest.raises(CommandFailed, match="Connection refused"):
        services.observe(booted, options(), 5)


def _decided(options, entry, active=(), of_users=None, name="x"):
    facts = services.ServiceFacts(True, {name: entry}, [], frozenset(active), of_users or {})
    (check,) = services.decide(facts, options(services=[name], checks=["service"]), None)
    return check.status, check.message


IDLE = services.Unit("x.service", "loaded", "inactive", "dead")


@pytest.mark.parametrize(
    ("entry", "active", "expected"),
    [
        (
            IDLE._replace(type="oneshot", started=True),
            (),
            ("pass", "Service x: at rest, last run succeeded"),
        ),
        (
            IDLE._replace(type="oneshot", started=False, triggers=("x.timer",)),
            ("x.timer",),
            ("pass", "Service x: at rest, not run since boot, started by x.timer"),
        ),
        (
            IDLE._replace(type="oneshot", started=False, triggers=("x.timer",)),
            (),
            ("warning", "Service x: has not run since boot"),
        ),
        (
            IDLE._replace(type="oneshot", started=False),
            (),
            ("warning", "Service x: has not run since boot"),
        ),
        (
            IDLE._replace(triggers=("x.socket",)),
            ("x.socket",),
            ("pass", "Service x: idle, started by x.socket when it is used"),
        ),
        (IDLE._replace(triggers=("x.socket",)), (), ("critical", "Service x: inactive (dead)")),
        (
            IDLE._replace(triggers=("x.path",)),
            ("x.path",),
            ("pass", "Service x: idle, started by x.path when it is due"),
        ),
        (IDLE._replace(triggers=("x.timer",)), (), ("critical", "Service x: inactive (dead)")),
        (
            IDLE._replace(unmet=True),
            (),
            ("critical", "Service x: inactive (dead, a condition of its unit is not met)"),
        ),
        (
            IDLE._replace(type="oneshot", started=False, unmet=True),
            (),
            ("pass", "Service x: at rest, a condition of its unit is not met"),
        ),
        (
            IDLE._replace(result="exit-code", triggers=("x.socket",)),
            ("x.socket",),
            ("critical", "Service x: inactive (dead, exit-code)"),
        ),
    ],
)
def test_units_at_rest(options, entry, active, expected):
    assert _decided(options, entry, active) == expected


def test_triggers_are_asked_for_when_a_unit_is_idle(booted, options, monkeypatch):
    idle = _block("web.service") + "TriggeredBy=web.socket\nInactiveExitTimestampMonotonic=0\n"
    monkeypatch.setitem(SHOW, "web.service", idle)
    monkeypatch.setitem(SHOW, "web.socket", _block("web.socket", active="active", sub="listening"))
    facts = services.observe(booted, options(services=["web"]), 5)
    assert facts.active == {"web.socket"}
    assert facts.named["web"].triggers == ("web.socket",) and facts.named["web"].started is False
    check, *_rest = services.decide(facts, options(services=["web"]), None)
    assert check.status == "pass"


@pytest.mark.parametrize(
    ("paths", "status"),
    [
        (["/run/dbus/system_bus_socket"], "critical"),
        (["/usr/share/dbus-1/system-services/org.example.Clock.service"], "critical"),
        (
            [
                "/run/dbus/system_bus_socket",
                "/usr/share/dbus-1/system-services/org.example.Clock.service",
            ],
            "pass",
        ),
    ],
)
def test_a_service_that_the_bus_starts(booted, machine, options, monkeypatch, paths, status):
    monkeypatch.setitem(
        SHOW, "clock.service", _block("clock.service") + "BusName=org.example.Clock\n"
    )
    for path in paths:
        machine.put(path, "")
    facts = services.observe(booted, options(services=["clock"]), 5)
    check, *_rest = services.decide(facts, options(services=["clock"]), None)
    assert check.status == status
    assert status != "pass" or check.message.endswith("started by D-Bus when it is used")


@pytest.mark.parametrize("logged", [True, False])
def test_a_oneshot_that_systemd_forgot_is_asked_for_in_the_journal(
    booted, machine, options, monkeypatch, logged
):
    """systemd unloads a unit at rest that no other one refers to, with its time stamps."""
    job = _block("job.service", kind="oneshot") + "InactiveExitTimestampMonotonic=0\n"
    monkeypatch.setitem(SHOW, "job.service", job)
    machine.put("/var/log/journal/m/system.journal", "")
    line = '{"__REALTIME_TIMESTAMP": "1", "MESSAGE": "Finished job.service."}\n'
    asked = []

    def journalctl(argv, **more):
        if argv[0] == "systemctl":
            return systemctl(argv, **more)
        asked.append(argv[-2:])
        return CommandResult(0, line if logged else "", "")

    facts = services.observe(
        dataclasses.replace(booted, run=journalctl), options(services=["job"]), 5
    )
    assert asked == [["UNIT=job.service", "MESSAGE_ID=39f53479d3a045ac8e11786248231fbf"]]
    check, *_rest = services.decide(facts, options(services=["job"]), None)
    assert check.status == ("pass" if logged else "warning")


@pytest.mark.parametrize(
    ("stamp", "met", "unmet"), [("0", "no", False), ("5", "no", True), ("5", "yes", False)]
)
def test_a_condition_that_is_not_met(stamp, met, unmet):
    (unit,) = services.parse_show(
        f"Id=x.service\nConditionResult={met}\nConditionTimestampMonotonic={stamp}\n"
    )
    assert unit.unmet is unmet


@pytest.mark.parametrize(
    ("path", "users", "status"),
    [
        (None, None, "critical"),
        ("/usr/lib/systemd/user/web.service", (), "critical"),
        (
            "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/x",
            ("1000",),
            "pass",
        ),
        # Version 1, and a container that sees the groups of its host.
        (
            "/sys/fs/cgroup/systemd/c/user.slice/user-0.slice/user@0.service/web.service/tasks",
            ("0",),
            "pass",
        ),
    ],
)
def test_units_of_users(booted, machine, options, monkeypatch, path, users, status):
    if path and "systemd/c" in path:
        machine.put("/proc/1/cgroup", "4:memory:/c\n1:name=systemd:/c/init.scope\n")
    monkeypatch.setitem(SHOW, "web.service", _block("web.service", load="not-found"))
    if path:
        machine.put(path, "")
    facts = services.observe(booted, options(services=["web"]), 5)
    assert facts.of_users.get("web") == users
    check, *_rest = services.decide(facts, options(services=["web"]), None)
    assert check.status == status
    assert ("user" in check.message) == (users is not None)
