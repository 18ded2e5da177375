# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that own what aggressive mode cleans: a real container engine, pip and apt, each on things of its own."""

from __future__ import annotations

import datetime
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import images, run, tools
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed

DAY = 86400


def _run(world, name, check=False):
    return run.run(
        CleanupOptions.from_mapping({"aggressive": True, "only": [name]}), world, check=check
    ).to_dict()


def test_creation_times():
    stamp = datetime.datetime(2024, 1, 31, 14, 30, tzinfo=datetime.timezone.utc).timestamp()
    for text in (
        "2024-01-31T14:30:00Z",
        "2024-01-31T14:30:00.123456789Z",
        "2024-01-31T15:30:00.1+01:00",
    ):
        assert images.parse_created(text) == stamp
    with pytest.raises(ValueError, match="yesterday"):
        images.parse_created("yesterday")


def test_a_program_that_is_not_here_is_skipped(world):
    def missing(argv, **_options):
        raise CommandFailed.missing(argv[0])

    world.run = missing
    for name in tools.TOOLS.names:
        if name == "huggingface":
            continue  # it needs no program
        result = _run(world, name)
        assert not result["changed"] and "failed" not in result
        assert (
            result["targets"][0]["status"] == "skipped"
            and "not installed" in result["targets"][0]["note"]
        )


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A container engine with an empty store, behind the API that the docker command speaks."""
    if os.geteuid() != 0 or not shutil.which("podman") or not shutil.which("docker"):
        pytest.skip("needs root, podman and the docker command")
    run = tempfile.mkdtemp(prefix="ct-")  # podman takes no long path here
    socket = f"{run}/api.sock"
    podman = [
        "podman",
        "--root",
        str(tmp_path / "store"),
        "--runroot",
        run,
        "--storage-driver",
        "vfs",
    ]
    server = subprocess.Popen(
        [*podman, "system", "service", "--time", "0", f"unix://{socket}"], stderr=subprocess.DEVNULL
    )
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    deadline = time.monotonic() + 20
    while (
        subprocess.run(["docker", "image", "ls"], capture_output=True, check=False).returncode != 0
    ):
        if time.monotonic() > deadline:
            server.kill()
            pytest.skip("podman offers no API here")
        time.sleep(0.1)
    yield
    server.terminate()
    server.wait()
    shutil.rmtree(run, ignore_errors=True)


def _image(tag, content):
    """Make an image of one file through the API."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    subprocess.run(
        ["docker", "import", "-", tag], input=data.getvalue(), check=True, capture_output=True
    )


def _tags():
    out = subprocess.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(line.split("/")[-1] for line in out.split())


def test_old_images_that_no_container_uses_go(world, clock, engine):
    for tag in ("used:1", "free:1"):
        _image(tag, tag.encode() * 2000)
    subprocess.run(["docker", "tag", "free:1", "free:2"], check=True)
    made = subprocess.run(
        ["docker", "create", "used:1", "/file"], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no container can be made here: {made.stderr.strip()[-120:]}")
    clock.time = time.time() + 6 * DAY
    result = _run(world, "docker")
    assert not result["changed"] and result["kept_count"] == 2, json.dumps(result, indent=1)
    clock.time = time.time() + 8 * DAY
    assert _run(world, "docker", check=True)["removed_count"] == 1 and _tags() == [
        "free:1",
        "free:2",
        "used:1",
    ]
    result = _run(world, "docker")
    assert result["changed"] and _tags() == ["used:1"] and result["freed_bytes"] > 0, json.dumps(
        result, indent=1
    )
    assert "container" in result["kept"][0]["reason"]
    assert not _run(world, "docker")["changed"]


STAND_IN = """#!/bin/sh
cd {directory}
case "$1 $2" in
"image ls") cat ids ;;
"ps --all") echo c1; echo c2 ;;
"inspect --type") echo sha256:used; if [ -e vanishing ]; then rm vanishing; echo "Error: No such container: c2" >&2; exit 1; fi ;;
"image inspect") cat images ;;
"image rm") shift 2; if [ "$*" = "busy:1" ]; then echo "Error response from daemon: conflict: container c3 is using it" >&2; exit 1; fi; echo "$*" >> removed ;;
*) echo "Cannot connect to the Docker daemon" >&2; exit 1 ;;
esac
"""


def test_which_images_go(world, clock, tmp_path, monkeypatch):
    """A stand-in for docker that speaks as it does: exact ages, what was pulled lately, images without a date, containers that end meanwhile."""

    def stamp(age):
        return datetime.datetime.fromtimestamp(clock.time - age, datetime.timezone.utc).strftime(
            "%Y-%m-%dT%H:%M:%S.000000001Z"
        )

    images = [
        {
            "Id": "sha256:a",
            "RepoTags": ["exact:1", "exact:2"],
            "Created": stamp(7 * DAY),
            "Size": 10,
        },
        {"Id": "sha256:b", "RepoTags": ["young:1"], "Created": stamp(7 * DAY - 1), "Size": 20},
        {"Id": "sha256:dangling", "RepoTags": None, "Created": stamp(8 * DAY), "Size": 30},
        {"Id": "sha256:used", "RepoTags": ["used:1"], "Created": stamp(99 * DAY), "Size": 40},
        {
            "Id": "sha256:e",
            "RepoTags": ["pulled:1"],
            "Created": stamp(99 * DAY),
            "Metadata": {"LastTagTime": stamp(DAY)},
            "Size": 50,
        },
        {
            "Id": "sha256:f",
            "RepoTags": ["odd:1"],
            "Created": stamp(9 * DAY),
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
            "Size": 60,
        },
        {
            "Id": "sha256:g",
            "RepoTags": ["undated:1"],
            "Created": "0001-01-01T00:00:00Z",
            "Size": 70,
        },
        {"Id": "sha256:h", "RepoTags": ["busy:1"], "Created": stamp(9 * DAY), "Size": 80},
    ]
    (tmp_path / "ids").write_text("".join(one["Id"] + "\n" for one in images))
    (tmp_path / "images").write_text(json.dumps(images))
    (tmp_path / "vanishing").write_text("")
    (tmp_path / "docker").write_text(STAND_IN.format(directory=tmp_path))
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    planned = _run(world, "docker", check=True)
    assert not (tmp_path / "removed").exists() and planned["removed_count"] == 4
    result = _run(world, "docker")
    assert [one["path"] for one in result["removed"]] == [
        "exact:1",
        "sha256:dangling",
        "odd:1",
    ] and result["freed_bytes"] == 100
    assert (tmp_path / "removed").read_text().splitlines() == [
        "exact:1 exact:2",
        "sha256:dangling",
        "odd:1",
    ]
    kept = {one["path"]: one["reason"] for one in result["kept"]}
    assert (
        kept.keys() == {"young:1", "used:1", "pulled:1", "undated:1"}
        and "unknown" in kept["undated:1"]
    )
    assert result["failed"] and "container c3 is using it" in result["failures"][0]["error"]
    (tmp_path / "images").write_text("no JSON")
    assert _run(world, "docker")["targets"][0]["status"] == "skipped"


@pytest.mark.skipif(
    not shutil.which("apt-get") or os.geteuid() != 0,
    reason="needs apt and root, for whom alone it cleans",
)
def test_apts_packages_go_and_its_lock_is_respected(world, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    (cache / "archives/partial").mkdir(parents=True)
    (cache / "archives/x_1_all.deb").write_bytes(b"x" * 9000)
    (cache / "archives/lock").write_text("")
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'Dir::Cache "{cache}";\nDir::Cache::archives "archives";\nAPT::Sandbox::User "root";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    assert (
        _run(world, "apt", check=True)["freed_bytes"] >= 9000
        and (cache / "archives/x_1_all.deb").exists()
    )
    result = _run(world, "apt")
    assert (
        result["changed"]
        and "failed" not in result
        and not (cache / "archives/x_1_all.deb").exists()
    )
    assert result["targets"][0]["root"] == str(cache / "archives")
    assert not _run(world, "apt")["changed"]


def test_pips_cache_goes(world, tmp_path, monkeypatch):
    """The real pip purges a cache of its own layout."""
    directory = tmp_path / "bin"
    directory.mkdir()
    probe = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip("this interpreter has no pip")
    (directory / "pip3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip "$@"\n')
    (directory / "pip3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    cache = tmp_path / "cache"
    monkeypatch.setenv("PIP_CACHE_DIR", str(cache))
    for path in (
        "http/a/b/c",
        "http-v2/a/b/c",
        "wheels/aa/x-1-py3-none-any.whl",
        "selfcheck/z.json",
    ):
        (cache / path).parent.mkdir(parents=True)
        (cache / path).write_bytes(b"x" * 5000)
    assert _run(world, "pip", check=True)["removed_count"] == 1 and (cache / "http/a/b/c").exists()
    result = _run(world, "pip")
    assert (
        result["changed"] and "failed" not in result and result["targets"][0]["root"] == str(cache)
    )
    assert (
        not (cache / "http/a/b/c").exists()
        and not (cache / "wheels/aa/x-1-py3-none-any.whl").exists()
    )
    assert (cache / "selfcheck/z.json").exists() and not _run(world, "pip")["changed"]


def test_a_program_that_fails_is_a_failure_and_says_why(world, tmp_path):
    real = world.run

    def run(argv, **options):
        if argv[:2] == ["apt-config", "shell"]:
            (tmp_path / "partial").mkdir(exist_ok=True)
            (tmp_path / "a.deb").write_text("x")
            return real(["echo", f"DIRECTORY='{tmp_path}/'"], **options)
        return real(["sh", "-c", "echo E: Could not get lock >&2; exit 100"], **options)

    world.run = run
    result = _run(world, "apt")
    assert (
        result["failed"]
        and "Could not get lock" in result["failures"][0]["error"]
        and not result["changed"]
    )
