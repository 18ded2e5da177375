# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a phase in the background of its node and report its progress. Only for the controller."""

from __future__ import annotations

import json
import math
import secrets
import shlex
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet.faults import clean
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.text import (
    human_duration,
    human_size,
)
from ansible_collections.mlops.fleet.plugins.plugin_utils import time_limit

#: Variables for the module: path of the file that gets the progress, seconds until it stops itself.
PROGRESS_VARIABLE = "MLOPS_FLEET_PROGRESS"
LIMIT_VARIABLE = "MLOPS_FLEET_TIME_LIMIT"
#: Seconds after which the background process of a phase without a limit is stopped.
LONGEST = 7 * 86400
#: Seconds for one look at the progress, and how many may fail in a row: a network may be down for a
#: while.
LOOK = 60.0
FAILED_LOOKS = 5
#: Longest pause between two looks in seconds; a finished phase is noticed that soon.
PAUSE = 10.0


class Background:
    """A phase of one host as an asynchronous task of Ansible.

    :param action: the action plugin. :param tell: prints a line. :param every: seconds between two
        lines.
    """

    def __init__(self, action: t.Any, tell: t.Callable[[str], None], every: float) -> None:
        self._action = action
        self._tell = tell
        self._every = every

    def run(
        self, module: str, arguments: dict[str, t.Any], task_vars: dict[str, t.Any], limit: float
    ) -> dict[str, t.Any]:
        """Run a module; return its result. :raises NoAnswer: the node does not answer any more."""
        action = self._action
        directory = action._remote_expand_user(
            action.get_shell_option("async_dir", default="~/.ansible_async")
        )
        progress = f"{directory}/mlops-fleet-{secrets.token_hex(6)}.progress"
        with time_limit.answer_within(LOOK + time_limit.GRACE):
            started = self._start(module, arguments, task_vars, limit, progress)
        if "ansible_job_id" not in started or started.get("failed"):
            return started
        result = self._wait(str(started["ansible_job_id"]), directory, progress, task_vars, limit)
        if result.get("msg") == "Timeout exceeded":
            return {"failed": True, "rc": 124}
        for name in ("ansible_job_id", "started", "finished", "results_file"):
            result.pop(name, None)
        return result

    def _start(
        self,
        module: str,
        arguments: dict[str, t.Any],
        task_vars: dict[str, t.Any],
        limit: float,
        progress: str,
    ) -> dict[str, t.Any]:
        task = self._action._task
        environment = {PROGRESS_VARIABLE: progress}
        if limit:
            environment[LIMIT_VARIABLE] = f"{limit:g}"
        task.environment.append(environment)
        # Ansible kills it, should it not have stopped by then.
        task.async_val = math.ceil(limit + time_limit.KILL_AFTER) if limit else LONGEST
        try:
            result: dict[str, t.Any] = self._action._execute_module(
                module_name=module,
                module_args=arguments,
                task_vars=task_vars,
                wrap_async=task.async_val,
            )
        finally:
            task.async_val = 0
            task.environment.remove(environment)
        return result

    def _wait(
        self,
        job: str,
        directory: str,
        progress: str,
        task_vars: dict[str, t.Any],
        limit: float,
    ) -> dict[str, t.Any]:
        command = f"cat {shlex.quote(progress)} 2>/dev/null; echo; "
        command += f"cat {shlex.quote(f'{directory}/{job}')}"
        began = printed = time.monotonic()
        failed, line = 0, ""
        while True:
            time.sleep(min(PAUSE, self._every, 1 + (time.monotonic() - began) / 10))
            try:
                with time_limit.answer_within(LOOK):
                    response = self._action._low_level_execute_command(command)
                failed = 0
            except (time_limit.NoAnswer, AnsibleConnectionFailure):
                failed += 1
                if failed >= FAILED_LOOKS:
                    raise
                continue
            text, dummy, state = str(response["stdout"]).partition("\n")
            now = time.monotonic()
            if response["rc"] or not _is_running(state):
                break
            if limit and now - began > limit + time_limit.GRACE:
                raise time_limit.NoAnswer
            current = describe(text)
            if current and current != line and now - printed >= self._every:
                self._tell(f"{current}, for {human_duration(now - began)}")
                printed, line = now, current
        self._action._low_level_execute_command(f"rm -f {shlex.quote(progress)}")
        result = self._status(job, directory, "status", task_vars)
        self._status(job, directory, "cleanup", task_vars)
        return result

    def _status(
        self, job: str, directory: str, mode: str, task_vars: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        with time_limit.answer_within(LOOK):
            result: dict[str, t.Any] = self._action._execute_module(
                module_name="ansible.legacy.async_status",
                module_args={"jid": job, "mode": mode, "_async_dir": directory},
                task_vars=task_vars,
            )
        return result


def _is_running(state: str) -> bool:
    """Say whether the file of an asynchronous task is that of a running one."""
    try:
        document = json.loads(state)
    except ValueError:
        return False
    return "ansible_job_id" in document and not document.get("finished")


def describe(text: str) -> str:
    """Return the progress that a module wrote as text for people, empty where it wrote none yet."""
    try:
        step = json.loads(text)
        phase, unit = clean(step["phase"], 40), step["unit"]
        done, total = int(step["done"]), int(step["total"])
    except (ValueError, KeyError, TypeError):
        return ""
    amounts = [
        human_size(n) if unit == "bytes" else f"{n} {clean(unit, 20)}" for n in (done, total)
    ]
    if total <= 0:
        return f"{phase}: {amounts[0]}"
    return f"{phase}: {min(100, 100 * done // total)} %, {amounts[0]} of {amounts[1]}"
