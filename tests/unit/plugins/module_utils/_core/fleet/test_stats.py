# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import statistics

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import stats


def test_percentile_is_the_nearest_rank():
    assert [stats.percentile(range(1, 101), share) for share in (0, 5, 50, 100)] == [1, 5, 50, 100]
    assert stats.percentile([], 5) is None


@pytest.mark.parametrize("values", [[3], [1, 2], [5, 1, 3], [4, 1, 3, 2]])
def test_median_equals_the_standard_librarys(values):
    assert stats.median(values) == statistics.median(values)


def test_a_hot_gpu_among_cool_ones_is_found():
    temperatures = {f"n{i}": 60 + i % 5 for i in range(40)}
    assert stats.outliers(temperatures) == []
    assert stats.outliers({**temperatures, "hot": 92, "cold": 20}) == ["cold", "hot"]


def test_one_that_differs_from_equals_is_found():
    assert stats.outliers({**{f"n{i}": 8 for i in range(9)}, "odd": 7}) == ["odd"]
    assert stats.outliers({f"n{i}": 8 for i in range(9)}) == []


def test_two_values_have_no_outlier():
    assert stats.outliers({"a": 1, "b": 100}) == []
