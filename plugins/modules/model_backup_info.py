#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_backup_info
short_description: List backups of models and verify them
version_added: "0.1.0"
description:
  - Lists the backups that M(mlops.fleet.model_backup) made, and archives with such a name and a
    checksum file that other tools made.
  - Verifies them on request, by reading only. A damaged backup is a result, not an error.
    RV(backups[].problems) says what is wrong, and with which file. Use RV(verified) in a condition.
extends_documentation_fragment:
  - mlops.fleet.attributes
  - mlops.fleet.attributes.info_module
  - mlops.fleet.restic
  - mlops.fleet.s3
attributes:
  platform:
    support: full
options:
  path:
    description:
      - Directory that holds the backups, or one archive.
      - With O(s3) only the record of restore drills is read there.
    type: path
    default: /backup/models
  verify:
    description:
      - V(none) compares names, sizes and manifests.
      - V(quick) also compares the SHA-256 of each archive.
      - V(full) unpacks each archive without writing anything, and compares the SHA-256 of each file
        in it.
      - With O(s3) both V(quick) and V(full) download the archives.
    type: str
    choices: [none, quick, full]
    default: none
requirements:
  - boto3 1.28 or later (for O(s3) only)
seealso:
  - module: mlops.fleet.model_backup
  - module: mlops.fleet.model_restore
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Read all backups and compare every file
  mlops.fleet.model_backup_info:
    path: /backup/models
    verify: full
  register: backups

- name: Stop when a backup is damaged
  ansible.builtin.assert:
    that: backups.verified
    fail_msg: "{{ backups.backups | map(attribute='problems') | flatten | join(', ') }}"
"""

RETURN = r"""
backups:
  description: The backups, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: File name of the archive or set.
      type: str
      returned: success
      sample: models_backup_20250131_020000.tar.gz
    path: {description: Path or URL of the archive or set., type: str, returned: success}
    layout: {description: V(single) or V(per_model)., type: str, returned: when it has a manifest}
    archives:
      description:
        - The archives that a set names. Each has C(model), C(name), C(path), C(created), C(size),
          C(sha256), C(files) and C(bytes). What is wrong with one is among RV(backups[].problems).
      type: list
      elements: dict
      returned: for sets
    created: {description: When it was made (ISO 8601)., type: str, returned: success, sample: "2025-01-31T02:00:00+00:00"}
    size: {description: Size of the archive in bytes., type: int, returned: success}
    sha256: {description: SHA-256 that the archive had when it was made., type: str, returned: success}
    verified:
      description: With O(verify=full) whether this reading found nothing wrong. Otherwise whether
        the last verification on record did.
      type: bool
      returned: success
    problems:
      description:
        - What is wrong with it. A damaged index in its manifest is listed too, though it only makes
          reading slower.
      type: list
      elements: str
      returned: success
    unreadable:
      description: Why the user that the task runs as can't read its files. Nothing is known about
        such a backup then.
      type: str
      returned: when a file of it can't be read for lack of permission
    checked: {description: How thoroughly this run checked it., type: str, returned: success}
    legacy: {description: Whether it has a checksum file but no manifest., type: bool, returned: success}
    files: {description: Number of files in it., type: int, returned: when known}
    bytes: {description: Size of these files together in bytes., type: int, returned: when known}
    source: {description: The directory it was made of., type: str, returned: when it has a manifest}
    hostname: {description: The host it was made on., type: str, returned: when it has a manifest}
    compression: {description: Its compression., type: str, returned: when it has a manifest}
    storage_class: {description: Storage class of the object., type: str, returned: with O(s3)}
    manifest: {description: Path of its manifest., type: str, returned: when it has a manifest}
latest:
  description: The newest backup without a problem, in the same form. Null when there is none.
  returned: success
  type: dict
verified:
  description: Whether there is a backup, the newest one is verified, and none has a problem.
  returned: success
  type: bool
last_restore_proof:
  description:
    - The newest restore drill on record that restored one of these backups, as
      M(mlops.fleet.model_restore) returns it. Null when there is none.
    - If the record can't be read, it has one key, C(unreadable), which says why.
  returned: success
  type: dict
duration:
  description: Seconds the module took.
  returned: always
  type: float
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.engines import ENGINES
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    InfoOptions,
    url_secrets,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import silent


def main() -> None:
    module = _shell.build(InfoOptions)
    module.no_log_values.update(url_secrets(module.params))

    def work() -> dict[str, t.Any]:
        options = InfoOptions.from_mapping(module.params)
        result = ENGINES[options.engine].look(options, _shell.world(module), silent)
        return {"changed": False, **result}

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
