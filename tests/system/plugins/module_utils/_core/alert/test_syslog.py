# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Journal and syslog over real datagram sockets; with systemd's own journal where there is one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import syslog


@pytest.fixture
def root(world):
    """A root directory with a short path: socket names hold 107 bytes at most."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="al") as directory:
        world.root = directory
        yield directory


def listen(path, kind=socket.SOCK_DGRAM):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    server = socket.socket(socket.AF_UNIX, kind)
    server.bind(path)
    server.settimeout(2)
    return server


def fields(datagram):
    return dict(line.split("=", 1) for line in datagram.decode().splitlines())


def test_journal_fields(tell, root, document, make_check):
    with listen(root + "/run/systemd/journal/socket") as journal:
        result = tell(
            document=document(
                make_check(
                    "disk_space", "critical", "Disk usage: 95%\nFAKE=1", "/data", value=95, unit="%"
                )
            ),
            syslog=True,
        )
        found = fields(journal.recv(65536))
    assert result.channels[0] == {
        **result.channels[0],
        "status": "sent",
        "detail": "written to the journal",
    }
    assert found["MESSAGE"] == "CRITICAL node1: Disk usage: 95% FAKE=1"
    assert "FAKE" not in found
    assert (found["PRIORITY"], found["SYSLOG_IDENTIFIER"]) == ("2", "mlops-fleet")
    assert (
        found["MLOPS_CHECK"],
        found["MLOPS_SUBJECT"],
        found["MLOPS_STATUS"],
        found["MLOPS_VALUE"],
    ) == ("disk_space", "/data", "critical", "95")
    assert (found["MLOPS_HOST"], found["MLOPS_KEY"]) == ("node1", result.events[0]["key"])


def test_priorities_and_never_a_digest(tell, root, document, make_check):
    with listen(root + "/run/systemd/journal/socket") as journal:
        checks = [make_check("unit", "warning", subject=f"u{n}") for n in range(7)]
        tell(document=document(*checks), syslog=True)
        assert [fields(journal.recv(65536))["PRIORITY"] for dummy in checks] == ["4"] * 7
        tell(document=document(*[{**check, "status": "pass"} for check in checks[:1]]), syslog=True)
        found = fields(journal.recv(65536))
        assert (found["PRIORITY"], found["MLOPS_EVENT"]) == ("5", "recovery")


def test_dev_log_where_there_is_no_journal(tell, root):
    with listen(root + "/dev/log") as log:
        assert (
            tell(message="one\ntwo", severity="critical", syslog=True).channels[0]["detail"]
            == "written to /dev/log"
        )
        line = log.recv(65536).decode()
    assert line.startswith("<10>")
    assert "mlops-fleet[" in line
    assert "one two" in line
    assert "\n" not in line


def test_dev_log_as_a_stream(tell, root):
    with listen(root + "/dev/log", socket.SOCK_STREAM) as log:
        log.listen()
        lines = []

        def read():
            connection, dummy = log.accept()
            with connection:
                lines.append(connection.recv(65536))

        thread = threading.Thread(target=read)
        thread.start()
        assert tell(message="hello", syslog=True).channels[0]["status"] == "sent"
        thread.join(5)
    assert lines[0].endswith(b"\0")


def test_without_either_it_is_skipped_and_nobody_was_told(tell, root):
    for dummy in range(2):
        result = tell(message="hello", syslog=True)
        assert result.channels[0]["status"] == "skipped"
        assert "neither" in result.channels[0]["detail"]
        assert result.events[0]["decision"] == "send"
        assert not result.changed


def test_a_stale_socket_counts_as_none(tell, root):
    listen(root + "/run/systemd/journal/socket").close()
    assert tell(message="hello", syslog=True).channels[0]["status"] == "skipped"


def test_a_journal_that_hangs_does_not_hang_us(tell, root):
    with listen(root + "/run/systemd/journal/socket") as journal:
        filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        filler.setblocking(False)
        try:
            while True:
                filler.sendto(b"x" * 1000, journal.getsockname())
        except BlockingIOError:
            pass
        start = time.monotonic()
        found = tell(message="hello", syslog=True).channels[0]
        assert time.monotonic() - start < 4
        assert found["status"] == "queued"
        filler.close()


@pytest.mark.skipif(
    not os.path.exists("/run/systemd/journal/socket") or not shutil.which("journalctl"),
    reason="no journal runs here",
)
def test_the_journal_itself_understands_it(tell):
    tell(message="hello from the tests", check="unit_test", syslog=True)
    time.sleep(0.5)
    done = subprocess.run(
        ["journalctl", "-o", "json", "-n", "1", "MLOPS_CHECK=unit_test"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["MESSAGE"].endswith("hello from the tests")


def test_line_breaks_are_length_prefixed():
    from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.events import Event

    data = syslog.journal_entry(Event("k", "h", "c", "s", "critical", "critical", "a\nb", 0.0, 0.0))
    assert data.startswith(
        b"MESSAGE\n" + len("CRITICAL h: a\nb").to_bytes(8, "little") + b"CRITICAL h: a\nb\n"
    )
