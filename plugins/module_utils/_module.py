# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ansible side of every module: argument specs from option tables, ports over AnsibleModule,
typed errors to fail_json.

Private to this collection; no interface is promised to others.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ._core import verdict
from ._core.errors import CommandFailed, FleetError, MissingLibrary
from ._core.options import Option, OptionSet
from ._core.ports import CommandResult, World
from ._core.system import isolate

#: Interpreter of the virtual environment that the agent role makes on a node.
AGENT_PYTHON = "/opt/mlops-fleet/venv/bin/python3"
#: Library name in the package index -> name it is imported by.
IMPORT_NAMES = {"nvidia-ml-py": "pynvml"}


def argument_spec(table: t.Iterable[Option]) -> dict[str, t.Any]:
    """Return the Ansible argument spec that says the same as the option table."""
    return {option.name: _argument(option) for option in table}


def _argument(option: Option) -> dict[str, t.Any]:
    spec: dict[str, t.Any] = {"type": option.type}
    if option.required:
        spec["required"] = True
    elif option.default is not None:
        spec["default"] = option.default
    for name in ("elements", "choices", "aliases"):
        value = getattr(option, name)
        if value:
            spec[name] = list(value) if isinstance(value, tuple) else value
    if option.suboptions is not None:
        spec["options"] = argument_spec(option.subtable)
    if option.secret:
        spec["no_log"] = True
    elif any(word in option.name for word in ("pass", "secret", "token", "key")):
        spec["no_log"] = False
    return spec


def build(options: type[OptionSet], **extra: t.Any) -> AnsibleModule:
    """Make the AnsibleModule for an option set; every module supports check mode.

    Extra arguments go to AnsibleModule.
    """

    class Module(AnsibleModule):
        """Writes short forms of options out before they are checked."""

        params: dict[str, t.Any]

        def _load_params(self) -> None:
            super()._load_params()
            self.params = dict(options.expand(self.params))

    return Module(argument_spec=argument_spec(options.TABLE), supports_check_mode=True, **extra)


class ModuleCommandRunner:
    """The CommandRunner port over AnsibleModule.run_command, which knows no deadline: each call
    runs in an isolated child.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def __call__(
        self,
        argv: t.Sequence[str],
        timeout: float = 30.0,
        env: t.Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> CommandResult:
        program = argv[0]
        if not os.path.isabs(program):
            program = (
                self.module.get_bin_path(
                    program, opt_dirs=["/usr/local/sbin", "/usr/sbin", "/sbin"]
                )
                or ""
            )
        if not program or not os.access(program, os.X_OK):
            raise CommandFailed.missing(argv[0])

        def run() -> CommandResult:
            status, out, err = self.module.run_command(
                [program, *argv[1:]],
                data=stdin,
                binary_data=False,
                environ_update={"LC_ALL": "C", **(env or {})},
                errors="replace",
                handle_exceptions=False,
            )
            return CommandResult(status, out, err)

        outcome = isolate.call(run, timeout)
        if outcome.timed_out:
            raise CommandFailed.timed_out(argv[0], timeout)
        if outcome.error is not None:
            raise CommandFailed(
                f"{argv[0]} could not be run: {outcome.error.message}", outcome.error.todo, argv[0]
            ) from outcome.error
        return t.cast(CommandResult, outcome.value)


def world(module: AnsibleModule) -> World:
    """Return the ports of the core, filled in by the module."""
    return World(run=ModuleCommandRunner(module), warn=module.warn)


def execute(module: AnsibleModule, work: t.Callable[[], dict[str, t.Any]]) -> t.NoReturn:
    """Run C(work) and leave the module with its result and C(duration) (seconds), or with one clear
    message.

    A missing library makes the module start again under the interpreter of the agent role's virtual
    environment when that has it; else it gives Ansible's standard message, which names the library
    and this interpreter's path.
    """
    started = time.monotonic()

    def took() -> float:
        return round(time.monotonic() - started, 3)

    try:
        result = work()
    except MissingLibrary as error:
        _respawn_with(IMPORT_NAMES.get(error.library, error.library))
        module.fail_json(
            msg=missing_required_lib(error.library, reason=error.reason),
            exception=error.traceback or None,
            duration=took(),
        )
    except VerdictFailed as error:
        module.fail_json(msg=str(error), **{**error.result, "changed": False, "duration": took()})
    except FleetError as error:
        module.fail_json(msg=str(error), error=error.to_dict(), duration=took())
    module.exit_json(**{**result, "duration": took()})
    raise AssertionError("exit_json returned")


def _respawn_with(library: str) -> None:
    """Start again under the agent's interpreter; return when that lacks the library, too."""
    from ansible.module_utils.common import respawn  # seldom needed

    if respawn.has_respawned():
        return
    if respawn.probe_interpreters_for_module([AGENT_PYTHON], library):
        respawn.respawn_module(AGENT_PYTHON)


class VerdictFailed(FleetError):
    """The verdict is what the user calls a failure; the result is returned all the same."""

    def __init__(self, message: str, result: dict[str, t.Any]) -> None:
        super().__init__(message)
        self.result = result


def fail_on_verdict(result: dict[str, t.Any], fail_on: str) -> dict[str, t.Any]:
    """Return a verdict's result; raise VerdictFailed with it when its status is what the user calls
    a failure (C(fail_on)).
    """
    if verdict.fails(result["status"], fail_on):
        bad = [
            check["message"]
            for check in result["checks"]
            if check["status"] not in (verdict.PASS, verdict.SKIPPED)
        ]
        raise VerdictFailed(
            f"{result['hostname']} is {result['status']}: " + "; ".join(bad[:5]), result
        )
    return result
