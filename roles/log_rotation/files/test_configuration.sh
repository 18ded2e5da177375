#!/bin/sh
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Tests a configuration of logrotate together with all others of the node, before it is installed. Prints what logrotate reports (the new
# configuration is in the directory NEW), and a line "conflict: ..." for each file that another configuration rotates, too.
# Arguments: PYTHON, the text of find_conflicts.py, and the configuration.
umask 077
directory=$(mktemp -d) || exit 3
trap 'rm -rf "$directory"' EXIT
printf '%s' "$3" >"$directory/mlops-fleet" || exit 3
# Otherwise the installed version of the configuration would conflict with the new one.
echo "taboopat + mlops-fleet" >"$directory/first"
LC_ALL=C /usr/sbin/logrotate --debug --state "$directory/state" "$directory/first" "$directory/mlops-fleet" /etc/logrotate.conf \
    >"$directory/messages" 2>&1
"$1" -c "$2" "$directory/mlops-fleet" /etc/logrotate.conf /etc/logrotate.d >"$directory/conflicts" || exit 3
sed -n "s|$directory/|NEW/|g; /^error: /p; /^warning: /p" "$directory/messages"
sed "s|$directory/|/etc/logrotate.d/|g; s/^/conflict: /" "$directory/conflicts"
