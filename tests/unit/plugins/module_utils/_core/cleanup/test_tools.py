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

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import job, tools
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import CleanupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed

DAY = 86400


def _run(world, name, check=False):
    return job.run(CleanupOptions.from_mapping({"aggressive": True, "only": [name]}), world, check=check).to_dict()


def test_creation_times():
    stamp = datetime.datetime(2024, 1, 31, 14, 30, tzinfo=datetime.timezone.utc).timestamp()
    for text in ("2024-01-31T14:30:00Z", "2024-01-31T14:30:00.123456789Z", "2024-01-31T15:30:00.1+01:00"):
        assert tools.parse_created(text) == stamp
    with pytest.raises(ValueError, match="yesterday"):
        tools.parse_created("yesterday")


def test_a_program_that_is_not_here_is_skipped(world):
    def missing(argv, **_options):
        raise CommandFailed(f"The program {argv[0]} is not installed on this host.")

    world.run = missing
    for name in ("docker", "pip", "apt"):
        result = _run(world, name)
        assert not result["changed"] and "failed" not in result
        assert result["targets"][0]["status"] == "skipped" and "not installed" in result["targets"][0]["note"]


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A container engine with an empty store, behind the API that the docker command speaks."""
    if os.geteuid() != 0 or not shutil.which("podman") or not shutil.which("docker"):
        pytest.skip("needs root, podman and the docker command")
    run = tempfile.mkdtemp(prefix="ct-")  # podman takes no long path here
    socket = f"{run}/api.sock"
    podman = ["podman", "--root", str(tmp_path / "store"), "--runroot", run, "--storage-driver", "vfs"]
    server = subprocess.Popen([*podman, "system", "service", "--time", "0", f"unix://{socket}"], stderr=subprocess.DEVNULL)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    deadline = time.monotonic() + 20
    while subprocess.run(["docker", "image", "ls"], capture_output=True, check=False).returncode != 0:
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
    subprocess.run(["docker", "import", "-", tag], input=data.getvalue(), check=True, capture_output=True)


def _tags():
    out = subprocess.run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"], capture_output=True, text=True, check=True).stdout
    return sorted(line.split("/")[-1] for line in out.split())


def test_old_images_that_no_container_uses_go(world, clock, engine):
    for tag in ("used:1", "free:1"):
        _image(tag, tag.encode() * 2000)
    subprocess.run(["docker", "tag", "free:1", "free:2"], check=True)
    made = subprocess.run(["docker", "create", "used:1", "/file"], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no container can be made here: {made.stderr.strip()[-120:]}")
    clock.time = time.time() + 6 * DAY
    result = _run(world, "docker")
    assert not result["changed"] and result["kept_count"] == 2, json.dumps(result, indent=1)
    clock.time = time.time() + 8 * DAY
    assert _run(world, "docker", check=True)["removed_count"] == 1 and _tags() == ["free:1", "free:2", "used:1"]
    result = _run(world, "docker")
    assert result["changed"] and _tags() == ["used:1"] and result["freed_bytes"] > 0, json.dumps(result, indent=1)
    assert "container" in result["kept"][0]["reason"]
    assert not _run(world, "docker")["changed"]


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt here")
def test_apts_packages_go_and_its_lock_is_respected(world, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    (cache / "archives/partial").mkdir(parents=True)
    (cache / "archives/x_1_all.deb").write_bytes(b"x" * 9000)
    (cache / "archives/lock").write_text("")
    configuration = tmp_path / "apt.conf"
    configuration.write_text(f'Dir::Cache "{cache}";\nDir::Cache::archives "archives";\nAPT::Sandbox::User "root";\n')
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    assert _run(world, "apt", check=True)["freed_bytes"] >= 9000 and (cache / "archives/x_1_all.deb").exists()
    result = _run(world, "apt")
    assert result["changed"] and "failed" not in result and not (cache / "archives/x_1_all.deb").exists()
    assert result["targets"][0]["root"] == str(cache / "archives")
    assert not _run(world, "apt")["changed"]


def test_pips_cache_goes(world, tmp_path, monkeypatch):
    """The real pip purges a cache of its own layout."""
    folder = tmp_path / "bin"
    folder.mkdir()
    probe = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this interpreter has no pip")
    (folder / "pip3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip "$@"\n')
    (folder / "pip3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    cache = tmp_path / "cache"
    monkeypatch.setenv("PIP_CACHE_DIR", str(cache))
    for path in ("http/a/b/c", "http-v2/a/b/c", "wheels/aa/x-1-py3-none-any.whl", "selfcheck/z.json"):
        (cache / path).parent.mkdir(parents=True)
        (cache / path).write_bytes(b"x" * 5000)
    assert _run(world, "pip", check=True)["removed_count"] == 1 and (cache / "http/a/b/c").exists()
    result = _run(world, "pip")
    assert result["changed"] and "failed" not in result and result["targets"][0]["root"] == str(cache)
    assert not (cache / "http/a/b/c").exists() and not (cache / "wheels/aa/x-1-py3-none-any.whl").exists()
    assert (cache / "selfcheck/z.json").exists() and not _run(world, "pip")["changed"]


def test_a_program_that_fails_is_a_failure_and_says_why(world, tmp_path):
    real = world.run

    def run(argv, **options):
        if argv[:2] == ["apt-config", "shell"]:
            (tmp_path / "partial").mkdir(exist_ok=True)
            (tmp_path / "a.deb").write_text("x")
            return real(["echo", f"FOLDER='{tmp_path}/'"], **options)
        return real(["sh", "-c", "echo E: Could not get lock >&2; exit 100"], **options)

    world.run = run
    result = _run(world, "apt")
    assert result["failed"] and "Could not get lock" in result["failures"][0]["error"] and not result["changed"]
