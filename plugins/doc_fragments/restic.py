# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # The engines of backups. A module that describes one of these options itself replaces it here.
    DOCUMENTATION = r"""
options:
  engine:
    description:
      - What made the backups. V(restic) reads a restic repository with the installed restic.
    type: str
    choices: [archive, restic]
    default: "archive"
  restic:
    description:
      - What restic needs to know. Only with O(engine=restic).
      - Neither the password nor the repository is among the arguments of restic, which every user
        of the node can list.
    type: dict
    suboptions:
      repository:
        description:
          - Repository as restic names it, like V(/backup/restic),
            V(s3:https://s3.example.com/bucket/node1) or
            V(rest:https://user:password@backup.example.com/node1).
          - By default it is in the bucket of O(s3) if that is set, otherwise in the directory of
            the backups.
        type: str
      password:
        description: Password of the repository. Either this or O(restic.password_file) is required.
        type: str
      password_file:
        description: File on the node that holds the password.
        type: path
      shared:
        description:
          - Make backups in a repository that holds backups of other hosts and none of this one.
            Listing and restoring ignore it.
        type: bool
        default: false
"""
