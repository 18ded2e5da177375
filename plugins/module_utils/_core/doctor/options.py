# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor is asked to do beside looking."""

from __future__ import annotations

from typing import NamedTuple


class Request(NamedTuple):
    """The flags of ``mlfleet doctor``.

    :param start: jobs to start; none of them named: all that are scheduled; None: start none.
    :param rehearse_cleanup: a cleanup that is started removes nothing.
    :param alert_test: send a test message over each channel.
    :param command: full path of mlfleet.
    """

    config_path: str
    start: tuple[str, ...] | None
    rehearse_cleanup: bool
    alert_test: bool
    command: str
