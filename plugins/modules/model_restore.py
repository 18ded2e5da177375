#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_restore
short_description: Restore models from a verified backup
version_added: "0.1.0"
description:
  - Unpacks a backup into a temporary directory beside O(destination), compares every file with the
    manifest while it is written, and then puts the directory in place in one step. O(destination)
    is either as before or complete.
  - When anything does not match, the task fails, names the file, and leaves nothing behind.
  - Nothing in an archive is trusted. Names that lead out of the directory, devices and pipes are
    refused, links are never followed, and the set-user-id and set-group-id bits are dropped.
  - Nothing is done when O(destination) already equals the backup in names, permissions, times and
    contents.
extends_documentation_fragment:
  - mlops.fleet.attributes
  - mlops.fleet.restic
  - mlops.fleet.s3
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the list of files before and after.
  platform:
    support: full
options:
  backup:
    description:
      - V(latest) is the newest verified backup or, if there is none, the newest complete one.
      - V(random) is any complete backup. Only with O(drill=true).
      - Otherwise the file name of a backup in O(path) or O(s3), or the absolute path of an archive.
    type: str
    default: latest
  path:
    description: Directory that holds the backups. Not used with O(s3).
    type: path
    default: /backup/models
  destination:
    description:
      - Directory to restore into. System and home directories are refused, and so are symbolic
        links, mount points and directories that hold a mount point.
      - Required unless O(drill=true).
    type: path
  files:
    description:
      - Shell patterns of what to restore. A pattern without a slash is compared with names at any
        depth, a pattern with a slash with the whole path.
      - A directory that matches is restored with everything in it. By default everything is
        restored.
      - Only with O(mode=new).
    type: list
    elements: str
    default: []
  model:
    description:
      - Name of the only model to restore, a top-level entry of the backup. It is restored to
        O(destination) under its name.
      - Works for backups of either O(mlops.fleet.model_backup#module:layout). Of a set only the
        archive of this model is read, of a single archive only the parts that hold it.
      - Only with O(mode=new).
    type: str
  verify:
    description:
      - Compare the archive and every file in it with the checksums that were recorded when it was
        made.
      - Switch it off only to save what can be saved from a damaged backup. Then everything that can
        be unpacked is restored, and RV(notes) names the files that are missing or differ from the
        manifest.
    type: bool
    default: true
  mode:
    description:
      - V(new) refuses a O(destination) that exists and is neither empty nor equal to the backup.
      - V(replace) replaces all of it. What is in it and not in the backup is lost.
    type: str
    choices: [new, replace]
    default: new
  allow_outside_links:
    description: Restore symbolic links that point out of O(destination). By default a backup with
      such a link is refused.
    type: bool
    default: false
  drill:
    description:
      - Prove that the backup can be restored. It is restored into a new directory in O(scratch),
        every file is read again and compared with the manifest, and the directory is removed, also
        when the drill fails or is stopped.
      - The proof is added to the file C(restore_proofs.jsonl) in O(path), which is made when
        missing. It is returned as RV(last_restore_proof) and shown by
        M(mlops.fleet.model_backup_info), C(mlfleet backups) and the fleet report.
      - A drill never reports a change.
      - Can't be combined with O(destination), O(files), O(mode=replace) and O(verify=false).
    type: bool
    default: false
  scratch:
    description:
      - Existing directory in which a drill makes its scratch directory. It needs as much free space
        as the backup has files.
    type: path
    default: /var/tmp
notes:
  - Owners are restored when the task runs as root.
requirements:
  - boto3 1.28 or later (for O(s3) only)
seealso:
  - module: mlops.fleet.model_backup
  - module: mlops.fleet.model_backup_info
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Restore the newest backup into a new directory
  mlops.fleet.model_restore:
    destination: /opt/ml/models-restored

- name: Go back to a certain backup
  mlops.fleet.model_restore:
    backup: models_backup_20250131_020000.tar.gz
    destination: /opt/ml/models
    mode: replace

- name: Prove that the newest backup can be restored
  mlops.fleet.model_restore:
    drill: true
    scratch: /data

- name: Restore one model from object storage
  mlops.fleet.model_restore:
    destination: /opt/ml/restored
    model: bert
    s3:
      bucket: ml-backups
      prefix: "{{ inventory_hostname }}"
"""

RETURN = r"""
restored:
  description: What was restored, or in check mode would be.
  returned: success
  type: dict
  contains:
    backup: {description: File name of the archive., type: str, returned: success, sample: models_backup_20250131_020000.tar.gz}
    origin: {description: Path or URL of the archive., type: str, returned: success}
    created: {description: When the backup was made (ISO 8601)., type: str, returned: success}
    sha256: {description: SHA-256 of the archive., type: str, returned: success}
    destination: {description: The directory., type: str, returned: success}
    files: {description: Number of files. In check mode 0 where only reading the archive would tell., type: int, returned: success}
    bytes: {description: Size of these files together in bytes., type: int, returned: success}
    verified:
      description: Whether every file was compared with its checksum. False in check mode unless
        nothing is to be done.
      type: bool
      returned: success
    state:
      description: What the destination was before. One of V(missing), V(empty), V(same) and
        V(other).
      type: str
      returned: success
last_restore_proof:
  description: The proof that was recorded. Null in check mode.
  returned: with O(drill=true)
  type: dict
  contains:
    at: {description: When the drill ended (ISO 8601)., type: str, returned: always}
    hostname: {description: The host that ran it., type: str, returned: always}
    place: {description: Directory or URL from which the backup was read., type: str, returned: always}
    backup: {description: File name of the archive., type: str, returned: always}
    created: {description: When the backup was made (ISO 8601)., type: str, returned: always}
    sha256: {description: SHA-256 of the archive., type: str, returned: always}
    source: {description: The directory that the backup was made of; empty when unknown., type: str, returned: always}
    files: {description: Number of files that were restored., type: int, returned: always}
    bytes: {description: Their size together in bytes., type: int, returned: always}
    seconds: {description: Seconds that restoring and comparing took., type: float, returned: always}
    compared:
      description: V(files), or V(archive) for an archive without a manifest, of which only the
        checksum of the archive is known.
      type: str
      returned: always
notes:
  description: Remarks, for example about leftovers of an interrupted restore that were removed.
  returned: success
  type: list
  elements: str
duration:
  description: Seconds the module took.
  returned: always
  type: float
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import drill
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.engines import ENGINES
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    RestoreOptions,
    url_secrets,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import silent
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.text import display_path


def main() -> None:
    module = _shell.build(RestoreOptions)
    module.no_log_values.update(url_secrets(module.params))

    def work() -> dict[str, t.Any]:
        options = RestoreOptions.from_mapping(module.params)
        if options.drill:
            return {**drill.run(options, _shell.world(module), check=module.check_mode)}
        engine = ENGINES[options.engine]
        result = engine.restore(options, _shell.world(module), module.check_mode, silent)
        data: dict[str, t.Any] = {**result.to_dict()}
        if module._diff:
            data["diff"] = {
                "before_header": options.destination,
                "after_header": options.destination,
                "before": "".join(f"{display_path(path)}\n" for path in result.before),
                "after": "".join(f"{display_path(path)}\n" for path in result.after),
            }
        return data

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
