# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How training libraries lay out their checkpoints, as data. A new layout is one entry here and its tree in the tests.

Patterns match whole names. ``inside`` patterns match paths below a checkpoint, two levels deep (``mp_rank_00/model.pt``).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..registry import Registry

#: The layout whose units are the entries of the target itself, each of them complete.
GENERIC = "generic"
#: Recognise the layout of each directory.
AUTO = "auto"

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"

#: In a checkpoint, or in one of its items; a directory whose name ends with a number is another step.
_ORBAX_MARKER = r"(?:[^/]*[^/0-9]/)?(?:_CHECKPOINT_METADATA|_METADATA|commit_success\.txt)"


@dataclass(frozen=True)
class Layout:
    """How one library names and writes its checkpoints.

    ``names`` match the names of checkpoints, ``kind`` says what they are (``dir``, ``file`` or
    ``any``). A directory is recognised as a checkpoint when something in it matches ``recognised``
    (empty: its name is enough), when its name matches ``partial``, which are the names of
    checkpoints that are being written, or, where the target itself names the layout, when its name
    matches ``certain``. It is none, but holds some, when something in it matches ``above``.

    A checkpoint is complete when something in it matches ``marker`` (empty: nothing needed) and nothing matches ``unfinished``.
    ``archive``: files of torch.save(), whose end is checked. ``tracker`` is the name of a file beside the checkpoints, ``tracked``
    returns the name of the checkpoint that its text stands for; with ``committed`` it is written last, so that no checkpoint of a larger
    step is complete. ``resumed`` match further names that the library resumes from. ``state`` is a JSON file in the checkpoint,
    ``metrics`` returns the numbers in it by name, ``best`` the name of the best checkpoint. ``run_above`` is the name of a directory
    that holds the checkpoints of the run above it.
    """

    name: str
    documentation: str
    names: str
    kind: str = "dir"
    recognised: str = ""
    certain: str = ""
    above: str = ""
    partial: str = ""
    marker: str = ""
    unfinished: str = ""
    tracker: str = ""
    tracked: Callable[[str], str] | None = None
    committed: bool = False
    resumed: str = ""
    state: str = ""
    metrics: Callable[[Any], Mapping[str, float]] | None = None
    best: Callable[[Any], str] | None = None
    archive: bool = False
    run_above: str = ""

    def is_checkpoint(self, name: str, kind: str) -> bool:
        """Return whether an entry can be a checkpoint by its name and kind, finished or not."""
        if self.kind not in ("any", kind):
            return False
        return bool(matches(self.names, name) or matches(self.partial, name))

    def is_partial(self, name: str) -> bool:
        """Return whether the name is that of a checkpoint that is being written."""
        return matches(self.partial, name)


def matches(pattern: str, name: str) -> bool:
    """Return whether a whole name matches a pattern; nothing matches an empty pattern."""
    return bool(pattern) and re.fullmatch(pattern, name, re.S) is not None


def step_of(name: str) -> int | None:
    """Return the step in a checkpoint's name: that of ``step=N``, ``iter_N`` or ``epoch=N``, otherwise the last whole number."""
    name = re.sub(r"\.orbax-checkpoint-tmp.*", "", name, flags=re.S)
    for word in ("step", "iter(?:ation)?", "epoch"):
        match = re.search(rf"(?i){word}[=_-]?(\d+)", name)
        if match:
            return int(match.group(1))
    numbers = re.findall(r"\d+", re.sub(rf"[A-Za-z_]+={_NUMBER}", "", name))
    if numbers:
        return int(numbers[-1])
    return None


def metric_of(name: str, metric: str) -> float | None:
    """Return the metric in a name (``epoch=3-val_loss=0.12.ckpt``), None when it is not there."""
    match = re.search(rf"(?<![A-Za-z0-9_]){re.escape(metric)}[=_:-]?({_NUMBER})", name)
    if match:
        return finite(match.group(1))
    return None


def finite(value: object) -> float | None:
    """Return a value as a number, None when it is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if math.isfinite(number):
        return number
    return None


def metric_in(document: object, metric: str) -> float | None:
    """Return the metric in a JSON document: its key, or the path of keys that its dots separate."""
    if not isinstance(document, Mapping):
        return None
    if metric in document:
        return finite(document[metric])
    head, dot, rest = metric.partition(".")
    if dot:
        return metric_in(document.get(head), rest)
    return None


def _trainer_metrics(document: Any) -> dict[str, float]:
    """Return the newest value of every number in the log of a trainer_state.json, those of evaluations with and without ``eval_``."""
    values: dict[str, float] = {}
    history = document.get("log_history") if isinstance(document, Mapping) else None
    for entry in history if isinstance(history, list) else ():
        for name, value in entry.items() if isinstance(entry, Mapping) else ():
            number = finite(value)
            if number is not None:
                values[name] = number
    for name in [name for name in values if name.startswith("eval_")]:
        values.setdefault(name[len("eval_") :], values[name])
    return values


def _trainer_best(document: Any) -> str:
    path = document.get("best_model_checkpoint") if isinstance(document, Mapping) else None
    if isinstance(path, str):
        return os.path.basename(path.rstrip("/"))
    return ""


def _megatron_tracked(text: str) -> str:
    text = text.strip()
    if text.isdecimal():
        return f"iter_{int(text):07}"
    return text


def parse_state(text: str) -> Any:
    """Return the JSON document of a state file, None when it is not one."""
    try:
        return json.loads(text)
    except ValueError:
        return None


#: In the order in which ``auto`` tries them.
LAYOUTS: Registry[Layout] = Registry(
    "checkpoint layout",
    (
        Layout(
            "transformers",
            "Hugging Face Trainer: checkpoint-N with trainer_state.json, which is written last and names the best model",
            names=r"checkpoint-\d+",
            partial=r"tmp-checkpoint-\d+",
            marker=r"trainer_state\.json",
            state="trainer_state.json",
            metrics=_trainer_metrics,
            best=_trainer_best,
        ),
        Layout(
            "megatron",
            "Megatron-LM: iter_N, and latest_checkpointed_iteration.txt, which is written last",
            names=r"iter_\d+|release",
            marker=r".+",
            tracker="latest_checkpointed_iteration.txt",
            tracked=_megatron_tracked,
            committed=True,
            resumed=r"release",
        ),
        Layout(
            "deepspeed",
            "DeepSpeed: a directory for each tag, and the file latest, which is written last",
            names=r".+",
            recognised=r"[^/]*(?:_model_states|_optim_states)\.pt",
            certain=r"global_step\d+",
            marker=r"[^/]*_model_states\.pt",
            tracker="latest",
            tracked=str.strip,
            committed=True,
        ),
        Layout(
            "orbax",
            "Orbax: a directory for each step, with a commit marker, and .orbax-checkpoint-tmp in names until it is whole",
            names=r"(?:.*[^0-9.])?\d+",
            recognised=rf"{_ORBAX_MARKER}|(?:[^/]*[^/0-9]/)?(?:[^/]*[^/0-9])?\.orbax-checkpoint-tmp.*",
            certain=r"\d+",
            above=r"\d+/(?:_METADATA|commit_success\.txt)"
            r"|(?:[^/]*[^/0-9.])?\d+(?:/_CHECKPOINT_METADATA|\.orbax-checkpoint-tmp.*)",
            partial=r".*\.orbax-checkpoint-tmp.*",
            marker=_ORBAX_MARKER,
            unfinished=r".*\.orbax-checkpoint-tmp.*",
        ),
        Layout(
            "torch_dcp",
            "torch.distributed.checkpoint: .distcp files, and .metadata, which is written last",
            names=r".+",
            recognised=r"\.metadata|[^/]+\.distcp",
            certain=r"(?i)(?:.*[^a-z])?(?:step|checkpoint|epoch|iter)[-_=]?\d+",
            marker=r"\.metadata",
        ),
        Layout(
            "lightning",
            "PyTorch Lightning: .ckpt files or directories, last.ckpt, metrics in names",
            names=r".+\.ckpt",
            kind="any",
            resumed=r"last(?:-v\d+)?\.ckpt|hpc_ckpt_\d+\.ckpt",
            archive=True,
            run_above="checkpoints",
        ),
    ),
    required=("documentation", "names"),
)

#: The generic layout: no rule but the name. Not in LAYOUTS, which are those that auto recognises.
_GENERIC = Layout(GENERIC, "Every entry of the directory is a unit", names=r".+", kind="any")

#: What the option ``layout`` accepts.
CHOICES = (GENERIC, *LAYOUTS.names, AUTO)


def candidates(layout: str) -> tuple[Layout, ...]:
    """Return the layouts that a directory of a target may have."""
    if layout == GENERIC:
        return (_GENERIC,)
    if layout == AUTO:
        return tuple(LAYOUTS)
    return (LAYOUTS[layout],)
