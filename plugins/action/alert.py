# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of mlops.fleet.alert: accepts short forms that Ansible's argument spec can't
express.
"""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Replaces short forms by the module's own options and runs it.

    Ansible keeps modules from using the name ``message``. A plain address is valid in the node's
    configuration too; the argument spec would read it as key=value, and Ansible prints unknown
    options at -vvv.
    """

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: t.Any = None, task_vars: t.Any = None) -> dict[str, t.Any]:
        """Run the module. :raises AnsibleActionFail: both names were given."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
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
                {"url": hook}
                if isinstance(hook, str) and hook.startswith(("http://", "https://"))
                else hook
                for hook in hooks
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
