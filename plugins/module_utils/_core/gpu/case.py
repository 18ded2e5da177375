# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of one GPU look at, what they give, and how they are registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..records import NamedTuple
from ..verdict import WARNING
from .options import GpuOptions
from .reading import Gpu

if TYPE_CHECKING:
    from . import xid


class Case(NamedTuple):
    """One GPU and all that its checks look at."""

    options: GpuOptions
    gpu: Gpu
    others: Sequence[Gpu]  # all GPUs of the node
    events: Sequence[xid.Event]  # of this GPU
    log_readable: bool
    driver_version: Optional[str]
    orphans: Optional[frozenset[int]]
    fixed: tuple[float, float]


class Finding(NamedTuple):
    """The result of one check; the fields are those of a verdict.Check."""

    status: str
    message: str
    action: str = "none"
    value: Any = None
    unit: Optional[str] = None
    warn: Optional[float] = None
    crit: Optional[float] = None
    threshold_source: Optional[str] = None
    domain: Optional[str] = "node"
    unknown_as: str = WARNING


def source_of(option: str, limit: Any) -> str:
    """Return where the limit of an option is from: the user or the default."""
    if limit == GpuOptions.default(option):
        return "default"
    return "user"


class GpuCheck(NamedTuple):
    """A check: what it looks at, where its limit comes from, what it may recommend.

    ``runbook`` is the label of its entry in the runbook, ``metric`` the series that shows its
    value, ``unusable`` whether it runs on a GPU that answers nothing useful.
    """

    name: str
    evaluate: Callable[[Case], Optional[Finding]]
    limit: str
    actions: tuple[str, ...]
    runbook: str
    metric: str
    documentation: str
    unusable: bool = False
