# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do with a node, from its checks: advice with reasons. Nothing here acts."""

from __future__ import annotations

from collections.abc import Iterable

from .. import verdict
from ..verdict import Check

#: Mildest first.
ADVICE = ("none", "inspect", "drain", "reboot")
#: What a check's own action means for the node.
_MEANS = {"drain": "drain", "reset_gpu": "drain", "reboot": "reboot"}


def recommend(checks: Iterable[Check]) -> tuple[str, list[str], str]:
    """Return the advice (C(none inspect drain reboot)), its reasons (messages of the checks behind it) and the domain.

    What is critical decides; warnings are looked at only when nothing is. A full disk or a hungry job is the users' to solve: critical
    it asks for a look, as a warning for nothing. The domain is C(node) when the machine is at fault, C(user) when only workloads are, else C(none).
    """
    bad = [check for check in checks if check.counts_as in (verdict.WARNING, verdict.CRITICAL)]
    domain = "node" if any(check.domain != "user" for check in bad) else "user" if bad else "none"
    weighed: list[tuple[str, str]] = []
    for level in (verdict.CRITICAL, verdict.WARNING):
        for check in bad:
            if check.counts_as != level:
                continue
            advice = _MEANS.get(check.action)
            if advice is None:
                advice = (
                    "inspect"
                    if level == verdict.CRITICAL
                    or (check.domain != "user" and check.action == "inspect")
                    else "none"
                )
            weighed.append((advice, check.message))
        if weighed:
            break
    best = max((advice for advice, _message in weighed), key=ADVICE.index, default="none")
    reasons = [message for advice, message in weighed if advice == best and best != "none"]
    return best, reasons, domain
