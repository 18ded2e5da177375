# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP server and a small SMTP server on loopback; writes its ports and what it received into
the directory given.
"""

from __future__ import annotations

import http.server
import json
import pathlib
import socketserver
import sys
import threading

DIRECTORY = pathlib.Path(sys.argv[1])


def note(kind: str, what: object) -> None:
    with open(DIRECTORY / "received", "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"kind": kind, "what": what}) + "\n")


class Web(http.server.BaseHTTPRequestHandler):
    """Answers 200, or the status that the file C(status) names."""

    def do_POST(self) -> None:
        note(
            "http",
            {
                "path": self.path,
                "body": json.loads(self.rfile.read(int(self.headers["Content-Length"]))),
            },
        )
        status = DIRECTORY / "status"
        self.send_response(int(status.read_text()) if status.exists() else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_given: object) -> None:
        pass


class Mail(socketserver.StreamRequestHandler):
    """Just enough SMTP to take a mail."""

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        while True:
            line = self.rfile.readline().strip()
            if not line:
                return
            if line.upper() == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while True:
                    one = self.rfile.readline()
                    if one in (b".\r\n", b""):
                        break
                    lines.append(one.decode())
                note("mail", "".join(lines))
            self.wfile.write(b"221 bye\r\n" if line.upper() == b"QUIT" else b"250 ok\r\n")


class Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
mail = Threads(("127.0.0.1", 0), Mail)
threading.Thread(target=mail.serve_forever, daemon=True).start()
(DIRECTORY / "ports.tmp").write_text(
    json.dumps({"http": web.server_address[1], "smtp": mail.server_address[1]})
)
(DIRECTORY / "ports.tmp").rename(DIRECTORY / "ports")
threading.Timer(300, web.shutdown).start()
web.serve_forever()
