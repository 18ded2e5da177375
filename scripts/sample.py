# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay out what an ML machine holds: models, experiments, checkpoints and logs of several ages.

    python3 sample.py DIRECTORY

makes DIRECTORY/models, DIRECTORY/experiments, DIRECTORY/checkpoints and DIRECTORY/logs (about 12
MB). Models are real: safetensors files that the safetensors library reads, whole and in shards with
their index. The content is the same on every run; ages count from now. Models that are there
already are left as they are. Needs nothing but Python 3.9; it also runs on the nodes of the
molecule scenario.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time
from pathlib import Path

DAY = 86400


def weights(seed: int, count: int) -> bytes:
    """`count` bfloat16 numbers shaped like trained weights: random mantissas, exponents around
    2^-6, so they compress as real ones do.
    """
    dice = random.Random(seed)
    high = dice.choices(b"\x3c\x3b\x3d\xbc\xbb\xbd", weights=(8, 5, 2, 8, 5, 2), k=count)
    out = bytearray(2 * count)
    out[0::2] = bytes(dice.getrandbits(8) for _number in range(count))
    out[1::2] = bytes(high)
    return bytes(out)


def safetensors(path: Path, tensors: dict[str, tuple[int, ...]], seed: int) -> int:
    """Write a safetensors file: header length (8 bytes, little endian), JSON header padded to 8,
    then the tensors. Returns the data's size.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors.items():
        size = 2
        for edge in shape:
            size *= edge
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights(seed, offset // 2))
    return offset


def write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def tokenizer(path: Path, size: int) -> None:
    """A byte-level BPE tokenizer in the layout of the tokenizers library."""
    vocabulary = {f"<0x{number:02X}>": number for number in range(256)}
    merges = []
    for number in range(size):
        left, right = chr(97 + number % 26), chr(97 + number // 26 % 26)
        merges.append(f"{left} {right}{number // 676}")
        vocabulary[f"{left}{right}{number // 676}"] = 256 + number
    write_json(
        path,
        {
            "version": "1.0",
            "added_tokens": [],
            "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
        },
    )


def models(root: Path) -> None:
    """One model in one file, one in shards."""
    one = root / "bert-classifier"
    safetensors(
        one / "model.safetensors",
        {"bert.embeddings.word_embeddings.weight": (4096, 256), "classifier.weight": (2, 256)},
        1,
    )
    write_json(
        one / "config.json",
        {
            "architectures": ["BertForSequenceClassification"],
            "hidden_size": 256,
            "vocab_size": 4096,
        },
    )
    tokenizer(one / "tokenizer.json", 2000)

    many = root / "llama-small"
    weight_map, total = {}, 0
    for number in range(1, 4):
        name = f"model-{number:05d}-of-00003.safetensors"
        tensors = {
            f"model.layers.{number}.mlp.up_proj.weight": (1024, 512),
            f"model.layers.{number}.input_layernorm.weight": (512,),
        }
        total += safetensors(many / name, tensors, 10 + number)
        weight_map.update(dict.fromkeys(tensors, name))
    write_json(
        many / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )
    write_json(
        many / "config.json",
        {"architectures": ["LlamaForCausalLM"], "hidden_size": 512, "num_hidden_layers": 3},
    )
    write_json(many / "generation_config.json", {"max_length": 2048, "temperature": 0.7})
    tokenizer(many / "tokenizer.json", 4000)


def experiment(directory: Path, seed: int) -> None:
    """A training run's settings and metrics."""
    dice = random.Random(seed)
    write_json(directory / "params.json", {"lr": 3e-4, "batch_size": 64, "seed": seed})
    lines = [
        json.dumps({"step": step, "loss": round(4 / (1 + step / 50) + dice.random() / 10, 4)})
        for step in range(0, 2000, 10)
    ]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (directory / "notes.md").write_text(
        f"# Run {seed}\n\nBaseline with a longer warm-up.\n", encoding="utf-8"
    )


def checkpoint(directory: Path, seed: int) -> None:
    """A training checkpoint as trainers write it."""
    safetensors(
        directory / "model.safetensors", {"model.layers.0.mlp.up_proj.weight": (256, 512)}, seed
    )
    (directory / "optimizer.bin").write_bytes(weights(seed + 1, 1 << 17))
    write_json(directory / "trainer_state.json", {"global_step": seed * 1000, "epoch": seed})


def log(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            f"2026-01-01 00:{minute:02d}:00 INFO {name} request served in {minute * 3 % 41} ms\n"
            for minute in range(60)
        ),
        encoding="utf-8",
    )


def age(path: Path, days: float, now: float) -> None:
    """Set the times of everything under a path back by so many days, leaves first so that
    directories keep theirs.
    """
    stamp = now - days * DAY
    if path.is_dir():
        for child in path.iterdir():
            age(child, days, now)
    os.utime(path, (stamp, stamp))


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write(__doc__ or "")
        return 2
    root, now = Path(sys.argv[1]), time.time()
    if not (root / "models").exists():
        models(root / "models")
    ages: dict[str, float] = {}
    days: float
    for number, days in enumerate((1, 12, 29, 45, 90), 1):
        directory = root / "experiments" / f"exp-{number:03d}-lr-sweep"
        experiment(directory, number)
        ages[str(directory)] = days
    for number, days in enumerate((0.5, 3, 6, 10, 30), 1):
        directory = root / "checkpoints" / f"llama-small-step-{(6 - number) * 1000:05d}"
        checkpoint(directory, number)
        ages[str(directory)] = days
    for name, days in (
        ("ml-api.log", 0),
        ("ml-api.log.1", 10),
        ("ml-training.log.2", 20),
        ("ml-training.log.3", 60),
    ):
        log(root / "logs" / name, name.partition(".")[0])
        ages[str(root / "logs" / name)] = days
    for path, days in ages.items():
        age(Path(path), days, now)
    print(json.dumps({"ages_in_days": ages}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
