# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory shared with a child process: what it had found is known even when it hangs in the driver
and is killed.
"""

from __future__ import annotations

import json
import mmap
from typing import Any


class Board:
    """A JSON document in shared memory; the last complete one can be read at any time, whatever
    happens to the writer.
    """

    _HALF = 1 << 17

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 + 2 * self._HALF)

    def write(self, document: dict[str, Any]) -> None:
        """Replace the document. :raises ValueError: it is too large."""
        data = json.dumps(document).encode("ascii") + b"\0"
        if len(data) > self._HALF:
            raise ValueError(f"{len(data)} bytes do not fit into {self._HALF}")
        half = 1 - self._memory[0]
        start = 1 + half * self._HALF
        self._memory[start : start + len(data)] = data
        self._memory[0] = half  # one byte: written whole or not at all

    def read(self) -> dict[str, Any]:
        """Return the last document, {} when none was written."""
        start = 1 + self._memory[0] * self._HALF
        end = self._memory.find(b"\0", start)
        document: dict[str, Any] = json.loads(self._memory[start:end] or b"{}")
        return document
