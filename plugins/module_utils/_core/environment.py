# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file with the old scripts' variables (``/etc/ml-automation.conf``), read in one way
everywhere.

The syntax is that of systemd's ``EnvironmentFile=`` (systemd.exec(5)), so that units and everything
else read the same: comments with ``#`` and ``;``, quotes, backslashes, nothing is expanded. In
addition a line may begin with ``export``, because people source the file in bash; systemd ignores
such a line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from .records import NamedTuple

#: Where the file is unless the schedule role was given another place.
PATH = "/etc/ml-automation.conf"
#: Names another file; empty: no file is read.
VARIABLE = "MLFLEET_ENVIRONMENT_FILE"

_MOST_BYTES = 1 << 20
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_EXPORT = r"export[ \t]+(?P<name>.*)"


class Assignment(NamedTuple):
    """A variable that the file sets, and the number of the line that it begins in.

    :param exported: the line begins with ``export``, so systemd ignores it.
    """

    value: str
    line: int
    exported: bool


class Problem(NamedTuple):
    """What is wrong with a line. The text never holds a value, which may be secret.

    :param ignored: the line sets nothing; otherwise bash reads it differently.
    """

    line: int
    text: str
    ignored: bool


class Environment(NamedTuple):
    """What the file says.

    :param path: empty when no file is to be read. :param exists: False as well when nobody can
        tell.
    :param unreadable: why this user can't read it, empty when the file was read or is not there.
    :param variables: the last assignment of each variable.
    :param units: the values that systemd gives to units.
    """

    path: str = ""
    exists: bool = False
    unreadable: str = ""
    variables: Mapping[str, Assignment] = {}
    units: Mapping[str, str] = {}
    problems: tuple[Problem, ...] = ()

    def lines(self, ignored_only: bool = False) -> list[str]:
        """Return the problems as text, each with file and line number."""
        return [
            f"{self.path}, line {problem.line}: {problem.text}"
            for problem in self.problems
            if problem.ignored or not ignored_only
        ]

    def complete(self, environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, int]]:
        """Add the variables of the file to an environment, which wins.

        :return: the environment, and line numbers of the variables that come from the file. In a
            unit systemd has added them already: a variable that has the value systemd read counts
            as the file's.
        """
        in_unit = "INVOCATION_ID" in environ
        merged, lines = dict(environ), {}
        for name, assignment in self.variables.items():
            if name not in environ or (in_unit and environ[name] == self.units.get(name)):
                merged[name] = assignment.value
                lines[name] = assignment.line
        return merged, lines


def default_path(environ: Mapping[str, str]) -> str:
    """Return the path of the file, empty when none is to be read."""
    return environ.get(VARIABLE, PATH)


def read(path: str) -> Environment:
    """Read the file. A missing file sets nothing; a file that can't be read says why."""
    if not path:
        return Environment()
    try:
        # Not blocking: a pipe in its place would wait for a writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return Environment(path)
    except OSError as error:
        return Environment(path, not isinstance(error, PermissionError), _reason(error))
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return Environment(path, True, "it is not a file")
        with open(fd, "rb", closefd=False) as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        return Environment(path, True, _reason(error))
    finally:
        os.close(fd)
    if len(content) > _MOST_BYTES:
        return Environment(path, True, f"it is larger than {_MOST_BYTES >> 10} KiB")
    return parse(content, path)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def parse(content: bytes, path: str = PATH) -> Environment:
    """Return what the content of a file says."""
    from .environment_syntax import statements  # most nodes have no such file

    # systemd reads nothing of such a file.
    unusable = _undecodable(content)
    if unusable:
        return Environment(path, True, problems=(unusable,))
    text = content.decode("utf-8")
    variables: dict[str, Assignment] = {}
    units: dict[str, str] = {}
    problems = []
    for statement in statements(text):
        exported = re.fullmatch(_EXPORT, statement.key)
        name = exported["name"].strip() if exported else statement.key
        if statement.comment:
            problems.append(Problem(statement.line, statement.comment, False))
            continue
        if statement.value is None:
            if not exported or not all(re.fullmatch(_NAME, word) for word in name.split()):
                problems.append(Problem(statement.line, "not understood: no NAME=value", True))
            continue
        if not re.fullmatch(_NAME, name):
            problems.append(Problem(statement.line, "not understood: no valid name before =", True))
            continue
        variables[name] = Assignment(statement.value, statement.line, bool(exported))
        if not exported:
            units[name] = statement.value
        problems += [
            Problem(statement.line, f"{name}: {remark}", False) for remark in statement.remarks
        ]
    return Environment(path, True, "", variables, units, tuple(problems))


def _undecodable(content: bytes) -> Problem | None:
    at, what = content.find(b"\0"), "a NUL character"
    if at < 0:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            at, what = error.start, "bytes that are not UTF-8"
    if at < 0:
        return None
    line = content.count(b"\n", 0, at) + 1
    return Problem(line, f"{what}: nothing of the file is in force", True)
