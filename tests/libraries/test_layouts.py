# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints and caches as the real libraries make them (`nox -s libraries`, nightly).

Each library makes its own tree, the cleanup removes what it may, and the library resumes from what
stays. The trees of the generator in tests/unit/.../cleanup/conftest.py have the names and markers
that are checked here.
"""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import SystemClock, World

DAY = 86400


class Later(SystemClock):
    """The machine's clock some days later: what was just written is old."""

    days = 40

    def now(self) -> float:
        return time.time() + self.days * DAY


def _no_program(argv, **_options):
    raise AssertionError(f"{argv} was started")


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Return a function that cleans a directory and returns the result."""
    monkeypatch.setenv("MLOPS_FLEET_LOCK_DIR", str(tmp_path / "lock"))

    def clean(path=None, check=False, environ=None, **options):
        if path is not None:
            target = {"path": str(path), "layout": "auto", "retention_days": 0, **options}
            options = {"targets": [target]}
        world = World(run=_no_program, clock=Later(), hostname="n", environ=environ or {})
        result = run.run(CleanupOptions.from_mapping(options), world, check=check).to_dict()
        assert "failed" not in result, result
        return result

    return clean


def _names(entries):
    return sorted(os.path.basename(entry["path"]) for entry in entries)


def test_torch_distributed_checkpoint(tmp_path, clean):
    torch = pytest.importorskip("torch")
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    root = tmp_path / "runs" / "llama"
    for step in (1, 2, 3):
        dcp.save({"w": torch.full((4,), float(step))}, checkpoint_id=str(root / f"step-{step}"))
    broken = root / "step-4"
    dcp.save({"w": torch.ones(4)}, checkpoint_id=str(broken))
    (broken / ".metadata").unlink()  # as of a run that was killed before it wrote that
    assert list((root / "step-3").glob("*.distcp")) and (root / "step-3/.metadata").exists()
    result = clean(tmp_path / "runs", keep_last=1)
    assert _names(result["removed"]) == ["step-1", "step-2", "step-4"]
    state = {"w": torch.zeros(4)}
    dcp.load(state, checkpoint_id=str(root / "step-3"))
    assert state["w"].tolist() == [3.0] * 4


def test_torch_save_in_the_layout_of_lightning(tmp_path, clean):
    """The archive has its end when it is whole; a cut one is incomplete."""
    torch = pytest.importorskip("torch")
    root = tmp_path / "runs" / "a" / "checkpoints"
    root.mkdir(parents=True)
    for step in (1, 2, 3):
        torch.save({"step": step}, root / f"epoch=0-step={step}.ckpt")
    cut = root / "epoch=0-step=4.ckpt"
    cut.write_bytes((root / "epoch=0-step=3.ckpt").read_bytes()[:-10])
    result = clean(tmp_path / "runs", keep_last=1)
    assert _names(result["removed"]) == [f"epoch=0-step={step}.ckpt" for step in (1, 2, 4)]
    assert torch.load(root / "epoch=0-step=3.ckpt")["step"] == 3


def test_lightning(tmp_path, clean):
    lightning = pytest.importorskip("lightning")
    torch = pytest.importorskip("torch")
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch, _number):
            return self.layer(batch).sum() ** 2

        def validation_step(self, batch, _number):
            self.log("val_loss", self.layer(batch).sum() ** 2)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)
    root = tmp_path / "runs" / "version_0"
    name = "{epoch}-{step}-{val_loss:.6f}"
    keep = ModelCheckpoint(root / "checkpoints", name, save_top_k=-1, save_last=True)
    options = {"enable_progress_bar": False, "logger": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=4, callbacks=[keep], default_root_dir=root, **options)
    trainer.fit(Model(), data, data)
    before = sorted(path.name for path in (root / "checkpoints").iterdir())
    assert len(before) == 5 and "last.ckpt" in before
    result = clean(tmp_path / "runs", keep_last=1, keep_best=1, metric="val_loss")
    after = sorted(path.name for path in (root / "checkpoints").iterdir())
    assert result["removed_count"] >= 2 and "last.ckpt" in after
    assert max(before[:-1], key=lambda name: int(name.split("step=")[1].split("-")[0])) in after
    trainer = lightning.Trainer(max_epochs=5, default_root_dir=tmp_path, **options)
    trainer.fit(Model(), data, data, ckpt_path=str(root / "checkpoints/last.ckpt"))
    assert trainer.current_epoch == 5


def test_transformers(tmp_path, clean):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    settings = transformers.GPT2Config(
        n_layer=1, n_head=1, n_embd=4, vocab_size=16, n_positions=8, bos_token_id=0, eos_token_id=1
    )
    sample = {"input_ids": torch.ones(4, dtype=torch.long)}
    data = [{**sample, "labels": sample["input_ids"]} for dummy in range(8)]
    root = tmp_path / "runs" / "gpt"

    def trainer(steps):
        arguments = transformers.TrainingArguments(
            output_dir=str(root),
            max_steps=steps,
            save_steps=2,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            report_to=[],
            use_cpu=True,
            per_device_train_batch_size=2,
        )
        model = transformers.GPT2LMHeadModel(settings)
        return transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data)

    trainer(8).train()
    before = sorted(path.name for path in root.glob("checkpoint-*"))
    assert before == [f"checkpoint-{step}" for step in (2, 4, 6, 8)]
    result = clean(tmp_path / "runs", keep_last=1, keep_best=1, metric="eval_loss")
    after = sorted(path.name for path in root.glob("checkpoint-*"))
    assert "checkpoint-8" in after and result["removed_count"] >= 2
    again = trainer(10)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 10


def test_orbax(tmp_path, clean):
    orbax = pytest.importorskip("orbax.checkpoint")
    numpy = pytest.importorskip("numpy")
    root = tmp_path / "runs" / "t5"
    with orbax.CheckpointManager(root) as manager:
        for step in (1, 2, 3):
            manager.save(step, args=orbax.args.StandardSave({"w": numpy.full(4, step)}))
        manager.wait_until_finished()
    result = clean(tmp_path / "runs", keep_last=1)
    assert _names(result["removed"]) == ["1", "2"]
    with orbax.CheckpointManager(root) as manager:
        assert manager.latest_step() == 3
        state = manager.restore(3, args=orbax.args.StandardRestore({"w": numpy.zeros(4, int)}))
    assert list(state["w"]) == [3] * 4


def test_hugging_face_hub(tmp_path, clean, monkeypatch):
    """The library itself reads the cache before and after, and finds no file missing."""
    hub = pytest.importorskip("huggingface_hub")
    download = pytest.importorskip("huggingface_hub.file_download")
    cache = tmp_path / "hf/hub"
    repository = cache / download.repo_folder_name(repo_id="org/name", repo_type="model")
    revisions = {"a" * 40: "main", "b" * 40: None}
    for number, (revision, ref) in enumerate(revisions.items()):
        for name, blob in (("config.json", "1" * 40), ("model.bin", str(number + 2) * 64)):
            path = repository / "blobs" / blob
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(9000))
            pointer = repository / "snapshots" / revision / name
            pointer.parent.mkdir(parents=True, exist_ok=True)
            download._create_symlink(str(path), str(pointer))
        if ref:
            download._cache_commit_hash_for_specific_revision(str(repository), ref, revision)
    (known,) = hub.scan_cache_dir(cache).repos
    assert len(known.revisions) == 2
    environ = {"HF_HUB_CACHE": str(cache)}
    options = {"aggressive": True, "only": ["huggingface"], "environ": environ}
    planned = clean(check=True, **options)
    detached = next(revision for revision in known.revisions if not revision.refs)
    expected = hub.scan_cache_dir(cache).delete_revisions(detached.commit_hash)
    result = clean(**options)
    assert result["removed"] == planned["removed"] and result["removed_count"] == 1
    assert result["freed_bytes"] >= expected.expected_freed_size
    remaining = hub.scan_cache_dir(cache)
    assert not remaining.warnings
    (known,) = remaining.repos
    (revision,) = known.revisions
    assert revision.refs == {"main"} and len(revision.files) == 2
    found = hub.try_to_load_from_cache("org/name", "model.bin", cache_dir=cache)
    assert os.path.exists(found)
