#!/bin/sh
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Prolog of Slurm: no job starts on a node that is critical.
# slurm.conf: Prolog=/etc/slurm/prolog.d/mlfleet.sh
# Ends with 1 when the check is critical: Slurm then drains the node and requeues the job.
# Anything else ends with 0, also when nothing could be checked.

timeout 50 mlfleet health --for slurm --no-network --timeout 20
[ $? -ne 1 ]
