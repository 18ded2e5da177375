# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarative option tables: one per part, the single source for argument specs, flags, environment and configuration.

A part subclasses OptionSet and lists its options in C(TABLE). The shells derive everything from that:
modules their argument spec, the node command its flags and configuration keys.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from .errors import OptionError

_Set = TypeVar("_Set", bound="OptionSet")

_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE = frozenset({"0", "false", "no", "off", "n", "f"})


@dataclass(frozen=True)
class Option:
    """One option.

    :param type: C(str int float bool path list dict raw); C(path) values must be absolute unless C(relative_ok).
    :param env: old environment variables that set it, first one present wins.
    :param flags: flags of the node command beside C(--name-with-dashes).
    :param minimum: smallest value allowed (inclusive); C(maximum) likewise.
    :param suboptions: options of the mapping, or of each mapping in the list.
    :param check: returns what is wrong with a value, or None; it sees the converted value.
    :param secret: the value must never be shown.
    :param help: one line for C(--help).
    """

    name: str
    type: str = "str"
    default: Any = None
    required: bool = False
    elements: str | None = None
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    env: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    suboptions: tuple[Option, ...] | None = None
    aliases: tuple[str, ...] = ()
    check: Callable[[Any], str | None] | None = None
    secret: bool = False
    relative_ok: bool = False
    help: str = ""

    def convert(self, value: Any, where: str) -> Any:
        """Return C(value) as this option's type, checked.

        :param where: the option's full name, for messages.
        :raises OptionError: the value does not fit; the message names option, value (never of a secret) and limit.
        """
        value = self._typed(value, where)
        if value is None:
            return None
        self._check_limits(value, where)
        if self.check is not None:
            problem = self.check(value)
            if problem:
                raise OptionError(f"Option {where} is {self._shown(value)}: {problem}.", subject=where)
        return value

    def _shown(self, value: Any) -> str:
        return "(hidden)" if self.secret else repr(value)

    def _wrong(self, value: Any, where: str, wanted: str) -> OptionError:
        return OptionError(f"Option {where} is {self._shown(value)}, but must be {wanted}.", subject=where)

    def _typed(self, value: Any, where: str) -> Any:
        if self.type in ("int", "float"):
            return self._number(value, where)
        if self.type == "bool":
            return self._bool(value, where)
        if self.type in ("str", "path"):
            return self._text(value, where)
        if self.type == "list":
            return self._list(value, where)
        if self.type == "dict":
            if not isinstance(value, Mapping):
                raise self._wrong(value, where, "a mapping")
            return read_table(self.suboptions, value, where + ".") if self.suboptions else dict(value)
        return value

    def _number(self, value: Any, where: str) -> int | float:
        wanted = "a whole number" if self.type == "int" else "a number"
        if isinstance(value, bool):
            raise self._wrong(value, where, wanted)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise self._wrong(value, where, wanted) from None
        if not math.isfinite(number) or (self.type == "int" and number != int(number)):
            raise self._wrong(value, where, wanted)
        return int(number) if self.type == "int" else number

    def _bool(self, value: Any, where: str) -> bool:
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text not in _TRUE | _FALSE:
            raise self._wrong(value, where, "true or false")
        return text in _TRUE

    def _text(self, value: Any, where: str) -> str:
        if isinstance(value, (Mapping, list, tuple, bool)):
            raise self._wrong(value, where, "text" if self.type == "str" else "a path")
        text = str(value)
        if "\0" in text:
            raise self._wrong(value, where, "free of NUL characters")
        if self.type == "path":
            text = os.path.expanduser(text)
            if not self.relative_ok and not os.path.isabs(text):
                raise self._wrong(value, where, "an absolute path (beginning with /)")
        return text

    def _list(self, value: Any, where: str) -> list[Any]:
        if isinstance(value, str):
            value = [word for word in value.replace(",", " ").split() if word]
        if not isinstance(value, (list, tuple)):
            raise self._wrong(value, where, "a list")
        element = Option(
            name=self.name,
            type=self.elements or "raw",
            choices=self.choices,
            suboptions=self.suboptions,
            minimum=self.minimum,
            maximum=self.maximum,
            secret=self.secret,
            relative_ok=self.relative_ok,
        )
        found = []
        for index, one in enumerate(value):
            if one is None or one == "":
                raise OptionError(f"Option {where}[{index}] is empty.", "Give it a value or remove the entry.", where)
            found.append(element.convert(one, f"{where}[{index}]"))
        return found

    def _check_limits(self, value: Any, where: str) -> None:
        if self.type == "list":
            return
        if self.choices is not None and value not in self.choices:
            raise self._wrong(value, where, "one of " + ", ".join(str(choice) for choice in self.choices))
        if self.minimum is not None and value < self.minimum:
            raise self._wrong(value, where, f"at least {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise self._wrong(value, where, f"at most {self.maximum:g}")


def read_table(table: Iterable[Option], given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a value for each option of C(table): the given one converted and checked, or its default.

    None and, where an empty text makes no sense, C("") mean "not given" (AWX surveys send C("") for unanswered
    questions). An empty path is an error: it is far more often an undefined variable than a wish.

    :raises OptionError: unknown key, missing required option, or a value that does not fit.
    """
    table = tuple(table)
    names = {alias: option.name for option in table for alias in (option.name, *option.aliases)}
    canonical: dict[str, Any] = {}
    for key, value in given.items():
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f"Did you mean {prefix}{close[0]}?" if close else "Known: " + ", ".join(sorted(names)) + "."
            raise OptionError(f"Unknown option {prefix}{key}.", hint, f"{prefix}{key}")
        if value is not None or names[key] not in canonical:
            canonical[names[key]] = value
    found: dict[str, Any] = {}
    for option in table:
        where = prefix + option.name
        value = canonical.get(option.name)
        if value == "" and isinstance(value, str):
            if option.type == "path" and (option.required or option.default is not None):
                raise OptionError(f"Option {where} is empty.", "Give an absolute path.", where)
            value = None
        if value is None:
            if option.required:
                raise OptionError(f"Option {where} is required.", option.help, where)
            value = option.default
            if value is None and option.suboptions and option.type == "dict":
                found[option.name] = None
                continue
        found[option.name] = None if value is None else option.convert(value, where)
    return found


class OptionSet:
    """The checked options of one part; each is an attribute. Subclasses set C(TABLE) and may override C(check_together)."""

    TABLE: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no option {name}") from None

    @classmethod
    def from_mapping(cls: type[_Set], given: Mapping[str, Any]) -> _Set:
        """Read the options from a plain mapping (module parameters, configuration section).

        :raises OptionError: see read_table; also for options that contradict each other.
        """
        options = cls(read_table(cls.TABLE, given))
        options.check_together()
        return options

    @classmethod
    def from_section(cls: type[_Set], given: Mapping[str, Any]) -> _Set:
        """Read the options of a configuration section; what only a call can give may be missing. Raises like from_mapping."""
        return cls.from_mapping(given)

    def check_together(self) -> None:
        """Check options against each other; raise OptionError where they contradict."""

    def to_dict(self) -> dict[str, Any]:
        """Return all options with secrets replaced by C(********)."""
        return hide_secrets(self.TABLE, self._values)


def hide_secrets(table: Iterable[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of C(values) in which every secret option that is set reads C(********)."""
    found = {}
    for option in table:
        value = values.get(option.name)
        if value is not None and option.secret:
            value = "********"
        elif option.suboptions and isinstance(value, Mapping):
            value = hide_secrets(option.suboptions, value)
        elif option.suboptions and isinstance(value, list):
            value = [hide_secrets(option.suboptions, one) for one in value]
        found[option.name] = value
    return found


def from_environment(table: Iterable[Option], environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return what the old environment variables say: option name to (raw value, variable names).

    Empty ones count as unset. Suboptions of a mapping arrive as a mapping of those that are set.
    """
    found: dict[str, tuple[Any, str]] = {}
    for option in table:
        for variable in option.env:
            if environ.get(variable, "") != "":
                found[option.name] = (environ[variable], variable)
                break
        else:
            inner = from_environment(option.suboptions or (), environ) if option.type == "dict" else {}
            if inner:
                found[option.name] = ({name: value for name, (value, dummy) in inner.items()}, ", ".join(names for dummy, names in inner.values()))
    return found


#: Shared by the parts that judge.
FAIL_ON = Option("fail_on", choices=("critical", "warning", "never"), default="never", help="From which verdict on the task is failed.")
TEXTFILE = Option("textfile", type="path", help="Metrics file for the node exporter's textfile collector.")
