#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# long because most of it is documentation

from __future__ import annotations

DOCUMENTATION = r"""
module: alert
short_description: Send alerts when the health of a node changes
version_added: "0.1.0"
description:
  - Takes the verdict of M(mlops.fleet.gpu_health), M(mlops.fleet.node_health) or any other part of
    this collection, or a plain message, and delivers what is new in it by e-mail, webhook, journal
    and a command of yours.
  - An alert is sent when a problem is new, at once when it gets worse, and again each time
    O(cooldown) has passed. Its end is sent once.
  - More than O(digest_after) messages at once become one digest.
  - All channels send at the same time and independently. What a channel can't deliver now is queued
    in O(state_dir) for that channel and sent by the next run. A problem stays queued until it is
    sent or ends. A message that is no problem, or whose problem is over, stays for 24 hours, or for
    30 days where somebody has to repair the channel, and at most 200 of those are kept.
  - Secrets come from options that are never logged, from files of mode 0600, or from environment
    variables. They are sent by the module's own process and appear in no result, file or process
    list.
options:
  document:
    description:
      - A verdict document, usually the registered result of a health module. Keys that are not part
        of a verdict are ignored.
      - The result of a skipped task contains no verdict, so nothing is sent.
    type: dict
  msg:
    description:
      - A text to send, instead of or beside O(document).
      - Without O(check), the same text is the same problem and another text another one.
      - Can also be written C(message). The module itself can't declare that name, because Ansible
        reserves it.
    type: str
  severity:
    description:
      - Severity of O(msg). V(warning) when not given. V(unknown) counts as V(warning).
      - V(pass) takes back an earlier message of the same O(check) and O(subject); nothing is sent
        when there was none.
    type: str
    choices: [critical, warning, unknown, info, pass]
  check:
    description: Stable name of what O(msg) is about, for example V(model_backup).
    type: str
  subject:
    description: Which GPU, path or unit O(msg) is about.
    type: str
  email:
    description:
      - Send e-mail.
      - A plain address, or a list of them, stands for a mapping with O(email.to).
      - The environment variable E(ALERT_EMAIL) gives the node command the recipients.
    type: dict
    suboptions:
      to:
        description: Plain addresses of the recipients.
        type: list
        elements: str
        required: true
      sender:
        description: Plain address of the sender. By default C(mlops-fleet@) and the host's name.
        type: str
        aliases: [from]
      host:
        description:
          - SMTP server.
          - Without it, the message is passed to the local C(mail) command, or to C(sendmail) where
            C(mail) is not installed.
        type: str
      port:
        description: Port of the server. By default 587 for V(starttls), 465 for V(tls), 25 for
          V(none).
        type: int
      security:
        description:
          - How the connection is protected. With V(starttls) nothing is sent when the server does
            not offer it.
          - The server's certificate is always verified.
          - With V(none) a password is refused unless the server is this host.
        type: str
        choices: [starttls, tls, none]
        default: starttls
      user:
        description: User name.
        type: str
      password:
        description: Password of O(email.user).
        type: str
      password_file:
        description: File that holds the password. Mode 0600, owned by the user who sends or by
          root.
        type: path
      password_env:
        description: Environment variable (on the node) that holds the password.
        type: str
      ca_file:
        description: Certificates to trust instead of the system's.
        type: path
      timeout:
        description: Seconds to wait for each answer.
        type: float
        default: 10.0
      retries:
        description: Further attempts after a temporary failure.
        type: int
        default: 2
      subject_prefix:
        description: Beginning of every subject.
        type: str
        default: "[mlops-fleet]"
  webhooks:
    description:
      - POST JSON to these addresses. A plain address stands for a mapping with O(webhooks[].url).
      - The environment variable E(ALERT_WEBHOOK) gives the node command one address.
    type: list
    elements: dict
    suboptions:
      url:
        description:
          - Address to POST to. It is a secret as a whole; results show only its scheme and host.
          - Not needed for V(pagerduty) and V(opsgenie), except for their European or your own
            servers.
          - For V(pagerduty), V(opsgenie) and V(alertmanager) the base address is enough.
        type: str
      url_file:
        description: File that holds the address. Mode 0600, owned by the user who sends or by root.
        type: path
      url_env:
        description: Environment variable (on the node) that holds the address.
        type: str
      name:
        description:
          - Name of the channel in results. By default the name of the payload.
          - With a name, undelivered messages survive a change of the address.
        type: str
      payload:
        description:
          - Form of the body. V(auto) knows the hosts of Slack, Teams, PagerDuty and Opsgenie, and
            takes V(plain) for all others.
          - V(plain) is the form of the webhook receiver of Alertmanager (version 4) with
            C(hostname), C(severity) and C(message) added.
          - V(teams) is for the Workflows app, V(pagerduty) for Events API v2, V(alertmanager) for
            its API v2.
        type: str
        choices: [auto, plain, slack, mattermost, teams, pagerduty, opsgenie, alertmanager, template]
        default: auto
      template:
        description:
          - Body for O(webhooks[].payload=template), as JSON text or as a structure.
          - The placeholders V($severity), V($status), V($event), V($title), V($message),
            V($hostname), V($check), V($subject), V($value), V($unit), V($action), V($reason),
            V($key), V($since), V($time) and V($count) are replaced, escaped for JSON. V($$) is a
            dollar sign.
          - The template itself is no secret and shows in logs. A service that wants a token in the
            body gets it by V($api_key) or V($routing_key), which stand for the options of those
            names.
        type: raw
      headers:
        description: Further HTTP headers. Every value counts as a secret, and short values are
          hidden wherever they appear in the result.
        type: dict
      routing_key:
        description: Integration key of PagerDuty.
        type: str
      routing_key_file:
        description: File that holds the integration key. Mode 0600.
        type: path
      routing_key_env:
        description: Environment variable (on the node) that holds the integration key.
        type: str
      api_key:
        description: API key of Opsgenie, or what a template calls V($api_key).
        type: str
      api_key_file:
        description: File that holds the API key. Mode 0600.
        type: path
      api_key_env:
        description: Environment variable (on the node) that holds the API key.
        type: str
      ca_file:
        description: Certificates to trust instead of the system's. TLS is always verified.
        type: path
      timeout:
        description: Seconds to wait for each answer.
        type: float
        default: 10.0
      retries:
        description: Further attempts after 429 (C(Retry-After) is honoured up to 30 seconds), 5xx,
          or a lost connection.
        type: int
        default: 2
      send_resolved:
        description: Whether recoveries are sent too.
        type: bool
        default: true
  syslog:
    description: Write to the journal with structured fields, or to C(/dev/log) where there is no
      journal. Skipped where there is neither.
    type: bool
    default: false
  command:
    description:
      - Program (absolute path) and its first arguments. Severity and message are added as the last
        two arguments.
      - Run without a shell. Details are in environment variables that begin with C(MLOPS_).
    type: list
    elements: str
  command_timeout:
    description: Seconds the command may take before it is killed.
    type: float
    default: 30.0
  cooldown:
    description:
      - Seconds between two messages about the same host, check and subject. An escalation is never
        held back.
      - V(0) sends every time.
    type: int
    default: 3600
  digest_after:
    description: More messages than this at once become one digest.
    type: int
    default: 5
  state_dir:
    description:
      - Directory of the state, which is what was sent and what could not be delivered. Made with
        mode 0700.
      - By default C(/var/lib/mlops-fleet/alert) for root and the agent's user, who share it,
        C(~/.local/state/mlops-fleet/alert) for others.
    type: path
  test:
    description:
      - Send one marked test message through every channel. Cooldown and queued messages are
        ignored.
      - When it is sent, messages that the channel refused for good before are not reported any
        more.
    type: bool
    default: false
  fail_on_undelivered:
    description: Fail the task when a channel failed or its messages had to be kept for the next
      run. By default there is a warning.
    type: bool
    default: false
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is sent or written, and the result says what would be sent.
  diff_mode:
    support: none
seealso:
  - module: mlops.fleet.gpu_health
  - module: mlops.fleet.node_health
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Check the GPUs
  mlops.fleet.gpu_health:
    expected_count: 8
  register: gpu

- name: Send an alert about what changed
  mlops.fleet.alert:
    document: "{{ gpu }}"
    email:
      to: [ml-ops@example.com]
      from: gpu-nodes@example.com
      host: smtp.example.com
      user: gpu-nodes
      password: "{{ vault_smtp_password }}"
    webhooks:
      - url: "{{ vault_slack_webhook }}"
        payload: slack
      - payload: pagerduty
        routing_key: "{{ vault_pagerduty_key }}"
    syslog: true

- name: Send an alert that a step of your own failed
  mlops.fleet.alert:
    severity: critical
    check: nightly_training
    msg: The nightly training did not start
    command: [/opt/ml-automation/handlers/custom-alert.sh]

- name: Test all channels
  mlops.fleet.alert:
    test: true
    webhooks:
      - url_file: /etc/mlops-fleet/webhook
"""

RETURN = r"""
channels:
  description: The result of each channel, in the order e-mail, webhooks, journal, command.
  returned: success, and when the task fails by O(fail_on_undelivered)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the channel.
      type: str
    kind:
      description: V(email), V(webhook), V(syslog) or V(command).
      type: str
    target:
      description: Where it sends to. Of a webhook, scheme and host only.
      type: str
    status:
      description:
        - V(sent) all messages were accepted. When only some recipients of an e-mail were refused
          for good, RV(channels[].detail) and a warning say so.
        - V(queued) some could not be delivered now and are sent by the next run.
        - V(failed) somebody has to look. Either something has to be repaired (certificate,
          credentials, address), and the messages stay queued until then. Or some were refused for
          good, which later runs report too until a test message (O(test)) is sent.
        - V(skipped) there was nothing to send, or this host has no journal.
        - V(would_send) in check mode.
      type: str
    detail:
      description: Why, for people.
      type: str
    events:
      description: Number of events in the messages.
      type: int
  sample:
    - {name: slack, kind: webhook, target: "https://hooks.slack.com", status: sent, detail: HTTP 200, events: 1}
events:
  description: Every problem, and every recovery that is sent, with the decision.
  returned: success, and when the task fails by O(fail_on_undelivered)
  type: list
  elements: dict
  contains:
    decision:
      description: V(send) or V(hold).
      type: str
    reason:
      description: Why.
      type: str
    kind:
      description: V(alert), V(recovery) or V(test).
      type: str
    severity:
      description: V(critical), V(warning), V(info), or V(pass) for a recovery.
      type: str
    host:
      description: The host.
      type: str
    check:
      description: The check.
      type: str
    subject:
      description: Which one, or empty.
      type: str
    status:
      description: Status of the check.
      type: str
    message:
      description: Its message.
      type: str
    key:
      description: Deduplication key of host, check and subject.
      type: str
    incident:
      description: Key of the incident at PagerDuty or Opsgenie; that of a digest when the problem
        was sent in one.
      type: str
  sample:
    - decision: hold
      reason: last sent 5 min 00 s ago, within the cooldown for another 55 min 00 s
      kind: alert
      severity: critical
      host: gpu-07
      check: gpu_temperature
      subject: GPU-4f1c
      status: critical
      message: "GPU 3: 91 C"
      key: gpu-07.gpu_temperature.6a1f0c6de0b1a2f3
      incident: gpu-07.gpu_temperature.6a1f0c6de0b1a2f3
duration:
  description: Seconds the module took.
  returned: success
  type: float
  sample: 0.412
"""

import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import secret
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.run import run


def main() -> None:
    module = _shell.build(AlertOptions)

    def work() -> dict[str, t.Any]:
        options = AlertOptions.from_mapping(module.params)
        world = _shell.world(module)
        # Ansible hides a no_log value only as a whole: a token cut out of an URL must be known to it, too.
        module.no_log_values.update(secret.all_forms(options, world))
        result = run(options, world, check=module.check_mode)
        if options.fail_on_undelivered and result.undelivered:
            module.fail_json(
                msg="Alerts were not delivered: " + "; ".join(result.undelivered),
                **result.to_dict(),
            )
        return result.to_dict()

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
