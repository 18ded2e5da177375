# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkpoints are found in the libraries' trees, which of them are complete, and which stay."""

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import execute, layouts

LIBRARIES = list(layouts.LAYOUTS.names)
METRIC = {"transformers": "eval_loss"}


def _where(root, entries):
    """The paths of entries below the root, sorted."""
    return sorted(os.path.relpath(entry["path"], root) for entry in entries)


@pytest.mark.parametrize("layout", LIBRARIES)
@pytest.mark.parametrize("how", ["named", "auto"])
def test_newest_best_and_last_of_each_run_stay(world, root, lab, layout, how):
    kept = {}
    for run in ("a", "deep/b"):
        for step, loss in ((100, 0.1), (200, 0.9), (900, 0.8), (1000, 0.7)):
            path = lab.checkpoint(root / run, layout, step, loss=loss)
            kept[str(path.relative_to(root))] = step != 200
    result = lab.clean(
        world,
        root,
        retention_days=0,
        layout=layout if how == "named" else "auto",
        keep_last=2,
        keep_best=1,
        metric=METRIC.get(layout, "val_loss"),
        in_use="ignore",
    )
    assert _where(root, result["kept"]) == sorted(path for path, stays in kept.items() if stays)
    assert _where(root, result["removed"]) == sorted(
        path for path, stays in kept.items() if not stays
    )
    assert all(os.path.exists(root / path) is stays for path, stays in kept.items())


@pytest.mark.parametrize("layout", LIBRARIES)
@pytest.mark.parametrize("how", ["named", "auto"])
def test_an_incomplete_checkpoint_does_not_count_and_goes_only_when_its_run_is_quiet(
    world, clock, root, lab, layout, how
):
    for step in (100, 200):
        lab.checkpoint(root / "run", layout, step)
    half = lab.checkpoint(root / "run", layout, 300, whole=False)
    rules = {"retention_days": 0, "keep_last": 1, "in_use": "ignore"}
    rules["layout"] = layout if how == "named" else "auto"
    later, clock.time = clock.time, os.stat(half).st_mtime + 86399
    result = lab.clean(world, root, **rules)
    reasons = lab.reasons(result)
    assert len(result["removed"]) == 1 and "200" in next(iter(set(reasons) - {half.name}))
    assert "incomplete" in reasons[half.name] and "may still be written" in reasons[half.name]
    clock.time = later
    result = lab.clean(world, root, **rules)
    assert lab.names(result["removed"]) == [half.name]
    assert "abandoned" in result["removed"][0]["reason"]
    assert not lab.clean(world, root, **rules)["changed"]


def test_an_incomplete_checkpoint_stays_while_a_process_uses_its_run(world, root, lab):
    lab.checkpoint(root / "run", "torch_dcp", 100)
    half = lab.checkpoint(root / "run", "torch_dcp", 200, whole=False)
    with open(root / "run/train.log", "w"):
        result = lab.clean(world, root, retention_days=0, layout="torch_dcp", keep_last=1)
    assert result["removed"] == [] and "a process uses its run" in lab.reasons(result)[half.name]


@pytest.mark.parametrize(
    ("layout", "tracker", "content", "stays"),
    [
        ("deepspeed", "latest", "global_step100\n", "global_step100"),
        ("megatron", "latest_checkpointed_iteration.txt", "100", "iter_0000100"),
        (
            "transformers",
            "checkpoint-300/trainer_state.json",
            '{"best_model_checkpoint": "/x/checkpoint-100"}',
            "checkpoint-100",
        ),
        ("lightning", "checkpoints/last.ckpt", "x", "last.ckpt"),
    ],
)
def test_what_a_tracker_names_stays(world, root, lab, layout, tracker, content, stays):
    for step in (100, 200, 300):
        lab.checkpoint(root, layout, step)
    (root / tracker).write_text(content)
    result = lab.clean(world, root, retention_days=0, layout=layout)
    assert stays in lab.reasons(result)
    assert "names it" in lab.reasons(result)[stays] or "resumes" in lab.reasons(result)[stays]
    names = {path.name for path in root.rglob("*")}
    assert stays in names and not any("200" in name for name in names)


def test_a_tracker_that_moves_while_units_are_removed_protects_its_unit(
    world, root, lab, monkeypatch
):
    for step in (100, 200, 300):
        lab.checkpoint(root / "run", "megatron", step)
    real = os.rename

    def rename(source, *arguments, **options):
        (root / "run/latest_checkpointed_iteration.txt").write_text("100")
        return real(source, *arguments, **options)

    monkeypatch.setattr(os, "rename", rename)
    result = lab.clean(world, root, retention_days=0, layout="megatron", in_use="ignore")
    assert lab.names(result["removed"]) == ["iter_0000200"] and (root / "run/iter_0000100").exists()


def test_nothing_goes_when_the_checkpoint_that_was_to_stay_vanishes(world, root, lab, monkeypatch):
    for step in (100, 200):
        lab.checkpoint(root / "run", "torch_dcp", step)
    real = os.rename

    def rename(source, *arguments, **options):
        if source == "step-100" and (root / "run/step-200").exists():
            real(root / "run/step-200", root / "elsewhere")
        return real(source, *arguments, **options)

    monkeypatch.setattr(os, "rename", rename)
    result = lab.clean(world, root, retention_days=0, layout="torch_dcp", in_use="ignore")
    assert result["removed"] == [] and (root / "run/step-100/.metadata").exists()
    assert "which was to stay, is gone" in lab.reasons(result)["step-100"]


@pytest.mark.parametrize(
    ("rule", "stays"),
    [
        ({"keep_every": "200"}, [200, 400, 500]),
        ({"keep_every": "10d"}, [200, 400, 500]),
        ({"keep_last": 3}, [300, 400, 500]),
        ({"keep_best": 2, "metric": "val_loss", "mode": "max"}, [100, 200, 500]),
        ({"keep_best": 2, "metric": "missing"}, [500]),
        ({"keep_last": 3, "pattern": "step-[13]*"}, [100, 200, 300, 400, 500]),
    ],
)
def test_policies(world, clock, root, lab, rule, stays):
    base = clock.time // (10 * 86400) * 10 * 86400 - 400 * 86400
    for step, day in ((100, 1), (200, 2), (300, 11), (400, 12), (500, 21)):
        path = lab.checkpoint(root / "run", "torch_dcp", step, loss=1 / step)
        for inner in (*path.iterdir(), path):
            os.utime(inner, (base + day * 86400,) * 2)
    result = lab.clean(world, root, retention_days=0, layout="torch_dcp", age_by="mtime", **rule)
    assert "failed" not in result
    assert sorted(int(path.name[5:]) for path in (root / "run").iterdir()) == stays


def test_by_target_the_runs_share_the_places_but_each_keeps_its_newest(world, root, lab):
    for run, steps in (("a", (100, 200)), ("b", (300, 400, 500))):
        for step in steps:
            lab.checkpoint(root / run, "torch_dcp", step)
    lab.clean(world, root, retention_days=0, layout="auto", keep_last=2, group_by="target")
    assert sorted(path.name for path in root.glob("*/*")) == ["step-200", "step-400", "step-500"]


def test_generic_units_are_grouped_by_their_names_and_know_metrics(world, root, lab):
    for name in (
        "llama-step-100",
        "llama-step-200",
        "gpt-step-0090",
        "gpt-step-0200",
        "gpt-step-0100",
    ):
        lab.unit(root, name)
    (root / "metrics.json").write_text(json.dumps({"gpt-step-0090": {"val": {"loss": 0.5}}}))
    rules = {"retention_days": 0, "pattern": "*-step-*", "keep_last": 1, "group_by": "run"}
    result = lab.clean(world, root, keep_best=1, metric="val.loss", **rules)
    assert lab.names(result["removed"]) == ["gpt-step-0100", "llama-step-100"]


def test_only_what_is_recognised_goes_and_links_are_not_followed(world, root, tmp_path, lab):
    for step in (100, 200):
        lab.checkpoint(root / "run", "torch_dcp", step)
        lab.checkpoint(tmp_path / "elsewhere", "torch_dcp", step)
    lab.unit(root, "data", files=("a/b.bin",))
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "run/named").symlink_to("step-100")
    result = lab.clean(world, root, retention_days=0, layout="auto")
    assert result["removed"] == [] and "the link named" in lab.reasons(result)["step-100"]
    os.unlink(root / "run/named")
    result = lab.clean(world, root, retention_days=0, layout="auto")
    assert lab.names(result["removed"]) == ["step-100"]
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2 and (root / "data/a/b.bin").exists()
    empty = lab.clean(world, root / "data", retention_days=0, layout="auto")
    assert empty["removed"] == [] and "no checkpoint" in empty["targets"][0]["note"]


@pytest.mark.parametrize("layout", ["auto", "orbax"])
@pytest.mark.parametrize("names", [("t5", "t6"), ("1", "2"), ("gpt-1", "gpt-2")])
@pytest.mark.parametrize("marker", ["_CHECKPOINT_METADATA", "commit_success.txt", "_METADATA"])
def test_a_run_whose_name_ends_with_a_number_is_no_checkpoint_of_orbax(
    world, root, lab, layout, names, marker
):
    """Otherwise a whole run would be the older one of two checkpoints."""
    for name in names:
        for step in (1, 2, 3):
            path = lab.checkpoint(root / name, "orbax", step)
            (path / "_CHECKPOINT_METADATA").rename(path / marker)
    lab.checkpoint(root / names[0], "orbax", 4, whole=False)
    result = lab.clean(world, root, layout=layout, keep_last=1, retention_days=0)
    remaining = {str(path.relative_to(root)) for path in root.glob("*/*")}
    assert {f"{name}/3" for name in names} == remaining, result["kept"]
    assert result["removed_count"] == 5


@pytest.mark.parametrize("name", ["t5", "7"])
def test_a_run_that_has_begun_its_first_step_is_no_checkpoint_of_orbax(world, root, lab, name):
    lab.checkpoint(root / name, "orbax", 1, whole=False)
    lab.checkpoint(root / "t6", "orbax", 1)
    (root / name / "config.yaml").write_text("x")
    for layout in ("auto", "orbax"):
        result = lab.clean(world, root, layout=layout, keep_last=1, retention_days=0)
        assert (root / name / "config.yaml").exists(), result["removed"]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-100", 100),
        ("iter_0000100", 100),
        ("epoch=3-step=400-val_loss=0.12.ckpt", 400),
        ("epoch=3-val_loss=0.12-v2.ckpt", 3),
        ("200.orbax-checkpoint-tmp-1700000", 200),
        ("release", None),
    ],
)
def test_step_of(name, step):
    assert layouts.step_of(name) == step


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch=3-val_loss=0.12.ckpt", 0.12),
        ("val_loss=-1.5e-3-v1.ckpt", -0.0015),
        ("val_loss_2.ckpt", 2.0),
        ("my_val_loss=1.0", None),
        ("val_loss=nan", None),
    ],
)
def test_metric_of(name, value):
    assert layouts.metric_of(name, "val_loss") == value


def test_many_runs_share_one_look_at_the_processes(world, root, lab, monkeypatch):
    for run_ in range(5):
        for step in (100, 200):
            lab.checkpoint(root / f"run-{run_}", "torch_dcp", step)
    looks, held, real = [], [], execute.in_use
    real_rename = os.rename

    def look(*arguments):
        looks.append(arguments)
        return real(*arguments)

    def rename(source, *arguments, **options):
        if source == "step-100" and not held:
            held.append(open(root / "run-0/step-100/__0_0.distcp"))
        return real_rename(source, *arguments, **options)

    monkeypatch.setattr(execute, "in_use", look)
    monkeypatch.setattr(os, "rename", rename)
    result = lab.clean(world, root, retention_days=0, layout="torch_dcp")
    held[0].close()
    assert result["removed_count"] == 4 and len(looks) == 1
    assert "in use" in lab.reasons(result)["step-100"] and (root / "run-0/step-100").exists()
    assert not list(root.glob("*/.mlops*"))
