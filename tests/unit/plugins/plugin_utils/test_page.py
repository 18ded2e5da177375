# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a run as markup: complete without a script, nothing from outside, no text of a host
is active.
"""

from __future__ import annotations

import base64
import gzip
import html.parser
import json
import re
import time

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import peers
from ansible_collections.mlops.fleet.plugins.plugin_utils import page
from ansible_collections.mlops.fleet.tests import synthetic_fleet

VOID = ("meta", "link", "img", "br", "input", "circle", "polyline", "wbr")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'\x1b[31m\u202e{{ 7*7 }}"


class Page(html.parser.HTMLParser):
    """Collects text, scripts and references to the outside, and checks that elements close in
    order.
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.outside, self.tags, self.handlers = [], "", [], [], []
        self.ids = set()
        self.links = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            if name == "id":
                self.ids.add(value)
            if name in ("src", "href"):
                (self.links if value.startswith("#") else self.outside).append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if "script" not in self.open and "style" not in self.open else ""


def data_of(text):
    packed = re.search(r'<script id="data"[^>]*>([^<]*)<', text)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_without_a_script_groups_faults_and_hosts_are_there_and_links_lead_somewhere():
    report = synthetic_fleet.compared(synthetic_fleet.run(50), synthetic_fleet.run(50, 0))
    text = page.render(report, synthetic_fleet.trend(report))
    parsed = Page(text)
    assert parsed.open == [] and parsed.outside == [] and parsed.handlers == []
    assert "http://" not in text and "https://" not in text
    assert all(f"gpu{number:04}" in parsed.text for number in range(50))
    assert "1 new, 6 as before" in parsed.text and "2 hosts: gpu0001, gpu0043" in parsed.text
    assert {link[1:] for link in parsed.links} <= parsed.ids
    assert "Runbook: gpu_xid" in parsed.text and "rack01" in parsed.text
    assert "°C above the median of 256 GPUs" in parsed.text
    assert "driver 535.183.01 on gpu0003" in parsed.text
    assert "firmware of BIOS 1.2 on gpu0004" in parsed.text
    assert "memory 1.9 TiB on gpu0005" in parsed.text
    assert parsed.tags.count("svg") == 7


def test_no_text_of_a_host_is_active():
    check = {"check": HOSTILE, "status": "critical", "message": HOSTILE, "subject": HOSTILE}
    disk = {**check, "check": "disk_usage", "value": 90, "details": {"free_bytes": 1}}
    verdict = {"checks": [check, disk], "status": "critical", "summary": {}, "hostname": HOSTILE}
    verdict["hardware"] = {"cpus": 1, "firmware": {HOSTILE: HOSTILE}, "libraries": [HOSTILE]}
    backup = {
        "backup": {"path": HOSTILE, "verified": True, "created": HOSTILE},
        "copies": [{"url": HOSTILE, "verified": "checksum"}],
        "last_restore_proof": {"at": HOSTILE, "backup": HOSTILE, "place": HOSTILE},
    }
    cleanup = {"removed": [{"path": HOSTILE, "size": 7}], "removed_count": 1}
    gpu = {**verdict, "gpus": [{"name": HOSTILE, "vbios": HOSTILE, "id": HOSTILE, "temp": HOSTILE}]}
    results = {
        HOSTILE: {"health": verdict, "gpu": gpu, "backup": backup, "cleanup": cleanup},
        HOSTILE + "2": {"backup": {"failed": True, "msg": HOSTILE * 2000}},
    }
    report = synthetic_fleet.compared(synthetic_fleet.run(1, results=results))
    text = page.render(report)
    parsed = Page(text)
    assert parsed.open == [] and parsed.tags.count("script") == 2 and "img" not in parsed.tags
    assert parsed.handlers == [] and "49" not in parsed.text
    assert "Largest deletions" in parsed.text and "Least free space" in parsed.text
    assert "<script>alert(1)</script>" in parsed.text and len(text) < 200_000
    assert data_of(text)["hosts"][0]["host"] == HOSTILE


def test_a_thousand_hosts_of_eight_gpus_fit():
    report = synthetic_fleet.compared(synthetic_fleet.run(1000), synthetic_fleet.run(1000, 0))
    start = time.process_time()
    text = page.render(report, synthetic_fleet.trend(report))
    assert time.process_time() - start < 5 and len(text.encode()) < 3_000_000
    data = data_of(text)
    assert len(data["hosts"]) == 1000 and len(data["hosts"][0]["devices"]) == 8


def host(name, group="a", **extra):
    return {
        "host": name,
        "groups": [group],
        "phases": [],
        "devices": [],
        "software": {},
        "backup": {},
        **extra,
    }


def outliers(hosts, **options):
    report = {"hosts": hosts, "timestamp": "2027-01-15T08:00:00+00:00"}
    return [(entry["kind"], *entry["hosts"]) for entry in peers.find(report, **options)]


def device(temp, **extra):
    return {"id": 0, "model": "H100", "temp": temp, "power_draw": 600, "power_limit": 700, **extra}


def test_hot_gpus_are_compared_at_like_power_and_with_enough_peers():
    hosts = [host(f"h{n}", devices=[device(55 + n % 2)]) for n in range(6)]
    hot = host("hot", devices=[device(75)])
    idle = host("idle", devices=[device(75, power_draw=90)])
    assert outliers([*hosts, hot, idle]) == [("temperature", "hot")]
    assert outliers([*hosts[:3], hot]) == []
    assert outliers([*hosts, host("warm", devices=[device(59)])]) == []  # 4 °C do not matter


def test_versions_backups_counts_and_growing_errors():
    hosts = [
        host(
            f"h{n}",
            software={"driver": "590", "kernel": f"6.{n}"},
            devices=[device(55, id=i, corrected=4) for i in range(8)],
            backup={"created": "2027-01-15T02:00:00+00:00"},
        )
        for n in range(6)
    ]
    odd = host(
        "odd",
        software={"driver": "535"},
        devices=[device(55, id=i) for i in range(7)],
        backup={"created": "2027-01-05T02:00:00+00:00"},
    )
    before = {"h0": {"0": 1}, "h1": {"0": 4}}
    assert sorted(outliers([*hosts, odd], before=before)) == [
        ("backup", "odd"),
        ("corrected_errors", "h0"),
        ("gpu_count", "odd"),
        ("version", "odd"),
    ]


def test_peers_are_those_of_the_smallest_group_that_is_large_enough():
    new = [host(f"n{n}", "new", software={"driver": "590"}) for n in range(5)]
    old = [host(f"o{n}", "old", software={"driver": "535"}) for n in range(5)]
    assert outliers([*new, *old]) == []
