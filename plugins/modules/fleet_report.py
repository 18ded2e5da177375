#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: One report of a maintenance run over all targeted hosts
version_added: "0.1.0"
description:
  - Reads the registered results of the phases from every host that the play targets and writes one
    JSON document, one self-contained HTML page, a table on the screen and job artifacts.
  - Hosts that failed, were unreachable or returned no result are part of the report.
  - Runs only on the controller, whatever the connection of the hosts is. Use it with C(run_once).
  - The role P(mlops.fleet.fleet_report#role) and the playbooks of this collection use this module.
    Use it directly in your own playbooks.
options:
  dest:
    description:
      - Directory on the controller for the report. It is created when it does not exist.
      - Each run writes C(maintenance-TIMESTAMP.json), C(.html) and C(.md), mode 0640, and points
        the links C(latest.json), C(latest.html) and C(latest.md) to them. Several controllers may
        write to the same directory at the same time.
      - The JSON files are the history that the run is compared with. Damaged files and those of a
        newer version of the collection are left out with a warning.
      - Without it nothing is written. In check mode nothing is written either.
    type: path
  title:
    description: Title of the report.
    type: str
    default: Fleet maintenance
  phases:
    description: The phases to report on.
    type: list
    elements: str
    choices: [health, gpu, backup, cleanup]
    default: [health, gpu, backup, cleanup]
  prefix:
    description: Prefix of the variables with the registered results; the name of the phase follows.
    type: str
    default: maintenance_result_
  fail_on:
    description:
      - Minimum verdict with which a host is listed in RV(failed_hosts). A phase that could not do
        its job always counts.
    type: str
    choices: [critical, warning, never]
    default: critical
  keep:
    description: Number of reports to keep in O(dest), this one included.
    type: int
    default: 30
  keep_days:
    description:
      - Age in days up to which reports are kept in O(dest). This report is always kept.
      - V(0), or no value, keeps reports of any age.
    type: float
  previous:
    description:
      - A run to compare with that counts as newer than those in O(dest). It is a mapping or JSON
        text.
      - Use it where the controller is discarded after the run, as in AWX. The artifacts of a run
        hold it as C(mlops_fleet.run), except that a run with more than 200 faults is too large and
        gives an empty mapping.
    type: raw
  history:
    description:
      - Store that keeps the runs, for controllers that are discarded after the run. The run is
        compared with those in it instead of those in O(dest), and O(keep) and O(keep_days) limit
        it, too.
      - V(s3://BUCKET/PREFIX) is a bucket, which needs C(boto3) on the controller. The newest run is
        also written to C(latest.json), C(latest.html) and C(latest.md) under the prefix.
      - V(git+) and a path or URL is a Git repository, then optionally C(#BRANCH) or
        C(#BRANCH:DIRECTORY). Each run is a commit with the JSON document, the page and the
        Markdown, and is pushed. A repository with a working tree on the controller is used in
        place, and pushed if its branch has an upstream. Needs the program C(git).
      - Several controllers may write to the same store at the same time.
      - If the store can't be read or written, the task prints the report, writes it to O(dest) and
        fails.
    type: str
  s3:
    description:
      - Connection to the bucket of O(history) or O(merge).
    type: dict
    suboptions:
      endpoint_url:
        description: Base URL of the server, like V(https://s3.example.com:9000). By default
          Amazon's.
        type: str
      region:
        description: Region of the bucket.
        type: str
      access_key:
        description: Access key. By default C(boto3) looks for credentials on the controller.
        type: str
      secret_key:
        description: Secret key that belongs to O(s3.access_key).
        type: str
      session_token:
        description: Token of temporary credentials.
        type: str
      ca_bundle:
        description: File on the controller with the certificates of the authorities to trust.
        type: path
  outlier_limit:
    description:
      - Distance from the median of its peers at which a reading counts as an outlier, in units of
        the usual distance (median absolute deviation divided by 0.6745). At least V(1).
    type: float
    default: 3.5
  outlier_min_group:
    description:
      - Smallest number of hosts or GPUs that are compared with each other. At least V(3).
      - The peers of a host are its smallest inventory group that is large enough, otherwise the
        fleet.
    type: int
    default: 5
  max_fail_percentage:
    description:
      - When set, no report is written. Instead RV(held) says whether more than this share of the
        hosts started so far failed.
      - Unlike the play keyword of this name, it stops the rollout without losing the report.
    type: float
  max_age:
    description:
      - Hours after which results that the playbook C(mlops.fleet.collect) fetched are too old, by
        phase. A phase whose last result is older has failed.
      - Defaults are 2 for C(health) and C(gpu), 26 for C(backup) and 170 for C(cleanup).
    type: dict
  merge:
    description:
      - Directory on the controller with the runs of several slices of a job, or of several
        controllers, or a store as in O(history). The report is made from them instead of registered
        results. Of a host in several runs the newest counts.
      - Let the slices write to a place of their own, and this report to another.
    type: str
  merge_hours:
    description: Age in hours of the oldest run that O(merge) takes.
    type: float
    default: 24.0
  fail_host:
    description:
      - When set, no report is written. Instead the host that the task runs on fails, with this
        reason in RV(attention). Unlike M(ansible.builtin.fail), Ansible prints the message only
        once for all hosts.
    type: str
  show:
    description:
      - Whether to print the report.
      - Up to 40 hosts it is a table of the hosts and what is wrong with them, beyond that a table
        of groups of hosts in the same state, and the faults by cause.
      - The last lines are the verdict, new faults, and the path of the page.
    type: bool
    default: true
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the changes since the runs before.
  platform:
    platforms: all
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Check the nodes
  hosts: gpu_nodes
  gather_facts: false
  ignore_unreachable: true
  tasks:
    - name: Check the GPUs
      mlops.fleet.gpu_health:
        expected_count: 8
      register: maintenance_result_gpu
      ignore_errors: true

    - name: Write the report
      mlops.fleet.fleet_report:
        dest: ./reports
        phases: [gpu]
      register: fleet
      run_once: true

    - name: Fail the hosts that need attention
      mlops.fleet.fleet_report:
        fail_host: "{{ fleet.attention[inventory_hostname] }}"
      when: inventory_hostname in fleet.failed_hosts

- name: Merge the reports of job slices into one, with the history in a bucket
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Write the report
      mlops.fleet.fleet_report:
        merge: s3://ml-reports/slices
        history: s3://ml-reports/nightly
        s3:
          endpoint_url: https://s3.example.com:9000
"""

RETURN = r"""
msg:
  description: The whole run in one line.
  returned: when a report was made
  type: str
  sample: "Fleet maintenance: CRITICAL - 3 hosts (1 pass, 1 critical, 1 unreachable), 2 verified backups, 1.2 GiB freed"
status:
  description: Worst state of the fleet. A phase that could not do its job makes it V(critical).
  returned: when a report was made
  type: str
exit_code:
  description: RV(status) as a number, 0 for all passed, 1 for warnings, 2 for critical.
  returned: when a report was made
  type: int
failed_hosts:
  description: Hosts where a phase could not do its job, or whose verdict is at least O(fail_on).
  returned: when a report was made
  type: list
  elements: str
attention:
  description:
    - Why each host of RV(failed_hosts) needs attention, one line per host.
    - With O(fail_host), the host and the reason as text.
  returned: when a report was made, or with O(fail_host)
  type: raw
  sample: {"gpu7": "backup failed: The source /opt/ml/models does not exist. Name the directory that holds the models."}
errors:
  description: What is wrong with the run as a whole, such as no host reachable.
  returned: when a report was made
  type: list
  elements: str
summary:
  description: Counts over the fleet.
  returned: when a report was made
  type: dict
  contains:
    hosts:
      description: Number of targeted hosts.
      type: int
    states:
      description: Number of hosts per state.
      type: dict
    score_min:
      description: Lowest health score.
      type: float
    score_p5:
      description: Fifth percentile of the health scores.
      type: float
    backups_verified:
      description: Number of hosts that have a verified backup.
      type: int
    freed_bytes:
      description: Bytes freed by all cleanups.
      type: int
    do_not_schedule:
      description: Hosts on which no jobs should be scheduled now.
      type: list
      elements: str
changes:
  description:
    - What changed since the last runs. Each phase of a host is compared with the latest earlier run
      that examined it.
  returned: when a report was made
  type: dict
  contains:
    since:
      description: Time of the newest run that was compared with. V(null) for the first run.
      type: str
    new:
      description: Faults that the runs before did not have.
      type: list
      elements: dict
    gone:
      description: Faults that are no longer there.
      type: list
      elements: dict
    worse:
      description: Faults with a worse status than before, which is in C(was).
      type: list
      elements: dict
    better:
      description: Faults with a milder status than before, which is in C(was).
      type: list
      elements: dict
    unchanged:
      description: Number of faults that are as before.
      type: int
    absent:
      description: Hosts of the last run with the same phases that this run did not target.
      type: list
      elements: str
causes:
  description: The faults grouped by cause, worst first, then by the number of hosts.
  returned: when a report was made
  type: list
  elements: dict
  sample:
    - check: gpu_xid
      phase: gpu
      status: critical
      action: reboot
      title: "GPU 3: Xid 79, the GPU has fallen off the bus"
      variants: 2
      hosts: [gpu7, gpu9]
      count: 2
chat:
  description: The run as one line for a chat or a ticket.
  returned: when a report was made
  type: str
  sample: "2 new, 1 gone: GPU 3: Xid 79 (2 hosts) [Fleet maintenance: critical]"
left_out_reports:
  description: Kept reports that could not be used, with C(name) and C(reason).
  returned: when a report was made
  type: list
  elements: dict
table:
  description: The report as lines of text.
  returned: when a report was made
  type: list
  elements: str
json:
  description: Path of the JSON report, or where it is in O(history) without O(dest).
  returned: when O(dest) or O(history) is set and not in check mode
  type: str
html:
  description: Path of the HTML report, or where it is in O(history) without O(dest).
  returned: when O(dest) or O(history) is set and not in check mode
  type: str
markdown:
  description: Path of the report as Markdown, or where it is in O(history) without O(dest).
  returned: when O(dest) or O(history) is set and not in check mode
  type: str
held:
  description: Why no further host may be started; empty when the rollout may continue.
  returned: when O(max_fail_percentage) is set
  type: str
"""
