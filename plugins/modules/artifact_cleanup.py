#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# long because most of it is documentation

from __future__ import annotations

DOCUMENTATION = r"""
module: artifact_cleanup
short_description: Free disk space without deleting what is needed
version_added: "0.1.0"
description:
  - Removes old experiments, checkpoints, logs and temporary files. Without O(targets) it cleans the
    four usual places of a machine learning node.
  - A unit, which is removed or kept as a whole, is an entry of a target's directory, for example
    one run. Its age is that of the newest entry anywhere inside it.
  - Kept whatever their age are units in use (open, mapped or locked files, working directories,
    live sockets, volumes of containers), units that hold a mount point, units that a symbolic link
    in the same directory names (V(latest)), home directories, backups of
    M(mlops.fleet.model_backup), and what this task itself needs. In C(/var/log) the logs of this
    collection's own jobs stay, rotated ones too; log rotation removes them.
  - Safe against users who change the tree meanwhile. Nothing is reached through a path twice,
    symbolic links are never followed, and no other filesystem or mount is entered.
  - A unit is first renamed into a quarantine directory beside it (V(.mlops-fleet-trash-) and 16
    digits), compared with the plan and removed there, so that a crash never leaves half of it in
    its place. The next run finishes what a stopped run left.
  - One cleanup runs at a time on a host.
  - Every removal is recorded in the journal (C(journalctl -t mlops-cleanup)) and, where it exists,
    in C(/var/log/ml-cleanup.log), with target, size, age and reason.
options:
  targets:
    description:
      - What to clean, instead of the four usual places V(/opt/ml/experiments/*),
        V(/opt/ml/checkpoints/*), V(/var/log/ml-*) and V(/tmp/ml-*).
      - A target whose directory does not exist on the host is reported as V(missing) and is no
        error.
      - A path that several targets match belongs to the first of them.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name in results and for O(only). By default the path.
        type: str
      path:
        description:
          - Directory whose entries are the units. V(/) and what lies directly below it, system
            directories, directories of databases and container engines, users' home directories and
            those of this collection are refused.
          - V(/tmp), V(/var/tmp) and V(/var/log) need a O(targets[].pattern) with a literal
            beginning of at least two characters.
          - Refused, too, when anybody may replace one of the directories above it, or when it leads
            through a symbolic link of another user.
        type: path
        required: true
        aliases: [root]
      pattern:
        description: Shell pattern of the units' names. As in a shell, names that begin with a dot
          need a pattern that does.
        type: str
        default: "*"
      unit:
        description: Kind of entry that is a unit. Everything that is not a directory counts as
          V(file), symbolic links, too, which are removed and never followed.
        type: str
        choices: [dir, file, any]
        default: any
      retention_days:
        description:
          - Age in days from which on a unit goes, exact to the second. Fractions are fine. V(0)
            removes every unit.
          - Required, unless the target is named V(experiments), V(checkpoints) or V(logs) and so
            has an option of its own. With O(targets[].keep_last), O(targets[].keep_best) or
            O(targets[].keep_every) it is V(0) by default, so that these options alone say what is
            kept.
        type: float
      age_by:
        description: What the age counts from, by default O(age_by).
        type: str
        choices: [newest, mtime, ctime, atime]
      keep_last:
        description: Keep this many newest units, whatever their age. What is in them counts, so
          moving a unit does not make it newer.
        type: int
        default: 0
      exclude:
        description: Shell patterns of names. A unit that has such a name, or holds an entry of such
          a name, is kept.
        type: list
        elements: str
        default: []
      layout:
        description:
          - How checkpoints are laid out. With V(generic) every entry of the directory is a unit.
            With any other layout the units are the checkpoints found in the directory and up to 8
            levels below it; nothing else is removed.
          - V(transformers) are C(checkpoint-N) directories with C(trainer_state.json), V(lightning)
            C(.ckpt) files or directories, V(deepspeed) tags with the file C(latest), V(megatron)
            C(iter_N) directories with C(latest_checkpointed_iteration.txt), V(torch_dcp)
            directories with C(.metadata), V(orbax) step directories with a commit marker. V(auto)
            recognises the layout of each directory.
          - The newest complete checkpoint of each run, its best one by O(targets[].metric), and
            those that the library resumes from (named by a tracker, C(last.ckpt),
            C(best_model_checkpoint)) stay whatever the other options say.
          - An incomplete checkpoint never counts as one of the newest or best. It stays while a
            process uses its run, and until nothing in its run has changed for a day.
        type: str
        choices: [generic, transformers, megatron, deepspeed, orbax, torch_dcp, lightning, auto]
        default: generic
      keep_best:
        description: Keep this many best complete units by O(targets[].metric), whatever their age.
        type: int
        default: 0
      metric:
        description:
          - Name of the metric, for example V(val_loss). It is read from the state that the library
            writes (V(transformers)), from O(targets[].metric_file), or from the unit's name
            (C(epoch=3-val_loss=0.12.ckpt)), in this order.
          - Dots separate the keys of nested mappings. A unit whose metric is unknown is never one
            of the best.
        type: str
      mode:
        description: Whether the smallest or the largest value is the best.
        type: str
        choices: [min, max]
        default: min
      metric_file:
        description: JSON file with the metric, in each unit, or beside the units as a mapping by
          their names.
        type: str
        default: metrics.json
      keep_every:
        description: A number of steps, then units whose step is a multiple of it are kept; or a
          period (V(12h), V(7d)), then the newest unit of each such period is kept.
        type: str
      group_by:
        description:
          - What O(targets[].keep_last), O(targets[].keep_best) and a period of
            O(targets[].keep_every) count in. By default V(run), with the layout V(generic)
            V(target).
          - A run is a directory that holds checkpoints, with the layout V(generic) the units whose
            names differ in the last number only.
        type: str
        choices: [run, target]
      free_to:
        description: As O(free_to), for this target.
        type: str
      when_below:
        description: As O(when_below), for this target.
        type: str
  aggressive:
    description:
      - Also clean container images, caches, core dumps, ended sessions, and old files in V(/tmp).
        Each is a target of its own, so that O(only) can choose. A missing program is reported as
        V(skipped), a missing directory as V(missing).
      - V(docker), V(podman) and V(crictl) (containerd, CRI-O) - images that no container uses, 7
        days after they were made; with docker also pulled or tagged. These programs keep no time of
        last use.
      - V(pip), V(apt) and V(uv) - their caches. V(conda) - downloaded archives, the index, and
        unpacked packages that no environment uses.
      - V(huggingface) - revisions in the hub cache that no branch or tag names, 30 days after their
        last use, with the files that no other revision has.
      - V(torch_hub) and V(triton) - downloaded weights and compiled kernels, 30 days after their
        last use. V(torchinductor) - the caches of torch.compile in V(/tmp), after 7 days.
      - V(coredumps) - what systemd-coredump keeps, after 7 days. V(wandb) - local copies of runs,
        after 30 days; those of offline runs stay. V(ray) - directories of ended sessions, after 7
        days; the latest one stays.
      - V(torch_shm) and V(nccl_shm) - shared memory of PyTorch and NCCL that no process uses any
        more, after 1 day.
      - V(tmp) - what is older than 3 days in V(/tmp).
      - Caches are those of the user who runs the cleanup. The variables that move them (V(HF_HOME),
        V(TORCH_HOME), V(TRITON_CACHE_DIR), V(WANDB_DIR), V(RAY_TMPDIR), and so on) are read from
        its environment.
    type: bool
    default: false
  only:
    description: Names of the targets to clean, by default all.
    type: list
    elements: str
  experiments_dir:
    description: Directory of the target V(experiments) when O(targets) is not given.
    type: path
    default: /opt/ml/experiments
  checkpoints_dir:
    description: Directory of the target V(checkpoints) when O(targets) is not given.
    type: path
    default: /opt/ml/checkpoints
  experiments_retention:
    description: Days to keep the units of the target V(experiments), unless that says otherwise.
    type: float
    default: 30.0
  checkpoints_retention:
    description: Days to keep the units of the target V(checkpoints), unless that says otherwise.
    type: float
    default: 7.0
  logs_retention:
    description: Days to keep the units of the target V(logs), unless that says otherwise.
    type: float
    default: 14.0
  age_by:
    description:
      - What ages count from, for the targets that do not say.
      - V(newest) is the later one of mtime (content) and ctime (content, name, owner, mode). A file
        that C(tar), C(rsync) or C(touch) gave an old mtime is new by it, since no program can set a
        ctime back.
      - V(atime) counts the last reading of files where the mount records it; directories count by
        their mtime.
    type: str
    choices: [newest, mtime, ctime, atime]
    default: newest
  quarantine:
    description:
      - Move removed units to a directory of quarantine in the same target instead
        (V(.mlops-fleet-quarantine-...)), and remove them after this time (V(30m), V(12h), V(3d)),
        when a cleanup runs. Until then O(state=restored) brings them back.
      - They use their space until then, see RV(quarantined_bytes). With O(free_to), units in
        quarantine are removed first, the oldest first, before their time; what goes to quarantine
        in the same run frees its space in a later one.
      - What other programs clean (O(aggressive)) can't be brought back.
    type: str
  state:
    description:
      - V(restored) brings back what is in quarantine in the targets, and removes nothing. A unit
        whose path exists again stays in quarantine and is a failure.
    type: str
    choices: [cleaned, restored]
    default: cleaned
  undo:
    description: With O(state=restored), the paths of units (of several with the same path the
      newest), or the runs as RV(quarantined) names them; by default everything in quarantine.
    type: list
    elements: str
  in_use:
    description:
      - V(skip) keeps what running processes use, and what the kernel itself uses (images behind
        loop devices, swap files, layers of overlays). Processes on other hosts that share a network
        filesystem, and outside the container that the task runs in, can't be seen.
      - A user without privileges can't see what other users' processes have open. Units that hold
        files of those users stay.
      - V(ignore) does not ask.
    type: str
    choices: [skip, ignore]
    default: skip
  free_to:
    description:
      - Remove only as much as is needed to have this much free space on the file system of each
        target, a share of it (V(20%)) or a size (V(500G), or bytes), and nothing while more is
        free. Free space is what users may use, and shares are as in C(df).
      - Removed are, across all targets on the file system that have a level, first incomplete
        checkpoints that nobody writes any more, then the oldest of the units that no other option
        keeps. O(targets[].retention_days) is the age from which a unit may be removed; with a
        O(targets[].layout) other than V(generic) it is V(0) by default.
      - When that is not enough, RV(watermarks) and RV(notes) name what would be next.
    type: str
  when_below:
    description: Remove only when less than this is free, by default O(free_to). With V(10%) and
      O(free_to=20%), a cleanup that runs often removes rarely, and then more.
    type: str
  brake:
    description: Fail and remove nothing at all when more than this would be removed. The plan is
      returned.
    type: dict
    suboptions:
      max_units:
        description: Largest number of units.
        type: int
      max_bytes:
        description: Largest number of bytes.
        type: int
      max_share:
        description: Largest share of the units of one target, from 0 to 1. Targets that are always
          emptied (retention 0) do not count, unless they have a layout or policies.
        type: float
      max_growth:
        description:
          - Largest factor by which a target may lose more units, or more bytes, than in any of its
            last 10 runs that removed something.
          - A target without such a run is not limited. The numbers are in O(state_dir).
        type: float
  require_backup:
    description:
      - Fail and remove nothing unless there is a verified backup, as M(mlops.fleet.model_backup)
        makes them, that is fresh enough.
      - With O(require_backup.check=covered), a unit is removed only if each of its files is in one
        of the verified backups, with the same size and SHA-256. The files of units to remove are
        read for that. Files that are not in a backup keep their unit, and RV(kept) names the first
        of them. The value V(covered) instead of a mapping means this with the default directory of
        M(mlops.fleet.model_backup).
    type: dict
    suboptions:
      path:
        description: Backup directory on this node, or the manifest or archive of one backup.
          Required unless O(require_backup.s3) is set.
        type: path
      s3:
        description:
          - Object storage with copies of backups, as O(mlops.fleet.model_backup#module:s3) makes
            them. They count, too, or instead of a directory.
          - What is in a copy is read from its manifest; the archive is not downloaded. Needs
            C(boto3) on the node.
        type: dict
        suboptions:
          bucket:
            description: Name of the bucket. No object storage is used while it is empty.
            type: str
          prefix:
            description: Put before the names of the objects, followed by a slash.
            type: str
            default: ""
          endpoint_url:
            description: Base URL of the server. By default Amazon's. It must not contain
              credentials.
            type: str
          region:
            description: Region of the bucket.
            type: str
          access_key:
            description: Access key. By default the node's own credentials are used, in the order in
              which C(boto3) looks for them.
            type: str
          secret_key:
            description: Secret key that belongs to O(require_backup.s3.access_key).
            type: str
          session_token:
            description: Token of temporary credentials.
            type: str
          ca_bundle:
            description: File with the certificates of the authorities to trust.
            type: path
          parallel:
            description: Parts of an archive that are read at the same time.
            type: int
            default: 4
          bandwidth_limit:
            description: Most bytes per second, all connections together. A number, or with V(K),
              V(M) or V(G).
            type: str
      check:
        description: Whether a fresh backup must exist, or each file of a unit must be in a verified
          one, however old.
        type: str
        choices: [fresh, covered]
        default: fresh
      max_age_hours:
        description: Oldest backup that counts with O(require_backup.check=fresh), in hours.
        type: float
        default: 24.0
  state_dir:
    description:
      - Directory for the reports of O(report_days) and the numbers of O(brake.max_growth). It is
        made if need be.
      - By default V(/var/lib/mlops-fleet/cleanup), where the agent is installed or
        O(brake.max_growth) is set.
    type: path
  report_days:
    description: Days to keep a report of each cleanup that removed something in O(state_dir); V(0)
      keeps none. The log has every unit.
    type: float
    default: 90.0
  report_path:
    description:
      - File for the whole report as JSON, written at once and with mode 0640. Its directory must
        exist.
      - Not written in check mode.
    type: path
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - The result is that of the run, and nothing is touched.
  diff_mode:
    support: full
    details:
      - Units that go are lines that disappear.
seealso:
  - module: mlops.fleet.model_backup
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Clean the usual places
  mlops.fleet.artifact_cleanup:

- name: Clean up experiments only, keep them for 60 days, and never without a fresh backup
  mlops.fleet.artifact_cleanup:
    only: [experiments]
    experiments_retention: 60
    require_backup:
      path: /backup/models
      max_age_hours: 26

- name: Clean the checkpoints of one project, but never the three newest and never more than half of them
  mlops.fleet.artifact_cleanup:
    targets:
      - name: llama
        path: /data/llama/checkpoints
        pattern: step-*
        unit: dir
        retention_days: 3.5
        keep_last: 3
        exclude: ["*.pinned", .keep]
    brake:
      max_share: 0.5
    report_path: /var/lib/mlops-fleet/cleanup.json

- name: Keep the three best checkpoints by val_loss, the two newest of each run, and one every 10000 steps
  mlops.fleet.artifact_cleanup:
    targets:
      - path: /data/runs
        layout: auto
        keep_best: 3
        metric: val_loss
        keep_last: 2
        keep_every: 10000
        group_by: run

- name: Free 20 percent when less than 10 percent is free, the oldest experiments first, but none of the last week
  mlops.fleet.artifact_cleanup:
    targets:
      - path: /data/experiments
        retention_days: 7
    free_to: 20%
    when_below: 10%

- name: Keep what is removed for three days
  mlops.fleet.artifact_cleanup:
    quarantine: 3d

- name: Bring back what was removed by mistake
  mlops.fleet.artifact_cleanup:
    state: restored
    undo: [/opt/ml/checkpoints/step-0400]

- name: Remove old images and caches as well
  mlops.fleet.artifact_cleanup:
    aggressive: true
    only: [docker, pip, apt]
"""

RETURN = r"""
plan:
  description: What was to be removed, oldest first within each target, at most 1000 entries.
  returned: always, unless options are wrong
  type: list
  elements: dict
  contains: &unit
    target:
      description: Name of the target.
      type: str
    path:
      description: Path of the unit. Characters that are not printable appear as escapes.
      type: str
    kind:
      description: V(dir), V(file), V(link), V(image) or V(cache).
      type: str
    size:
      description: Allocated bytes as C(du) counts them.
      type: int
    files:
      description: Number of files in it.
      type: int
    age_days:
      description: Age in days.
      type: float
    reason:
      description: Why it goes.
      type: str
  sample:
    - target: checkpoints
      path: /opt/ml/checkpoints/step-01000
      kind: dir
      size: 1474560
      files: 3
      age_days: 10.02
      reason: 10.0 days old, kept 7.0 days
plan_count:
  description: Number of units in the plan.
  returned: always, unless options are wrong
  type: int
removed:
  description: What was removed or moved to quarantine, or would be in check mode, at most 1000
    entries. The same keys as RV(plan).
  returned: always, unless options are wrong
  type: list
  elements: dict
  contains: *unit
removed_count:
  description: Number of units removed.
  returned: always, unless options are wrong
  type: int
largest:
  description: The largest of the removed units, the largest first, at most 20 entries. The same
    keys as RV(plan).
  returned: when something was removed, or would be in check mode
  type: list
  elements: dict
  contains: *unit
kept:
  description: What stays and why, at most 1000 entries.
  returned: always, unless options are wrong
  type: list
  elements: dict
  contains:
    target:
      description: Name of the target.
      type: str
    path:
      description: Path of the unit.
      type: str
    reason:
      description: Why it stays.
      type: str
  sample:
    - target: experiments
      path: /opt/ml/experiments/exp-007
      reason: newest change 2.1 days ago (logs/train.log), kept 30.0 days
kept_count:
  description: Number of units kept.
  returned: always, unless options are wrong
  type: int
failures:
  description: What could not be done. When there is any, the others were done all the same and the
    task is failed.
  returned: always, unless options are wrong
  type: list
  elements: dict
  contains:
    target:
      description: Name of the target.
      type: str
    path:
      description: Where what is left of the unit lies.
      type: str
    error:
      description: Why.
      type: str
freed_bytes:
  description: Allocated bytes of the files removed. A file with several links counts when its last
    link goes.
  returned: always, unless options are wrong
  type: int
filesystems:
  description: What the filesystems themselves say, which includes what other programs wrote or
    removed meanwhile.
  returned: when not in check mode
  type: list
  elements: dict
  contains:
    path:
      description: A cleanup root on it.
      type: str
    available_before:
      description: Bytes available to users before.
      type: int
    available_after:
      description: Bytes available to users afterwards.
      type: int
    difference:
      description: The second less the first.
      type: int
targets:
  description: The targets with their numbers.
  returned: always, unless options are wrong
  type: list
  elements: dict
  contains:
    name:
      description: Name of the target.
      type: str
    root:
      description: Its directory, symbolic links resolved.
      type: str
    status:
      description: V(ok), V(missing) (no such directory), V(skipped) (the program is not here) or
        V(failed).
      type: str
    note:
      description: Why, or what to know about the numbers.
      type: str
    matched_count:
      description: Number of units it matches.
      type: int
    planned_count:
      description: Number of units to remove.
      type: int
    planned_bytes:
      description: Their allocated bytes.
      type: int
    removed_count:
      description: Number of units removed.
      type: int
    kept_count:
      description: Number of units kept.
      type: int
    freed_bytes:
      description: Bytes freed.
      type: int
quarantined:
  description: What is in quarantine afterwards, the oldest first, at most 1000 entries.
  returned: when O(quarantine) is set, with O(state=restored), and when something is in quarantine
  type: list
  elements: dict
  contains:
    target:
      description: Name of the target.
      type: str
    path:
      description: Path that the unit had.
      type: str
    run:
      description: The cleanup that moved it.
      type: str
    size:
      description: Allocated bytes, which are still used.
      type: int
    since:
      description: When it was moved.
      type: str
    until:
      description: When it may be removed.
      type: str
quarantined_count:
  description: Number of units in quarantine.
  returned: as RV(quarantined)
  type: int
quarantined_bytes:
  description: Bytes that they use.
  returned: as RV(quarantined)
  type: int
restored:
  description: What was brought back, or would be in check mode, at most 1000 entries with
    C(target), C(path), C(run) and C(size).
  returned: with O(state=restored)
  type: list
  elements: dict
restored_count:
  description: Number of units brought back.
  returned: with O(state=restored)
  type: int
watermarks:
  description: The levels of O(free_to), one entry for each file system.
  returned: when a target has a level
  type: list
  elements: dict
  contains:
    path:
      description: A cleanup root on it.
      type: str
    available:
      description: Bytes available to users before the cleanup.
      type: int
    free_to:
      description: The level in bytes.
      type: int
    when_below:
      description: Bytes below which units are removed.
      type: int
    needed:
      description: Bytes to free.
      type: int
    freed:
      description: Bytes that what is removed frees.
      type: int
    quarantined:
      description: Bytes of what is moved to quarantine to reach the level later.
      type: int
    reached:
      description: Whether that is enough.
      type: bool
    next:
      description: The oldest units that only their age or a policy keeps, at most 10.
      type: list
      elements: dict
notes:
  description: What limits the result.
  returned: always, unless options are wrong
  type: list
  elements: str
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import record, run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.brake import Braked
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)


def main() -> None:
    module = _shell.build(CleanupOptions)

    def work() -> dict[str, t.Any]:
        options = CleanupOptions.from_mapping(module.params)
        try:
            cleanup = run.run(
                options,
                _shell.world(module),
                check=module.check_mode,
                recorder=record.Recorder(record.LOG),
            )
        except Braked as stopped:
            module.fail_json(msg=str(stopped), error=stopped.to_dict(), **stopped.result)
        result = cleanup.to_dict()
        if module._diff:
            result["diff"] = cleanup.diff()
        if result.pop("failed", False):
            module.fail_json(**result)
        return result

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
