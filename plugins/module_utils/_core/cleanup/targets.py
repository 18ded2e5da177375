# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets: one directory each, and the rule for what in it is removed; and the registry of those that are built in."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..registry import Registry
from .guards import CORE_DUMPS, FILE_SYSTEMS_OWN, SHARED_MEMORY, never_a_unit
from .layouts import GENERIC
from .units import Unit
from .watermark import Level

DAY = 86400.0


def shell_pattern(pattern: str) -> str:
    """Return a shell pattern as fnmatch reads it: it takes ``[^k]*`` for names that begin with ``^`` or k."""
    return pattern.replace("[^", "[!")


@dataclass(frozen=True)
class Target:
    """One directory and the rule for what in it is removed.

    ``retention`` is in seconds. ``layout`` is a layout of layouts.CHOICES. ``shared_ok`` says that many programs may share the directory: a pattern or our own
    exclusions limit what is meant.
    """

    name: str
    path: str
    retention: float
    pattern: str = "*"
    unit: str = "any"
    age_by: str = "newest"
    keep_last: int = 0
    exclude: tuple[str, ...] = ()
    shared_ok: bool = False
    layout: str = GENERIC
    keep_best: int = 0
    metric: str = ""
    mode: str = "min"
    metric_file: str = "metrics.json"
    #: Steps, and seconds, of which one checkpoint each is kept; 0: none.
    every_steps: int = 0
    every_seconds: float = 0.0
    by_run: bool = False
    #: Remove only what is needed to have so much free space, and only when less than ``when_below`` is free.
    free_to: Level | None = None
    when_below: Level | None = None

    @property
    def plain(self) -> bool:
        """Whether age, ``keep_last`` and ``exclude`` alone decide, so that no checkpoint is looked into."""
        return self.layout == GENERIC and not (
            self.metric or self.every_steps or self.every_seconds or self.by_run
        )

    @property
    def keeps(self) -> bool:
        """Whether it keeps units whatever their age: which those are depends on the other units."""
        return bool(self.keep_last) or not self.plain

    def matches(self, name: str) -> bool:
        """Return whether an entry of this name can be a unit; as in a shell, ``*`` does not match a leading dot."""
        return bool(self.select((name,)))

    def select(self, names: Iterable[str]) -> list[str]:
        """Return those names that can be units, sorted."""
        if self.pattern != "*":
            names = fnmatch.filter(names, shell_pattern(self.pattern))
        if self.pattern.startswith("."):
            return sorted(name for name in names if not never_a_unit(name))
        # Our own directories' names begin with a dot, too.
        return sorted(name for name in names if name[:1] != "." and name not in FILE_SYSTEMS_OWN)

    def fitting(self) -> Callable[[str], object] | None:
        """Return a function that says whether a name matches the pattern; None when every name does."""
        if self.pattern == "*":
            return None
        return re.compile(fnmatch.translate(shell_pattern(self.pattern))).match

    def units_of(self, files: list[Unit]) -> list[Unit]:
        """Return the files that are units, of those whose names match the pattern."""
        if self.unit == "dir":
            return []
        if self.pattern.startswith("."):
            return [file for file in files if not never_a_unit(file.name)]
        return [file for file in files if file.name[0] != "." and file.name not in FILE_SYSTEMS_OWN]

    def fits(self, kind: str) -> bool:
        """Return whether an entry of this kind can be a unit; everything but a directory counts as a file."""
        return self.unit == "any" or (kind == "dir") == (self.unit == "dir")

    @property
    def excluded(self) -> re.Pattern[str] | None:
        """The names that protect a unit, as one expression."""
        if not self.exclude:
            return None
        return re.compile(
            "|".join(fnmatch.translate(shell_pattern(pattern)) for pattern in self.exclude)
        )


def nanoseconds(seconds: float) -> int:
    """Return seconds as whole nanoseconds, exact for whole seconds of any size."""
    whole = int(seconds // 1)
    return whole * 10**9 + int((seconds - whole) * 10**9)


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}


def period(text: str) -> float | None:
    """Return ``90s``, ``30m``, ``12h``, ``3d`` or ``2w`` as seconds, None when it is none of them."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if match:
        return float(match.group(1)) * _UNITS[match.group(2)]
    return None


def cutoff(target: Target, now: float) -> int | None:
    """Return the newest time (nanoseconds since the epoch) at which a unit is still due, None when every unit is."""
    if target.retention == 0:
        return None
    return nanoseconds(now) - nanoseconds(target.retention)


class BuiltIn(NamedTuple):
    """A target that exists without being configured.

    ``retention`` is the name of the option that holds its days, or a number of days that nobody can change; 0 (always removed) must be
    written down. ``path_option`` is the name of the option that holds its path, "" for a path that can't be changed.
    """

    name: str
    path: str
    pattern: str
    retention: str | float
    documentation: str
    path_option: str = ""
    aggressive: bool = False
    exclude: tuple[str, ...] = ()
    #: Whether it may be a directory that many programs share although its pattern does not say what is meant.
    shared_ok: bool = False
    #: Variables of the environment that name another place, and what follows their value.
    variables: tuple[tuple[str, str], ...] = ()
    age_by: str = "newest"
    unit: str = "any"

    def place(self, environ: Mapping[str, str]) -> str:
        """Return its path for the user who runs the cleanup."""
        for variable, below in self.variables:
            value = environ.get(variable, "")
            if value.startswith("/"):
                return value.rstrip("/") + below
        return os.path.expanduser(self.path)


#: In the order in which they are cleaned. What two of them match belongs to the first.
BUILT_IN: Registry[BuiltIn] = Registry(
    "built-in cleanup target",
    (
        BuiltIn(
            "experiments",
            "/opt/ml/experiments",
            "*",
            "experiments_retention",
            "Experiments' run directories",
            path_option="experiments_dir",
        ),
        BuiltIn(
            "checkpoints",
            "/opt/ml/checkpoints",
            "*",
            "checkpoints_retention",
            "Checkpoints of trainings",
            path_option="checkpoints_dir",
        ),
        BuiltIn("logs", "/var/log", "ml-*", "logs_retention", "Logs of machine-learning jobs"),
        BuiltIn("temp", "/tmp", "ml-*", 0.0, "Temporary files of machine-learning jobs"),
        BuiltIn(
            "torch_hub",
            "~/.cache/torch/hub/checkpoints",
            "*",
            30.0,
            "Weights that torch.hub downloaded",
            aggressive=True,
            variables=(
                ("TORCH_HOME", "/hub/checkpoints"),
                ("XDG_CACHE_HOME", "/torch/hub/checkpoints"),
            ),
            age_by="atime",
        ),
        BuiltIn(
            "torchinductor",
            "/tmp",
            "torchinductor_*",
            7.0,
            "Caches of torch.compile",
            aggressive=True,
            age_by="atime",
            unit="dir",
        ),
        BuiltIn(
            "triton",
            "~/.triton/cache",
            "*",
            30.0,
            "Kernels that Triton compiled",
            aggressive=True,
            variables=(("TRITON_CACHE_DIR", ""), ("TRITON_HOME", "/.triton/cache")),
            age_by="atime",
            unit="dir",
        ),
        BuiltIn(
            "coredumps",
            CORE_DUMPS,
            "core.*",
            7.0,
            "Core dumps that systemd-coredump keeps",
            aggressive=True,
            unit="file",
        ),
        BuiltIn(
            "wandb",
            "~/wandb",
            "run-*",
            30.0,
            "Local copies of W&B runs; those of offline runs, which were not uploaded, stay",
            aggressive=True,
            variables=(("WANDB_DIR", "/wandb"),),
            unit="dir",
        ),
        BuiltIn(
            "ray",
            "/tmp/ray",
            "session_*",
            7.0,
            "Directories of ended Ray sessions",
            aggressive=True,
            variables=(("RAY_TMPDIR", "/ray"),),
            unit="dir",
        ),
        BuiltIn(
            "torch_shm",
            SHARED_MEMORY,
            "torch_*",
            1.0,
            "Shared memory of PyTorch that no process uses any more",
            aggressive=True,
            unit="file",
        ),
        BuiltIn(
            "nccl_shm",
            SHARED_MEMORY,
            "nccl-*",
            1.0,
            "Shared memory of NCCL that no process uses any more",
            aggressive=True,
            unit="file",
        ),
        BuiltIn(
            "tmp",
            "/tmp",
            "*",
            3.0,
            "Old files in /tmp except those of the system's own services",
            aggressive=True,
            exclude=("systemd-private-*", "snap-private-tmp", "snap.*", "mlops-fleet-*"),
            shared_ok=True,
        ),
    ),
    required=("path", "pattern", "retention", "documentation"),
)
