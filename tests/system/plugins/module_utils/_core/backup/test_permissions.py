# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may not read is not absent: every reader of the catalogue says so.

Run as another user, without mocks.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import traceback

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import api, drill, proofs
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.engines import ENGINES
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    InfoOptions,
    RestoreOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import silent

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def as_nobody(tmp_path, monkeypatch):
    """Run a function as a user without rights below a directory that everybody may search."""
    for path in (*tmp_path.parents, tmp_path):
        if path.stat().st_uid == 0 and path != pathlib.Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    for path in (tmp_path / "restored", tmp_path / "locks"):
        path.mkdir(mode=0o700)
        os.chown(path, 65534, 65534)
    monkeypatch.setenv("MLOPS_FLEET_LOCK_DIR", str(tmp_path / "locks"))
    report = tmp_path / "locks" / "report"

    def run(function):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                function()
                status = 0
            except BaseException:
                report.write_text(traceback.format_exc())
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0, report.read_text()

    return run


@pytest.fixture(params=["above", "directory", "search", "files"])
def denied(request, back_up, few, destination):
    """A good backup that others may not read: by its parent, the directory, without the right to
    search it, or by its files.
    """
    name = back_up(source=str(few)).backup["name"]
    destination.chmod({"directory": 0o700, "search": 0o744}.get(request.param, 0o755))
    place = destination
    if request.param == "above":
        place = destination.parent / "closed" / "backups"
        place.parent.mkdir(mode=0o700)
        destination.rename(place)
    return str(place), name


def test_every_reader_says_permission_denied(denied, as_nobody, look, bring_back, back_up):
    place, name = denied

    def readers():
        for given in ({}, {"backup": name}, {"backup": f"{place}/{name}"}):
            with pytest.raises(errors.NotPermitted, match=r"[Pp]ermission denied"):
                bring_back(path=place, **given)
        for path in (place, f"{place}/{name}", f"{place}/{name}.manifest.json"):
            with pytest.raises(errors.NotPermitted, match=r"[Pp]ermission denied"):
                api.backups_at(path)
        with pytest.raises(errors.FleetError, match=r"[Pp]ermission denied"):
            back_up(destination=place)

    as_nobody(readers)


def test_a_drill_says_permission_denied(denied, as_nobody, world, tmp_path):
    place, name = denied

    def rehearse():
        for backup in ("latest", "random", name):
            given = {"path": place, "backup": backup, "drill": True, "scratch": "/var/tmp"}
            with pytest.raises(errors.FleetError, match=r"[Pp]ermission denied"):
                drill.run(RestoreOptions.from_mapping(given), world, check=True)
            with pytest.raises(errors.FleetError, match=r"[Pp]ermission denied"):
                drill.run(RestoreOptions.from_mapping(given), world)

    as_nobody(rehearse)


def test_an_unreadable_record_of_drills_is_not_absent(as_nobody, back_up, few, destination, look):
    path = back_up(source=str(few)).backup["path"]
    destination.chmod(0o755)
    for suffix in ("", ".sha256", ".manifest.json"):
        os.chmod(path + suffix, 0o644)
    proofs.prepare(str(destination))

    def listing():
        result = look()
        assert (
            result["verified"] and "Permission denied" in result["last_restore_proof"]["unreadable"]
        )

    as_nobody(listing)


def test_the_listing_says_which_backups_can_not_be_read(denied, as_nobody, look):
    place, name = denied

    def listing():
        for depth in ("none", "quick", "full"):
            try:
                result = look(path=place, verify=depth)
            except errors.NotPermitted:
                continue
            (backup,) = result["backups"]
            assert backup["name"] == name and "Permission denied" in backup["unreadable"]
            assert not backup["verified"] and not result["verified"] and result["latest"] is None

    as_nobody(listing)


def test_an_archive_that_can_not_be_read_is_not_damaged(as_nobody, back_up, few, destination, look):
    """Its manifest can be read, so that it is listed; only checking it is not possible."""
    path = back_up(source=str(few)).backup["path"]
    destination.chmod(0o755)
    for suffix in (".sha256", ".manifest.json"):
        os.chmod(path + suffix, 0o644)

    def check():
        assert look()["verified"]
        (backup,) = look(verify="full")["backups"]
        assert "Permission denied" in backup["unreadable"] and not backup["verified"]

    as_nobody(check)


@pytest.mark.skipif(
    shutil.which("restic") is None, reason="restic is not installed (apt-get install restic)"
)
@pytest.mark.parametrize("closed", ["file", "directory", "repository"])
def test_restic_says_what_this_user_may_not_read(closed, as_nobody, world, tmp_path, few):
    """A password file is not absent, a password not wrong, and a repository not to be made."""
    secret, repository = tmp_path / "etc" / "password", tmp_path / "repository"
    secret.parent.mkdir()
    secret.write_text("a secret of the tests\n")
    given = {"engine": "restic", "restic": {"password_file": str(secret)}}
    engine = ENGINES["restic"]
    making = {**given, "source": str(few), "destination": str(repository), "verify": False}
    restoring = {**given, "path": str(repository), "destination": str(tmp_path / "restored/x")}
    engine.make(BackupOptions.from_mapping(making), world, False, silent)
    for path in (repository, *repository.rglob("*"), few, *few.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o555)
    secret.chmod(0o644)
    denied = {"file": secret, "directory": secret.parent, "repository": repository}[closed]
    denied.chmod(0)
    name = str(repository if closed == "repository" else secret)

    def calls():
        looking = InfoOptions.from_mapping({**given, "path": str(repository)})
        for call in (
            lambda: engine.look(looking, world, silent),
            lambda: engine.restore(RestoreOptions.from_mapping(restoring), world, False, silent),
            lambda: engine.make(BackupOptions.from_mapping(making), world, False, silent),
        ):
            with pytest.raises(errors.NotPermitted, match=f"(?i){name}.*permission denied"):
                call()

    as_nobody(calls)
    denied.chmod(0o755)
    secret.unlink()
    with pytest.raises(errors.NotUsable, match=f"{secret}.*No such file") as raised:
        engine.look(InfoOptions.from_mapping({**given, "path": str(repository)}), world, silent)
    assert not isinstance(raised.value, errors.NotPermitted)
