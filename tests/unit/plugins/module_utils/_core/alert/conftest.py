# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers on loopback: HTTP that answers as told, SMTP with TLS and authentication,
certificates of an own authority.
"""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.run import run


@dataclass
class Answer:
    """What the server does with one request: a status with headers and body, C(hang) seconds of
    silence, or C(reset) of the connection.
    """

    status: int = 200
    headers: dict = field(default_factory=dict)
    body: str = "ok"
    hang: float = 0.0
    reset: bool = False


class WebServer:
    """Answers requests as listed in C(answers), then with 200.

    C(requests) holds path, headers, decoded JSON and time of arrival.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: list[Answer] = []
        self.requests: list[dict] = []
        #: Status of each answer, and the largest body in bytes that is not answered with 413.
        self.statuses: list[int] = []
        self.largest = 1 << 30
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append(
                    {
                        "path": self.path,
                        "headers": dict(self.headers),
                        "json": json.loads(data),
                        "at": time.monotonic(),
                    }
                )
                answer = outer.answers.pop(0) if outer.answers else Answer()
                if len(data) > outer.largest:
                    answer = Answer(413)
                outer.statuses.append(answer.status)
                if answer.reset:
                    self.connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                    )
                    self.connection.close()
                    return
                time.sleep(answer.hang)
                body = answer.body.encode()
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.scheme = "https" if context else "http"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str = "/") -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    @property
    def bodies(self) -> list:
        return [one["json"] for one in self.requests]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def web():
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def web2():
    server = WebServer()
    yield server
    server.close()


@dataclass
class Authority:
    """An own certificate authority: C(ca_file) to trust it, C(context) for a server on
    127.0.0.1.
    """

    ca_file: str
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return Authority(str(path), context)


@pytest.fixture
def secure_web(authority):
    server = WebServer(authority.context)
    yield server
    server.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def smtp(authority):
    """Start SMTP servers: C(smtp(mode, **)) with mode C(starttls), C(tls) or C(none); returns one
    with C(port) and C(mails).
    """
    controller_module = pytest.importorskip("aiosmtpd.controller")
    from aiosmtpd.smtp import SMTP, AuthResult

    running = []

    class Handler:
        def __init__(self, replies):
            self.mails, self.logins, self.replies = [], [], list(replies)

        async def handle_DATA(self, server, session, envelope):
            if self.replies:
                return self.replies.pop(0)
            self.mails.append(
                {
                    "to": envelope.rcpt_tos,
                    "from": envelope.mail_from,
                    "data": envelope.content,
                    "tls": session.ssl is not None,
                }
            )
            return "250 OK"

    def start(mode="starttls", user=None, password=None, replies=()):
        handler = Handler(replies)

        def check(server, session, envelope, mechanism, data):
            good = (data.login, data.password) == ((user or "").encode(), (password or "").encode())
            handler.logins.append(data.login.decode())
            return AuthResult(success=good, handled=False)

        settings = {
            "hostname": "test.example",
            "authenticator": check,
            "auth_required": user is not None,
            "auth_require_tls": False,
        }
        if mode == "starttls":
            settings.update(tls_context=authority.context, require_starttls=True)

        class Controller(controller_module.Controller):
            def factory(self):
                return SMTP(self.handler, **settings)

        found = Controller(
            handler,
            hostname="127.0.0.1",
            port=free_port(),
            ssl_context=authority.context if mode == "tls" else None,
        )
        found.start()
        running.append(found)
        handler.port = found.port
        return handler

    yield start
    for one in running:
        one.stop()


def check(name, status, message=None, subject=None, **more):
    """One check of a verdict document."""
    return {
        "check": name,
        "status": status,
        "message": message or f"{name} is {status}",
        **({"subject": subject} if subject else {}),
        **more,
    }


@pytest.fixture
def make_check():
    return check


@pytest.fixture
def document():
    """Make a verdict document as Ansible registers it, foreign keys included."""

    def make(*checks, host="node1", **more):
        failed = sum(one["status"] == "critical" for one in checks)
        return {
            "timestamp": "2025-01-31T14:30:00+00:00",
            "hostname": host,
            "checks": list(checks),
            "summary": {"failed": failed},
            "status": "critical" if failed else "pass",
            "changed": False,
            "failed": False,
            "invocation": {"module_args": {}},
            **more,
        }

    return make


@pytest.fixture
def tell(world, tmp_path):
    """Run the alert part: ``tell(document=..., webhooks=[...])``, ``dry`` for check mode, with a
    state directory of its own.

    The result has the returned keys ``changed``, ``channels`` and ``events`` as attributes, and
    ``to_dict()``.
    """

    def call(dry=False, **given):
        given.setdefault("state_dir", str(tmp_path / "state"))
        result = run(AlertOptions.from_mapping(given), world, check=dry)
        return SimpleNamespace(**result.to_dict(), to_dict=result.to_dict)

    return call


@pytest.fixture
def answer():
    return Answer
