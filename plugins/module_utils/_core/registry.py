# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registries: every kind of thing that can be added to is a table of entries that describe
themselves completely.

An entry is a NamedTuple (or any object) with a C(name). An incomplete or repeated entry is an error
when the module that holds the table is imported, so that it can't reach a node. A name that is not
registered is an error where it is looked up, never a silent fallback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from .errors import OptionError


class Named(Protocol):
    """What every entry has."""

    @property
    def name(self) -> str:
        """The stable name under which the entry is looked up."""
        ...  # pylint: disable=unnecessary-ellipsis


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """Entries by name, in the order of registration.

    :param kind: what an entry is, for messages (C(node check), C(payload)).
    :param required: fields that must not be None or empty in any entry. 0 and False count as
        values.
    :raises TypeError: an entry lacks a required field, or two have the same name.
    """

    def __init__(
        self, kind: str, entries: Iterable[Entry] = (), required: tuple[str, ...] = ()
    ) -> None:
        self.kind = kind
        self.required = ("name", *required)
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> Entry:
        """Register an entry and return it.

        :raises TypeError: it is incomplete, or its name is taken.
        """
        for field in self.required:
            value = getattr(entry, field, None)
            if value is None or (hasattr(value, "__len__") and not len(value)):
                label = getattr(entry, "name", None) or repr(entry)
                raise TypeError(f"The {self.kind} {label} is incomplete: it has no {field}")
        if entry.name in self._entries:
            raise TypeError(f"The {self.kind} {entry.name} is registered twice")
        self._entries[entry.name] = entry
        return entry

    def __getitem__(self, name: str) -> Entry:
        """Return an entry.

        :raises OptionError: no such entry; the message names those that exist.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise OptionError(
                f"Unknown {self.kind} {name!r}.", "Known: " + ", ".join(self._entries) + ".", name
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str) -> Entry | None:
        """Return an entry, None when there is none of that name."""
        return self._entries.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all entries."""
        return tuple(self._entries)
