#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# long because most of it is documentation

from __future__ import annotations

DOCUMENTATION = r"""
module: model_backup
short_description: Make backups of models that are proven to be restorable
version_added: "0.1.0"
description:
  - Writes a directory into one archive C(models_backup_YYYYmmdd_HHMMSS.tar.gz) that ordinary C(tar)
    unpacks. Beside it are a checksum file for C(sha256sum -c) and a manifest with the SHA-256 of
    every file.
  - The archive gets its name only after it was written, synchronised, read back and compared file
    by file. A run that is killed at any moment leaves nothing that looks like a complete backup.
  - Nothing is done while the newest verified backup still matches the source (names, sizes, times,
    inodes, permissions).
  - Old backups are removed according to O(retention_days) and O(keep_last), O(keep_daily) and so
    on, and only after everything else has succeeded. The newest verified backup always stays.
    Archives that other tools made under such a name stay until a newer verified backup exists.
  - Symbolic links are stored as links. For links that point out of O(source) see O(outside_links).
  - Sockets, pipes and devices are left out and named in RV(notes).
  - A file that can't be read fails the task. A file that changes while it is read makes the run
    start over, up to three times.
extends_documentation_fragment:
  - mlops.fleet.attributes
  - mlops.fleet.restic
  - mlops.fleet.s3.copies
attributes:
  check_mode:
    support: full
    details:
      - Reads names and sizes in the source, the manifests in the destination, and with O(s3) the
        bucket. Writes nothing.
  diff_mode:
    support: full
    details:
      - Shows the list of backups before and after.
  platform:
    support: full
options:
  source:
    description: Directory to back up. It must exist and hold at least one file.
    type: path
    default: /opt/ml/models
  destination:
    description:
      - Directory that holds the backups. It is created with mode 0750 when missing.
      - Use a separate one for each host. Backups of another O(source) or another host in it are
        ignored and never removed.
      - It must not be inside O(source), nor O(source) inside of it.
    type: path
    default: /backup/models
  compression:
    description:
      - Compression of the archive. The suffix is C(.tar.gz), C(.tar.zst) or C(.tar).
      - V(gzip) chooses the method for each 4 MiB, because searching weights for repetitions takes
        long and saves little. Where the Python package C(isal) or the system library
        C(libisal.so.2) is installed on the node, it compresses several times faster, and text up to
        a fifth larger than C(gzip -6); from level 7 on, text is as small as with C(gzip).
      - V(zstd) needs the system library C(libzstd) 1.4 or later on the node, for restoring too.
    type: str
    choices: [gzip, zstd, none]
    default: gzip
  compression_level:
    description:
      - From V(1) (fast) to V(9) (small). Ignored with O(compression=none).
      - When it is not set, it is V(6) for O(compression=gzip) and V(3) for O(compression=zstd).
    type: int
  layout:
    description:
      - V(single) writes one archive of everything.
      - V(per_model) writes one archive per top-level entry of O(source),
        C(models_backup_YYYYmmdd_HHMMSS.model.NAME.tar.gz), each with checksum file and manifest.
        Entries that did not change since the last backup are neither read nor written again. The
        backup is a set, the file C(models_backup_YYYYmmdd_HHMMSS.set.json), which names the
        archives with their checksums and is written last.
      - Retention removes sets. An archive is removed when no set names it any more.
      - After the layout was changed the next run makes a new backup. Backups in the other layout
        are still listed, verified, restored and removed.
    type: str
    choices: [single, per_model]
    default: single
  workers:
    description: Number of compressing threads. V(0) uses one per CPU that the task may use, at most
      8.
    type: int
    default: 0
  verify:
    description:
      - Read the archive back from the disk, unpack it and compare the SHA-256 of every file before
        the backup counts.
      - A backup that was made without this is listed as not verified, and the next run with
        O(verify=true) makes a new one.
    type: bool
    default: true
  retention_days:
    description:
      - Keep backups up to this age in days. V(0) switches this rule off.
      - Rules only ever keep backups. A backup is removed when no rule keeps it. Without any rule
        all backups are kept.
    type: int
    default: 30
  keep_last:
    description:
      - Keep this many newest backups, whatever their age. V(0) switches this rule off.
      - To keep exactly that many, set O(retention_days=0).
    type: int
    default: 0
  keep_daily:
    description: Keep the newest backup of each of this many days that have one. V(0) switches this
      rule off.
    type: int
    default: 0
  keep_weekly:
    description: Keep the newest backup of each of this many weeks that have one. V(0) switches this
      rule off.
    type: int
    default: 0
  keep_monthly:
    description: Keep the newest backup of each of this many months that have one. V(0) switches
      this rule off.
    type: int
    default: 0
  keep_yearly:
    description: Keep the newest backup of each of this many years that have one. V(0) switches this
      rule off.
    type: int
    default: 0
  force:
    description: Make a backup even though nothing has changed since the last one.
    type: bool
    default: false
  exclude:
    description:
      - Shell patterns of what to leave out. A pattern without a slash is compared with names at any
        depth, a pattern with a slash with the whole path relative to O(source).
      - Everything in an excluded directory is excluded too.
    type: list
    elements: str
    default: []
  engine:
    description:
      - V(archive) writes archives that C(tar) reads.
      - V(restic) drives the installed restic, for deduplication and encryption. The repository is
        initialised when missing. O(verify) runs C(restic check --read-data), which reads all of the
        repository. The retention options decide which snapshots are forgotten. Only snapshots with
        the tag C(mlops-fleet) of this host count.
      - With V(restic) the options O(compression) (but for V(none)), O(compression_level) and
        O(workers) have no effect, O(s3) holds the repository instead of copies, and
        O(outside_links=follow) is refused.
    type: str
    choices: [archive, restic]
    default: "archive"
  outside_links:
    description:
      - What to do about symbolic links that point out of O(source), for example
        C(current -> /mnt/big).
      - With V(warn) they are stored as links, what they point to is not in the backup, and
        RV(status) is V(warning), which makes the backup phase of C(mlops.fleet.maintenance) a
        warning.
      - With V(fail) such a link fails the task, and no backup is made.
      - With V(follow) what they point to is stored in place of the link, on whatever file system it
        is, and so is what links in it point to. Each tree is stored once. Other links to it, or
        into it, become relative links to that place.
      - V(follow) does not follow a link that leads nowhere, to a directory that contains O(source)
        or O(destination), or into O(destination). Such a link is treated as with V(warn).
    type: str
    choices: [warn, fail, follow]
    default: warn
notes:
  - Permissions, owners (as numbers) and times are stored. Access control lists and extended
    attributes are not.
  - Two runs to the same O(destination) never overlap. The second fails and changes nothing.
requirements:
  - boto3 1.28 or later (for O(s3) only)
seealso:
  - module: mlops.fleet.model_backup_info
  - module: mlops.fleet.model_restore
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Back up with restic into a bucket
  mlops.fleet.model_backup:
    source: /opt/ml/models
    engine: restic
    restic:
      password_file: /etc/mlops-fleet/restic-password
    s3:
      bucket: ml-backups
      prefix: "{{ inventory_hostname }}"
    keep_daily: 7
    keep_weekly: 8

- name: Back up the models, keep 30 days
  mlops.fleet.model_backup:

- name: Keep seven days, four weeks and twelve months, leave out what can be created again
  mlops.fleet.model_backup:
    source: /srv/models
    destination: /backup/models
    retention_days: 0
    keep_daily: 7
    keep_weekly: 4
    keep_monthly: 12
    exclude:
      - "*.tmp"
      - cache

- name: Keep a copy in object storage
  mlops.fleet.model_backup:
    s3:
      bucket: ml-backups
      prefix: "{{ inventory_hostname }}"
      endpoint_url: https://s3.example.com
      access_key: "{{ vault_s3_access_key }}"
      secret_key: "{{ vault_s3_secret_key }}"
      storage_class: STANDARD_IA

- name: Keep one archive per model, so that only changed models are written
  mlops.fleet.model_backup:
    layout: per_model

- name: Store what links to another disk point to
  mlops.fleet.model_backup:
    outside_links: follow

- name: Show what would be backed up and removed
  mlops.fleet.model_backup:
  check_mode: true
  diff: true
"""

RETURN = r"""
backup:
  description:
    - The current backup. In check mode null when there is none yet.
    - With O(layout=per_model) it is the set. Its C(size), C(files) and C(bytes) are those of all
      its archives together, its C(sha256) is that of the list of their checksums.
  returned: success
  type: dict
  contains:
    name:
      description: File name of the archive or set.
      type: str
      returned: success
      sample: models_backup_20250131_020000.tar.gz
    path: {description: Path of the archive or set., type: str, returned: success}
    layout: {description: V(single) or V(per_model)., type: str, returned: success}
    archives:
      description:
        - The archives that a set names. Each has C(model), C(name), C(path), C(created), C(size),
          C(sha256), C(files) and C(bytes).
        - An archive whose C(created) is older than that of the backup is one of an earlier run,
          whose model did not change.
      type: list
      elements: dict
      returned: with O(layout=per_model)
    created: {description: When it was made (ISO 8601)., type: str, returned: success, sample: "2025-01-31T02:00:00+00:00"}
    size: {description: Size of the archive in bytes., type: int, returned: success}
    sha256: {description: SHA-256 of the archive., type: str, returned: success}
    files: {description: Number of files in it., type: int, returned: success}
    bytes: {description: Size of these files together in bytes., type: int, returned: success}
    verified: {description: Whether it was read back and every file matched., type: bool, returned: success}
    source: {description: The directory it was made of., type: str, returned: success}
    hostname: {description: The host it was made on., type: str, returned: success}
    compression: {description: Its compression., type: str, returned: success}
    manifest: {description: Path of its manifest., type: str, returned: success}
    legacy: {description: Whether it has a checksum file but no manifest., type: bool, returned: success}
    problems: {description: What is wrong with it., type: list, elements: str, returned: success}
status:
  description: V(warning) when RV(outside_links) is not empty, otherwise V(pass).
  returned: success
  type: str
outside_links:
  description:
    - Links out of the source whose targets are not in the backup, with their targets, at most 100.
  returned: success
  type: list
  elements: str
  sample: ["current -> /mnt/big"]
plan:
  description: What had to be done, and why.
  returned: success
  type: dict
  contains:
    action: {description: "V(create) or V(keep).", type: str, returned: success}
    reason: {description: Why., type: str, returned: success, sample: the source has changed}
    files: {description: Number of files in the source., type: int, returned: success}
    bytes: {description: Their size in bytes., type: int, returned: success}
    estimated_size: {description: Expected size of a new archive in bytes., type: int, returned: success}
removed:
  description: Backups that were removed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: File name of the archive., type: str, returned: success}
    path: {description: Its path., type: str, returned: success}
    created: {description: When it was made., type: str, returned: success}
    size: {description: Its size in bytes., type: int, returned: success}
    reason: {description: Why no rule kept it., type: str, returned: success, sample: "45 days old, kept are 30"}
copies:
  description: The copy in object storage, and copies that were removed there.
  returned: success
  type: list
  elements: dict
  contains:
    url: {description: Where it is., type: str, returned: success, sample: s3://ml-backups/node1/models_backup_20250131_020000.tar.gz}
    verified:
      description:
        - V(checksum) when the server confirmed the SHA-256 of what it stores and is known to refuse
          wrong checksums.
        - V(size_only) when it reports nothing but the size. V(planned) in check mode.
      type: str
      returned: for copies that are there
    size: {description: Size in bytes., type: int, returned: for copies that are there}
    sha256: {description: SHA-256 of the archive., type: str, returned: for copies that are there}
    storage_class: {description: Storage class of the archive., type: str, returned: for copies that are there}
    uploaded: {description: Whether this run uploaded it., type: bool, returned: for copies that are there}
    removed: {description: Whether it was removed by the retention rules., type: bool, returned: for copies that were removed}
    reason: {description: Why no rule kept it., type: str, returned: for copies that were removed}
stats:
  description: Durations and sizes.
  returned: success
  type: dict
  contains:
    durations: {description: "Seconds per phase (C(archive), C(verify), C(upload)).", type: dict, returned: success}
    archives_written:
      description: Number of archives written by this run.
      type: int
      returned: success
    bytes_read: {description: Bytes of files read., type: int, returned: success}
    bytes_written: {description: Size of the new archive in bytes., type: int, returned: success}
    ratio: {description: Size of the archive divided by that of the files., type: float, returned: when a backup was made}
protection:
  description: The copies of the models counted against the 3-2-1 rule. The models themselves are
    the first copy.
  returned: success
  type: dict
  contains:
    copies: {description: Number of copies., type: int, returned: success}
    storages: {description: Number of separate storages they are on., type: int, returned: success}
    elsewhere: {description: Number of copies that are not on this host., type: int, returned: success}
    satisfied:
      description: Whether there are three copies on two storages, and one of them elsewhere.
      type: bool
      returned: success
    verified: {description: Number of backups and copies of the newest backup that were verified., type: int, returned: success}
    created: {description: When the newest backup was made (ISO 8601)., type: str, returned: success}
    age_hours: {description: Its age in hours., type: float, returned: success}
    size: {description: Its size in bytes., type: int, returned: success}
last_restore_proof:
  description:
    - The newest restore drill on record in O(destination), of a local backup or a copy, as
      M(mlops.fleet.model_restore) returns it. Null when there is none.
    - If the record can't be read, it has one key, C(unreadable), which says why.
  returned: success
  type: dict
notes:
  description: Remarks, for example about files that are not backed up.
  returned: success
  type: list
  elements: str
duration:
  description: Seconds the module took.
  returned: always
  type: float
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _progress, _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.engines import ENGINES
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    url_secrets,
)


def main() -> None:
    module = _shell.build(BackupOptions)
    module.no_log_values.update(url_secrets(module.params))

    def work() -> dict[str, t.Any]:
        options = BackupOptions.from_mapping(module.params)
        engine = ENGINES[options.engine]
        world = _shell.world(module)
        result = engine.make(options, world, module.check_mode, _progress.writer())
        data: dict[str, t.Any] = {**result.to_dict()}
        if module._diff:
            data["diff"] = {
                "before_header": options.destination,
                "after_header": options.destination,
                "before": "".join(f"{name}\n" for name in result.before),
                "after": "".join(f"{name}\n" for name in result.after),
            }
        return data

    with _progress.stoppable(module):
        _shell.execute(module, work)


if __name__ == "__main__":
    main()
