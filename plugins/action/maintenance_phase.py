# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one phase of maintenance: makes the call of the phase's module from the role variables that
are set.
"""

from __future__ import annotations

import json
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.validation import check_type_dict
from ansible.plugins.action import ActionBase

from ansible_collections.mlops.fleet.plugins.action import fleet_report
from ansible_collections.mlops.fleet.plugins.module_utils._core import config
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    FleetError,
    OptionError,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import faults, rollout
from ansible_collections.mlops.fleet.plugins.module_utils._core.maintenance import plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.maintenance.options import (
    MaintenanceOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import (
    Option,
    OptionSet,
    option,
    read_table,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.text import human_duration
from ansible_collections.mlops.fleet.plugins.plugin_utils import background, time_limit

#: Option tables by phase. Read here, where Ansible's main process imports the plugin: its workers
#: inherit them.
TABLES = {phase.name: config.option_set(phase.name).TABLE for phase in plan.PHASES}
#: Checks the variables of all phases and applies the brake, once per batch of hosts; reaches no
#: host.
START = "start"


class PhaseOptions(OptionSet):
    """Arguments of the task; documented in the module maintenance_phase."""

    phase: str = option(required=True, choices=(START, *plan.PHASES.names), help="What to run.")
    prefix: str = option(
        default="maintenance_result_", help="Beginning of the names of the registered results."
    )


class RoleOptions(MaintenanceOptions):
    """Variables of the role that belong to no single phase."""

    max_fail_percentage: float = option(
        type="float",
        default=100.0,
        minimum=0,
        maximum=100,
        help="Share of failed hosts that stops the rollout.",
    )
    canary: str = option(default="", help="Group whose failed hosts stop the whole rollout.")
    brake_groups: list[str] = option(
        type="list", elements="str", default=[], help="Groups that the brake counts one by one."
    )
    health_time_limit: float = option(
        type="float", default=0.0, minimum=0, help="Seconds for the health phase; 0: no limit."
    )
    gpu_time_limit: float = option(
        type="float", default=0.0, minimum=0, help="Seconds for the GPU phase; 0: no limit."
    )
    backup_time_limit: float = option(
        type="float", default=0.0, minimum=0, help="Seconds for the backup; 0: no limit."
    )
    cleanup_time_limit: float = option(
        type="float", default=0.0, minimum=0, help="Seconds for the cleanup; 0: no limit."
    )
    backup_progress: float = option(
        type="float", default=0.0, minimum=0, help="Seconds between lines of progress; 0: none."
    )


class Variables:
    """The role variables of one host.

    Those that are not set are never templated: there are about 80.
    """

    def __init__(self, task_vars: t.Mapping[str, t.Any], templar: t.Any) -> None:
        self._task_vars = task_vars
        self._templar = templar

    def get(self, name: str) -> t.Any:
        """Return the templated value of a variable, None where it is not set."""
        value = self._task_vars.get(name)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self._templar.template(value)

    def settings(self) -> RoleOptions:
        """Return the options of the run. :raises OptionError: one can't be used."""
        names = [entry.name for entry in RoleOptions.TABLE]
        try:
            return RoleOptions.from_mapping(
                {name: self.get("maintenance_" + name) for name in names}
            )
        except OptionError as error:
            raise _about("maintenance_" + str(error.subject), error) from error

    def of_phase(self, phase: plan.Phase) -> dict[str, t.Any]:
        """Return the options of a phase that somebody set, as its module takes them.

        None and, as in an unanswered survey question, an empty text mean "not set". So does an
        empty list or mapping, except for an option whose default is neither.
        """
        given = {}
        for entry in TABLES[phase.name]:
            if entry.name in phase.withheld:
                continue
            value = self.get(phase.variable(entry.name))
            if not _is_set(entry, value):
                continue
            given[entry.name] = _parsed(entry, value, phase.variable(entry.name))
        return given

    def check(self, phase: plan.Phase) -> None:
        """Check the types of a phase's variables; limits are the module's to check, on the host
        they are set for.

        :raises OptionError: one can't be used; the message names it.
        """
        given = fleet_report.plain(self.of_phase(phase))
        table = [_type_only(entry) for entry in TABLES[phase.name]]
        try:
            read_table(table, given)
        except OptionError as error:
            option_name, dot, rest = str(error.subject or "").partition(".")
            raise _about(phase.variable(option_name) + dot + rest, error) from error


def _type_only(entry: Option) -> Option:
    suboptions = tuple(_type_only(inner) for inner in entry.subtable) or None
    return entry._replace(
        required=False, check=None, choices=None, minimum=None, maximum=None, suboptions=suboptions
    )


def _about(variable: str, error: OptionError) -> OptionError:
    return OptionError(
        f"The variable {variable} can't be used: {error.message}", error.todo, variable
    )


def _is_set(entry: Option, value: t.Any) -> bool:
    if value is None:
        return False
    if isinstance(value, str) and not value.strip():
        # As in the core: an empty path where there is a default is an undefined variable, not a
        # wish.
        return entry.type == "path" and entry.default is not None
    return bool(value or entry.default or not isinstance(value, (list, dict, tuple)))


def _parsed(entry: Option, value: t.Any, variable: str) -> t.Any:
    """Return a value with mappings and lists of mappings parsed that a survey gave as text.

    :raises OptionError: the text is neither JSON nor, for a mapping, key=value pairs. It is not
        shown: it may be secret.
    """
    if not isinstance(value, str):
        return value
    try:
        if entry.type == "dict":
            return check_type_dict(value)
        if entry.type == "list" and value.lstrip().startswith("["):
            return json.loads(value)
    except (TypeError, ValueError):
        raise OptionError(
            f"The variable {variable} holds text that is no {entry.type}.",
            "Give JSON.",
            variable,
        ) from None
    return value


class ActionModule(ActionBase):
    """Runs a phase, or returns why it does not run."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True
    #: Seconds for the module that runs, 0 without a limit.
    _limit = 0.0

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        try:
            options = PhaseOptions.from_mapping(fleet_report.plain(self._task.args))
            variables = Variables(task_vars, self._templar)
            if options.phase == START:
                result.update(self._start(variables, options.prefix, task_vars))
            else:
                result.update(
                    self._phase(plan.PHASES[options.phase], variables, options, task_vars)
                )
        except FleetError as error:
            result.update(failed=True, msg=str(error), error=error.to_dict())
        return result

    def _start(
        self, variables: Variables, prefix: str, task_vars: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        settings = variables.settings()
        for phase in plan.PHASES:
            if getattr(settings, phase.switch):
                variables.check(phase)
        brake: dict[str, t.Any] = {"held": ""}
        if settings.max_fail_percentage < 100:
            hosts, lookup = fleet_report.results_of(task_vars, prefix)
            brake = rollout.hold(
                {host: [lookup(host, phase) for phase in plan.PHASES.names] for host in hosts},
                task_vars.get("groups") or {},
                settings.max_fail_percentage,
                canary=settings.canary,
                counted=settings.brake_groups,
            )
        for reason in filter(None, [brake["held"], *brake.get("held_groups", {}).values()]):
            self._display.warning(reason)
        return {"changed": False, **brake}

    def _phase(
        self,
        phase: plan.Phase,
        variables: Variables,
        options: PhaseOptions,
        task_vars: dict[str, t.Any],
    ) -> dict[str, t.Any]:
        settings = variables.settings()
        results = {name: task_vars.get(options.prefix + name) for name in plan.PHASES.names}
        held = rollout.held_host(
            task_vars.get(options.prefix + "brake"),
            str(task_vars.get("inventory_hostname")),
            task_vars.get("groups") or {},
        )
        earlier = plan.PHASES.names[: plan.PHASES.names.index(phase.name)]
        before = {name: results[name] for name in earlier}
        skip = plan.decide(phase.name, settings, before, held)
        if skip is not None:
            return {
                "changed": False,
                "skipped": True,
                "skip_reason": skip.text,
                "skip": skip._asdict(),
            }
        arguments = {**self._module_defaults(phase.module), **variables.of_phase(phase)}
        leaves_gpus = phase.name == "health" and plan.leaves_gpus(
            arguments, settings.run_gpu and self._tags_allow("gpu", task_vars)
        )
        if leaves_gpus:
            arguments["gpu"] = False
        result = self._run_module(phase, arguments, settings, task_vars)
        if leaves_gpus and not self._task.async_val:
            result = plan.note_gpus_left(result)
        return result

    def _run_module(
        self,
        phase: plan.Phase,
        arguments: dict[str, t.Any],
        settings: RoleOptions,
        task_vars: dict[str, t.Any],
    ) -> dict[str, t.Any]:
        """Run the module of a phase, within its time limit where there is one."""
        self._limit = limit = float(getattr(settings, f"{phase.name}_time_limit"))
        in_background = phase.name == "backup" and settings.backup_progress
        if self._task.async_val or not (limit or in_background):
            result: dict[str, t.Any] = self._execute_module(
                module_name=phase.module,
                module_args=arguments,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
            return result
        began = time.monotonic()
        try:
            with time_limit.answer_within((limit or background.LONGEST) + time_limit.GRACE):
                if in_background and not self._task.check_mode:
                    result = self._run_in_background(phase, arguments, settings, task_vars)
                else:
                    result = self._execute_module(
                        module_name=phase.module, module_args=arguments, task_vars=task_vars
                    )
        except time_limit.NoAnswer:
            # It hangs: as unreachable as a host that refuses connections.
            waited = human_duration(time.monotonic() - began)
            raise AnsibleConnectionFailure(
                f"{faults.HANGS}: the {phase.name} phase did not end, and there was no answer for"
                f" {waited} (maintenance_{phase.name}_time_limit)."
            ) from None
        took = time.monotonic() - began
        if not limit or not time_limit.was_stopped(result.get("rc") or 0, took, limit):
            return result
        msg = (
            f"The phase did not end within {human_duration(limit)}"
            f" (maintenance_{phase.name}_time_limit) and was stopped."
        )
        return {"failed": True, "msg": msg, "timed_out": True, "duration": round(took, 3)}

    def _run_in_background(
        self,
        phase: plan.Phase,
        arguments: dict[str, t.Any],
        settings: RoleOptions,
        task_vars: dict[str, t.Any],
    ) -> dict[str, t.Any]:
        name = task_vars.get("inventory_hostname")

        def tell(line: str) -> None:
            self._display.display(f"[{name}] {phase.name}: {line}")

        job = background.Background(self, tell, settings.backup_progress)
        return job.run(phase.module, arguments, task_vars, self._limit)

    def _low_level_execute_command(  # pylint: disable=arguments-differ
        self, cmd: str, *args: t.Any, **kwargs: t.Any
    ) -> dict[str, t.Any]:
        """Run a command on the node, that of the phase's module within the limit."""
        is_module = kwargs.get("in_data") is not None or "AnsiballZ_" in cmd
        is_module = is_module and kwargs.get("sudoable", True) and "async_wrapper" not in cmd
        if self._limit and is_module and not self._task.async_val:
            cmd = time_limit.limited(cmd, self._limit)
        result: dict[str, t.Any] = super()._low_level_execute_command(cmd, *args, **kwargs)
        return result

    def _module_defaults(self, module: str) -> dict[str, t.Any]:
        """Return what C(module_defaults) of the play sets for the phase's module, by its groups and
        by its name.
        """
        declared: dict[str, t.Any] = {}
        entries = self._task.module_defaults or []
        for entry in entries if isinstance(entries, list) else [entries]:
            declared.update(entry)
        groups = getattr(self._task.play, "_action_groups", None) or {}
        names = [f"group/{group}" for group in groups.get(module, ())]
        arguments: dict[str, t.Any] = {}
        for key in [*(key for key in declared if key in names), module]:
            arguments.update(self._templar.template(declared.get(key) or {}) or {})
        return arguments

    def _tags_allow(self, phase: str, task_vars: dict[str, t.Any]) -> bool:
        """Say whether the tags of this run allow a phase, whose task has its tag in the place of
        this task's own.
        """
        only = list(task_vars.get("ansible_run_tags") or ["all"])
        skip = list(task_vars.get("ansible_skip_tags") or [])
        if only == ["all"] and not skip:
            return True
        tags = {str(tag) for tag in self._task.tags}
        sibling = self._task.copy()
        sibling.tags = sorted((tags - set(plan.PHASES.names)) | {phase})
        return bool(sibling.evaluate_tags(only, skip, task_vars))
