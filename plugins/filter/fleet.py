# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleet-level arithmetic for people's own playbooks."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.mlops.fleet.plugins.module_utils._core import verdict
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import (
    qualify as qualification,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import rollout, stats


def worst(value: t.Any) -> str:
    """Return the worst of a list of verdict statuses."""
    if isinstance(value, (str, t.Mapping)) or not isinstance(value, t.Iterable):
        raise AnsibleFilterError("mlops.fleet.worst expects a list of statuses")
    statuses = [str(status) for status in value]
    for status in statuses:
        if status not in verdict.STATUSES:
            known = ", ".join(verdict.STATUSES)
            raise AnsibleFilterError(f"mlops.fleet.worst: {status!r} is not one of {known}")
    return verdict.worst(statuses)


def _numbers(value: t.Any, name: str) -> list[float]:
    try:
        return [float(number) for number in value if number is not None]
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"mlops.fleet.{name} expects numbers: {error}") from error


def percentile(value: t.Any, share: float = 50) -> float | None:
    """Return a percentile of a list of numbers; nulls are left out."""
    if isinstance(value, (str, t.Mapping)) or not isinstance(value, t.Iterable):
        raise AnsibleFilterError("mlops.fleet.percentile expects a list of numbers")
    if not 0 <= float(share) <= 100:
        raise AnsibleFilterError("mlops.fleet.percentile: the share must lie between 0 and 100")
    return stats.percentile(_numbers(value, "percentile"), float(share))


def outliers(value: t.Any, limit: float = 3.5) -> list[str]:
    """Return the keys whose number lies far from the others'; nulls are left out."""
    if not isinstance(value, t.Mapping):
        raise AnsibleFilterError("mlops.fleet.outliers expects a mapping of names to numbers")
    known = {str(name): number for name, number in value.items() if number is not None}
    return stats.outliers(dict(zip(known, _numbers(known.values(), "outliers"))), float(limit))


def qualify(value: t.Any, tolerance: float = 10) -> dict[str, t.Any]:
    """Return for each host whether it may go back into service, and the verdict of its GPUs."""
    if not isinstance(value, t.Mapping):
        raise AnsibleFilterError("mlops.fleet.qualify expects a mapping of hosts to results")
    return qualification.qualify(value, float(tolerance))


def batches(
    value: t.Any, groups: t.Any, order: t.Any, limit: t.Any = None
) -> dict[str, list[t.Any]]:
    """Return hosts in the order of their groups, and the number of hosts in each batch."""
    if isinstance(value, (str, t.Mapping)) or not isinstance(value, t.Iterable):
        raise AnsibleFilterError("mlops.fleet.batches expects a list of hosts")
    if isinstance(order, str):
        order = order.replace(",", " ").split()
    order = [str(group) for group in order or ()]
    unknown = [group for group in order if group not in groups]
    if unknown:
        raise AnsibleFilterError(f"mlops.fleet.batches: there is no group {unknown[0]}")
    chosen = {str(host) for host in limit or ()} or None
    hosts, sizes = rollout.batches([str(host) for host in value], groups, order, chosen)
    return {"hosts": hosts, "serial": sizes}


class FilterModule:
    """The filters of this collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "batches": batches,
            "outliers": outliers,
            "percentile": percentile,
            "qualify": qualify,
            "worst": worst,
        }
