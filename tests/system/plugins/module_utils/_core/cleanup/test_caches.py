# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The caches of the field: each on a layout as its program makes it, with real programs where they
are here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import guards, hub, run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult

DAY = 86400
#: Revisions are 40 hexadecimal digits.
NEW, OLD, OLDER = "a" * 40, "b" * 40, "c" * 40


def _clean(world, name, check=False):
    options = {"aggressive": True, "only": [name]}
    return run.run(CleanupOptions.from_mapping(options), world, check=check).to_dict()


def _paths(result, key="removed"):
    return sorted(entry["path"].rpartition("/")[2][:8] for entry in result[key])


# --- Hugging Face ---------------------------------------------------------------------------------


class Cache:
    """A hub cache, laid out as huggingface_hub does it; the nightly session compares with the
    library.
    """

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.repository = self.root / "models--org--name"

    def revision(self, name, files, ref=None):
        """Add a revision: files by name with the number of their blob."""
        for path, number in files.items():
            blob = self.blob(number)
            link = self.repository / "snapshots" / name / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        if ref:
            (self.repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
            (self.repository / "refs" / ref).write_text(name)

    def blob(self, number):
        path = self.repository / "blobs" / f"{number:064x}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(os.urandom(20_000))
        return path

    def lock(self, number):
        path = self.root / ".locks" / self.repository.name / f"{number:064x}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    @property
    def revisions(self):
        return sorted(path.name for path in self.repository.glob("snapshots/*"))

    @property
    def blobs(self):
        return sorted(int(path.name, 16) for path in self.repository.glob("blobs/*"))

    def readable(self):
        """Whether each file of each revision is there."""
        links = [path for path in self.repository.glob("snapshots/**/*") if path.is_symlink()]
        return all(path.exists() for path in links)


@pytest.fixture
def cache(tmp_path, world, clock):
    world.environ = {"HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)}
    cache = Cache(tmp_path / "hf/hub")
    cache.revision(NEW, {"config.json": 1, "onnx/model.onnx": 2}, "main")
    cache.revision(OLD, {"config.json": 1, "onnx/model.onnx": 3})
    cache.revision(OLDER, {"config.json": 4, "onnx/model.onnx": 3})
    clock.time = time.time() + 31 * DAY
    if os.statvfs(cache.root).f_flag & hub._NOATIME:
        pytest.skip("mounted with noatime here")
    return cache


def test_revisions_that_no_ref_names_go_with_their_blobs(world, cache):
    planned = _clean(world, "huggingface", check=True)
    assert cache.blobs == [1, 2, 3, 4] and len(cache.revisions) == 3
    result = _clean(world, "huggingface")
    assert result["removed"] == planned["removed"] and "failed" not in result
    assert cache.revisions == [NEW] and cache.blobs == [1, 2] and cache.readable()
    assert "main names it" in result["kept"][0]["reason"]
    assert result["freed_bytes"] == 2 * 20_480, "blob 1 is also in the revision that stays"
    assert "last used" in result["removed"][0]["reason"]
    assert not _clean(world, "huggingface")["changed"]


def test_the_boundary_is_exact(world, clock, cache):
    clock.time = time.time() + 29.9 * DAY
    assert not _clean(world, "huggingface")["changed"] and len(cache.revisions) == 3


def test_a_revision_that_was_read_lately_stays(world, cache, clock):
    os.utime(cache.blob(4), (clock.time - DAY, time.time()))
    result = _clean(world, "huggingface")
    assert cache.revisions == [NEW, OLDER] and cache.blobs == [1, 2, 3, 4] and cache.readable()
    assert result["removed_count"] == 1 and result["freed_bytes"] == 0


def test_tags_and_pull_requests_keep_their_revisions(world, cache):
    (cache.repository / "refs/refs/pr").mkdir(parents=True)
    (cache.repository / "refs/refs/pr/1").write_text(OLDER)
    (cache.repository / "refs/v1").write_text(OLD)
    assert not _clean(world, "huggingface")["changed"]


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_what_a_process_reads_stays(world, cache, how):
    with open(cache.blob(3), "rb") as stream:
        mapping = None
        if how == "mapped":
            mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            stream.close()
        result = _clean(world, "huggingface")
        if mapping:
            mapping.close()
    assert not result["changed"] and cache.readable() and len(cache.revisions) == 3
    assert sum("in use" in entry["reason"] for entry in result["kept"]) == 2


def test_a_blob_that_is_being_downloaded_stays(world, cache):
    with open(cache.lock(4), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = _clean(world, "huggingface")
    assert 4 in cache.blobs and result["failed"], "its revision went, the blob waits"
    assert "being downloaded" in result["failures"][0]["error"]
    assert _clean(world, "huggingface")["changed"] and cache.blobs == [1, 2]


def test_unfinished_downloads_go_when_they_are_old(world, cache, clock):
    (cache.repository / "blobs" / f"{9:064x}.incomplete").write_bytes(b"x" * 9000)
    result = _clean(world, "huggingface")
    assert "blobs of no revision" in str(result["removed"]) and cache.readable()
    assert not list(cache.repository.glob("blobs/*.incomplete"))


@pytest.mark.parametrize("what", ["ref", "used", "blob"])
def test_what_changed_after_the_plan_stays(world, cache, clock, monkeypatch, what):
    cache.revision(NEW, {"more.bin": 7}, "main")
    real = hub._busy
    calls = []

    def busy(*arguments):
        calls.append(arguments)
        if len(calls) == 2 and what == "ref":
            (cache.repository / "refs/main").write_text(OLDER)
        elif len(calls) == 2 and what == "used":
            os.utime(cache.blob(4), (clock.time, clock.time))
        elif len(calls) == 2:
            cache.revision(NEW, {"again.onnx": 3}, "main")
        return real(*arguments)

    monkeypatch.setattr(hub, "_busy", busy)
    _clean(world, "huggingface")
    assert cache.readable()
    assert OLDER in cache.revisions or what == "blob"
    assert 3 in cache.blobs


def test_links_lead_nowhere_outside(world, cache, tmp_path):
    """A snapshot that is a link, blobs that are links, a repository that is a link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (cache.repository / "snapshots" / ("d" * 40)).symlink_to(outside)
    (cache.repository / "blobs" / "link").symlink_to(outside / "precious")
    (cache.root / "models--evil--link").symlink_to(outside)
    (outside / "snapshots" / ("e" * 40)).mkdir(parents=True)
    evil = cache.repository / "snapshots" / OLD / "evil"
    evil.symlink_to("../../../../../outside/precious")
    _clean(world, "huggingface")
    assert (outside / "precious").exists() and (outside / "snapshots" / ("e" * 40)).exists()
    assert cache.revisions == [NEW, "d" * 40]


def test_a_stopped_removal_is_finished(world, cache):
    os.rename(cache.repository / "snapshots" / OLD, cache.root / (guards.TRASH + "0" * 16))
    assert _clean(world, "huggingface")["changed"]
    assert cache.revisions == [NEW] and not list(cache.root.glob(".mlops*"))
    assert cache.readable() and cache.blobs == [1, 2]


def test_where_last_use_is_not_recorded_nothing_goes(world, cache, monkeypatch):
    monkeypatch.setattr(hub, "_NOATIME", os.statvfs(cache.root).f_flag | 1 << 30)
    result = _clean(world, "huggingface")
    assert not result["changed"] and "noatime" in str(result["kept"])


def test_no_cache_is_no_failure(world, tmp_path):
    world.environ = {"HF_HUB_CACHE": str(tmp_path / "none")}
    result = _clean(world, "huggingface")
    assert result["targets"][0]["status"] == "skipped" and "failed" not in result


# --- package managers -----------------------------------------------------------------------------


def test_uvs_cache_goes(world, tmp_path, monkeypatch):
    program = shutil.which("uv") or os.environ.get("MLOPS_UV")
    if not program:
        pytest.skip("needs uv")
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "uv").symlink_to(program)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "p").mkdir()
    (tmp_path / "p/pyproject.toml").write_text(
        '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.8"\n'
    )
    subprocess.run(["uv", "cache", "prune"], check=True, capture_output=True)
    wheel = tmp_path / "cache/archive-v0/x/x.py"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"x" * 9000)
    planned = _clean(world, "uv", check=True)
    assert planned["freed_bytes"] >= 9000 and wheel.exists()
    result = _clean(world, "uv")
    assert result["changed"] and "failed" not in result and not wheel.exists()
    assert not _clean(world, "uv")["changed"]


CONDA = """#!/bin/sh
cd "{place}"
case "$*" in
--version) echo conda 24.1.0 ;;
"config --show allow_softlinks --json") echo '{{"allow_softlinks": {linked}}}' ;;
*--dry-run*) cat report ;;
"clean --tarballs --yes --json") echo '{{"success": true}}'; echo tarballs >> cleaned ;;
"clean --packages --yes --json") echo '{{"success": true}}'; echo packages >> cleaned ;;
"clean --index-cache --yes --json") echo '{{}}'; echo index >> cleaned ;;
*) echo "unknown: $*" >&2; exit 2 ;;
esac
"""


@pytest.mark.parametrize("linked", ["false", "true"])
def test_conda_cleans_what_it_says(world, tmp_path, monkeypatch, linked):
    """A stand-in that answers as conda does."""
    (tmp_path / "index").mkdir()
    (tmp_path / "index/a.json").write_bytes(b"x" * 5000)
    report = {
        "success": True,
        "tarballs": {"pkgs_dirs": {"/opt/conda/pkgs": ["a.conda", "b.conda"]}, "total_size": 300},
        "packages": {"pkgs_dirs": {"/opt/conda/pkgs": ["a-1"]}, "total_size": 5000},
        "index_cache": {"files": [str(tmp_path / "index")]},
    }
    (tmp_path / "report").write_text(json.dumps(report))
    (tmp_path / "conda").write_text(CONDA.format(place=tmp_path, linked=linked))
    (tmp_path / "conda").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    planned = _clean(world, "conda", check=True)
    assert not (tmp_path / "cleaned").exists()
    result = _clean(world, "conda")
    assert result["removed"] == planned["removed"] and "failed" not in result
    cleaned = (tmp_path / "cleaned").read_text().split()
    assert cleaned == (
        ["tarballs", "index"] if linked == "true" else ["tarballs", "packages", "index"]
    )
    sizes = {entry["path"]: entry["size"] for entry in planned["removed"]}
    assert sizes["conda tarballs"] == 300 and sizes["conda index_cache"] >= 5000
    assert ("allow_softlinks" in str(result["kept"])) is (linked == "true")


# --- images ---------------------------------------------------------------------------------------


def test_podmans_images_go(world, clock, tmp_path, monkeypatch):
    if os.geteuid() != 0 or not shutil.which("podman"):
        pytest.skip("needs root and podman")
    runroot = tempfile.mkdtemp(prefix="ct-")
    real = shutil.which("podman")
    (tmp_path / "podman").write_text(
        f"#!/bin/sh\nexec {real} --root {tmp_path}/store --runroot {runroot} --storage-driver vfs"
        ' "$@"\n'
    )
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "layer").mkdir()
    for name in ("free", "used"):
        (tmp_path / "layer" / name).write_bytes(os.urandom(5000))
        archive = shutil.make_archive(str(tmp_path / name), "tar", tmp_path / "layer")
        done = subprocess.run(
            ["podman", "import", archive, f"{name}:1"], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"podman makes no image here: {done.stderr[-200:]}")
    made = subprocess.run(["podman", "create", "used:1", "/file"], capture_output=True, check=False)
    clock.time = time.time() + 6 * DAY
    assert not _clean(world, "podman")["changed"]
    clock.time = time.time() + 8 * DAY
    planned = _clean(world, "podman", check=True)
    result = _clean(world, "podman")
    shutil.rmtree(runroot, ignore_errors=True)
    assert result["removed"] == planned["removed"] and "failed" not in result
    assert "localhost/free:1" in {entry["path"] for entry in result["removed"]}
    if made.returncode == 0:
        assert "container" in result["kept"][0]["reason"] and result["removed_count"] == 1


def test_podman_behind_the_command_docker_is_cleaned_once(world):
    def answer(argv, **_options):
        assert argv == ["docker", "--version"]
        return CommandResult(0, "podman version 4.3.1\n", "")

    world.run = answer
    result = _clean(world, "podman")
    assert result["targets"][0]["status"] == "skipped" and "docker" in result["targets"][0]["note"]


def test_crictls_images_go(world, clock):
    """A stand-in that answers as crictl does."""
    images = [
        {"id": "sha256:free", "repoTags": ["r/free:1"], "size": "1000"},
        {"id": "sha256:young", "repoTags": ["r/young:1"], "size": "10"},
        {"id": "sha256:used", "repoTags": ["r/used:1"], "size": "10"},
        {"id": "sha256:digest", "repoTags": [], "repoDigests": ["r/d@sha256:1"], "size": "10"},
        {"id": "sha256:pause", "repoTags": ["pause:3"], "pinned": True, "size": "10"},
        {"id": "sha256:undated", "repoTags": ["r/undated:1"], "size": "10"},
        {"id": "sha256:busy", "repoTags": ["r/busy:1"], "size": "10"},
    ]
    containers = [
        {"imageRef": "sha256:used", "image": {"image": "r/used:1"}},
        {"imageRef": "r/d@sha256:1", "image": {"image": "x"}},
    ]
    ages = {"sha256:free": 8, "sha256:busy": 9, "sha256:young": 6, "sha256:undated": None}
    removed = []

    def answer(argv, **_options):
        if argv[0] != "crictl":
            raise CommandFailed.missing(argv[0])
        if argv[1] == "images":
            return CommandResult(0, json.dumps({"images": images}), "")
        if argv[1] == "ps":
            return CommandResult(0, json.dumps({"containers": containers}), "")
        if argv[1] == "inspecti":
            age = ages[argv[-1]]
            stamp = time.gmtime(0 if age is None else clock.time - age * DAY)
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", stamp)
            return CommandResult(0, json.dumps({"info": {"imageSpec": {"created": created}}}), "")
        assert argv[1] == "rmi"
        if argv[2] == "sha256:busy":
            return CommandResult(1, "", "image is in use by a container")
        removed.append(argv[2])
        return CommandResult(0, "", "")

    world.run = answer
    assert _clean(world, "crictl", check=True)["freed_bytes"] == 1010 and not removed
    result = _clean(world, "crictl")
    assert removed == ["sha256:free"] and result["freed_bytes"] == 1000
    kept = {entry["path"]: entry["reason"] for entry in result["kept"]}
    assert "container" in kept["r/used:1"] and "container" in kept["sha256:digest"]
    assert "pins" in kept["pause:3"] and "unknown" in kept["r/undated:1"]
    assert "6.0 days" in kept["r/young:1"] and "in use" in result["failures"][0]["error"]


# --- directories ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _shared(name):
    path = pathlib.Path("/dev/shm") / name
    path.write_bytes(b"x" * 5000)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs shared memory")
@pytest.mark.parametrize(("target", "prefix"), [("torch_shm", "torch_1_"), ("nccl_shm", "nccl-")])
def test_shared_memory_of_dead_processes_goes(world, clock, target, prefix):
    """Of a real process that maps it and has no descriptor left, it stays."""
    unique = f"{prefix}mlopstest{os.getpid()}"
    clock.time = time.time() + 2 * DAY
    program = (
        "import mmap, sys, time; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0);"
        " f.close(); print('ready', flush=True); time.sleep(600)"
    )
    with _shared(unique) as path, _shared(f"other-{unique}") as other:
        child = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE)
        try:
            child.stdout.readline()
            planned = _clean(world, target, check=True)
            kept = {entry["path"]: entry["reason"] for entry in planned["kept"]}
            assert "in use" in kept[str(path)]
        finally:
            child.kill()
            child.wait()
        planned = _clean(world, target, check=True)
        assert str(path) in {entry["path"] for entry in planned["removed"]}
        if {entry["path"] for entry in planned["removed"]} == {str(path)}:
            _clean(world, target)
            assert not path.exists() and other.exists()


DIRECTORIES = {
    "triton": ("TRITON_CACHE_DIR", "", "K7ABC/kernel.cubin"),
    "torch_hub": ("TORCH_HOME", "hub/checkpoints", "resnet50-0676ba61.pth"),
    "wandb": ("WANDB_DIR", "wandb", "run-20260101_101010-abc/run-abc.wandb"),
    "ray": ("RAY_TMPDIR", "ray", "session_2026-01-01_10-10-10_123456_7/logs/raylet.out"),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_directories_of_caches_and_sessions(world, clock, tmp_path, monkeypatch, name):
    variable, below, entry = DIRECTORIES[name]
    monkeypatch.setenv(variable, str(tmp_path))
    path = tmp_path / below / entry
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 5000)
    clock.time = time.time() + 31 * DAY
    with open(path):
        assert "in use" in str(_clean(world, name)["kept"])
    planned = _clean(world, name, check=True)
    assert planned["removed_count"] == 1 and planned["freed_bytes"] >= 5000 and path.exists()
    result = _clean(world, name)
    assert result["removed_count"] == 1 and os.listdir(tmp_path / below) == []


def test_what_ray_and_wandb_still_need_stays(world, clock, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for path in ("ray/session_1/a", "wandb/run-1/a", "wandb/run-2/a", "wandb/offline-run-1/a"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("x")
    (tmp_path / "ray/session_latest").symlink_to("session_1")
    (tmp_path / "wandb/latest-run").symlink_to("run-2")
    clock.time = time.time() + 31 * DAY
    assert _clean(world, "ray")["removed_count"] == 0
    assert _paths(_clean(world, "wandb")) == ["run-1"]
    assert sorted(os.listdir(tmp_path / "wandb")) == ["latest-run", "offline-run-1", "run-2"]


@pytest.mark.parametrize(
    ("name", "entry", "kept"),
    [
        ("coredumps", "core.python.0.b.1.2.zst", "other"),
        ("torchinductor", "torchinductor_root/ab/x.so", "ml"),
    ],
)
def test_places_that_nobody_moves(world, clock, tmp_path, lab, name, entry, kept):
    """On a private mount over the place itself."""
    lab.require_mounts()

    def inside():
        (target,) = CleanupOptions.from_mapping({"aggressive": True, "only": [name]}).directories
        if not os.path.isdir(target.path):
            os.makedirs(target.path)
        lab.mount("-t", "tmpfs", "none", target.path)
        os.makedirs(os.environ["MLOPS_FLEET_LOCK_DIR"], exist_ok=True)
        path = pathlib.Path(target.path) / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        (pathlib.Path(target.path) / kept).write_text("x")
        clock.time = time.time() + 8 * DAY
        result = _clean(world, name)
        return result["removed_count"], os.listdir(target.path)

    count, remaining = lab.in_namespace(inside)
    assert count == 1 and kept in remaining and entry.split("/")[0] not in remaining


def test_cached_modes_do_not_matter(world, cache):
    """The blobs of a cache may be read-only."""
    cache.blob(3).chmod(stat.S_IRUSR)
    assert _clean(world, "huggingface")["removed_count"] == 2 and cache.blobs == [1, 2]
