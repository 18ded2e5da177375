# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The extended Xids of NVLink5 (144 to 150): what a line says by unit, severity and status.

A line reads ``145, RLW_REMAP Nonfatal XC0 i0 Link 03 (0x00000004 0x00000040 ...)``: the unit, its
severity, the link, and in parentheses the interrupt and the error status. NVIDIA's catalog says for
each status bit of a unit whether the GPU must be reset.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..records import NamedTuple
from ..registry import Registry
from ..verdict import CRITICAL

if TYPE_CHECKING:
    from .xid_catalog import Xid


class Unit(NamedTuple):
    """A part of the NVLink hardware that reports errors.

    :param fatal: bits of the error status after which the GPU must be reset.
    :param values: the status is a number and ``fatal`` lists some, not bits.
    :param always: it is fatal whatever the status.
    """

    name: str
    text: str
    fatal: tuple[int, ...] = ()
    values: bool = False
    always: bool = False


UNITS: Registry[Unit] = Registry(
    "NVLink5 unit",
    (
        Unit("SAW_MVB", "message and virtual buffer", (0x2, 0x10)),
        Unit("RLW_CTRL", "link wrapper control"),
        Unit("RLW_REMAP", "address remapping", (0x40, 0x80)),
        Unit("RLW_RSPCOL", "response collector", (0x2,)),
        Unit("RLW_RXPIPE", "receive pipeline"),
        Unit("RLW_SRC_TRACK", "source tracking", (0x1, 0x10, 0x20)),
        Unit("RLW_TAGSTATE", "tag state", (0x2, 0x20000, 0x100000)),
        Unit("TLW_CTRL", "transaction layer control", (0x4,)),
        Unit("TREX", "traffic generator"),
        Unit("NETIR_BER_EVENT", "bit error rate"),
        Unit("NETIR_MFDE_EVENT", "link firmware", (0x1, 0x4, 0x5, 0x7), values=True),
        Unit("NETIR_LINK_EVT", "link event"),
        Unit("MSE_WATCHDOG", "link microcontroller watchdog", always=True),
    ),
    required=("text",),
)

_LINE = re.compile(
    r"^[\s,]*(?:pid=[^,]*,\s*)?(?:name=[^,]*,\s*)?(?:(?P<unit>[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)\s+)?"
    r"(?P<severity>(?i:non[-_ ]?fatal|fatal)\b)?(?:.*?\bLink (?P<link>\d+))?"
    r"(?:.*?\((?P<values>0x[0-9a-fA-F]+(?:\s+0x[0-9a-fA-F]+)*))?",
    re.DOTALL,
)


def meaning(general: Xid, text: str) -> Xid:
    """Return what a line means.

    The severity that it states counts, and the unit's status bits where they are worse. A line
    without a severity that can be read is a warning.

    :param general: the entry of the catalog. :param text: what follows the number in the line.
    """
    match = _LINE.match(text)
    fields = dict.fromkeys(("unit", "severity", "link", "values"), "")
    if match:
        fields = match.groupdict(default="")
    name = fields["unit"].upper()
    unit = UNITS.get(name)
    severity = re.sub(r"[-_ ]", "", fields["severity"]).lower()
    values = fields["values"].split()
    status = int(values[1], 16) if len(values) > 1 else None
    fatal = severity == "fatal" or (unit is not None and _is_fatal(unit, status))
    where = ""
    if name:
        where = f" of {name}"
    if unit is not None:
        where = f" of {unit.text} ({name})"
    if fields["link"]:
        where += f" on link {int(fields['link'])}"
    if fatal:
        text = f"fatal NVLink5 error{where}"
        return general._replace(level=CRITICAL, action="reset_gpu", text=text)
    word = ""
    if severity:
        word = "nonfatal "
    return general._replace(text=f"{word}NVLink5 error{where}")


def _is_fatal(unit: Unit, status: int | None) -> bool:
    if unit.always:
        return True
    if status is None:
        return False
    if unit.values:
        return status in unit.fatal
    return any(status & bit for bit in unit.fatal)
