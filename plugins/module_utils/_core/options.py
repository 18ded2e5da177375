# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarative options: one class per part, the single source for argument specs, flags, environment
and configuration.

A part subclasses OptionSet and declares each option as an annotated class attribute::

    class BackupOptions(OptionSet):
        source: str = option(type="path", env=("MODEL_DIR",), help="Directory to back up.")

The annotation is what a type checker sees on an instance, the call of option() is what the shells
derive argument specs, flags and configuration keys from. C(TABLE) holds the options in the order of
declaration.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .errors import OptionError
from .records import NamedTuple

_Set = TypeVar("_Set", bound="OptionSet")
if TYPE_CHECKING:
    _SetClass = type["OptionSet"]  # inside Option, type is a field

_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE = frozenset({"0", "false", "no", "off", "n", "f"})
_TYPES = frozenset({"str", "int", "float", "bool", "path", "list", "dict", "raw"})


class Option(NamedTuple):
    """One option.

    :param type: C(str int float bool path list dict raw); C(path) values must be absolute unless
        C(relative_ok).
    :param env: environment variables of the old scripts that set it; the first one present wins.
    :param flags: flags of the node command beside C(--name-with-dashes).
    :param minimum: smallest value allowed (inclusive); C(maximum) likewise.
    :param suboptions: options of the mapping, or of each mapping in the list: an OptionSet (values
        become instances of it) or a plain table (values stay mappings).
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
    suboptions: tuple[Option, ...] | _SetClass | None = None
    aliases: tuple[str, ...] = ()
    check: Callable[[Any], str | None] | None = None
    secret: bool = False
    relative_ok: bool = False
    help: str = ""

    @property
    def subtable(self) -> tuple[Option, ...]:
        """The options of the mapping or of the list's mappings, () when there are none."""
        if self.suboptions is None:
            return ()
        if isinstance(self.suboptions, tuple):
            return self.suboptions
        return self.suboptions.TABLE

    def convert(self, value: Any, where: str) -> Any:
        """Return C(value) as this option's type, checked.

        :param where: the option's full name, for messages.
        :raises OptionError: the value does not fit; the message names option, value (never a
            secret) and limit.
        """
        value = self._typed(value, where)
        if value is None:
            return None
        self._check_limits(value, where)
        if self.check is not None:
            problem = self.check(value)
            if problem:
                raise OptionError(
                    f"Option {where} is {self._display(value)}: {problem}.", subject=where
                )
        return value

    def _display(self, value: Any) -> str:
        secret = self.secret or any(inner.secret for inner in self.subtable)
        if secret:
            return "(hidden)"
        return repr(value)

    def _invalid(self, value: Any, where: str, expected: str) -> OptionError:
        return OptionError(
            f"Option {where} is {self._display(value)}, but must be {expected}.", subject=where
        )

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
            return self._mapping(value, where)
        return value

    def _mapping(self, value: Any, where: str) -> Any:
        if isinstance(value, OptionSet):
            value = value.given()
        if not isinstance(value, Mapping):
            raise self._invalid(value, where, "a mapping")
        if self.suboptions is None:
            return dict(value)
        values = read_table(self.subtable, value, where + ".")
        if isinstance(self.suboptions, tuple):
            return values
        return self.suboptions(values)

    def _number(self, value: Any, where: str) -> int | float:
        expected = "a number"
        if self.type == "int":
            expected = "a whole number"
        if isinstance(value, bool):
            raise self._invalid(value, where, expected)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise self._invalid(value, where, expected) from None
        if not math.isfinite(number) or (self.type == "int" and number != int(number)):
            raise self._invalid(value, where, expected)
        if self.type == "int":
            return int(number)
        return number

    def _bool(self, value: Any, where: str) -> bool:
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text not in _TRUE | _FALSE:
            raise self._invalid(value, where, "true or false")
        return text in _TRUE

    def _text(self, value: Any, where: str) -> str:
        if isinstance(value, (Mapping, list, tuple, bool)):
            raise self._invalid(value, where, "text" if self.type == "str" else "a path")
        text = str(value)
        if "\0" in text:
            raise self._invalid(value, where, "free of NUL characters")
        if self.type == "path":
            text = os.path.expanduser(text)
            if not self.relative_ok and not os.path.isabs(text):
                raise self._invalid(value, where, "an absolute path (beginning with /)")
        return text

    def _list(self, value: Any, where: str) -> list[Any]:
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        if not isinstance(value, (list, tuple)):
            raise self._invalid(value, where, "a list")
        element = self._replace(
            type=self.elements or "raw", elements=None, check=None, default=None, required=False
        )
        items = []
        for index, item in enumerate(value):
            if item is None or item == "":
                raise OptionError(
                    f"Option {where}[{index}] is empty.",
                    "Give it a value or remove the entry.",
                    where,
                )
            items.append(element.convert(item, f"{where}[{index}]"))
        return items

    def _check_limits(self, value: Any, where: str) -> None:
        if self.type == "list":
            return
        if self.choices is not None and value not in self.choices:
            raise self._invalid(
                value, where, "one of " + ", ".join(str(choice) for choice in self.choices)
            )
        if self.minimum is not None and value < self.minimum:
            raise self._invalid(value, where, f"at least {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise self._invalid(value, where, f"at most {self.maximum:g}")


def option(**description: Any) -> Any:
    """Declare an option as an attribute of an OptionSet; the arguments are the fields of Option
    without C(name).

    The return type is Any so that the attribute's annotation is what type checkers see.
    """
    return Option("", **description)


def _complete(declared: Option, owner: str) -> Option:
    """Return a declared option.

    :raises TypeError: it lacks something that the shells derive from it.
    """
    label = f"Option {owner}.{declared.name}"
    if declared.type not in _TYPES:
        raise TypeError(f"{label}: unknown type {declared.type!r}")
    if not declared.help:
        raise TypeError(f"{label} has no help text")
    if (declared.type == "list") != (declared.elements is not None):
        raise TypeError(f"{label}: a list needs elements, and nothing else has them")
    if declared.required and declared.default is not None:
        raise TypeError(f"{label} is required and has a default")
    return declared


def read_table(
    table: Iterable[Option], given: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Return a value for each option of C(table): the given one converted and checked, or its
    default.

    None and, where an empty text makes no sense, C("") mean "not given" (AWX surveys send C("") for
    unanswered questions). An empty path is an error: it is far more often an undefined variable
    than a wish.

    :raises OptionError: unknown key, missing required option, or a value that does not fit.
    """
    table = tuple(table)
    names = {alias: entry.name for entry in table for alias in (entry.name, *entry.aliases)}
    canonical: dict[str, Any] = {}
    for key, value in given.items():
        if key not in names:
            import difflib  # only a misspelled option needs it

            close = difflib.get_close_matches(
                str(key),
                names,
                n=1,  # mutant: equivalent because only the first is used
            )
            hint = (
                f"Did you mean {prefix}{close[0]}?"
                if close
                else "Known: " + ", ".join(sorted(names)) + "."
            )
            raise OptionError(f"Unknown option {prefix}{key}.", hint, f"{prefix}{key}")
        if value is not None or names[key] not in canonical:
            canonical[names[key]] = value
    values: dict[str, Any] = {}
    for entry in table:
        where = prefix + entry.name
        value = canonical.get(entry.name)
        if value == "" and isinstance(value, str):
            if entry.type == "path" and (entry.required or entry.default is not None):
                raise OptionError(f"Option {where} is empty.", "Give an absolute path.", where)
            value = None
        if value is None:
            if entry.required:
                raise OptionError(f"Option {where} is required.", entry.help, where)
            value = entry.default
        values[entry.name] = None if value is None else entry.convert(value, where)
    return values


class OptionSet:
    """The checked options of one part, one attribute each.

    Subclasses may override C(check_together).
    """

    TABLE: ClassVar[tuple[Option, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Collect the declared options into C(TABLE), inherited ones last.

        :raises TypeError: an option is incomplete or lacks its annotation.
        """
        super().__init_subclass__()
        annotations = cls.__annotations__
        table: dict[str, Option] = {}
        for name, value in list(vars(cls).items()):
            if not isinstance(value, Option):
                continue
            if name not in annotations:
                raise TypeError(f"Option {cls.__name__}.{name} has no type annotation")
            table[name] = _complete(value._replace(name=name), cls.__name__)
            delattr(cls, name)  # a value is found on instances only
        inherited = (entry for entry in cls.TABLE if entry.name not in table)
        cls.TABLE = (*table.values(), *inherited)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def given(self) -> dict[str, Any]:
        """Return the value of every option by name, secrets included."""
        return {entry.name: self.__dict__[entry.name] for entry in self.TABLE}

    @classmethod
    def default(cls, name: str) -> Any:
        """Return the default of an option. :raises KeyError: there is no such option."""
        return {entry.name: entry.default for entry in cls.TABLE}[name]

    @classmethod
    def from_mapping(cls: type[_Set], given: Mapping[str, Any]) -> _Set:
        """Read the options from a plain mapping (module parameters, configuration section).

        :raises OptionError: see read_table; also for options that contradict each other.
        """
        options = cls(read_table(cls.TABLE, cls.expand(given)))
        options.check_together()
        return options

    @classmethod
    def expand(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return options as they are given, short forms of mappings written out.

        There are none by default.
        """
        return given

    @classmethod
    def from_section(cls: type[_Set], given: Mapping[str, Any]) -> _Set:
        """Read the options of a configuration section, where options that only a call can give may
        be missing.

        Raises like from_mapping.
        """
        return cls.from_mapping(given)

    def check_together(self) -> None:
        """Check options against each other and normalise them; raise OptionError where they
        contradict.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return all options with secrets replaced by C(********), nested sets as mappings."""
        return hide_secrets(self.TABLE, self.given())


def hide_secrets(table: Iterable[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of C(values) in which every secret option that is set reads C(********)."""
    safe = {}
    for entry in table:
        value = values.get(entry.name)
        if value is not None and entry.secret:
            value = "********"
        elif entry.suboptions is not None and isinstance(value, list):
            value = [_hide_nested(entry, item) for item in value]
        elif entry.suboptions is not None:
            value = _hide_nested(entry, value)
        safe[entry.name] = value
    return safe


def _hide_nested(entry: Option, value: Any) -> Any:
    if isinstance(value, OptionSet):
        return value.to_dict()
    if isinstance(value, Mapping):
        return hide_secrets(entry.subtable, value)
    return value


class ReportOptions(OptionSet):
    """Options shared by the parts that only report."""

    textfile: str | None = option(
        type="path", help="Metrics file for the node exporter's textfile collector."
    )
    fail_on: str = option(
        choices=("critical", "warning", "never"),
        default="never",
        help="Minimum verdict that fails the task.",
    )
