#!/bin/sh
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Epilog of Slurm: no further job starts on a node that this one left critical.
# slurm.conf: Epilog=/etc/slurm/epilog.d/mlfleet.sh
# Ends with 1 when the check is critical: Slurm then drains the node.
# Anything else ends with 0, also when nothing could be checked.

timeout 50 mlfleet health --for slurm --no-network --timeout 20
[ $? -ne 1 ]
