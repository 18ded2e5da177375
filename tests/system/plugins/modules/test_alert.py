# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert module through a real ansible-playbook at -vvv: results, check mode, and no secret
anywhere.
"""

from __future__ import annotations

import copy
import glob
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

import pytest

from ansible_collections.mlops.fleet.tests import docs_pages

ROOT = pathlib.Path(__file__).resolve().parents[4]
PLAYBOOK = pathlib.Path(sys.executable).parent / "ansible-playbook"
CANARIES = {
    "url": "T0kenC4nary/B0therC4nary/XsecretC4naryPart",
    "query": "qu3ryC4naryValue",
    "login": "us3rC4nary:passC4nary9",
    "header": "h3aderC4nary",
    "routing": "r0utingC4nary0123456789abcdefghi",
    "api": "ap1C4nary-0123456789",
    "file": "f1leC4nary/inThePath99",
    "password": "sm7pC4naryPassword",
}
WORDS = [word for value in CANARIES.values() for word in value.replace(":", "/").split("/")]

pytestmark = pytest.mark.skipif(
    not PLAYBOOK.exists(), reason="no ansible-playbook beside this Python"
)


class Server:
    """Answers the posts with C(status), echoing path and headers as a careless service would."""

    def __init__(self):
        self.status, self.requests = 200, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.requests.append((self.path, json.loads(body)))
                said = f"{self.path} {self.headers} {body}".encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *dummy):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def server():
    found = Server()
    yield found
    found.server.shutdown()
    found.server.server_close()


class Sampler(threading.Thread):
    """Looks at the command line and environment of every process while the body runs."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over, self.seen, self.samples = threading.Event(), set(), 0

    def run(self):
        while not self.over.wait(0.03):
            self.samples += 1
            for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
                try:
                    text = pathlib.Path(path).read_bytes().decode("utf-8", "replace")
                except OSError:
                    continue
                self.seen.update(word for word in WORDS if word in text)


@pytest.fixture
def play(tmp_path):
    """Run one alert task from a playbook file; return its result, the output at -vvv, and what the
    sampler saw.
    """

    def call(args, pipelining=True, check=False, watch=False):
        result = tmp_path / "result.json"
        (tmp_path / "vars.json").write_text(json.dumps({"args": args}))
        tasks = [
            {
                "mlops.fleet.alert": {**args, "state_dir": str(tmp_path / "state")},
                "register": "told",
                "ignore_errors": True,
            },
            {"ansible.builtin.debug": {"var": "told"}},
            {
                "ansible.builtin.copy": {
                    "content": "{{ told | to_json }}",
                    "dest": str(result),
                    "mode": "0600",
                },
                "check_mode": False,
            },
        ]
        playbook = tmp_path / "play.yml"
        playbook.write_text(
            json.dumps(
                [
                    {
                        "hosts": "localhost",
                        "connection": "local",
                        "gather_facts": False,
                        "tasks": tasks,
                    }
                ]
            )
        )
        env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        env.update(
            ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".build" / "collections"),
            ANSIBLE_HOME=str(tmp_path / "home"),
            ANSIBLE_PIPELINING=str(pipelining),
            ANSIBLE_LOCALHOST_WARNING="False",
            ANSIBLE_PYTHON_INTERPRETER=sys.executable,
            ANSIBLE_NOCOLOR="1",
        )
        sampler = Sampler()
        if watch:
            sampler.start()
        argv = [str(PLAYBOOK), "-vvv", str(playbook)] + (["--check"] if check else [])
        done = subprocess.run(
            argv, capture_output=True, text=True, env=env, timeout=120, check=False
        )
        sampler.over.set()
        if watch:
            sampler.join()
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(result.read_text()), done.stdout + done.stderr, sampler

    return call


@pytest.fixture
def everything(server, tmp_path):
    """A task with a secret of each kind, from options and from a file."""
    path = tmp_path / "url"
    path.write_text(f"http://{server.place}/{CANARIES['file']}")
    path.chmod(0o600)
    first = {
        "url": (
            f"http://{CANARIES['login']}@{server.place}/services/{CANARIES['url']}?sig={CANARIES['query']}"
        ),
        "headers": {"X-Key": CANARIES["header"]},
    }
    hooks = [
        {**first, "payload": "slack"},
        {
            "url": f"http://{server.place}",
            "payload": "pagerduty",
            "routing_key": CANARIES["routing"],
        },
        {"url": f"http://{server.place}", "payload": "opsgenie", "api_key": CANARIES["api"]},
        {"url_file": str(path)},
    ]
    email = {
        "to": ["a@example.com"],
        "host": "127.0.0.1",
        "port": 9,
        "security": "tls",
        "user": "bob",
        "password": CANARIES["password"],
        "retries": 0,
    }
    return {
        "document": {
            "hostname": "node1",
            "checks": [{"check": "disk_space", "status": "critical", "message": "Disk usage: 95%"}],
            "failed": False,
            "changed": False,
        },
        "webhooks": [{**one, "retries": 0} for one in hooks],
        "email": email,
        "syslog": True,
        "command": ["/bin/sh", "-c", "sleep 0.3", "handler"],
    }


@pytest.mark.parametrize(("pipelining", "status"), [(True, 400), (False, 500)])
def test_no_secret_in_output_result_state_or_process_list(
    play, server, everything, tmp_path, pipelining, status
):
    server.status = status
    told, output, sampler = play(everything, pipelining, watch=True)
    expected = {400: "failed", 500: "queued"}[status]
    assert [one["status"] for one in told["channels"]][1:5] == [expected] * 4
    assert told["channels"][0]["status"] == "queued", "nobody listens on port 9"
    assert len(server.requests) == 4
    state = "".join(path.read_text() for path in (tmp_path / "state").iterdir())
    assert "Disk usage: 95%" in output + state
    assert sampler.samples > 10
    for word in WORDS:
        assert word not in output, "output at -vvv"
        assert word not in json.dumps(told), "result"
        assert word not in state, "state on disk"
    assert sampler.seen == set(), "process list"
    assert any(CANARIES["file"] in path for path, dummy in server.requests), (
        "the secrets did reach the service"
    )


def test_check_mode_and_then_for_real(play, server, tmp_path):
    args = {
        "message": "GPU 3 is lost",
        "severity": "critical",
        "webhooks": [{"url": f"http://{server.place}/x", "payload": "plain"}],
    }
    would, dummy, dummy = play(args, check=True)
    assert (would["changed"], would["channels"][0]["status"]) == (True, "would_send")
    assert not server.requests
    assert not (tmp_path / "state").exists()
    sent, dummy, dummy = play(args)
    assert (sent["changed"], sent["channels"][0]["status"], sent["channels"][0]["target"]) == (
        True,
        "sent",
        "http://127.0.0.1",
    )
    again, dummy, dummy = play(args)
    assert (again["changed"], again["channels"][0]["status"]) == (False, "skipped")
    assert again["events"][0]["decision"] == "hold"
    assert len(server.requests) == 1
    documented = re.findall(
        r"^(\w+):$",
        (ROOT / "plugins" / "modules" / "alert.py").read_text().partition('RETURN = r"""')[2],
        re.M,
    )
    ansibles = {
        "changed",
        "failed",
        "warnings",
        "deprecations",
        "diff",
        "invocation",
        "_ansible_no_log",
    }
    for told in (would, sent, again):
        assert set(told) - ansibles == set(documented)


def test_message_is_another_name_of_msg(play, server):
    hooks = [{"url": f"http://{server.place}/x"}]
    for name in ("msg", "message"):
        told, dummy, dummy = play({name: f"by {name}", "webhooks": hooks})
        assert told["events"][0]["message"] == f"by {name}"
    told, dummy, dummy = play({"msg": "a", "message": "b", "webhooks": hooks})
    assert "same option" in told["msg"]


def test_plain_addresses_stand_for_themselves_and_are_secrets(play, server):
    url = f"http://{server.place}/{CANARIES['url']}?sig={CANARIES['query']}"
    for number, hooks in enumerate((url, [url], {"url": url})):
        told, output, dummy = play({"message": f"number {number}", "webhooks": hooks})
        assert told["channels"][0]["status"] == "sent", told
        assert [word for word in WORDS if word in output + json.dumps(told)] == []
    assert len(server.requests) == 3
    told, dummy, dummy = play({"message": "x", "email": "a@example.com"}, check=True)
    assert told["channels"][0]["kind"] == "email"


def test_undelivered_can_fail_the_task(play, server):
    server.status = 404
    args = {
        "message": "x",
        "webhooks": [{"url": f"http://{server.place}/x"}],
        "fail_on_undelivered": True,
    }
    told, dummy, dummy = play(args)
    assert told["failed"]
    assert "plain: HTTP 404" in told["msg"]
    assert told["channels"][0]["status"] == "failed"
    told, dummy, dummy = play({**args, "fail_on_undelivered": False})
    assert not told["failed"]
    assert any("not delivered" in one for one in told["warnings"])


def test_wrong_options_are_one_clear_message_without_the_secret(play):
    told, output, dummy = play({"message": "x", "webhooks": [{"url": "ftp://host/T0kenC4nary"}]})
    assert "must begin with https://" in told["msg"]
    assert "T0kenC4nary" not in output


def examples():
    """The alert tasks of the documentation page and of the module, by name."""
    yaml = pytest.importorskip("yaml")
    module = (ROOT / "plugins" / "modules" / "alert.py").read_text(encoding="utf-8")
    blocks = [
        *docs_pages.code_blocks("alerts", "yaml"),
        re.search(r'EXAMPLES = r"""(.*?)"""', module, re.S).group(1),
    ]
    return [
        task for block in blocks for task in yaml.safe_load(block) if "mlops.fleet.alert" in task
    ]


def test_every_documented_example_is_delivered(server, tmp_path):
    """Only addresses are changed: what went to the internet goes to loopback, mail and handler to a
    program here.
    """
    from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import (
        AlertOptions,
    )
    from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.run import run
    from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import (
        CommandResult,
        World,
    )

    world = World(run=lambda argv, **dummy: CommandResult(0, "", ""))
    gpu = {
        "hostname": "node1",
        "checks": [{"check": "gpu_count", "status": "critical", "message": "7 of 8 GPUs"}],
    }
    found = examples()
    assert len(found) >= 15
    for number, task in enumerate(found):
        given = {
            **copy.deepcopy(task["mlops.fleet.alert"]),
            "state_dir": str(tmp_path / str(number)),
        }
        if "document" in given:
            assert given["document"] == "{{ gpu }}"
            given["document"] = gpu
        for hook in given.get("webhooks", []):
            hook.pop("url_file", None)
            hook["url"] = f"http://{server.place}"
        if given.get("email", {}).get("host"):
            given["email"] = {"to": given["email"]["to"]}
        given.setdefault("command", ["/bin/true"])
        result = run(AlertOptions.from_mapping(given), world)
        if given.get("severity") != "pass":
            statuses = {report.status for report in result.channels if report.kind != "syslog"}
            assert statuses == {"sent"}, task["name"]
    payloads = {
        hook.get("payload", "auto")
        for task in found
        for hook in task["mlops.fleet.alert"].get("webhooks", [])
    }
    assert payloads >= {
        "slack",
        "mattermost",
        "teams",
        "pagerduty",
        "opsgenie",
        "alertmanager",
        "template",
    }
    assert len(server.requests) >= 8
