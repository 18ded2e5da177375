# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the logrotate configurations that claim files of ours: find_conflicts.py OURS
CONFIGURATION...

Prints one line per conflict. logrotate itself (-d) says it only for logs that exist already, and
two patterns that mean the same future file are a conflict all the same. A configuration is a file,
or a directory as C(include) takes it.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shlex
import sys

# Endings that logrotate itself passes over in a directory (logrotate(8), tabooext).
IGNORED = (
    ".bak .cfsaved .disabled .dpkg-bak .dpkg-del .dpkg-dist .dpkg-new .dpkg-old .dpkg-tmp .ghost"
    " .new .old .orig .rhn-cfg-tmp-* .rpmnew .rpmorig .rpmsave .swp .ucf-dist .ucf-new .ucf-old"
    " ,v ~"
).split()
SCRIPTS = ("postrotate", "prerotate", "firstaction", "lastaction", "preremove")


def patterns(path, seen):
    """Yield (file, line number, pattern) of a configuration and all that it includes."""
    path = os.path.realpath(path)
    if path in seen:
        return
    seen.add(path)
    if os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            if not name.endswith(tuple(IGNORED)) and os.path.isfile(os.path.join(path, name)):
                yield from patterns(os.path.join(path, name), seen)
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return
    inside = script = False
    waiting = []
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if script:
            script = line.split(None, 1)[:1] != ["endscript"]
            continue
        if line.startswith("#") or not line:
            continue
        first = line.split(None, 1)[0]
        if first in SCRIPTS:
            script = True
        elif first == "include" and not inside:
            yield from patterns(line.split(None, 1)[1].strip("\"'"), seen)
        elif not inside and (line[0] in "/\"'{" or waiting):
            before, brace, after = (
                line.partition("{")
                if re.match(r"^[^{]*(\{\s*$|\{\s*\}|$)", line)
                else line.rpartition("{")
            )
            if not brace:
                before, after = line, ""
            try:
                words = shlex.split(before, comments=True)
            except ValueError:
                words = before.split()
            waiting += [(path, number, word) for word in words if word.startswith("/")]
            if brace:
                yield from waiting
                waiting, inside = [], "}" not in after
        elif inside and line.endswith("}"):
            inside = False


def same(ours, theirs):
    """Say whether two patterns can mean one file: one is matched by the other, or both match a file
    that exists.
    """
    one, other = os.path.dirname(ours), os.path.dirname(theirs)
    if not (fnmatch.fnmatchcase(one, other) or fnmatch.fnmatchcase(other, one)):
        return False
    one, other = os.path.basename(ours), os.path.basename(theirs)
    if fnmatch.fnmatchcase(one, other) or fnmatch.fnmatchcase(other, one):
        return True
    return bool(set(glob.glob(ours)) & set(glob.glob(theirs)))


def main(ours, *configurations):
    """Print the conflicts of OURS with everything else; always exit code 0, the caller judges the
    lines.
    """
    mine = list(patterns(ours, set()))
    for index, (path, number, theirs) in enumerate(mine):
        for _path, _number, wanted in mine[:index]:
            if same(wanted, theirs):
                sys.stdout.write(f"{path}:{number} rotates {theirs} ({wanted} of ours, too)\n")
    seen = {os.path.realpath(ours), os.path.realpath("/etc/logrotate.d/mlops-fleet")}
    for configuration in configurations:
        for path, number, theirs in patterns(configuration, seen):
            for _path, _number, wanted in mine:
                if same(wanted, theirs):
                    sys.stdout.write(f"{path}:{number} rotates {theirs} ({wanted} of ours)\n")


main(*sys.argv[1:])
