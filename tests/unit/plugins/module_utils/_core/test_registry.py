# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import NamedTuple

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.registry import Registry


class Codec(NamedTuple):
    name: str
    suffix: str | None = None
    level: int | None = None
    modes: tuple[str, ...] = ("read",)


def registry(*entries):
    return Registry("codec", entries, required=("suffix", "level", "modes"))


def test_entries_by_name_in_order_of_registration():
    codecs = registry(Codec("gzip", ".gz", 6), Codec("zstd", ".zst", 3))
    assert codecs.names == ("gzip", "zstd") and codecs["zstd"].suffix == ".zst"
    assert [codec.level for codec in codecs] == [6, 3] and "xz" not in codecs and len(codecs) == 2
    assert codecs.get("xz") is None


@pytest.mark.parametrize(
    ("entry", "missing"),
    [
        (Codec("xz", None, 6), "no suffix"),
        (Codec("xz", "", 6), "no suffix"),
        (Codec("xz", ".xz"), "no level"),
        (Codec("xz", ".xz", 6, ()), "no modes"),
        (Codec("", ".xz", 6), "no name"),
    ],
)
def test_an_incomplete_entry_is_an_error_at_registration(entry, missing):
    with pytest.raises(TypeError, match=missing):
        registry(entry)


def test_zero_is_a_value():
    assert registry(Codec("none", ".tar", 0))["none"].level == 0


def test_two_entries_of_one_name_are_an_error():
    with pytest.raises(TypeError, match="twice"):
        registry(Codec("gzip", ".gz", 6), Codec("gzip", ".gz", 9))


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(OptionError, match=r"Unknown codec 'xz'.*Known: gzip, zstd") as raised:
        registry(Codec("gzip", ".gz", 6), Codec("zstd", ".zst", 3))["xz"]
    assert raised.value.subject == "xz"
