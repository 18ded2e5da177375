# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peak memory bandwidth by model, from the vendor's data sheets, in GB/s (1e9 bytes)."""

from __future__ import annotations

from typing import NamedTuple


class Model(NamedTuple):
    """A model, known by what its name contains. C(source) names NVIDIA's data sheet."""

    name: str
    bandwidth: float
    source: str


#: The first entry whose name is part of the GPU's name counts, so longer names stand before shorter
#: ones.
MODELS = (
    Model("B200", 8000.0, "HGX B200 data sheet"),
    Model("GH200 144G", 4900.0, "GH200 data sheet"),
    Model("GH200", 4000.0, "GH200 data sheet"),
    Model("H200 NVL", 4800.0, "H200 data sheet"),
    Model("H200", 4800.0, "H200 data sheet"),
    Model("H100 80GB HBM3", 3350.0, "H100 data sheet, SXM"),
    Model("H100 NVL", 3900.0, "H100 NVL data sheet"),
    Model("H100 PCIe", 2000.0, "H100 data sheet, PCIe"),
    Model("H800", 3350.0, "H100 data sheet, SXM"),
    Model("A100-SXM4-80GB", 2039.0, "A100 data sheet"),
    Model("A100 80GB PCIe", 1935.0, "A100 data sheet"),
    Model("A100-SXM4-40GB", 1555.0, "A100 data sheet"),
    Model("A100-PCIE-40GB", 1555.0, "A100 data sheet"),
    Model("A30", 933.0, "A30 data sheet"),
    Model("A40", 696.0, "A40 data sheet"),
    Model("A10", 600.0, "A10 data sheet"),
    Model("L40S", 864.0, "L40S data sheet"),
    Model("L40", 864.0, "L40 data sheet"),
    Model("L4", 300.0, "L4 data sheet"),
    Model("T4", 320.0, "T4 data sheet"),
    Model("V100-SXM2", 900.0, "V100 data sheet"),
    Model("V100-PCIE", 900.0, "V100 data sheet"),
)
#: Share of the data sheet's figure that a copy reaches at least on a healthy card: an H100 SXM gave
#: 0.90.
REACHED = 0.75
#: PCI Express, one direction, GB/s per lane by generation, after line coding (PCI-SIG base
#: specifications).
LANE = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
#: Share of the link's rate that a pinned copy reaches at least on a healthy node: an H100 on x16 of
#: generation 5 gave 0.84 and 0.87.
LINK_REACHED = 0.6


def bandwidth(name: str) -> Model | None:
    """Return the model that a GPU's name stands for, None when it is not in the table."""
    return next((model for model in MODELS if model.name in name), None)


def link(generation: int | None, width: int | None) -> float | None:
    """Return the rate of a PCI Express link in GB/s, None when it is not known."""
    if generation not in LANE or not width:
        return None
    return LANE[generation] * width
