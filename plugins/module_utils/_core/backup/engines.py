# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes backups: one entry per engine, each with the same options, results and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..ports import Tell, World
from ..registry import Registry
from .options import ENGINE_NAMES

if TYPE_CHECKING:
    from . import info
    from .make import run as making
    from .options import BackupOptions, InfoOptions, RestoreOptions
    from .restore import run as restoring


class Engine(NamedTuple):
    """An engine.

    :param make: makes a backup, or says what it would do. :param look: lists and verifies backups.
    :param restore: restores a backup, or says what it would do.
    :param rereads: whether the drill can compare what ``restore`` wrote with a manifest; otherwise
        ``restore`` has compared it.
    """

    name: str
    help: str
    make: Callable[[BackupOptions, World, bool, Tell], making.Result]
    look: Callable[[InfoOptions, World, Tell], info.Result]
    restore: Callable[[RestoreOptions, World, bool, Tell], restoring.Result]
    rereads: bool


def _make_archive(options: BackupOptions, world: World, check: bool, tell: Tell) -> making.Result:
    from .make import run

    return run.run(options, world, check, tell)


def _look_at_archives(options: InfoOptions, world: World, tell: Tell) -> info.Result:  # noqa: ARG001
    from . import info

    return info.run(options, tell)


def _restore_archive(
    options: RestoreOptions, world: World, check: bool, tell: Tell
) -> restoring.Result:
    from .restore import run

    return run.run(options, world, check, tell)


def _make_snapshot(options: BackupOptions, world: World, check: bool, tell: Tell) -> making.Result:
    from .restic import make

    return make.run(options, world, check, tell)


def _look_at_snapshots(options: InfoOptions, world: World, tell: Tell) -> info.Result:
    from .restic import look

    return look.run(options, world, tell)


def _restore_snapshot(
    options: RestoreOptions, world: World, check: bool, tell: Tell
) -> restoring.Result:
    from .restic import restore

    return restore.run(options, world, check, tell)


#: In the order of ENGINE_NAMES.
ENGINES: Registry[Engine] = Registry(
    "backup engine",
    (
        Engine(
            name="archive",
            help="One archive per backup, which tar reads.",
            make=_make_archive,
            look=_look_at_archives,
            restore=_restore_archive,
            rereads=True,
        ),
        Engine(
            name="restic",
            help="The installed restic: deduplicated and encrypted.",
            make=_make_snapshot,
            look=_look_at_snapshots,
            restore=_restore_snapshot,
            rereads=False,
        ),
    ),
    required=("help", "make", "look", "restore"),
)
if ENGINES.names != ENGINE_NAMES:
    raise TypeError("The engines are not those of options.ENGINE_NAMES")
