# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The statements of a file with the syntax of systemd's ``EnvironmentFile=``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .records import NamedTuple

#: What bash would expand.
_EXPANDS = re.compile(r"\$[A-Za-z_{(]|`")
_NEWLINES = "\n\r"
_BLANKS = " \t\n\r"
#: What a backslash in double quotes escapes.
_ESCAPED = '"\\`$'


class Statement(NamedTuple):
    """A statement: its key, its value (None without ``=``) and its first line.

    :param remarks: how bash reads it differently. :param comment: it is a comment, and that is what
        is wrong.
    """

    key: str
    value: str | None
    line: int
    remarks: tuple[str, ...] = ()
    comment: str = ""


class _Value:
    """A value while it is read."""

    def __init__(self) -> None:
        self.text = ""
        #: Length up to which the value stays if it ends now: blanks outside quotes and escapes are
        #: cut off.
        self.kept = 0
        self.expandable = ""
        self.comment = False

    def add(self, text: str, literal: bool = True, expands: bool = False) -> None:
        """Add text.

        :param literal: it also stays at the end.
        :param expands: bash would expand it.
        """
        if text == "#" and not literal and self.text[-1:] in (" ", "\t"):
            self.comment = True
        self.text += text
        if literal or text not in _BLANKS:
            self.kept = len(self.text)
        self.expandable += text if expands else " "

    def remarks(self) -> tuple[str, ...]:
        """Return how bash reads the value differently."""
        remarks = []
        if self.comment:
            remarks.append(
                "'#' and what follows belong to the value: a comment needs a line of its own"
            )
        if _EXPANDS.search(self.expandable):
            remarks.append("'$' and '`' are not expanded")
        return tuple(remarks)


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements, read as systemd's parser (env-file.c) reads them, state by state."""
    at, line, end = 0, 1, len(text)
    while at < end:
        character = text[at]
        if character in _BLANKS:
            line += character == "\n"
            at += 1
        elif character in "#;":
            start = at
            while at < end and text[at] not in _NEWLINES:
                at += 1
            following = text[at:].lstrip(_NEWLINES)[:1]
            if text[start:at].endswith("\\") and following not in ("", "#", ";"):
                remark = (
                    "the comment ends with a backslash: systemd before 254 ignores the next"
                    " line too"
                )
                yield Statement("", None, line, comment=remark)
        else:
            statement, at, newlines = _statement(text, at, line)
            line += newlines
            yield statement


def _statement(text: str, start: int, line: int) -> tuple[Statement, int, int]:
    """Return the statement that begins at a place, the place after it, and the number of lines it
    spans.
    """
    at = start
    while at < len(text) and text[at] not in "=\n\r":
        at += 1
    key = text[start:at].strip(_BLANKS)
    if at == len(text) or text[at] != "=":
        return Statement(key, None, line), at, 0
    value = _Value()
    first = at = at + 1
    quote, begun = "", False
    while at < len(text):
        character = text[at]
        if quote == "'":
            if character == "'":
                quote = ""
            else:
                value.add(character)
        elif quote == '"':
            at, quote = _in_double_quotes(text, at, value)
        elif character == "\\":
            at += 1
            value.kept = len(value.text)
            # A newline that is escaped is dropped.
            if text[at : at + 1] not in ("", "\n", "\r"):
                value.add(text[at])
            begun = True
        elif character in _NEWLINES:
            break
        elif not begun and character in "\"'":
            quote = character
        elif begun or character not in _BLANKS:
            # Blanks before the first character, and between a closing quote and what follows, are
            # dropped.
            value.add(character, literal=False, expands=True)
            begun = True
        at += 1
    remarks = value.remarks()
    if quote:
        remarks += (f"the quote {quote} is not closed: the rest of the file belongs to the value",)
    content = value.text[: value.kept]
    return Statement(key, content, line, remarks), at, text.count("\n", first, at)


def _in_double_quotes(text: str, at: int, value: _Value) -> tuple[int, str]:
    """Read what is at a place inside double quotes; return the place of its last character, and the
    quote that is open.
    """
    character = text[at]
    if character == '"':
        return at, ""
    if character != "\\":
        value.add(character, literal=True, expands=True)
        return at, '"'
    escaped = text[at + 1 : at + 2]
    if escaped and escaped in _ESCAPED:
        value.add(escaped)
    elif escaped not in ("", "\n"):
        value.add("\\" + escaped)
    return at + 1, '"'
