# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Object storage behind a slow network: each connection moves 25 MB per second, and every response
takes 60 ms (30 ms of delay there and back).

    slow_s3.py      prints the port it listens on, then serves until it is killed

It keeps sizes and checksums only, and sends random bytes: it costs so little CPU that what is
measured is the client. A real server on the same machine is busy with storing (SeaweedFS takes 30
MB per second on two busy cores); tests/system has real servers for what is correct.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import itertools
import os
import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: Bytes per second and connection, seconds for the way there and back, bytes between two pauses.
RATE, DELAY, STEP = 25_000_000, 0.06, 512 << 10

#: Size and checksum of the objects, and of the parts of each upload.
objects: dict[str, tuple[int, str]] = {}
uploads: dict[str, dict[int, tuple[int, str]]] = {}
DATA = memoryview(os.urandom(STEP))
numbers = itertools.count(1)
lock = threading.Lock()


class Pace:
    """Lets bytes pass at the rate."""

    def __init__(self) -> None:
        self._begun, self._count = time.monotonic(), 0

    def wait(self, count: int) -> None:
        self._count += count
        time.sleep(max(0.0, self._begun + self._count / RATE - time.monotonic()))


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves what mlops.fleet and boto3 ask when they send or read an object."""

    protocol_version = "HTTP/1.1"
    # The status line and the headers go out in one piece.
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        time.sleep(DELAY)  # the handshake
        super().setup()

    def handle_expect_100(self) -> bool:
        time.sleep(DELAY)
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def _respond(self, status: int, body: bytes = b"", size: int = 0, **headers: str) -> None:
        """Send a response. :param size: how many random bytes are its body."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(size or len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        pace = Pace()
        while size and self.command == "GET":
            count = min(STEP, size)
            self.connection.sendall(DATA[:count])
            pace.wait(count)
            size -= count

    def _body(self) -> bytes:
        """Take the body of a request; return its beginning."""
        length = int(self.headers.get("Content-Length", 0))
        missing, pace, scratch = length, Pace(), memoryview(bytearray(min(length, STEP)))
        while missing:
            count = self.rfile.readinto(scratch[:missing])
            if not count:
                raise ConnectionError("the body ends early")
            missing -= count
            pace.wait(count)
        return bytes(scratch) if length <= STEP else b""

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        time.sleep(DELAY)
        return parts.path, parse_qs(parts.query, keep_blank_values=True)

    def do_PUT(self) -> None:
        size, body = int(self.headers.get("Content-Length", 0)), self._body()
        key, query = self._asked()
        checksum = self.headers.get("x-amz-checksum-sha256", "")
        if body and checksum:
            right = base64.b64encode(hashlib.sha256(body).digest()).decode()
            if checksum != right:
                text = b"<Error><Code>BadDigest</Code><Message>wrong</Message></Error>"
                return self._respond(400, text)
        if "partNumber" in query:
            with lock:
                uploads[query["uploadId"][0]][int(query["partNumber"][0])] = size, checksum
        else:
            objects[key] = size, checksum
        return self._respond(200, ETag='"x"', x_amz_checksum_sha256=checksum)

    def do_POST(self) -> None:
        self._body()
        key, query = self._asked()
        if "uploads" in query:
            with lock:
                identifier = str(next(numbers))
                uploads[identifier] = {}
            name = "InitiateMultipartUploadResult"
            return self._respond(
                200, f"<{name}><UploadId>{identifier}</UploadId></{name}>".encode()
            )
        parts = [part for dummy, part in sorted(uploads.pop(query["uploadId"][0]).items())]
        digests = b"".join(base64.b64decode(checksum) for dummy, checksum in parts)
        composite = base64.b64encode(hashlib.sha256(digests).digest()).decode()
        objects[key] = sum(size for size, dummy in parts), f"{composite}-{len(parts)}"
        return self._respond(200, b"<CompleteMultipartUploadResult/>")

    def do_HEAD(self) -> None:
        key, dummy = self._asked()
        if key not in objects:
            return self._respond(404)
        size, checksum = objects[key]
        return self._respond(200, size=size, ETag='"x"', x_amz_checksum_sha256=checksum)

    def do_GET(self) -> None:
        key, query = self._asked()
        if "uploads" in query:
            return self._respond(200, b"<ListMultipartUploadsResult/>")
        if key not in objects:
            return self._respond(404, b"<Error><Code>NoSuchKey</Code></Error>")
        size = objects[key][0]
        if "Range" not in self.headers:
            return self._respond(200, size=size, ETag='"x"')
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        stop = min(int(last or size), size - 1) + 1
        where = f"bytes {first}-{stop - 1}/{size}"
        return self._respond(206, size=stop - int(first), ETag='"x"', Content_Range=where)

    def log_message(self, *arguments: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64


def main() -> None:
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
