#!/bin/sh
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# HealthCheckProgram of Slurm: drains a node that is critical, with the reason.
# slurm.conf: HealthCheckProgram=/etc/slurm/mlfleet_health_check.sh
#             HealthCheckInterval=300
#             HealthCheckNodeState=ANY,CYCLE
# Slurm takes no action on the exit code of this program, so it drains the node itself. Unlike prolog and
# epilog, it may use Slurm's commands. It never resumes a node: a person does, or the playbook qualify.

line=$(timeout 50 mlfleet health --for slurm --timeout 30)
if [ $? -eq 1 ]; then
    echo "$line"
    scontrol update NodeName="${SLURMD_NODENAME:-$(hostname -s)}" State=DRAIN Reason="mlfleet: $line"
    exit 1
fi
exit 0
