#!/bin/sh
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Prints what the role must record about directories before it changes them, for the removal:
#   directory PATH                 does not exist yet
#   was PATH MODE OWNER GROUP      was there before
# Arguments: RECORD INSTALL_DIR CONFIG_DIR STATE_DIR [OTHER ...]. A directory that was there before is printed once.
record=$1 install=$2 config=$3 state=$4
shift

recorded() { grep -qxF "directory $1" "$record" 2>/dev/null || grep -qF "was $1 " "$record" 2>/dev/null; }

if [ -d "$install/versions" ] && ! grep -qE '^(directory|was) ' "$record" 2>/dev/null; then
    # Installed by a release without this record: the three directories are the role's.
    printf 'directory %s\n' "$install" "$config" "$state"
else
    for path in "$config" "$state"; do
        [ ! -d "$path" ] || recorded "$path" || stat -c "was $path %a %U %G" -- "$path"
    done
fi
for path in "$@"; do
    while [ ! -e "$path" ]; do
        printf 'directory %s\n' "$path"
        path=$(dirname -- "$path")
    done
done
