# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cheap records behave as the originals that type checkers see."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import typing

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import records


class Light(records.NamedTuple):
    """A tuple of ours."""

    name: str
    size: int = 3
    where: typing.Optional[str] = None

    @property
    def double(self):
        return 2 * self.size


class Original(typing.NamedTuple):
    """The same of typing."""

    name: str
    size: int = 3
    where: typing.Optional[str] = None


def _make(decorator, field):
    @decorator(frozen=True)
    class Record:
        name: str
        size: int = 3
        items: list = field(default_factory=list)

        def __post_init__(self):
            object.__setattr__(self, "name", self.name.strip())

    return Record


Frozen = _make(records.dataclass, records.field)
Standard = _make(dataclasses.dataclass, dataclasses.field)
Frozen.__name__ = Frozen.__qualname__ = "Frozen"  # by which pickle finds it


@records.dataclass
class Mutable:
    name: str
    size: int = 0


CALLS = [
    (("a",), {}),
    (("a", 1, "b"), {}),
    (("a",), {"where": "b"}),
    ((), {"size": 2, "name": "x"}),
    ((), {}),
    (("a", 1, "b", 4), {}),
    (("a",), {"name": "b"}),
    (("a",), {"colour": 1}),
]


@pytest.mark.parametrize("args,given", CALLS)
def test_named_tuples_take_the_same_arguments(args, given):
    try:
        expected = tuple(Original(*args, **given))
    except TypeError:
        with pytest.raises(TypeError, match="Light"):
            Light(*args, **given)
    else:
        assert Light(*args, **given) == expected


def test_named_tuples_have_the_same_interface():
    light, original = Light("a"), Original("a")
    assert light == original == ("a", 3, None)
    assert light._asdict() == original._asdict()
    assert light._fields == original._fields
    assert light._field_defaults == original._field_defaults
    assert light._replace(size=7) == original._replace(size=7)
    assert isinstance(light._replace(size=7), Light)
    assert Light._make(["b", 1, "c"]) == Original._make(["b", 1, "c"])
    assert repr(light) == repr(original).replace("Original", "Light")
    assert hash(light) == hash(original)
    assert light.double == 6
    with pytest.raises(ValueError, match="colour"):
        light._replace(colour=1)
    with pytest.raises(AttributeError):
        light.size = 1
    with pytest.raises(AttributeError):
        light.colour = 1
    for again in (pickle.loads(pickle.dumps(light)), copy.copy(light), copy.deepcopy(light)):
        assert (type(again), again) == (Light, light)


@pytest.mark.parametrize(
    "args,given",
    [
        ((" a ",), {}),
        (("a", 1, [2]), {}),
        (("a",), {"items": [1]}),
        ((), {}),
        (("a", 1, [], 4), {}),
        (("a",), {"name": "b"}),
        (("a",), {"colour": 1}),
    ],
)
def test_dataclasses_take_the_same_arguments(args, given):
    try:
        expected = dataclasses.asdict(Standard(*args, **given))
    except TypeError:
        with pytest.raises(TypeError, match="Frozen"):
            Frozen(*args, **given)
    else:
        assert vars(Frozen(*args, **given)) == expected


def test_dataclasses_have_the_same_interface():
    light = Frozen("a")
    assert light == Frozen("a", items=[]) != Frozen("b")
    assert light != Standard("a")
    assert repr(light) == "Frozen(name='a', size=3, items=[])"
    assert Frozen("a").items is not light.items
    assert hash(Frozen("a", 1, ())) == hash(Frozen("a", 1, ()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        light.size = 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        del light.size
    for changed in (records.replace(light, name=" b "), dataclasses.replace(light, name=" b ")):
        assert (type(changed), changed) == (Frozen, Frozen("b"))
    with pytest.raises(TypeError):
        records.replace(light, colour=1)
    assert dataclasses.asdict(light) == {"name": "a", "size": 3, "items": []}
    assert [field.name for field in dataclasses.fields(Frozen)] == ["name", "size", "items"]
    for again in (pickle.loads(pickle.dumps(light)), copy.copy(light), copy.deepcopy(light)):
        assert (type(again), again) == (Frozen, light)
    mutable = Mutable("a")
    mutable.size = 2
    assert mutable == Mutable("a", 2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(mutable)
