#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_bucket
short_description: Set up the bucket that holds copies of backups
version_added: "0.1.0"
description:
  - Creates the bucket if it is missing, and sets lifecycle rules, versioning, default encryption
    and the block of public access.
  - Refuses lifecycle rules that would remove backups that the retention options keep. Existing
    rules of the bucket that would do so are refused too, with their names.
  - Writes only the lifecycle rules whose names begin with C(mlops.fleet). All other rules of the
    bucket stay as they are.
  - Reads the settings again after writing them, and fails if the server did not keep one.
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the settings before and after.
  platform:
    support: full
options:
  s3:
    description: The bucket, on any server that speaks S3.
    type: dict
    required: true
    suboptions:
      bucket:
        description: Name of the bucket.
        type: str
      prefix:
        description: The lifecycle rules are for objects whose names begin with this prefix,
          followed by a slash. By default for all.
        type: str
        default: ""
      endpoint_url:
        description:
          - Base URL of the server, like V(https://s3.example.com:9000). By default Amazon's.
          - It must not contain credentials.
        type: str
      region:
        description: Region of the bucket.
        type: str
      access_key:
        description: Access key. By default the node's own credentials are used, in the order in
          which C(boto3) looks for them.
        type: str
      secret_key:
        description: Secret key that belongs to O(s3.access_key).
        type: str
      session_token:
        description: Token of temporary credentials.
        type: str
      ca_bundle:
        description: File with the certificates of the authorities to trust, for servers with a
          private authority.
        type: path
      parallel:
        description: Number of connections with which the backups in the bucket are read, from 1 to
          32.
        type: int
        default: 4
      bandwidth_limit:
        description:
          - Most bytes per second, of all connections together, like V(20M).
          - No limit by default.
        type: str
  create:
    description: Create the bucket if it is missing.
    type: bool
    default: true
  transition_days:
    description: Age in days at which archives move to O(transition_class). V(0) for never.
    type: int
    default: 30
  transition_class:
    description:
      - Storage class to which old archives move.
      - Archives in V(GLACIER) and V(DEEP_ARCHIVE) must be requested, and take hours, before they
        can be restored.
    type: str
    choices: [STANDARD_IA, ONEZONE_IA, INTELLIGENT_TIERING, GLACIER_IR, GLACIER, DEEP_ARCHIVE]
    default: GLACIER
  transition_larger_than:
    description: Only objects larger than this many bytes move. Manifests are smaller, and must stay
      readable for listing the backups.
    type: int
    default: 16777216
  expire_days:
    description: Age in days at which objects are removed. V(0) for never.
    type: int
    default: 90
  noncurrent_days:
    description: Days after which replaced or deleted versions are removed. V(0) for never.
    type: int
    default: 30
  abort_incomplete_days:
    description: Days after which unfinished uploads are removed. V(0) for never.
    type: int
    default: 7
  versioning:
    description: Switch versioning on. V(false) leaves it as it is.
    type: bool
    default: true
  encryption:
    description: Default encryption of new objects. V(keep) leaves it as it is.
    type: str
    choices: [AES256, "aws:kms", keep]
    default: AES256
  kms_key_id:
    description: Key for O(encryption=aws:kms). By default the account's own.
    type: str
  block_public_access:
    description: Block all public access. V(false) leaves it as it is.
    type: bool
    default: true
  retention_days:
    description: Option O(mlops.fleet.model_backup#module:retention_days) of the backups. The
      lifecycle must not remove what it keeps.
    type: int
    default: 30
  keep_last:
    description: Option O(mlops.fleet.model_backup#module:keep_last) of the backups.
    type: int
    default: 0
  keep_daily:
    description: Option O(mlops.fleet.model_backup#module:keep_daily) of the backups.
    type: int
    default: 0
  keep_weekly:
    description: Option O(mlops.fleet.model_backup#module:keep_weekly) of the backups.
    type: int
    default: 0
  keep_monthly:
    description: Option O(mlops.fleet.model_backup#module:keep_monthly) of the backups.
    type: int
    default: 0
  keep_yearly:
    description: Option O(mlops.fleet.model_backup#module:keep_yearly) of the backups.
    type: int
    default: 0
notes:
  - Needs C(boto3) where it runs. Run it once on the controller, not on every node.
  - The credentials must be allowed to create buckets and to read and write these settings. The
    nodes' own should not be.
  - A lifecycle rule knows ages only. If backups stop, it removes the last ones too.
seealso:
  - module: mlops.fleet.model_backup
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Move copies to GLACIER after 30 days and remove them after 90
  mlops.fleet.backup_bucket:
    s3:
      bucket: ml-backups
      region: eu-central-1
    retention_days: 30
    keep_weekly: 8
  delegate_to: localhost
  run_once: true

- name: A bucket on a server without storage classes and access blocks
  mlops.fleet.backup_bucket:
    s3:
      bucket: ml-backups
      endpoint_url: https://s3.example.com:9000
      access_key: "{{ backup_admin_key }}"
      secret_key: "{{ backup_admin_secret }}"
    transition_days: 0
    block_public_access: false
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
bucket:
  description: Name of the bucket.
  returned: success
  type: str
  sample: ml-backups
created:
  description: Whether the bucket was created, or in check mode would be.
  returned: success
  type: bool
changes:
  description: The settings that were written, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [versioning, lifecycle]
settings:
  description: The settings of the bucket afterwards, as far as the options are about them.
  returned: success
  type: dict
  contains:
    exists: {description: Whether the bucket exists., type: bool, returned: success}
    lifecycle: {description: "Its lifecycle rules, as S3 returns them.", type: list, elements: dict, returned: success}
    versioning: {description: State of versioning., type: str, returned: with O(versioning)}
    encryption: {description: Default encryption and its key., type: str, returned: "unless O(encryption=keep)"}
    block_public_access: {description: Whether all public access is blocked., type: bool, returned: with O(block_public_access)}
notes:
  description: Remarks, for example about the shortest time that a storage class is charged for.
  returned: success
  type: list
  elements: str
duration:
  description: Seconds the module took.
  returned: always
  type: float
"""

import json
import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.bucket import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.bucket.options import (
    BucketOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import url_secrets


def main() -> None:
    module = _shell.build(BucketOptions)
    module.no_log_values.update(url_secrets(module.params))

    def work() -> dict[str, t.Any]:
        options = BucketOptions.from_mapping(module.params)
        result = run.run(options, _shell.world(module), check=module.check_mode)
        data: dict[str, t.Any] = {**result.to_dict()}
        if module._diff:
            texts = (
                json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n"
                for settings in (result.plan.before, result.plan.after)
            )
            data["diff"] = dict(zip(("before", "after"), texts))
        return data

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
