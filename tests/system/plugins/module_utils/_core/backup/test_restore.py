# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring: complete or not at all, whatever the archive holds and whenever the process dies."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import random
import resource
import subprocess
import tarfile

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.restore import execute, run

STEM = "models_backup_20250131_020000.tar.gz"


def snapshot(root):
    """Everything in a tree as find(1) sees it, and every file's SHA-256 as sha256sum(1) computes
    it.
    """
    listing = subprocess.run(
        ["find", ".", "!", "-type", "s", "-printf", r"%P %y %m %s %l %U:%G\0"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    entries = {line.rsplit(b" ", 3)[0] if b" d " in line else line for line in listing.split(b"\0")}
    sums = subprocess.run(
        "find . -type f -print0 | sort -z | xargs -0 sha256sum -z",
        shell=True,
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    return {line for line in entries if not line.startswith(b" ")}, sums


def leftovers(restored):
    return (
        [name for name in os.listdir(restored.parent) if name != restored.name]
        if restored.parent.exists()
        else []
    )


def test_check_apply_check_apply(back_up, bring_back, source, restored):
    back_up()
    assert bring_back(check=True).changed and not restored.exists()
    result = bring_back().to_dict()
    assert (
        result["changed"] and result["restored"]["verified"] and result["restored"]["files"] == 10
    )
    assert snapshot(restored) == snapshot(source)
    assert os.stat(restored / "run.sh").st_mtime_ns == os.stat(source / "run.sh").st_mtime_ns
    assert os.lstat(restored / "bert").st_mtime_ns == os.lstat(source / "bert").st_mtime_ns
    assert leftovers(restored) == []
    assert not bring_back(check=True).changed
    assert bring_back().to_dict()["changed"] is False


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_other_compressions(back_up, bring_back, source, restored, compression):
    back_up(compression=compression)
    assert bring_back().changed and snapshot(restored) == snapshot(source)


def test_holes_stay_holes(back_up, bring_back, few, restored):
    for name, islands in (
        ("hole", ()),
        ("begins", (0,)),
        ("ends", (49_999_000,)),
        ("middle", (20_000_000,)),
    ):
        with open(few / name, "wb") as stream:
            stream.truncate(50_000_000)
            for offset in islands:
                stream.seek(offset)
                stream.write(b"x" * 1000)
    back_up(source=str(few))
    assert bring_back().verified and snapshot(restored) == snapshot(few)
    assert (
        sum(
            (restored / name).stat().st_blocks * 512
            for name in ("hole", "begins", "ends", "middle")
        )
        < 5_000_000
    )


def test_into_an_empty_directory(back_up, bring_back, source, restored):
    back_up()
    restored.mkdir(parents=True)
    restored.chmod(0o711)
    assert bring_back().changed and snapshot(restored) == snapshot(source)
    assert oct(restored.stat().st_mode & 0o777) == "0o711"


def test_new_never_touches_what_is_there(back_up, bring_back, restored):
    back_up()
    restored.mkdir(parents=True)
    (restored / "mine").write_text("mine")
    for check in (True, False):
        with pytest.raises(errors.Refused, match="not empty"):
            bring_back(check=check)
    assert os.listdir(restored) == ["mine"] and leftovers(restored) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_replace(back_up, bring_back, source, restored, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(execute, "exchange", lambda *arguments: False)
    back_up()
    bring_back()
    (restored / "extra").write_text("x")
    (restored / "bert" / "v1" / "tokenizer.json").write_text("changed")
    readonly = restored / "readonly"
    readonly.mkdir()
    (readonly / "file").write_text("x")
    readonly.chmod(0o500)
    preview = bring_back(mode="replace", check=True)
    assert preview.changed and (restored / "extra").exists()
    result = bring_back(mode="replace")
    assert result.changed and "extra" in result.before and "extra" not in result.after
    assert snapshot(restored) == snapshot(source) and leftovers(restored) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_another_user(back_up, bring_back, few, restored, tmp_path, monkeypatch):
    """Files and directories that not even their owner may read are restored, replaced and removed
    all the same.
    """
    (few / "bert" / "weights").chmod(0)
    (few / "bert").chmod(0)
    path = back_up(source=str(few)).backup["path"]
    for one in (path, path + ".manifest.json", path + ".sha256"):
        os.chmod(one, 0o644)
    for directory in (*tmp_path.parents, tmp_path, tmp_path / "backups"):
        if directory.stat().st_uid == 0 and directory != pathlib.Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    for directory in (restored.parent, tmp_path / "locks"):
        directory.mkdir(mode=0o700)
        os.chown(directory, 65534, 65534)
    monkeypatch.setenv("MLOPS_FLEET_LOCK_DIR", str(tmp_path / "locks"))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            assert bring_back().verified
            with pytest.raises(errors.Refused, match=r"Can't read .*bert"):
                bring_back()
            result = bring_back(mode="replace")
            assert result.verified and result.notes == [] and leftovers(restored) == []
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert (restored / "bert" / "weights").read_bytes() == (few / "bert" / "weights").read_bytes()


def test_a_second_rename_that_fails_is_rolled_back(back_up, bring_back, restored, monkeypatch):
    monkeypatch.setattr(execute, "exchange", lambda *arguments: False)
    back_up()
    restored.mkdir(parents=True)
    (restored / "mine").write_text("mine")
    real = os.rename

    def rename(one, other, **fds):
        if ".mlops-restore." in str(one) and other == restored.name:
            raise OSError(5, "Input/output error")
        return real(one, other, **fds)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(errors.WriteFailed, match="Input/output error"):
        bring_back(mode="replace")
    assert os.listdir(restored) == ["mine"] and leftovers(restored) == []


@pytest.mark.parametrize("change", ["content", "mode", "time", "extra", "missing", "link"])
def test_any_difference_is_seen(back_up, bring_back, source, restored, change):
    back_up()
    bring_back()
    file = restored / "bert" / "v1" / "tokenizer.json"
    if change == "content":
        before = file.stat()
        with open(file, "r+b") as stream:
            stream.write(b"X")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "mode":
        file.chmod(0o600)
    elif change == "time":
        os.utime(file)
    elif change == "extra":
        (restored / "extra").mkdir()
    elif change == "missing":
        (restored / "empty").unlink()
    else:
        (restored / "bert" / "latest").unlink()
        (restored / "bert" / "latest").symlink_to("v2")
    with pytest.raises(errors.Refused):
        bring_back()
    assert bring_back(mode="replace").changed and snapshot(restored) == snapshot(source)


def test_some_files(back_up, bring_back, source, restored):
    back_up()
    result = bring_back(files=["bert/v1", "run.sh"])
    found = sorted(str(path.relative_to(restored)) for path in restored.rglob("*"))
    assert found == [
        "bert",
        "bert/v1",
        "bert/v1/model.safetensors",
        "bert/v1/tokenizer.json",
        "run.sh",
    ]
    assert result.files == 3 and not bring_back(files=["bert/v1", "run.sh"]).changed
    with pytest.raises(errors.NotUsable, match="matches"):
        bring_back(files=["no such"])
    with pytest.raises(errors.OptionError, match="contradict"):
        bring_back(files=["run.sh"], mode="replace")


def test_choosing(back_up, bring_back, source, restored, clock):
    first = back_up()
    (source / "added").write_text("x")
    clock.time += 60
    second = back_up(verify=False)
    assert bring_back(check=True).plan.facts.origin.backup.name == first.backup["name"], (
        "latest is the newest verified one"
    )
    assert (
        bring_back(check=True, backup=second.backup["name"]).plan.facts.origin.backup.name
        == second.backup["name"]
    )
    assert (
        bring_back(check=True, backup=second.backup["path"]).plan.facts.origin.backup.name
        == second.backup["name"]
    )
    with pytest.raises(errors.NotUsable, match=r"no backup models_backup_19990101_000000\.tar\.gz"):
        bring_back(backup="models_backup_19990101_000000.tar.gz")
    with pytest.raises(errors.OptionError):
        bring_back(backup="../x.tar.gz")


@pytest.mark.parametrize(
    "directory", ["/", "/etc/models", "/home", "/usr", "/opt", "relative", "/tmp/../etc"]
)
def test_dangerous_destinations(back_up, bring_back, directory):
    back_up()
    with pytest.raises((errors.Refused, errors.OptionError)):
        bring_back(destination=directory)


def test_a_restore_never_replaces_its_own_backups(back_up, bring_back, destination, tmp_path):
    back_up()
    for directory in (destination, tmp_path):
        with pytest.raises(errors.Refused, match="inside"):
            bring_back(destination=str(directory), mode="replace")


def test_a_link_as_destination_is_refused(back_up, bring_back, restored, tmp_path):
    back_up()
    restored.parent.mkdir()
    (tmp_path / "other").mkdir()
    restored.symlink_to(tmp_path / "other")
    with pytest.raises(errors.Refused, match="symbolic link"):
        bring_back(mode="replace")


def test_what_is_mounted_in_the_destination_is_never_removed(
    back_up, bring_back, restored, tmp_path, mounted
):
    """A bind mount of the same filesystem too, which no device number gives away."""
    back_up()
    bring_back()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "precious").write_text("precious")
    (restored / "shared").mkdir()

    def inside():
        for check in (True, False):
            with pytest.raises(errors.Refused, match=r"holds the mount point .*shared"):
                bring_back(mode="replace", check=check)
        # A tree that a run of another version has moved aside already.
        old = restored.parent / ".models.mlops-restore.0123456789ab"
        restored.rename(old)
        assert "could not remove all" in bring_back().notes[0]

    mounted([(tmp_path / "shared", restored / "shared", None, "")], inside)
    assert (tmp_path / "shared" / "precious").read_text() == "precious"


def test_a_mount_point_as_destination_is_refused_before_anything_is_read(
    back_up, bring_back, restored, mounted
):
    back_up()
    restored.mkdir(parents=True)

    def run():
        for given in ({}, {"mode": "replace"}, {"check": True}):
            with pytest.raises(errors.Refused, match="is a mount point"):
                bring_back(**given)
            (restored / "x").touch()

    mounted([(b"tmpfs", restored, "tmpfs", "size=3m")], run)


def test_directories_deeper_than_the_limits(back_up, bring_back, source, restored):
    """1500 levels: deeper than Python recurses, than a path may be long, and than files may be
    open.
    """
    top = os.open(source, os.O_RDONLY)
    fd = top
    for level in range(1500):
        os.mkdir("below", dir_fd=fd)
        inner = os.open("below", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        if level % 400 == 399:
            os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        back_up()
        assert bring_back().files == 13
        (restored / "extra").write_text("x")
        assert bring_back(mode="replace").files == 13
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        listed = subprocess.run(
            "find . -name file | wc -l", shell=True, cwd=restored, capture_output=True, check=True
        ).stdout
        subprocess.run(["rm", "-rf", str(source), str(restored)], check=True)
    assert listed.strip() == b"3" and leftovers(restored) == []


# --- archives that lie
# ----------------------------------------------------------------------------------------------------


def craft(destination, members, checksum=True):
    """An archive of the old script's kind with any members: (name, type, content or target)."""
    destination.mkdir(exist_ok=True)
    with tarfile.open(destination / STEM, "w:gz") as tar:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(value)
                tar.addfile(member, io.BytesIO(value))
            else:
                member.linkname = value
                member.mode = 0o755
                tar.addfile(member)
    if checksum:
        digest = hashlib.sha256((destination / STEM).read_bytes()).hexdigest()
        (destination / (STEM + ".sha256")).write_text(f"{digest}  {STEM}\n")


FILE, SYM, HARD, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", FILE, b"x")],
        [("a/../../outside", FILE, b"x")],
        [("/absolute/outside", FILE, b"x")],
        [("link", SYM, "../.."), ("link/outside", FILE, b"x")],
        [("link", SYM, "/etc")],
        [("a/link", SYM, "../../x")],
        [("here", SYM, "."), ("out", SYM, "here/here/../..")],
        [
            ("a/deep", DIR, ""),
            ("short", SYM, "a/deep"),
            ("x/y", SYM, "../short/../../.."),
            ("f", FILE, b"x"),
        ],
        [("hard", HARD, "/etc/passwd")],
        [("hard", HARD, "../../secret")],
        [("hard", HARD, "not there")],
        [("a", FILE, b"x"), ("a/b", FILE, b"y")],
        [("a", FILE, b"x"), ("a", FILE, b"y")],
        [("null", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("disk", tarfile.BLKTYPE, "")],
        [("in", SYM, "inner"), ("inner", DIR, ""), ("in/file", FILE, b"x")],
        [("only", DIR, "")],
    ],
)
def test_hostile_archives(bring_back, destination, restored, tmp_path, members):
    (tmp_path / "secret").write_text("secret")
    craft(destination, members)
    with pytest.raises(errors.FleetError):
        bring_back()
    assert not restored.exists() and leftovers(restored) == []
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["backups", "secret", *(["restored"] if restored.parent.exists() else [])]
    )


def test_old_archives_with_hard_links_and_dots(bring_back, destination, restored):
    craft(
        destination,
        [("./", DIR, ""), ("./a/b", FILE, b"x"), ("./hard", HARD, "./a/b"), ("./in", SYM, "a/b")],
    )
    result = bring_back().to_dict()
    assert (
        result["restored"]["verified"]
        and (restored / "hard").read_bytes() == (restored / "in").read_bytes() == b"x"
    )
    assert os.stat(restored / "hard").st_ino == os.stat(restored / "a" / "b").st_ino


@pytest.mark.parametrize(
    "flags",
    ["--format=gnu", "--format=oldgnu", "--format=pax", "--xattrs --acls", "-V label", "-b 1"]
    + [
        f"-S --format={form}"
        for form in (
            "gnu",
            "pax --sparse-version=0.0",
            "pax --sparse-version=0.1",
            "pax --sparse-version=1.0",
        )
    ],
)
def test_archives_of_gnu_tar(bring_back, source, destination, restored, flags):
    """Long names, sparse files, labels, hard links, in each of its formats."""
    os.link(source / "run.sh", source / "zweiter Name")
    with open(source / "sparse", "r+b") as stream:
        stream.seek(1_000_000)
        stream.write(b"an island")
    destination.mkdir()
    subprocess.run(
        f"tar -czf {destination / STEM} {flags} --exclude=socket -C {source.parent} models",
        shell=True,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    subprocess.run(f"sha256sum {STEM} > {STEM}.sha256", shell=True, cwd=destination, check=True)
    assert bring_back().verified
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", "--exclude=socket", source, restored / "models"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_an_old_archive_with_a_wrong_checksum(bring_back, destination, restored):
    craft(destination, [("a", FILE, b"x")])
    (destination / (STEM + ".sha256")).write_text("0" * 64 + f"  {STEM}\n")
    with pytest.raises(errors.VerificationFailed, match="SHA-256"):
        bring_back()
    assert not restored.exists() and leftovers(restored) == []
    assert bring_back(verify=False).changed, "what can be saved without checks"


def test_links_that_leave_the_directory(back_up, bring_back, source, restored):
    (source / "shared").symlink_to("/mnt/shared/tokenizer")
    result = back_up()
    assert any("allow_outside_links" in note for note in result.notes)
    with pytest.raises(errors.Refused, match="allow_outside_links"):
        bring_back()
    assert bring_back(allow_outside_links=True).changed
    assert os.readlink(restored / "shared") == "/mnt/shared/tokenizer"


def test_links_that_lead_through_others_and_stay_inside(back_up, bring_back, source, restored):
    for name, target in (
        ("one", "bert/latest/../latest"),
        ("two", "one/../../run.sh"),
        ("loop", "pool"),
        ("pool", "loop"),
        ("self", "self/x"),
        ("dot", "."),
    ):
        (source / name).symlink_to(target)
    assert not any("allow_outside_links" in note for note in back_up().notes)
    assert bring_back().changed and os.path.samefile(restored / "two", restored / "run.sh")


def test_set_user_id_is_dropped(back_up, bring_back, source, restored):
    (source / "run.sh").chmod(0o4755)
    back_up()
    bring_back()
    assert oct(os.stat(restored / "run.sh").st_mode & 0o7777) == "0o755"
    assert not bring_back().changed


def test_every_flipped_bit_keeps_the_destination_as_it_was(back_up, bring_back, restored):
    path = back_up(compression="none").backup["path"]
    restored.mkdir(parents=True)
    (restored / "mine").write_text("mine")
    rng = random.Random(11)
    for _turn in range(15):
        offset = rng.randrange(os.path.getsize(path))
        with open(path, "r+b") as stream:
            stream.seek(offset)
            byte = stream.read(1)[0]
            stream.seek(offset)
            stream.write(bytes([byte ^ 4]))
        with pytest.raises(errors.VerificationFailed):
            bring_back(mode="replace")
        assert os.listdir(restored) == ["mine"] and leftovers(restored) == []
        with open(path, "r+b") as stream:
            stream.seek(offset)
            stream.write(bytes([byte]))
    assert bring_back(mode="replace").changed


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_what_can_be_saved_from_a_damaged_backup(
    back_up, bring_back, few, restored, compression, damage
):
    """Without ``verify``: all files but those that are hit, and the notes name these."""
    for number in range(20):
        (few / f"{number:02d}").write_bytes(os.urandom(500_000))
    path = back_up(source=str(few), compression=compression).backup["path"]
    with open(path, "r+b") as stream:
        if damage == "cut":
            stream.truncate(os.path.getsize(path) * 3 // 4)
        else:
            stream.seek(5_000_000)
            byte = stream.read(1)[0]
            stream.seek(5_000_000)
            stream.write(bytes([byte ^ 1]))
    with pytest.raises(errors.VerificationFailed):
        bring_back(backup=os.path.basename(path))
    result = bring_back(backup=os.path.basename(path), verify=False).to_dict()
    good = {
        name
        for name in os.listdir(restored)
        if (restored / name).is_file()
        and (restored / name).read_bytes() == (few / name).read_bytes()
    }
    told = {note.split(": ")[1] for note in result["notes"]}
    assert (
        not result["restored"]["verified"]
        and {f"{number:02d}" for number in range(20)} - good <= told
        and not good & told
    )
    # Of 20; of what zstd has packed more is lost.
    fewest = {"flip": 19, "cut": 14}[damage]
    if compression == "zstd":
        fewest = 8
    assert set(os.listdir(restored)) >= good and len(good) >= fewest
    assert leftovers(restored) == []


def test_files_behind_a_damaged_header_are_saved(back_up, bring_back, few, restored):
    for number in range(9):
        (few / str(number)).write_bytes(os.urandom(100_000))
    path = back_up(source=str(few), compression="none").backup["path"]
    raw = bytearray(open(path, "rb").read())
    raw[raw.index(b"3" + b"\0" * 99) + 101] ^= 1
    with open(path, "wb") as stream:
        stream.write(raw)
    result = bring_back(backup=os.path.basename(path), verify=False)
    assert sorted(name for name in os.listdir(restored) if name.isdigit()) == list("01245678")
    assert "damaged: 3: is missing in the archive" in result.notes


def test_every_file_is_on_the_disk_before_the_tree_gets_its_name(
    back_up, bring_back, few, restored, monkeypatch
):
    """Files are synchronised in batches; the last, incomplete batch counts too."""
    for number in range(150):
        (few / f"{number}").write_text("x")
    back_up(source=str(few))
    synchronised, at_rename = set(), []
    fsync, rename = os.fsync, os.rename

    def counted(fd):
        synchronised.add(os.fstat(fd).st_ino)
        return fsync(fd)

    def renamed(origin, target, **fds):
        if target == restored.name:
            at_rename.append(set(synchronised))
        return rename(origin, target, **fds)

    monkeypatch.setattr(os, "fsync", counted)
    monkeypatch.setattr(os, "rename", renamed)
    descriptors = len(os.listdir("/proc/self/fd"))
    bring_back()
    written = {path.stat().st_ino for path in restored.rglob("*") if not path.is_symlink()}
    assert len(written) == 153 and written <= at_rename[0]
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_file_that_can_not_be_synchronised_fails_the_restore(
    back_up, bring_back, few, restored, monkeypatch
):
    back_up(source=str(few))

    def fails(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(errors.WriteFailed, match="Input/output error"):
        bring_back()
    assert not restored.exists() and leftovers(restored) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("exchange", [True, False])
def test_killed_at_any_moment(back_up, bring_back, few, restored, monkeypatch, dies, exchange):
    """kill -9 around every step of a replacement: the destination is the old tree or the new one,
    or back after the next run.
    """
    if not exchange:
        monkeypatch.setattr(execute, "exchange", lambda *arguments: False)
    back_up(source=str(few))
    bring_back()
    new, outcomes, steps = snapshot(few), [], 0
    (restored / "old").write_text("old")
    old = snapshot(restored)
    for step in dies.everywhere(lambda: bring_back(mode="replace")):
        steps = step
        outcomes.append(snapshot(restored) if restored.exists() else "moved aside")
        assert outcomes[-1] in ((old, new) if exchange else (old, new, "moved aside"))
        run.recover(str(restored))
        assert snapshot(restored) in (old, new) and leftovers(restored) == []
        (restored / "old").write_text("old")
    assert (
        old in outcomes
        and new in outcomes
        and (exchange or "moved aside" in outcomes)
        and steps > 30
    )
    assert snapshot(restored) == new and leftovers(restored) == []


def test_an_interrupted_swap_is_put_back(back_up, bring_back, source, restored):
    """A run that died between two renames: its old tree is the only copy of what was there."""
    back_up()
    bring_back()
    restored.rename(restored.parent / ".models.mlops-old.0123456789ab")
    result = bring_back()
    assert snapshot(restored) == snapshot(source) and leftovers(restored) == []
    assert result.changed and "put back" in result.notes[0]
    assert not bring_back().changed
