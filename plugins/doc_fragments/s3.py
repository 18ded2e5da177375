# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # Where copies are read from.
    DOCUMENTATION = r"""
options:
  s3:
    description:
      - Object storage that holds copies of the backups, on any server that speaks S3. Needs
        C(boto3) on the node.
    type: dict
    suboptions:
      bucket:
        description:
          - Name of the bucket. It must exist.
          - No object storage is used while it is empty.
        type: str
      prefix:
        description:
          - Put before the names of the objects, followed by a slash.
          - Use a separate prefix for each host. The names of backups contain no host name.
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
        description: File on the node with the certificates of the authorities to trust, for servers
          with a private authority.
        type: path
      parallel:
        description:
          - Number of parts of an archive that are sent or read at the same time, from 1 to 32.
          - Each takes 16 MiB of memory while it is sent, 8 MiB while it is read.
        type: int
        default: 4
      bandwidth_limit:
        description:
          - Most bytes per second, of all connections together. A number, or a number with C(K),
            C(M) or C(G), like V(20M), which is 20 MiB per second.
          - No limit by default.
        type: str
"""

    # Where copies are written to: two more suboptions. Annotated, because ansible-test takes plain assignments here for literals.
    COPIES: str = (
        DOCUMENTATION
        + r"""
      storage_class:
        description: Storage class of the archives. Manifests and checksums are always stored as V(STANDARD).
        type: str
        choices: [STANDARD, STANDARD_IA, ONEZONE_IA, INTELLIGENT_TIERING, GLACIER_IR, GLACIER, DEEP_ARCHIVE, REDUCED_REDUNDANCY]
        default: STANDARD
      prune:
        description:
          - Apply the retention options to the copies too.
          - Off by default, because the lifecycle rules of the bucket usually do that.
          - Only objects directly under O(s3.prefix) that are named exactly like backups are ever removed.
        type: bool
        default: false
"""
    )
