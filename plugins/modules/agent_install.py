#!/usr/bin/python
# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_install
short_description: Install the node command mlfleet
version_added: "0.1.0"
description:
  - Copies this collection's core and the command C(mlfleet) to the node as one bundle, into a
    directory of their own version, and points the link C(current) to it. The version before is kept
    for a rollback.
  - The switch is atomic, and a job that is running meanwhile stays on the version it started with.
  - The role P(mlops.fleet.agent#role) uses it and sets up the rest.
options:
  state:
    description:
      - V(present) installs the version of this collection.
      - V(rolled_back) makes the version before current again.
      - V(absent) removes all versions and the command, and nothing else.
    type: str
    choices: [present, absent, rolled_back]
    default: present
  install_dir:
    description: Directory of the versions on the node.
    type: path
    default: /opt/mlops-fleet
  bin_dir:
    description: Directory in which the command is put.
    type: path
    default: /usr/local/bin
  interpreter:
    description: Python that runs the command, version 3.9 or later.
    type: path
    default: /usr/bin/python3
  config:
    description: Configuration that the command reads unless another is named (C(--config),
      C(MLFLEET_CONFIG)).
    type: path
    default: /etc/mlops-fleet/config.json
  environment_file:
    description:
      - File with the old scripts' variables that the command reads unless another is named
        (C(MLFLEET_ENVIRONMENT_FILE)).
    type: path
    default: /etc/ml-automation.conf
    version_added: "0.2.0"
  bundle:
    description: The package as base64 text. Made on the controller; do not set it.
    type: str
  version:
    description: Name of the version. Made on the controller; do not set it.
    type: str
extends_documentation_fragment:
  - mlops.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - mlops.fleet contributors (@mlops-fleet)
"""

EXAMPLES = r"""
- name: Install the command
  mlops.fleet.agent_install:
    interpreter: /opt/mlops-fleet/venv/bin/python3

- name: Go back to the version before
  mlops.fleet.agent_install:
    state: rolled_back
"""

RETURN = r"""
current:
  description: The version that is current now, empty after removal.
  returned: success
  type: str
  sample: 0.1.0-1f2e3d4c5b6a
previous:
  description: The version that can be rolled back to, or empty.
  returned: success
  type: str
versions:
  description: All versions on the node.
  returned: success
  type: list
  elements: str
"""

import base64
import os
import typing as t

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core import agent
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import OptionSet, option


class AgentOptions(OptionSet):
    """Options of the module."""

    state: str = option(
        choices=("present", "absent", "rolled_back"), default="present", help="What is wanted."
    )
    install_dir: str = option(
        type="path", default="/opt/mlops-fleet", help="Directory of the versions."
    )
    bin_dir: str = option(type="path", default="/usr/local/bin", help="Directory of the command.")
    interpreter: str = option(
        type="path", default="/usr/bin/python3", help="Python that runs the command."
    )
    config: str = option(
        type="path", default="/etc/mlops-fleet/config.json", help="Configuration of the command."
    )
    environment_file: str = option(
        type="path",
        default="/etc/ml-automation.conf",
        help="File with the old scripts' variables that the command reads.",
    )
    bundle: str | None = option(help="The package as base64 text.")
    version: str | None = option(help="Name of the version.")


def main() -> None:
    module = _shell.build(AgentOptions)

    def work() -> dict[str, t.Any]:
        options = AgentOptions.from_mapping(module.params)
        if options.state == "absent":
            result = agent.remove(options.install_dir, options.bin_dir, module.check_mode)
        elif options.state == "rolled_back":
            result = agent.roll_back(options.install_dir, module.check_mode)
        else:
            if not options.bundle or not options.version:
                raise OptionError(
                    "The bundle is missing.",
                    "Call mlops.fleet.agent_install as a task, so that the controller makes it.",
                )
            if not module.check_mode or os.path.exists(
                options.interpreter
            ):  # the role may only be about to make it
                agent.check_interpreter(_shell.world(module).run, options.interpreter)
            bundle = base64.b64decode(options.bundle)
            result = agent.install(
                options.install_dir,
                options.bin_dir,
                options.interpreter,
                options.version,
                bundle,
                module.check_mode,
                options.config,
                options.environment_file,
            )
        returned = {"changed": result["changed"], **result["after"]}
        if module._diff:
            returned["diff"] = {"before": result["before"], "after": result["after"]}
        return returned

    _shell.execute(module, work)


if __name__ == "__main__":
    main()
