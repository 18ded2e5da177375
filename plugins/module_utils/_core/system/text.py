# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, counts, durations and names as text for people."""

from __future__ import annotations

from collections.abc import Sequence


def human_size(size: float) -> str:
    """Return bytes in the largest binary unit that fits: ``1.2 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            if unit == "B":
                return f"{size:.0f} {unit}"
            return f"{size:.1f} {unit}"
        size /= 1024
    return ""


def human_count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 host``, ``3 hosts``."""
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun}s"


def with_count(text: str, count: int) -> str:
    """Return what occurred, and how often where that is more than once: ``Xid 79 2 times``."""
    if count > 1:
        return f"{text} {count} times"
    return text


def human_list(items: Sequence[str], most: int) -> str:
    """Return the first items, and how many more there are: ``a, b and 3 more``."""
    listed = ", ".join(items[:most])
    if len(items) > most:
        listed += f" and {len(items) - most} more"
    return listed


def human_duration(seconds: float) -> str:
    """Return seconds as ``850 ms``, ``12.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def display_path(path: str) -> str:
    """Return a file name of any bytes as one line of valid text."""
    if path.isprintable():
        return path
    return "".join(
        (
            char
            if char.isprintable()
            else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        )
        for char in path
    )


def one_line(text: str) -> str:
    """Return ``text`` as one line that a terminal displays as it is: process names and kernel
    messages hold anything.
    """
    if text.isprintable():
        return text
    blanks = "".join(" " if char.isspace() else char for char in text)
    return "".join(char if char.isprintable() else "\ufffd" for char in blanks)


def field_text(value: object) -> str:
    """Return a field of a journal entry as text; what is not UTF-8 is written as a list of
    bytes.
    """
    if isinstance(value, list):
        if value and all(isinstance(item, int) and 0 <= item < 256 for item in value):
            return bytes(value).decode("utf-8", "replace")
        if value:
            return field_text(value[0])
        return ""
    if value is None:
        return ""
    return str(value)
