# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import storage
from ansible_collections.mlops.fleet.tests import synthetic_fleet

S3 = "s3://b/x.tar.gz"


def host(verified=True, copies=(), **extra):
    return {
        "backup": {"verified": verified},
        "copies": [{"url": url, "verified": how} for url, how in copies],
        "phases": [],
        "removed": [],
        **extra,
    }


@pytest.mark.parametrize(
    ("verified", "copies", "meets"),
    [
        (True, [(S3, "checksum")], True),
        (True, [(S3, "size_only")], False),
        (True, [(S3, "planned")], False),
        (True, [], False),
        (False, [(S3, "checksum")], False),
        (False, [(S3, "checksum"), ("s3://c/x.tar.gz", "checksum")], True),
        (True, [("/mnt/second/x.tar.gz", "checksum")], False),
    ],
)
def test_321_counts_verified_copies_and_needs_one_elsewhere(verified, copies, meets):
    assert storage.meets_321(host(verified, copies)) is meets


def test_disks_are_those_with_the_least_free_space():
    checks = [
        {"check": "disk_usage", "subject": f"/d{n}", "value": n, "details": {"free_bytes": 100 - n}}
        for n in range(20)
    ]
    odd = [{"check": "disk_usage", "value": "x", "details": 7}, {"check": "disk_usage"}, 7]
    listed = storage.disks({"checks": [*checks, *odd]})
    assert listed[0] == {"mount": "/d19", "free": 81, "used": 19} and len(listed) == storage.DISKS


def test_backups_to_look_at_begin_with_hosts_that_never_had_any():
    good = [(S3, "checksum")]
    hosts = [
        host(copies=good, backed_up="2027-01-15T08:00:00+00:00"),
        host(copies=good, backed_up="2027-01-05T08:00:00+00:00"),
        host(False, phases=[{"phase": "backup", "status": "failed"}]),
        host(copies=[], backed_up="2027-01-15T08:00:00+00:00"),
        host(phases=[{"phase": "backup", "status": "skipped"}]),
    ]
    report = {"hosts": hosts, "timestamp": "2027-01-15T08:00:00+00:00"}
    (table,) = storage.tables(report)
    assert [(number, cells[0], cells[2]) for number, cells in table.rows] == [
        (2, "never", "no"),
        (1, "10.0 days ago", "yes"),
        (3, "this run", "no"),
    ]
    assert (
        table.note.startswith("4 hosts: 2 with three copies") and "0 with a restore" in table.note
    )


def test_restore_proofs():
    entry = {"at": "2027-01-09T03:00:00+00:00", "backup": "b", "place": S3, "seconds": 90}
    assert storage.proof({"restore_proof": entry}) == f"2027-01-09, b, {S3}, in 1 min 30 s"
    assert storage.proof({"restore_proof": {"unreadable": "no rights"}}) == "no rights"
    assert storage.proof({}) == storage.proof({"restore_proof": {}}) == "none"


def test_a_run_keeps_what_the_tables_need():
    titles = [table.title for table in storage.tables(synthetic_fleet.run(60))]
    assert titles == ["Least free space", "Backups", "Largest deletions"]
