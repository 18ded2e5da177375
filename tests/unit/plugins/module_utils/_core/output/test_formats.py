# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.output import formats
from ansible_collections.mlops.fleet.plugins.module_utils._core.output.formats import FORMATS, Style
from ansible_collections.mlops.fleet.plugins.module_utils._core.output.prometheus import (
    METRICS,
    Metric,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import Check, Document

DOCUMENT = {
    **Document(
        "2025-01-31T14:30:00+00:00",
        "gpu-07",
        (Check("gpu_count", "critical", "7 of 8 GPUs"), Check("driver", "pass", "Driver 580")),
    ).to_dict(),
    "gpus": [{"id": 0, "name": "H100", "temp": 41, "mem_used": 10.5, "mem_total": 81559}],
}


@pytest.mark.parametrize(
    ("name", "style", "first", "last"),
    [
        ("text", Style("gpu"), "CRITICAL  gpu_count  7 of 8 GPUs", "gpu-07: CRITICAL, score 25"),
        ("text", Style("gpu", verbose=True), "GPU  NAME  TEMP", "gpu-07: CRITICAL, score 25"),
        ("nagios", Style("gpu"), "GPU CRITICAL - 7 of 8 GPUs", "[PASS] Driver 580"),
        ("nagios", Style("health"), "NODE CRITICAL - 7 of 8 GPUs", "[PASS] Driver 580"),
        ("junit", Style("health"), "<?xml", "</testsuites>"),
    ],
)
def test_every_format_prints_the_same_document(name, style, first, last):
    lines = FORMATS[name].render(DOCUMENT, style)
    assert lines[0].startswith(first) and lines[-1].startswith(last)
    assert name == "junit" or all("\n" not in line for line in lines)


def test_what_a_gpu_does_not_report_is_a_dash():
    row = FORMATS["text"].render(DOCUMENT, Style("gpu", verbose=True))[1]
    assert row.split() == "0 H100 41 C - 10.5 / 81559 MiB - / -".split()


def test_a_format_that_does_not_exist_is_an_error():
    with pytest.raises(OptionError, match="Unknown output format 'yaml'"):
        FORMATS["yaml"]
    assert FORMATS.names == ("text", "nagios", "junit") and formats.DEFAULT in FORMATS.names


@pytest.mark.parametrize("field", ["help", "documentation", "render"])
def test_a_format_that_lacks_something_can_not_be_registered(field):
    with pytest.raises(TypeError, match=f"yaml is incomplete: it has no {field}"):
        FORMATS.add(FORMATS["text"]._replace(name="yaml", **{field: None}))


def test_a_metric_that_lacks_its_help_can_not_be_registered():
    with pytest.raises(TypeError, match="it has no help"):
        METRICS.add(Metric("mlops_gpu_new", "gauge", ""))
