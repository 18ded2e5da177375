# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``NamedTuple`` and ``dataclass`` for what every run imports, at a tenth of the cost of creation.

The originals compile each annotation, respectively generate and compile source code for each class,
and import ``inspect``: a quarter of the start of the node command. These keep the annotations as
they are. Type checkers see the originals. Use the originals for records that are made by the
thousand, because these are slower to make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

__all__ = ("NamedTuple", "dataclass", "field", "replace")

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import NamedTuple
else:
    from _collections import _tuplegetter

    class _NamedTupleType(type):
        """Makes the classes: the annotations of the class become the items of the tuple."""

        def __new__(cls, name, bases, namespace):
            if not bases or bases[0] is not NamedTuple:
                return super().__new__(cls, name, bases, namespace)
            fields = _annotated(namespace)
            defaults = {field: namespace[field] for field in fields if field in namespace}
            namespace.update(
                {field: _tuplegetter(index, "") for index, field in enumerate(fields)},
                __slots__=(),
                __match_args__=fields,
                _fields=fields,
                _field_defaults=defaults,
            )
            return super().__new__(cls, name, bases, namespace)

    NamedTuple = None

    class NamedTuple(tuple, metaclass=_NamedTupleType):  # noqa: F811
        """As typing.NamedTuple, without generics."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012

        def __new__(cls, *args, **given):
            if given or len(args) != len(cls._fields):
                args = _arguments(cls, cls._fields, cls._field_defaults, args, given)
            return tuple.__new__(cls, args)

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self))

        def _replace(self, **changes):
            result = tuple.__new__(
                type(self), [changes.pop(name, value) for name, value in zip(self._fields, self)]
            )
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return result

        def __repr__(self):
            return _representation(self, zip(self._fields, self))

        def __getnewargs__(self):
            return tuple(self)

    def field(default_factory):
        """Return the mark of a field whose default is made for each record."""
        return _Factory(default_factory)

    def dataclass(cls=None, frozen=False, eq=True, repr=True):  # noqa: A002, ARG001
        """As dataclasses.dataclass, without inheritance; ``dataclasses.replace()`` works too."""
        if cls is None:
            return lambda made: dataclass(made, frozen=frozen, eq=eq)
        names = _annotated(cls.__dict__)
        cls._record_names = cls.__match_args__ = names
        cls._record_defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        for name, value in cls._record_defaults.items():
            if isinstance(value, _Factory):
                delattr(cls, name)
        cls.__dataclass_fields__ = _Fields()
        cls.__init__ = _init
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = _repr
        if eq and "__eq__" not in cls.__dict__:
            cls.__eq__, cls.__hash__ = _equal, _hash if frozen else None
        if frozen:
            cls.__setattr__, cls.__delattr__ = _frozen_set, _frozen_delete
        return cls

    def replace(record, **changes):
        """As dataclasses.replace(), for the records made here."""
        return type(record)(**{**record.__dict__, **changes})


class _Factory:
    """The default of a field that needs a new value for each record."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class _Fields:
    """The fields as ``dataclasses`` wants them, made when it asks. It asks for their names."""

    def __get__(self, record: Any, owner: type[Any]) -> Any:
        import dataclasses

        standard: Any = dataclasses.make_dataclass(owner.__name__, owner._record_names)
        owner.__dataclass_fields__ = standard.__dataclass_fields__
        return owner.__dataclass_fields__


def _annotated(namespace: Mapping[str, Any]) -> tuple[str, ...]:
    annotations = namespace.get("__annotations__", {})
    return tuple(name for name in annotations if "ClassVar[" not in str(annotations[name]))


def _arguments(
    cls: type[Any],
    names: tuple[str, ...],
    defaults: Mapping[str, Any],
    args: tuple[Any, ...],
    given: dict[str, Any],
) -> list[Any]:
    """Return a value for each field. :raises TypeError: as a function with these parameters."""
    if len(args) > len(names):
        raise TypeError(f"{cls.__name__}() takes {len(names)} arguments but {len(args)} were given")
    values = list(args)
    for name in names[len(args) :]:
        if name in given:
            values.append(given.pop(name))
        elif name in defaults:
            value = defaults[name]
            values.append(value.make() if isinstance(value, _Factory) else value)
        else:
            raise TypeError(f"{cls.__name__}() has no value for {name!r}")
    for name in given:
        problem = "got an unexpected"
        if name in names:
            problem = "got multiple values for"
        raise TypeError(f"{cls.__name__}() {problem} argument {name!r}")
    return values


def _representation(record: Any, items: Iterable[tuple[str, Any]]) -> str:
    values = ", ".join(f"{name}={value!r}" for name, value in items)
    return f"{type(record).__name__}({values})"


def _init(self: Any, *args: Any, **given: Any) -> None:
    cls = type(self)
    names = cls._record_names
    if given or len(args) != len(names):
        args = tuple(_arguments(cls, names, cls._record_defaults, args, given))
    self.__dict__.update(zip(names, args))
    if hasattr(cls, "__post_init__"):
        self.__post_init__()


def _values(record: Any) -> tuple[Any, ...]:
    return tuple(record.__dict__[name] for name in record._record_names)


def _repr(self: Any) -> str:
    return _representation(self, zip(self._record_names, _values(self)))


def _equal(self: Any, other: Any) -> Any:
    if type(self) is type(other):
        return _values(self) == _values(other)
    return NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse(verb: str, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot {verb} field {name!r}")


def _frozen_set(self: Any, name: str, value: Any) -> None:  # noqa: ARG001
    _refuse("assign to", name)


def _frozen_delete(self: Any, name: str) -> None:  # noqa: ARG001
    _refuse("delete", name)
