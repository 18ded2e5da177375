# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node configuration: one JSON document whose sections are the parts and whose keys are the module
options.

Precedence, highest first: flags, environment (the old scripts' variables), the file of these
variables (see environment), the configuration file, defaults.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from .environment import Environment
from .errors import FleetError, NotUsable, OptionError
from .options import Option, OptionSet
from .records import NamedTuple
from .system.files import read_json

#: Where the node command looks by default.
PATH = "/etc/mlops-fleet/config.json"

#: Section name -> (module of the core, class of the option set). Imported only when asked for.
PARTS = {
    "health": ("node.options", "NodeOptions"),
    "gpu": ("gpu.options", "GpuOptions"),
    "diagnostics": ("diagnostics.options", "DiagnosticsOptions"),
    "backup": ("backup.options", "BackupOptions"),
    "cleanup": ("cleanup.options", "CleanupOptions"),
    "alert": ("alert.options", "AlertOptions"),
    "maintenance": ("maintenance.options", "MaintenanceOptions"),
}

#: Beginning of every environment variable that sets an alert option.
ALERT_VARIABLES = "ALERT_"

_Set = TypeVar("_Set", bound=OptionSet)
_NO_ENVIRONMENT = Environment()


def option_set(part: str) -> type[OptionSet]:
    """Return the option set of a part. :raises OptionError: there is no such part."""
    if part not in PARTS:
        raise OptionError(f"Unknown configuration section {part!r}.", _known(part), part)
    module, class_name = PARTS[part]
    table: type[OptionSet] = getattr(importlib.import_module("." + module, __package__), class_name)
    return table


def _known(section: object) -> str:
    """Return what a section that does not exist may have meant, and which there are."""
    import difflib  # only a misspelled section needs it

    close = difflib.get_close_matches(str(section), PARTS, n=1)
    hint = ""
    if close:
        hint = f"Did you mean {close[0]}? "
    return f"{hint}Known: {', '.join(sorted(PARTS))}."


def load(path: str = PATH) -> dict[str, dict[str, Any]]:
    """Return the sections of the configuration file, {} when there is none.

    :raises NotUsable: unreadable or not JSON. :raises OptionError: not a mapping of mappings, or an
        unknown section.
    """
    document = read_json(path)
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise OptionError(f"{path} must hold a JSON object with one section per part.", "", path)
    for section, values in document.items():
        if section not in PARTS:
            raise OptionError(f"{path}: unknown section {section!r}.", _known(section), path)
        if not isinstance(values, Mapping):
            raise OptionError(f"{path}: section {section!r} must be an object.", "", path)
    return {section: dict(values) for section, values in document.items()}


def _set(values: dict[str, Any], option: str, value: Any) -> None:
    """Set an option; a mapping adds to the mapping that is there."""
    present = values.get(option)
    if isinstance(present, Mapping) and isinstance(value, Mapping):
        value = {**present, **value}
    values[option] = value


def merge(
    table: type[OptionSet],
    section: Mapping[str, Any],
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    from_file: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Merge file section, environment and flags by precedence.

    :param from_file: variables of the environment that come from a file, and the origin that they
        get.
    :return: the merged mapping (input of ``from_mapping``) and where each option came from
        (``flag``, ``environment VARIABLE``, ``file``, ``default``).
    """
    values: dict[str, Any] = dict(section)
    origin = dict.fromkeys(values, "file")
    for option, (value, variable) in from_environment(table.TABLE, environ).items():
        _set(values, option, value)
        origin[option] = _origin(variable, from_file or {})
    for option, value in flags.items():
        if value is not None:
            _set(values, option, value)
            origin[option] = "flag"
    for entry in table.TABLE:
        origin.setdefault(entry.name, "default")
    return values, origin


def _origin(variables: str, from_file: Mapping[str, str]) -> str:
    """Return where variables (separated by commas) come from: the file when all of them come from
    it.
    """
    if all(variable in from_file for variable in variables.split(", ")):
        return from_file[variables.partition(",")[0]]
    return f"environment {variables}"


def validate(document: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with a configuration document, one line per problem; empty when it can
    be used.
    """
    problems = []
    for section, values in document.items():
        try:
            option_set(section).from_section(values)
        except FleetError as error:
            problems.append(f"{section}: {error}")
    return problems


class Merged(NamedTuple):
    """The values of a part by precedence, and where each came from."""

    values: dict[str, Any]
    origin: dict[str, str]

    def given(self) -> dict[str, Any]:
        """Return the values that somebody set."""
        return {
            option: value
            for option, value in self.values.items()
            if self.origin.get(option, "default") != "default"
        }


class Setting(NamedTuple):
    """An option in force: its value, secrets hidden, and where it comes from."""

    value: Any
    origin: str


class Configuration:
    """The effective configuration of a node: file, environment and flags.

    The file is read when it is first needed.

    :param environ: may change until the configuration is first used.
    :param environment: the file of the old scripts' variables, whose variables ``environ`` lacks.
    """

    def __init__(
        self,
        path: str,
        environ: Mapping[str, str],
        environment: Environment = _NO_ENVIRONMENT,
    ) -> None:
        self.path = path
        self.environment = environment
        self.environ, self._lines = environment.complete(environ)
        self._file: dict[str, dict[str, Any]] | None = None

    @property
    def file(self) -> dict[str, dict[str, Any]]:
        """The sections of the file.

        :raises NotUsable: this user can't read it. Raises like load.
        """
        if self._file is None:
            try:
                self._file = load(self.path)
            except NotUsable as error:
                if not isinstance(error.__cause__, PermissionError):
                    raise
                raise NotUsable(
                    f"{self.path} can't be read by {_user_name()}.",
                    "Run this as root" + _or_as_member(self.path) + ".",
                    self.path,
                ) from error
        return self._file

    def merged(self, part: str, flags: Mapping[str, Any]) -> Merged:
        """Return the values of a part by precedence."""
        from_file = dict.fromkeys(self._lines, self.environment.path)
        section = self.file.get(part, {})
        return Merged(*merge(option_set(part), section, self.environ, flags, from_file))

    def checked(self, kind: type[_Set], merged: Merged, section: bool = False) -> _Set:
        """Return the option set of merged values.

        :param section: options that only a call can give may be missing.
        :raises OptionError: a value can't be used; the message says where it comes from.
        """
        try:
            return (kind.from_section if section else kind.from_mapping)(merged.values)
        except OptionError as error:
            option = (error.subject or "").partition(".")[0].partition("[")[0]
            origin = merged.origin.get(option, "default")
            places = {"file": self.path, "flag": "the command line", "default": ""}
            place = places.get(origin, origin)
            if origin == self.environment.path:
                place += self._line_of(kind, option)
            raise OptionError(
                error.message + (f" It comes from {place}." if place else ""),
                error.todo,
                error.subject,
            ) from error

    def has_channel(self) -> bool:
        """Return whether an alert channel is configured.

        The alert part, which costs more than a check, is loaded only where something can name one.
        """
        named = self.file.get("alert") or any(
            variable.startswith(ALERT_VARIABLES) for variable in self.environ
        )
        if not named:
            return False
        values = self.merged("alert", {}).values
        channels = importlib.import_module(".alert.channels", __package__).CHANNELS
        return any(values.get(kind.option) for kind in channels)

    def _line_of(self, kind: type[OptionSet], option: str) -> str:
        """Return which line of the environment file sets an option, empty when it is not one
        line.
        """
        table = [entry for entry in kind.TABLE if entry.name == option]
        variables = from_environment(table, self.environ).get(option, ("", ""))[1]
        if variables not in self._lines:
            return ""
        return f", line {self._lines[variables]} ({variables})"

    def effective(self) -> tuple[dict[str, dict[str, Setting]], list[str]]:
        """Return the options in force by part, and what is wrong with the configuration, a line per
        problem.
        """
        settings: dict[str, dict[str, Setting]] = {}
        problems = []
        for part in PARTS:
            merged = self.merged(part, {})
            try:
                values = self.checked(option_set(part), merged, section=True).to_dict()
            except FleetError as error:
                problems.append(f"{part}: {error}")
                continue
            settings[part] = {
                option: Setting(value, merged.origin[option]) for option, value in values.items()
            }
        return settings, problems


def unreadable(environment: Environment) -> str:
    """Return the sentence that says that the file of variables can't be read, and what to do; empty
    when it can.
    """
    if not environment.unreadable:
        return ""
    return (
        f"{environment.path} can't be read by {_user_name()} ({environment.unreadable}): its"
        f" variables are not in force. Run this as root{_or_as_member(environment.path)}."
    )


def _user_name() -> str:
    """Return the name of the user this runs as, or the number where there is no name."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def _or_as_member(path: str) -> str:
    """Return the advice to become a member of the group that may read the file, empty where it is
    unknown.
    """
    import grp

    with contextlib.suppress(OSError, KeyError):
        # Where even the file's status is closed to this user, its directory is: whoever may enter
        # it may read it.
        status = os.stat(path if os.path.exists(path) else os.path.dirname(os.path.abspath(path)))
        group = grp.getgrgid(status.st_gid)
        if group.gr_gid:
            return f" or as a member of the group {group.gr_name}"
    return ""


def from_environment(
    table: Iterable[Option], environ: Mapping[str, str]
) -> dict[str, tuple[Any, str]]:
    """Return what the old environment variables say: option name to (raw value, variable names).

    Empty ones count as unset. Suboptions of a mapping arrive as a mapping of those that are set.
    """
    values: dict[str, tuple[Any, str]] = {}
    for entry in table:
        for variable in entry.env:
            if environ.get(variable, "") != "":
                values[entry.name] = (environ[variable], variable)
                break
        else:
            if entry.type != "dict":
                continue
            inner = from_environment(entry.subtable, environ)
            if inner:
                raw = {name: value for name, (value, dummy) in inner.items()}
                values[entry.name] = (
                    raw,
                    ", ".join(variables for dummy, variables in inner.values()),
                )
    return values
