# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of mlops.fleet.alert: lets people write what Ansible's argument spec can't take."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Brings short forms into the module's own and runs it.

    C(message) is a name that Ansible keeps modules from using. A plain address is what the node's configuration takes, too; left to the
    argument spec it would be read as key=value, and what is no option of ours is shown at -vvv.
    """

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: t.Any = None, task_vars: t.Any = None) -> dict:
        """Run the module. :raises AnsibleActionFail: both names were given."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if "message" in arguments:
            if arguments.get("msg") is not None:
                raise AnsibleActionFail("msg and message are the same option: give one of them.")
            arguments["msg"] = arguments.pop("message")
        hooks = arguments.get("webhooks")
        if isinstance(hooks, (str, dict)):
            hooks = [hooks]
        if isinstance(hooks, list):
            arguments["webhooks"] = [
                {"url": one}
                if isinstance(one, str) and one.startswith(("http://", "https://"))
                else one
                for one in hooks
            ]
        email = arguments.get("email")
        if isinstance(email, list) or (
            isinstance(email, str)
            and "@" in email
            and not email.startswith("{")
            and "=" not in email
        ):
            arguments["email"] = {"to": email}
        result.update(
            self._execute_module(
                module_name="mlops.fleet.alert",
                module_args=arguments,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
        )
        return result
