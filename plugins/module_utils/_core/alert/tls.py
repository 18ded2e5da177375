# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS for webhooks and e-mail: always verified, 1.2 or later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .channel import Outlook, Undelivered

if TYPE_CHECKING:
    import ssl


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that trusts the system's certificates, or only those in ``ca_file``.

    :raises Undelivered: the file can't be used.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Undelivered(
            f"ca_file {ca_file} can't be used ({type(error).__name__})", Outlook.CURABLE
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
