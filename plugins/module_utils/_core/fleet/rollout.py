# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order and batches hosts are started, and when no further ones are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..maintenance import plan
from .report import Result


def batches(
    hosts: Iterable[str],
    groups: Mapping[str, Collection[str]],
    order: Iterable[str],
    limit: Collection[str] | None = None,
) -> tuple[list[str], list[int]]:
    """Return hosts in the order of their groups, and the number of hosts in each batch.

    A host belongs to the first of its groups; those in none of them are the last batch.

    :param order: names of groups. :param limit: hosts of this run, None for all.
    """
    rest = dict.fromkeys(host for host in hosts if limit is None or host in limit)
    ordered: list[str] = []
    sizes: list[int] = []
    for group in order:
        members = [host for host in groups.get(group, ()) if host in rest]
        for host in members:
            del rest[host]
        ordered += members
        sizes.append(len(members))
    return ordered + list(rest), [size for size in [*sizes, len(rest)] if size]


def brake(results: Iterable[Iterable[Result | None]], limit: float, group: str = "") -> str:
    """Say why no further host may be started, or return the empty text.

    :param results: per host that was started, its phases' registered results.
    :param limit: the largest share of failed hosts allowed, in percent (100 = no brake).
    :param group: the group that the hosts belong to, for the text.
    """
    started = [[result for result in host if result is not None] for host in results]
    started = [host for host in started if any(not result.get("skipped") for result in host)]
    failed = sum(1 for host in started if any(plan.phase_failed(result) for result in host))
    if started and 100.0 * failed / len(started) > limit:
        where = ""
        if group:
            where = f" of the group {group}"
        return (
            f"held back: {failed} of {len(started)} hosts{where} failed, more than the"
            f" {limit:g} % allowed"
        )
    return ""


def hold(
    results: Mapping[str, Sequence[Result | None]],
    groups: Mapping[str, Collection[str]],
    limit: float,
    *,
    canary: str = "",
    counted: Sequence[str] = (),
) -> dict[str, Any]:
    """Return why no further host is started: C(held), C(held_groups) by group, C(counted).

    :param results: host to its phases' registered results.
    :param canary: group whose failed hosts hold all others.
    :param counted: groups that are counted one by one, and hold only their own hosts; hosts in none
        of them are counted together (the group with the empty name). Without any, all hosts are
        counted together and hold all.
    """

    def reason(hosts: Iterable[str], group: str) -> str:
        return brake((results[host] for host in hosts if host in results), limit, group)

    if not counted:
        return {"held": reason(results, "")}
    held = reason(groups.get(canary, ()), canary)
    counted_hosts = {host for group in counted for host in groups.get(group, ())}
    reasons = {group: reason(groups.get(group, ()), group) for group in counted}
    reasons[""] = reason([host for host in results if host not in counted_hosts], "")
    reasons = {group: text for group, text in reasons.items() if text}
    return {"held": held, "held_groups": reasons, "counted": list(counted)}


def held_host(brake_result: Any, host: str, groups: Mapping[str, Collection[str]]) -> str:
    """Return why a host is not started, empty when it is.

    :param brake_result: what C(hold) returned, or anything that a playbook registered instead.
    """
    if not isinstance(brake_result, Mapping):
        return ""
    reasons = brake_result.get("held_groups")
    if brake_result.get("held") or not isinstance(reasons, Mapping) or not reasons:
        return str(brake_result.get("held") or "")
    own = [group for group in brake_result.get("counted") or () if host in groups.get(group, ())]
    return next((str(reasons[group]) for group in own or [""] if group in reasons), "")
