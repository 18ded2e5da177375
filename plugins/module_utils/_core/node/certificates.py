# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificate files: from when and until when they are valid."""

from __future__ import annotations

import base64
import binascii
import calendar
import re
import time
from collections.abc import Mapping
from typing import Union

from .. import verdict
from ..errors import NotUsable
from ..ports import World
from ..records import NamedTuple
from ..verdict import Check, isoformat
from . import thresholds
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault

_PEM = re.compile(
    rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----(.+?)"
    rb"-----END (?:TRUSTED |X509 )?CERTIFICATE-----",
    re.DOTALL,
)


class Validity(NamedTuple):
    """When all certificates of a file are valid, seconds since the epoch."""

    begins: float
    ends: float


class Unusable(str):
    """What is wrong with a certificate file, in one line."""


#: What one certificate file holds; a Problem where it could not be read by this user in time.
CertificateAnswer = Union[Validity, Unusable, Problem]


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, start and end of the DER element at ``at`` (X.690)."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise ValueError("truncated")
    return tag, start, start + length


def _time(der: bytes, at: int) -> tuple[float, int]:
    """Return the time at ``at`` in seconds since the epoch, and its end (RFC 5280 4.1.2.5)."""
    tag, start, end = _element(der, at)
    stamp = der[start:end].decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year
        stamp = ("19" if int(stamp[:2]) >= 50 else "20") + stamp
    return float(calendar.timegm(time.strptime(stamp, "%Y%m%d%H%M%SZ"))), end


def validity(der: bytes) -> tuple[float, float]:
    """Return from when and until when a certificate is valid, seconds since the epoch.

    :raises ValueError: it is not a certificate.
    """
    try:
        _tag, at, _end = _element(der, 0)  # Certificate
        _tag, at, _end = _element(der, at)  # TBSCertificate
        tag, _start, end = _element(der, at)
        if tag == 0xA0:  # explicit version
            at = end
        for _field in ("serial", "signature", "issuer"):
            at = _element(der, at)[2]
        _tag, at, _end = _element(der, at)  # Validity
        begins, at = _time(der, at)
        return begins, _time(der, at)[0]
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ValueError("not a certificate") from error


def certificate(world: World, path: str) -> Validity | Unusable:
    """Return when all certificates of a PEM or DER file are valid, or what is wrong with it.

    The file may be on a dead mount: only in a child. :raises NotUsable: this user may not read it.
    """
    try:
        with open(world.path(path), "rb") as stream:
            content = stream.read(1 << 20)
    except PermissionError as error:
        raise NotUsable("this user may not read it") from error
    except OSError as error:
        return Unusable(f"can't be read ({error.strerror})")
    blocks = [content] if content[:1] == b"\x30" else []  # DER: one certificate, a sequence
    try:
        blocks = blocks or [base64.b64decode(block) for block in _PEM.findall(content)]
        periods = [validity(block) for block in blocks]
    except (ValueError, binascii.Error):
        return Unusable("holds a damaged certificate")
    if not periods:
        return Unusable("holds no certificate")
    return Validity(
        begins=max(begins for begins, _ends in periods),
        ends=min(ends for _begins, ends in periods),
    )


def decide(
    answers: Mapping[str, CertificateAnswer], now: float, options: NodeOptions
) -> list[Check]:
    """Return certificate for each file."""
    return [_certificate(path, answer, now, options) for path, answer in answers.items()]


def _certificate(path: str, answer: CertificateAnswer, now: float, options: NodeOptions) -> Check:
    head = f"Certificate {path}: "
    if isinstance(answer, Problem):
        return fault("certificate", verdict.UNKNOWN, f"{head}{answer}", path)
    if isinstance(answer, Unusable):
        return fault("certificate", verdict.CRITICAL, f"{head}{answer}", path)
    days = (answer.ends - now) / 86400
    details = {"begins": isoformat(answer.begins), "ends": isoformat(answer.ends)}
    status = None
    text = f"ends in {days:.0f} days"
    if days < 0:
        status, text = verdict.CRITICAL, f"ended {-days:.0f} days ago"
    if now < answer.begins:
        status, text = verdict.CRITICAL, f"not valid before {details['begins']}"
    return thresholds.evaluate(
        options.limits_in_force["certificate"],
        "certificate",
        days,
        head + text,
        status,
        subject=path,
        details=details,
    )
