# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference page has every command, option and check, and no link on a page leads nowhere."""

from __future__ import annotations

import re

from ansible_collections.mlops.fleet.plugins.module_utils._core import config
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.checks import CHECKS
from ansible_collections.mlops.fleet.tests import docs_pages


def test_options_have_flag_type_default_and_variable():
    rows = docs_pages.rows("reference")
    for row in (
        ["``destination``", "``--destination``", "path, ``/backup/models``", "``BACKUP_DIR``"],
        ["``s3.bucket``", "``--s3-bucket``", "str", "``S3_BUCKET``"],
        ["``disk_warning``", "``--disk-warning``, ``--disk-warn``", "str, ``80``"],
        ["``webhooks[].payload``", "", "auto \\| plain"],
        ["``email.password``", "", "str", "", "Password for the SMTP server. Secret."],
    ):
        assert any(
            all(cell.startswith(start) for cell, start in zip(cells, row)) for cells in rows
        ), row


def test_every_option_and_check_is_on_the_page():
    firsts = {cell for row in docs_pages.rows("reference") for cell in row[:2]}
    for part in config.PARTS:
        for entry in config.option_set(part).TABLE:
            assert f"``{entry.name}``" in firsts
    for check in CHECKS:
        assert f"``{check.name}``" in firsts


def test_every_reference_has_its_label():
    pages = [path.stem for path in docs_pages.PAGES.glob("*.rst")]
    texts = {page: docs_pages.text(page) for page in pages}
    labels = {
        label
        for text in texts.values()
        for label in re.findall(r"^\.\. _([\w.]+):$", text, re.MULTILINE)
    }
    for page, text in texts.items():
        used = re.findall(r":ref:`(?:[^`<]*<)?([\w.]+)>?`", text)
        own = {label for label in used if label.startswith("ansible_collections.mlops.fleet.docs")}
        assert own <= labels, (page, own - labels)
