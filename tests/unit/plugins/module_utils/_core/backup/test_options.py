# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressions and stores are registered completely, and options and file names follow from the
registry.
"""

from __future__ import annotations

import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import (
    api,
    codecs,
    names,
    stores,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    InfoOptions,
    RestoreOptions,
    S3Connection,
    S3Copies,
    url_secrets,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.registry import Registry

COMPRESSIONS = [compression.name for compression in codecs.CODECS]


def test_the_option_offers_what_is_registered():
    (entry,) = [entry for entry in BackupOptions.TABLE if entry.name == "compression"]
    assert entry.choices == codecs.CODECS.names == ("gzip", "zstd", "none")


@pytest.mark.parametrize(
    "lacking", ["suffix", "help", "levels", "default_level", "writer", "reader", "unpack"]
)
def test_an_incomplete_compression_fails_at_import(lacking):
    incomplete = codecs.CODECS["gzip"]._replace(name="xz", **{lacking: None})
    with pytest.raises(TypeError, match=f"compression xz is incomplete: it has no {lacking}"):
        Registry("compression", [incomplete], required=codecs.CODECS.required)


def test_an_unknown_compression_is_an_error_and_never_none():
    """A compression that is only added to the option's choices must not become an uncompressed
    archive.
    """
    with pytest.raises(errors.OptionError, match="Unknown compression 'xz'"):
        codecs.make("xz", 6)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_writes_what_its_reader_recognises(compression):
    entry = codecs.CODECS[compression]
    codec = entry.writer(entry.levels[0])
    stream = codec.header + codec.pack(b"x" * 1000) + codec.trailer(0, 1000)
    assert entry.magic is None or stream.startswith(entry.magic)
    assert type(codecs.unpacker(stream[: codecs.MAGIC_SIZE])) is type(entry.reader())


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_suffix_is_known_to_the_names(compression):
    name = names.stem(1_800_000_000.0) + codecs.CODECS[compression].suffix
    assert names.is_archive(name) and names.stamp_time(name) == 1_800_000_000.0
    temporary = f".{name}.0123456789ab.tmp"
    assert names.is_temporary(temporary) and names.archive_of(temporary) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("models_backup_20250131_020000.tar.gz", True),
        ("models_backup_20250131_020000.tar", True),
        ("models_backup_20250131_020000.tar.gz.sha256", True),
        ("models_backup_20250131_020000.tar.zst.manifest.json", True),
        ("models_backup_20250131_020000.tar.xz", False),
        ("models_backup_20250131_020000.tar.gz.asc", False),
        ("models_backup_20251331_020000.tar.gz", False),
        ("xmodels_backup_20250131_020000.tar.gz", False),
        ("models_backup_20250131_020000.tar.gz\n", False),
        ("models_backup_20250131_020000.tarXgz", False),
        (".sha256", False),
    ],
)
def test_which_files_belong_to_a_backup(name, expected):
    assert api.is_backup_file(name) is expected


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        (".models_backup_20250131_020000.tar.gz.sha256.0123456789ab.tmp", None),
        (".models_backup_20250131_020000.tar.gz.manifest.json.0123456789ab.tmp", None),
        (
            ".models_backup_20250131_020000.tar.gz.0123456789ab.tmp",
            "models_backup_20250131_020000.tar.gz",
        ),
    ],
)
def test_temporary_files(name, archive):
    assert names.is_temporary(name) and names.archive_of(name) == archive
    assert not names.is_temporary(name[1:]) and names.archive_of(name + "x") is None


# --- stores
# ----------------------------------------------------------------------------------------------------------


def test_an_incomplete_store_fails_at_import():
    with pytest.raises(TypeError, match="copy store nfs is incomplete: it has no connect"):
        Registry(
            "copy store",
            [stores.CopyStoreKind("nfs", None)],
            required=stores.COPY_STORES.required,
        )


def test_where_backups_are_read_from(tmp_path):
    none = InfoOptions.from_mapping({})
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, kind in (
        ("", stores.LocalStore),
        ("missing", stores.LocalStore),
        ("file", stores.ArchiveStore),
        ("pipe", stores.ArchiveStore),
        ("link", stores.ArchiveStore),
    ):
        assert isinstance(stores.to_read(none, str(tmp_path / name)), kind)
    assert stores.copy_stores(none) == ()


def test_a_local_store_gives_paths():
    store = stores.LocalStore("/backup/models")
    assert (store.url(""), store.url("x")) == ("/backup/models", "/backup/models/x")


# --- options
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"region": "x"}, r"s3\.bucket is missing, but s3\.region is set"),
        ({"bucket": "b", "secret_key": "x"}, "belong together"),
        ({"bucket": "b", "access_key": "x"}, "belong together"),
        ({"bucket": "b", "session_token": "x"}, "session_token needs"),
        ({"bucket": "b", "endpoint_url": "https://joe:x@h"}, "holds credentials"),
        ({"bucket": "b", "endpoint_url": "https://[::1"}, "is not a URL"),
        ({"bucket": "b", "endpoint_url": "ftp://h"}, "must begin with http"),
        ({"bucket": "b", "endpoint_url": "https://"}, "must begin with http"),
        ({"bucket": "b", "prefix": "a/../b"}, "must not hold"),
        ({"bucket": "b", "prefix": "./a"}, "must not hold"),
    ],
)
def test_s3_options_that_contradict_each_other(given, text):
    with pytest.raises(errors.OptionError, match=text):
        InfoOptions.from_mapping({"s3": given})


@pytest.mark.parametrize(
    "given",
    [
        {"bucket": "b"},
        {"bucket": "b", "access_key": "x", "secret_key": "y", "session_token": "z"},
        {"bucket": "b", "endpoint_url": "http://h:1", "prefix": "a/..b"},
    ],
)
def test_good_s3_options(given):
    s3 = InfoOptions.from_mapping({"s3": given}).s3
    assert isinstance(s3, S3Connection) and s3.bucket == "b"
    assert not hasattr(s3, "storage_class"), "only copies are written in a storage class"


@pytest.mark.parametrize("given", [None, {}, {"storage_class": "GLACIER"}, {"bucket": ""}])
def test_without_a_bucket_no_object_storage_is_used(given):
    assert BackupOptions.from_mapping({"s3": given}).s3 is None


def test_a_level_that_the_compression_does_not_have(monkeypatch):
    entry = codecs.CODECS["zstd"]._replace(levels=(2, 3))
    monkeypatch.setitem(codecs.CODECS._entries, "zstd", entry)
    for level, good in ((1, False), (2, True), (3, True), (4, False)):
        given = {"compression": "zstd", "compression_level": level}
        if good:
            assert BackupOptions.from_mapping(given).compression_level == level
            continue
        with pytest.raises(errors.OptionError, match="zstd has levels 2 to 3"):
            BackupOptions.from_mapping(given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"files": ["x"], "mode": "replace"}, "contradict"),
        ({"backup": "a/b"}, "absolute path"),
        ({"backup": "/a/b", "s3": {"bucket": "b"}}, "copy in S3"),
    ],
)
def test_restore_options_that_contradict_each_other(given, text):
    from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
        RestoreOptions,
    )

    with pytest.raises(errors.OptionError, match=text):
        RestoreOptions.from_mapping({"destination": "/srv/x", **given})


def defaults(options):
    return {entry.name: (entry.default, entry.minimum, entry.maximum) for entry in options.TABLE}


def test_defaults_and_limits_are_the_released_ones():
    assert defaults(BackupOptions) == {
        "source": ("/opt/ml/models", None, None),
        "destination": ("/backup/models", None, None),
        "compression": ("gzip", None, None),
        "compression_level": (None, 1, 9),
        "workers": (0, 0, 64),
        "verify": (True, None, None),
        "retention_days": (30, 0, None),
        **dict.fromkeys(
            ("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"), (0, 0, None)
        ),
        "force": (False, None, None),
        "exclude": ([], None, None),
        "engine": ("archive", None, None),
        "restic": (None, None, None),
        "layout": ("single", None, None),
        "outside_links": ("warn", None, None),
        "s3": (None, None, None),
    }
    assert defaults(RestoreOptions) == {
        "backup": ("latest", None, None),
        "path": ("/backup/models", None, None),
        "destination": (None, None, None),
        "files": ([], None, None),
        "model": (None, None, None),
        "verify": (True, None, None),
        "mode": ("new", None, None),
        "allow_outside_links": (False, None, None),
        "engine": ("archive", None, None),
        "restic": (None, None, None),
        "drill": (False, None, None),
        "scratch": ("/var/tmp", None, None),
        "s3": (None, None, None),
    }
    assert [entry.name for entry in RestoreOptions.TABLE if entry.required] == []
    with pytest.raises(errors.OptionError, match="destination is required"):
        RestoreOptions.from_mapping({})


def test_what_is_secret():
    secret = {entry.name for entry in S3Copies.TABLE if entry.secret}
    assert secret == {"access_key", "secret_key", "session_token"}
    assert defaults(S3Copies)["prune"] == (False, None, None)


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("https://joe:sesame@h", {"joe", "sesame", "joe:sesame"}),
        ("https://joe:se:same@h/x", {"joe", "se:same", "joe:se:same"}),
        ("https://joe@h", {"joe"}),
        ("https://h", set()),
        (None, set()),
    ],
)
def test_what_a_shell_must_not_print_of_an_endpoint(url, secrets):
    assert url_secrets({"s3": {"endpoint_url": url}}) == secrets
    assert url_secrets({}) == url_secrets({"s3": None}) == set()


@pytest.mark.parametrize(
    "given",
    [
        {"files": ["x"]},
        {"mode": "replace"},
        {"backup": "/a/b"},
        {"backup": "x.tar", "s3": {"bucket": "b"}},
    ],
)
def test_good_restore_options(given):
    assert RestoreOptions.from_mapping({"destination": "/srv/x", **given})


@pytest.mark.parametrize("name", ["models_backup_x.tar", "other", ""])
def test_only_an_archive_has_a_time(name):
    assert names.stamp_time(name) is None


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({}, 6),
        ({"compression": "zstd"}, 3),
        ({"compression": "zstd", "compression_level": 6}, 6),
        ({"compression": "gzip", "compression_level": 1}, 1),
    ],
)
def test_each_compression_has_a_level_of_its_own(given, level):
    assert BackupOptions.from_mapping(given).level == level
