# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recommendation for a node, from its checks, with reasons. Nothing here acts."""

from __future__ import annotations

from collections.abc import Iterable

from .. import verdict
from ..records import NamedTuple
from ..verdict import Check

#: Mildest first.
ADVICE = ("none", "inspect", "drain", "reboot")
#: What a check's own action means for the node.
_MEANS = {"drain": "drain", "reset_gpu": "drain", "reboot": "reboot"}


class Advice(NamedTuple):
    """What to do with the node, the messages of the checks behind it, and who is at fault."""

    recommendation: str
    reasons: list[str]
    domain: str


def recommend(checks: Iterable[Check]) -> Advice:
    """Return the advice that the checks amount to.

    What is critical decides; warnings count only when nothing is. A full disk or a hungry job is
    the users' to solve: critical it asks for an inspection, as a warning for nothing. The domain
    is ``node`` when the machine is at fault, ``user`` when only workloads are, else ``none``.
    """
    bad = [check for check in checks if check.counts_as in (verdict.WARNING, verdict.CRITICAL)]
    domain = "none"
    if bad:
        domain = "node"
        if all(check.domain == "user" for check in bad):
            domain = "user"
    for level in (verdict.CRITICAL, verdict.WARNING):
        deciding = [check for check in bad if check.counts_as == level]
        if deciding:
            break
    else:
        return Advice("none", [], domain)
    weighed = [(_means(check, level), check.message) for check in deciding]
    best = max((advice for advice, _message in weighed), key=ADVICE.index)
    if best == "none":
        return Advice("none", [], domain)
    reasons = [message for advice, message in weighed if advice == best]
    return Advice(best, reasons, domain)


def _means(check: Check, level: str) -> str:
    """Return what one check at its level asks for."""
    if check.action in _MEANS:
        return _MEANS[check.action]
    if level == verdict.CRITICAL:
        return "inspect"
    if check.action == "inspect" and check.domain != "user":
        return "inspect"
    return "none"
