# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls of the core's parts, as several subcommands need them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from .._core import verdict
from .._core.errors import FleetError, OptionError
from .context import Context

METRICS = "/var/log/gpu-metrics.csv"
_LEVELS = {verdict.WARNING: "WARNING", verdict.UNKNOWN: "WARNING"}

Flags = Mapping[str, Any]


def _writable(path: str) -> bool:
    """Return whether this user can append to the file, or make it."""
    if os.path.lexists(path):
        return os.access(path, os.W_OK)
    return os.access(os.path.dirname(path), os.W_OK)


def _kept(context: Context, phase: str, result: dict[str, Any], done: bool) -> dict[str, Any]:
    """Return the result; note it for later unless it is that of a rehearsal."""
    if done:
        context.results[phase] = result
    return result


def check_node(context: Context, flags: Flags | None = None, write: bool = True) -> dict[str, Any]:
    """Return the document of the health check; ``write`` its state and metrics files."""
    from .._core.node import run as node
    from .._core.node.options import NodeOptions

    options = context.options("health", NodeOptions, flags)
    return _kept(context, "health", node.run(options, context.world, not write).to_dict(), write)


def check_gpus(context: Context, flags: Flags | None = None, write: bool = True) -> dict[str, Any]:
    """Return the document of the GPU check; ``write`` its metrics files."""
    from .._core.gpu import run as gpu
    from .._core.gpu.options import GpuOptions

    forced = {}
    if "metrics_csv" not in context.merged("gpu", flags).values:
        forced["metrics_csv"] = METRICS if _writable(METRICS) else None
    options = context.options("gpu", GpuOptions, flags, **forced)
    return _kept(context, "gpu", gpu.run(options, context.world, not write).to_dict(), write)


def test_gpus(context: Context) -> dict[str, Any]:
    """Return the document of the GPU diagnostics; with ``--dry-run`` nothing is tested."""
    from .._core.diagnostics import run as diagnostics
    from .._core.diagnostics.options import DiagnosticsOptions

    options = context.options("diagnostics", DiagnosticsOptions)
    tell = context.terminal.progress
    return diagnostics.run(options, context.world, context.arguments.dry_run, tell).to_dict()


def make_backup(
    context: Context, flags: Flags | None = None, check: bool = False
) -> dict[str, Any]:
    """Return the result of a backup; ``check``: of its rehearsal."""
    from .._core.backup.engines import ENGINES
    from .._core.backup.options import BackupOptions

    options = context.options("backup", BackupOptions, flags)
    tell = context.terminal.progress
    result = dict(ENGINES[options.engine].make(options, context.world, check, tell).to_dict())
    return _kept(context, "backup", result, not check)


def clean_up(context: Context, flags: Flags | None = None, check: bool = False) -> dict[str, Any]:
    """Return the result of a cleanup; ``check``: of its rehearsal."""
    from .._core.cleanup import run as cleanup
    from .._core.cleanup.options import CleanupOptions
    from .._core.cleanup.record import LOG, Recorder

    options = context.options("cleanup", CleanupOptions, flags)
    terminal = context.terminal
    log = terminal.log_file if context.command.name == "cleanup" else LOG
    result = cleanup.run(options, context.world, check, terminal.progress, Recorder(log))
    return _kept(context, "cleanup", dict(result.to_dict()), not check)


def backup_directory(context: Context) -> str:
    """Return the configured directory of the backups."""
    from .._core.backup.options import BackupOptions

    return context.options("backup", BackupOptions, {}).destination


def object_storage(context: Context) -> dict[str, Any]:
    """Return how to reach the configured copies. :raises OptionError: no bucket is configured."""
    from .._core.backup.options import S3Connection

    configured = context.merged("backup", {}).values.get("s3") or {}
    if not configured.get("bucket"):
        raise OptionError(
            "--s3 needs a bucket.",
            "Set S3_BUCKET, or backup.s3.bucket in the configuration.",
            "s3.bucket",
        )
    names = [entry.name for entry in S3Connection.TABLE]
    return {name: value for name, value in configured.items() if name in names}


def engine_options(context: Context, s3: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the configured engine and what it needs, for commands that read backups.

    :param s3: copies that are asked for explicitly; those of the engine archive are read otherwise.
    """
    values = context.merged("backup", {}).values
    engine = {name: values[name] for name in ("engine", "restic") if values.get(name) is not None}
    if engine.get("engine", "archive") != "archive" and s3 is None and values.get("s3"):
        engine["s3"] = object_storage(context)  # the repository is there, and nowhere else
    return engine


def list_backups(
    context: Context, path: str, verify: str = "none", s3: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the backups in a directory or a bucket, or one archive.

    :raises NotUsable: the directory or archive is not there.
    """
    from .._core.backup.engines import ENGINES
    from .._core.backup.options import InfoOptions

    options = InfoOptions.from_mapping(
        {"path": path, "verify": verify, "s3": s3, **engine_options(context, s3)}
    )
    return dict(ENGINES[options.engine].look(options, context.world, context.terminal.progress))


def show_document(context: Context, document: Mapping[str, Any]) -> None:
    """Print a verdict document in the format that was asked for, and log what did not pass."""
    from .._core.output import formats, human

    terminal = context.terminal
    output = formats.FORMATS[getattr(context.arguments, "format", formats.DEFAULT)]
    style = formats.Style(context.command.name, terminal.colour, context.arguments.verbose)
    terminal.say(*output.render(document, style))
    for check in document["checks"]:
        if check["status"] not in (verdict.PASS, verdict.SKIPPED):
            terminal.log(_LEVELS.get(check["status"], "CRITICAL"), check["message"])
    terminal.log("INFO", human.document(document)[-1])
    terminal.data(document)


def send_alerts(context: Context, document: Mapping[str, Any]) -> None:
    """Send alerts about a document over the configured channels.

    What keeps one from being sent is noted.
    """
    if context.arguments.no_alert or not context.configuration.has_channel():
        return
    merged = context.merged("alert", {})
    if not context.arguments.alert and _is_by_hand(context, merged.values.get("state_dir")):
        if document["status"] != verdict.PASS:
            context.terminal.note(
                "no alert was sent: this call was made by hand (--alert sends them)"
            )
        return
    from .._core.alert import run as alert
    from .._core.alert.options import AlertOptions

    merged.values["document"] = document
    options = context.configuration.checked(AlertOptions, merged)
    for channel in alert.run(options, context.world).to_dict()["channels"]:
        if channel["status"] in ("failed", "queued"):
            text = f"alert by {channel['name']} {channel['status']}: {channel.get('detail', '')}"
            context.terminal.note(text)
            context.terminal.log("WARNING", text)


def _is_by_hand(context: Context, state_dir: Any) -> bool:
    """Return whether a person made this call: at a terminal, or as a user who does not keep the
    node's alerts.
    """
    if context.scheduled:
        return False
    if any(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        return True
    if state_dir:
        return False
    from .._core.alert import store

    return store.belongs_to_others(context.world)


def send_alerts_if_possible(context: Context, document: Mapping[str, Any], log: bool) -> None:
    """Send alerts about a document; an error is noted and changes no exit status."""
    try:
        send_alerts(context, document)
    except FleetError as error:
        context.terminal.note(f"no alert was sent: {error}")
        if log:
            context.terminal.log("ERROR", f"no alert was sent: {error}")


def test_channels(context: Context, send: bool = False) -> list[dict[str, Any]]:
    """Return the channels that a test message would go to; ``send`` it."""
    if not context.configuration.has_channel():
        return []
    merged = context.merged("alert", {})
    from .._core.alert import run as alert
    from .._core.alert.options import AlertOptions

    merged.values["test"] = True
    options = context.configuration.checked(AlertOptions, merged)
    channels: list[dict[str, Any]] = alert.run(options, context.world, check=not send).to_dict()[
        "channels"
    ]
    return channels
