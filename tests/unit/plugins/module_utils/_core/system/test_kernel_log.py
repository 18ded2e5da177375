# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who wrote a log line and when, in every format that logs of the kernel are kept in."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import (
    kernel_lines,
    kernel_log,
)

NOW = 1_800_000_000.0
XID = "NVRM: Xid (PCI:0000:41:00): 79, pid=1, GPU has fallen off the bus."


class Clock:
    def now(self):
        return NOW

    def monotonic(self):
        return 0.0


@pytest.fixture
def world(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(f"btime {int(NOW) - 100000}\n")
    return World(run=None, clock=Clock(), root=str(tmp_path), hostname="node", environ={})


def records(world, *lines, since=0.0):
    return list(kernel_log.dated(lines, since, world))


def stamped(when):
    """Return the line of one kernel message as each tool writes it at ``when``."""
    utc, local = time.gmtime(when), time.localtime(when)
    iso = time.strftime("%Y-%m-%dT%H:%M:%S", utc)
    micro = str(int(when * 1e6))
    since_boot = when - (NOW - 100000)
    months = "Jän Févr. Mär avr. Mai juin juil. août sept. Okt nov. déc.".split()
    journal = {"__REALTIME_TIMESTAMP": micro, "_TRANSPORT": "kernel"}
    return {
        "short_unix": f"{when:.6f} node kernel: {XID}",
        "syslog": time.strftime("%b %e %H:%M:%S node kernel: [  1.5] ", local) + XID,
        "syslog_month": f"{months[local.tm_mon - 1]} {local.tm_mday:2} "
        + time.strftime("%H:%M:%S node kernel: ", local)
        + XID,
        "syslog_number": time.strftime("%m月 %e %H:%M:%S node kernel: ", local) + XID,
        "short_precise": time.strftime("%b %e %H:%M:%S.123456 node kernel: ", local) + XID,
        "short_full": time.strftime("%a %Y-%m-%d %H:%M:%S UTC node kernel: ", utc) + XID,
        "short_monotonic": f"[{since_boot:.6f}] node kernel: {XID}",
        "after_a_crash": "\0\0\0" + time.strftime("%b %e %H:%M:%S node kernel: ", local) + XID,
        "rsyslog": f"{iso}.123456+00:00 node kernel: [  1.5] {XID}",
        "rfc3339": f"{iso}Z node kernel: {XID}",
        "offset": time.strftime("%Y-%m-%dT%H:%M:%S+0530 node kernel: ", time.gmtime(when + 19800))
        + XID,
        "rfc5424": f"<3>1 {iso}.859Z node kernel - - - {XID}",
        "rfc5424_file": f'{iso}.859Z node kernel - - [x@1 y="z"] {XID}',
        "rfc3164": time.strftime("<3>%b %e %H:%M:%S node kernel: ", local) + XID,
        "dmesg": f"[{since_boot:.6f}] {XID}",
        "dmesg_caller": f"[{since_boot:.6f}][  T123] {XID}",
        "dmesg_raw": f"<3>[{since_boot:.6f}] {XID}",
        "dmesg_x": f"kern  :err   : [{since_boot:.6f}] {XID}",
        "dmesg_T": time.strftime("[%a %b %e %H:%M:%S %Y] ", local) + XID,
        "dmesg_Tx": time.strftime("kern  :err   : [%a %b %e %H:%M:%S %Y] ", local) + XID,
        "dmesg_iso": f"{iso},859532+00:00 {XID}",
        "dmesg_x_iso": f"kern  :err   : {iso},859532+00:00 {XID}",
        "dmesg_colour": f"\x1b[32m[{since_boot:.6f}] \x1b[0m{XID}",
        "kmsg": f"3,1,{int(since_boot * 1e6)},-;{XID}",
        "cri": f"{iso}.859532Z stderr F {XID}",
        "docker": json.dumps({"log": XID + "\n", "stream": "stdout", "time": iso + ".8Z"}),
        "docker_syslog": json.dumps(
            {"log": f"{iso}Z node kernel: {XID}\n", "time": "2027-01-15T08:00:00Z"}
        ),
        "journal_json": json.dumps({**journal, "MESSAGE": XID}),
        "journal_bytes": json.dumps({**journal, "MESSAGE": list(XID.encode())}),
        "journal_export": f"__CURSOR=s=1\n__REALTIME_TIMESTAMP={micro}\n_TRANSPORT=kernel\n"
        f"MESSAGE={XID}\n",
    }


@pytest.mark.parametrize("form", sorted(stamped(NOW)))
def test_every_format_has_its_time_and_its_message(world, form):
    when = NOW - 7200
    parsed = records(world, *stamped(when)[form].split("\n"))
    assert [record.message for record in parsed] == [XID]
    assert parsed[0].time == pytest.approx(when, abs=1)
    assert not records(world, *stamped(when)[form].split("\n"), since=when + 2)
    assert records(world, *stamped(when)[form].split("\n"), since=when - 2)


@pytest.mark.parametrize(
    "zone,stamp",
    [
        ("CET-1CEST", "Sat 2026-11-28 10:00:00 CET"),
        ("CET-1CEST", "Sat 2026-11-28 09:00:00 UTC"),
        ("<+08>-8", "Sat 2026-11-28 17:00:00 +08"),
        ("EST5EDT", "Sat 2026-11-28 04:00:00 EST"),
    ],
)
def test_short_full_names_the_zone_of_the_node(world, zone, stamp, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        parsed = records(world, f"{stamp} node kernel: {XID}")
    time.tzset()
    assert [(record.time, record.message) for record in parsed] == [(1795856400.0, XID)]


QUOTED = f"root : COMMAND=/bin/grep {XID} /var/log/syslog"


@pytest.mark.parametrize(
    "line",
    [
        f"Nov 27 20:32:49 n sudo[9]: {QUOTED}",
        f"Nov 27 20:32:49 n kernel-check: {XID}",
        f"Nov 27 20:32:49 n kernel[9]: {XID}",
        f"[  100.5] n agent[9]: {XID}",
        f"Sat 2026-11-28 10:00:00 CET n sudo[9]: {QUOTED}",
        f"2026-11-27T20:32:49+00:00 n sudo: {QUOTED}",
        f"<86>1 2026-11-27T20:32:49Z n sudo 9 - - {QUOTED}",
        f"<30>Nov 27 20:32:49 n agent[9]: {XID}",
        f"1795000000.5 n agent[9]: {XID}",
        f"user  :notice: [  100.5] {XID}",
        f"2026-11-27T20:32:49Z stdout F Nov 27 20:32:49 n sudo[9]: {QUOTED}",
        json.dumps({"log": f"Nov 27 20:32:49 n sudo[9]: {QUOTED}\n", "time": ""}),
        json.dumps({"__REALTIME_TIMESTAMP": "1795000000000000", "_TRANSPORT": "syslog",
                    "MESSAGE": XID}),
        "__REALTIME_TIMESTAMP=1795000000000000\n_TRANSPORT=stdout\nMESSAGE=" + XID,
        f"27.11.2026 20:32 n sudo[9]: {QUOTED}",
    ],
)  # fmt: skip
def test_a_program_that_quotes_the_kernel_is_not_the_kernel(world, line):
    assert not [record for record in records(world, *line.split("\n")) if "NVRM" in record.message]


@pytest.mark.parametrize(
    "line",
    [
        XID,
        f"27.11.2026 20:32 n kernel: {XID}",
        f"27.11.2026 20:32 n {XID}",
        f"[99999999999999.0] {XID}",
        f"6,1,99999999999999999999,-;{XID}",
        f"9999-12-31T23:59:59-14:00 {XID}",
        f"2026-13-45T99:99:99Z {XID}",
        f"Feb 30 25:61:61 n kernel: {XID}",
        "{" + XID,
    ],
)
def test_an_unreadable_time_is_not_an_old_one(world, line):
    parsed = records(world, line, since=NOW)
    assert [(record.time, record.message[-30:]) for record in parsed] == [(None, XID[-30:])]


def test_lines_of_one_message_stay_together(world):
    parsed = records(
        world,
        f"{NOW - 9} n kernel: NVRM: The GPU",
        "            NVRM: has fallen",
        f"{NOW - 8} n kernel: NVRM: one\\x0aNVRM: two#012NVRM: three",
    )
    assert [record.time for record in parsed] == [NOW - 9, NOW - 9, NOW - 8]
    assert parsed[1].message == "NVRM: has fallen"
    assert parsed[2].message.split("\n") == ["NVRM: one", "NVRM: two", "NVRM: three"]


def test_an_export_field_with_line_breaks_is_one_message(world):
    lines = ["__REALTIME_TIMESTAMP=1795000000000000", "_TRANSPORT=kernel", "MESSAGE",
             "12345678NVRM: first", "NVRM: second", "PRIORITY=3", "", XID]  # fmt: skip
    assert [record.message for record in records(world, *lines)] == [
        "NVRM: first\nNVRM: second",
        XID,
    ]


def test_the_ring_buffer_gives_time_level_and_window(world, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kmsg").write_text(
        "6,1,100,-;old\n SUBSYSTEM=pci\n3,2,99999000000,-;new\\x0aline\n11,3,99999500000,-;user\n"
    )
    log = kernel_log.ring_buffer(NOW - 3600, world)
    assert (log.source, log.problem) == ("dmesg", "")
    assert log.records == (
        kernel_log.Record(NOW - 1, "new\nline", 3),
        kernel_log.Record(NOW - 0.5, "user", 3),
    )
    (tmp_path / "dev/kmsg").unlink()
    assert "can't be read" in kernel_log.ring_buffer(0, world).problem


@pytest.mark.parametrize(
    "names",
    [
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
        "Jan Feb Mär Apr Mai Jun Jul Aug Sep Okt Nov Dez",
        "janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc.",
        "ene feb mar abr may jun jul ago sep oct nov dic",
        "gen feb mar apr mag giu lug ago set ott nov dic",
        "sty lut mar kwi maj cze lip sie wrz paź lis gru",
        "1月 2月 3月 4月 5月 6月 7月 8月 9月 10月 11月 12月",
        "1월 2월 3월 4월 5월 6월 7월 8월 9월 10월 11월 12월",
        "tammi helmi maalis huhti touko kesä heinä elo syys loka marras joulu",
        "led úno bře dub kvě čen čec srp zář říj lis pro",
        "Oca Şub Mar Nis May Haz Tem Ağu Eyl Eki Kas Ara",
        "Ιαν Φεβ Μαρ Απρ Μαΐ Ιουν Ιουλ Αυγ Σεπ Οκτ Νοε Δεκ",
        "січ лют бер кві тра чер лип сер вер жов лис гру",
    ],
)
def test_months_of_other_languages(names):
    for number, name in enumerate(names.split(), 1):
        line = f"[Sa. {name} 5 10:00:00 2020] {XID}"
        assert kernel_lines.parse_line(line, NOW, 0.0).time == time.mktime(
            (2020, number, 5, 10, 0, 0, 0, 0, -1)
        ), name


@pytest.mark.parametrize(
    ("pack", "kind"),
    [
        (gzip.compress, "not text but compressed by gzip"),
        (lzma.compress, "not text but compressed by xz"),
        (bz2.compress, "not text but compressed by bzip2"),
        (lambda text: b"LPKSHHRH" + text, "not text but a file of the systemd journal"),
    ],
)
def test_a_log_without_lines_is_not_a_log_without_faults(world, tmp_path, pack, kind):
    path = tmp_path / "kern.log"
    path.write_bytes(pack(f"kernel: {XID}".encode()))
    log = kernel_log.read(str(path), 0.0, "", 1.0, world)
    assert (log.records, log.problem) == ((), f"{path} can't be read ({kind})")
    assert kernel_log.read(str(tmp_path / "none"), 0.0, "", 1.0, world).problem
    path.write_text(f"Jan  1 00:00:00 n kernel: {XID}\n")
    assert kernel_log.read(str(path), 0.0, "", 1.0, world).records[0].message == XID
