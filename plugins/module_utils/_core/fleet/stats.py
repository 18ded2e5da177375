# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arithmetic over a fleet's values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the ``share``-th percentile (0 to 100) by the nearest-rank method, None for no
    values.
    """
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share / 100.0 * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float | None:
    """Return the median, the mean of the two middle values of an even number; None for no
    values.
    """
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def outliers(values: Mapping[str, float], limit: float = 3.5) -> list[str]:
    """Return the names whose value lies far from the others', farthest first.

    Uses the modified z-score 0.6745 |x - median| / MAD (Iglewicz and Hoaglin 1993, who recommend
    3.5): unlike the standard deviation it is not moved by the outliers themselves. Where more than
    half of the values are equal (MAD 0), the mean absolute deviation takes its place: |x - median|
    / (1.2533 mean deviation). Fewer than three values have none.
    """
    if len(values) < 3:
        return []
    middle = median(list(values.values())) or 0.0
    distance = {name: abs(value - middle) for name, value in values.items()}
    mad = median(list(distance.values())) or 0.0
    scale = mad / 0.6745 if mad else 1.253314 * sum(distance.values()) / len(distance)
    if not scale:
        return []
    far = [name for name in values if distance[name] / scale > limit]
    return sorted(far, key=lambda name: -distance[name])
