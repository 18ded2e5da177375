# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node command C(mlfleet): the shell over the core for timers, cron jobs and people, with no control node.

Runs as C(mlops_fleet.mlfleet) from the folder that the agent role installs; C(_core) lies beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
import time

from ._core import config, verdict
from ._core.errors import (
    CommandFailed,
    FleetError,
    LockBusy,
    MissingLibrary,
    NotUsable,
    OptionError,
    VerificationFailed,
)
from ._core.options import Option
from ._core.output import formats
from ._core.ports import CommandResult, Progress, World

VERSION_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "VERSION")
CONFIG = os.environ.get("MLFLEET_CONFIG") or config.PATH  # the installed command sets it
METRICS = "/var/log/gpu-metrics.csv"
LOGS = {
    "backup": "/var/log/ml-backup.log",
    "verify": "/var/log/ml-backup.log",
    "restore": "/var/log/ml-backup.log",
    "gpu": "/var/log/gpu-monitor.log",
    "cleanup": "/var/log/ml-cleanup.log",
    "health": "/var/log/ml-health-check.log",
    "maintenance": "/var/log/ml-maintenance.log",
}
#: Bytes that a program may print; more is no answer.
MOST_OUTPUT = 64 << 20
EXIT_FAILED, EXIT_BAD_BACKUP, EXIT_NOT_RUN = 1, 2, 3


def version() -> str:
    """Return the version that the agent role stamped, C(unknown) when run from a checkout."""
    try:
        with open(VERSION_FILE, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return "unknown"


def run_command(argv, timeout=30.0, env=None, stdin=None):
    """The CommandRunner port: own process group, killed as a whole at the deadline, never waited for after that."""
    import shutil
    import subprocess

    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    program = shutil.which(argv[0], path=path)
    if program is None:
        raise CommandFailed.missing(argv[0])
    try:
        child = subprocess.Popen(
            [program, *argv[1:]],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(
            f"{argv[0]} could not be run: {error.strerror}.", "", argv[0]
        ) from error
    try:
        out, err = _converse(child, (stdin or "").encode(), time.monotonic() + timeout)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        if isinstance(error, TimeoutError):
            raise CommandFailed.timed_out(argv[0], timeout) from None
        if isinstance(error, OverflowError):
            raise CommandFailed(
                f"{argv[0]} printed more than {MOST_OUTPUT >> 20} MiB and was killed.", "", argv[0]
            ) from None
        raise
    finally:
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
    return CommandResult(
        child.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
    )


def _converse(child, given: bytes, deadline: float) -> tuple[bytearray, bytearray]:
    """Feed a program, read all it prints and wait for its end. :raises TimeoutError: :raises OverflowError: it prints without end."""
    import selectors
    import subprocess

    heard = {child.stdout: bytearray(), child.stderr: bytearray()}
    with selectors.DefaultSelector() as ready:
        for stream in heard:
            ready.register(stream, selectors.EVENT_READ)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            ready.register(child.stdin, selectors.EVENT_WRITE)
        while ready.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _events in ready.select(left):
                if key.fileobj is child.stdin:
                    try:
                        given = given[os.write(key.fd, given[:65536]) :]
                    except BrokenPipeError:
                        given = b""
                    if not given:
                        ready.unregister(child.stdin)
                        child.stdin.close()
                    continue
                piece = os.read(key.fd, 65536)
                heard[key.fileobj] += piece
                if not piece:
                    ready.unregister(key.fileobj)
                if sum(map(len, heard.values())) > MOST_OUTPUT:
                    raise OverflowError
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return heard[child.stdout], heard[child.stderr]


def _silence(stream) -> None:
    """Let nothing more come out of a stream that can't be written: the interpreter would try again, and complain, at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(text: str) -> None:
    """Write to stderr. Nobody may be there to read it; the work goes on all the same."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


class Terminal:
    """Everything that is printed: results on stdout, notes and progress on stderr, the same in the log file."""

    def __init__(self, json_only: bool, log_file: str | None) -> None:
        self.json_only = json_only
        if json_only:
            sys.stdout.reconfigure(
                encoding="utf-8"
            )  # JSON is UTF-8 whatever the terminal's character set
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.live = sys.stderr.isatty() and not json_only
        self.log_file = log_file
        self.log_lost = False
        self.unwritten = ""
        self.drawn = False
        self.last = (time.monotonic(), -1)  # short work shows none

    def say(self, *lines: str) -> None:
        """Print lines of the human output; nothing with --json."""
        self.clear()
        if not self.json_only:
            self._print(*lines)

    def note(self, message: str) -> None:
        """Print a message for the person at the terminal or in the journal."""
        self.clear()
        _tell(f"mlfleet: {message}\n")

    def data(self, document) -> None:
        """Print the JSON document, the only thing on stdout with --json."""
        if self.json_only:
            self._print(json.dumps(document, indent=1, ensure_ascii=False, sort_keys=False))

    def _print(self, *lines: str) -> None:
        """Write to stdout. A reader that has gone away is no error, and keeps no job from ending and logging as it should."""
        if self.unwritten:
            return
        try:
            for line in lines:
                print(line)
            sys.stdout.flush()
        except OSError as error:
            self.unwritten = error.strerror or str(error)
            _silence(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                self.note(f"the result could not be written to standard output: {self.unwritten}")

    def log(self, level: str, message: str) -> None:
        """Append one line to the log file: local time, level, message. A log that can't be written is said once."""
        if not self.log_file:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{level}] {' '.join(message.split())}\n"
        try:
            # Neither through a link to somewhere else nor into a pipe that nobody reads.
            fd = os.open(
                self.log_file,
                os.O_WRONLY
                | os.O_APPEND
                | os.O_CREAT
                | os.O_NOFOLLOW
                | os.O_NONBLOCK
                | os.O_CLOEXEC,
                0o640,
            )
            try:
                os.write(fd, line.encode("utf-8", "replace"))
            finally:
                os.close(fd)
        except OSError as error:
            reason = (
                "it is a symbolic link, which is not followed"
                if error.errno == errno.ELOOP
                else error.strerror
            )
            # Said once, but tried again with the next line: logrotate may just be between its rename and its new file.
            if not self.log_lost:
                self.note(
                    f"no log is written: {self.log_file}: {reason} (choose another with --log-file)"
                )
            self.log_lost = True

    def progress(self, step: Progress) -> None:
        """Show progress: a bar on a terminal, otherwise a plain line whenever another tenth is done, at most every 5 s."""
        share = step.done / step.total if step.total else 0.0
        now = time.monotonic()
        if self.live:
            if now - self.last[0] < 0.1 and share < 1:
                return
            filled = int(share * 30)
            amount = f"{share:4.0%}" if step.total else f"{step.done}"
            _tell(
                f"\r\033[K{step.phase:<10} [{'#' * filled}{'.' * (30 - filled)}] {amount} {step.subject[-40:]}"
            )
            self.drawn = True
            self.last = (now, 0)
        elif step.total and now - self.last[0] >= 5 and int(share * 10) != self.last[1]:
            _tell(f"{step.phase}: {share:.0%} of {step.total} {step.unit}\n")
            self.last = (now, int(share * 10))

    def clear(self) -> None:
        """Remove the progress bar."""
        if self.drawn:
            _tell("\r\033[K")
            self.drawn = False


# --- flags from the option tables -------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, table, leave_out=()) -> None:
    """Give the parser a flag for each option of the table that is not secret; values stay text until the core reads them."""
    group = parser.add_argument_group("options (also keys of the configuration file)")
    for option in table:
        if option.name not in leave_out:
            _add_option(group, option, "")


def _add_option(group, option: Option, prefix: str) -> None:
    if option.secret or (option.type == "list" and option.suboptions):
        return  # secrets would be visible in the process list; lists of mappings belong in the file
    if option.suboptions is not None:
        for inner in option.subtable:
            _add_option(group, inner, f"{prefix}{option.name}.")
        return
    name = (prefix + option.name).replace("_", "-").replace(".", "-")
    text = option.help.replace("%", "%%")
    if option.env:
        text += f" [{', '.join(option.env)}]"
    keywords: dict = {"dest": f"option:{prefix}{option.name}", "default": None, "help": text}
    if option.type == "bool":
        keywords["action"] = argparse.BooleanOptionalAction
    elif option.type == "path" and not option.relative_ok:
        keywords.update(metavar="PATH", type=full_path)
    elif option.type == "list":
        keywords.update(metavar="LIST", type=_words)
    elif option.type == "dict":
        keywords["metavar"] = "JSON"
        keywords["type"] = _json_object
    else:
        keywords["metavar"] = (
            "{" + ",".join(map(str, option.choices)) + "}"
            if option.choices
            else option.type.upper()
        )
    group.add_argument(f"--{name}", *option.flags, **keywords)


def full_path(text: str) -> str:
    """Return a path of the command line in full: a person means it from where they are. An empty one stays one, and is refused."""
    if not text or text.startswith(("/", "~")):
        return text
    try:
        return os.path.normpath(os.path.join(os.getcwd(), text))
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"the current folder is gone ({error.strerror}): give a full path"
        ) from None


def _archive(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("empty: give an archive, its name, or latest")
    return full_path(text) if "/" in text else text


def _words(text: str):
    """Return a list's words; none at all is a list too, and not the same as not given."""
    return text if text.strip() else []


def _json_object(text: str):
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return found


def flags_given(arguments: argparse.Namespace) -> dict:
    """Return the options that were given as flags, suboptions nested."""
    found: dict = {}
    for key, value in vars(arguments).items():
        if key.startswith("option:") and value is not None:
            *outer, name = key[len("option:") :].split(".")
            below = found
            for step in outer:
                below = below.setdefault(step, {})
            below[name] = value
    return found


class Command:
    """One call of the command: the parsed flags, the configuration, the terminal and the ports."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.name = arguments.command
        self.environ = dict(os.environ)
        log_file = getattr(arguments, "log_file", None) or (
            self.environ.get("LOG_FILE") if self.name == "maintenance" else None
        )
        self.terminal = Terminal(getattr(arguments, "json", False), log_file or LOGS.get(self.name))
        self.world = World(run=run_command, warn=self.terminal.note)
        self._file: dict | None = None
        # Said by the doctor, who starts the unit. Asked once, at the start: a backup of hours may come before the cleanup.
        until = self.environ.get("MLFLEET_REHEARSE_CLEANUP_UNTIL", "")
        self.rehearses_cleanup = until.isdigit() and int(until) > time.time()

    @property
    def file(self) -> dict:
        if self._file is None:
            try:
                self._file = config.load(self.arguments.config)
            except NotUsable as error:
                if not isinstance(error.__cause__, PermissionError):
                    raise
                path = self.arguments.config
                raise NotUsable(
                    f"{path} can't be read by {_user_name()}.",
                    "Run this as root" + _member(path) + ".",
                    path,
                ) from error
            if self.arguments.config != CONFIG and not os.path.exists(self.arguments.config):
                self.terminal.note(
                    f"there is no configuration {self.arguments.config!r}: defaults are in force"
                )
        return self._file

    def merged(self, part: str, flags=None) -> tuple[dict, dict]:
        """Return the values of a part by precedence, and where each came from."""
        table = config.option_set(part)
        given = flags_given(self.arguments) if flags is None else flags
        return config.merge(table, self.file.get(part, {}), self.environ, given)

    def options(self, part: str, flags=None, **forced):
        values, origin = self.merged(part, flags)
        values.update(forced)
        asked = getattr(self.arguments, "s3_sync", False) or "s3" in (
            flags_given(self.arguments) if flags is None else flags
        )
        if part == "backup" and not asked and "s3" not in self.file.get("backup", {}):
            # As before, the bucket of the environment is used only when --s3-sync asks for it.
            values.pop("s3", None)
        return self.checked(part, values, origin)

    def checked(self, part: str, values, origin, section: bool = False):
        """Return the option set of merged values; what is wrong with one says where it comes from."""
        table = config.option_set(part)
        try:
            return (table.from_section if section else table.from_mapping)(values)
        except OptionError as error:
            source = origin.get(
                (error.subject or "").partition(".")[0].partition("[")[0], "default"
            )
            where = {"file": self.arguments.config, "flag": "the command line", "default": ""}.get(
                source, source
            )
            raise OptionError(
                error.message + (f" It comes from {where}." if where else ""),
                error.todo,
                error.subject,
            ) from error


def _user_name() -> str:
    """Return the name of the user this runs as, or the number where there is no name."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def _member(path: str) -> str:
    """Return the advice to become a member of the group that may read the configuration, empty where it is not known."""
    import grp

    with contextlib.suppress(OSError, KeyError):
        group = grp.getgrgid(os.stat(os.path.dirname(os.path.abspath(path))).st_gid)
        if group.gr_gid:
            return f" or as a member of the group {group.gr_name}"
    return ""


@contextlib.contextmanager
def job_lock(command: Command):
    """Let no two jobs that change this node overlap: backup, restore, cleanup and maintenance share one lock. Rehearsals need none."""
    from ._core.system import locks

    if command.arguments.dry_run:
        yield
        return
    with locks.lock(
        os.path.join(locks.lock_folder(), "jobs.lock"), "job of mlfleet", command.arguments.wait
    ):
        yield


# --- the subcommands ----------------------------------------------------------------------------------------------


def writable(path: str) -> bool:
    """Say whether this user can append to the file, or make it."""
    return (
        os.access(path, os.W_OK)
        if os.path.lexists(path)
        else os.access(os.path.dirname(path), os.W_OK)
    )


def judge(command: Command, part: str, flags=None, write: bool = True) -> dict:
    """Run a health check (C(health) or C(gpu)) and return its document; C(write) its metrics and state files."""
    if part == "health":
        from ._core.node.run import run

        return run(command.options(part, flags), command.world, check=not write).to_dict()
    from ._core.gpu.run import run

    extra = {}
    if "metrics_csv" not in command.merged("gpu", flags)[0]:
        extra["metrics_csv"] = METRICS if writable(METRICS) else None
    return run(command.options(part, flags, **extra), command.world, check=not write).to_dict()


def show_document(command: Command, document: dict) -> None:
    from ._core.output import human

    terminal = command.terminal
    chosen = formats.FORMATS[getattr(command.arguments, "format", formats.DEFAULT)]
    style = formats.Style(command.name, terminal.colour, command.arguments.verbose)
    terminal.say(*chosen.render(document, style))
    for check in document["checks"]:
        if check["status"] not in (verdict.PASS, verdict.SKIPPED):
            terminal.log(
                {"warning": "WARNING", "unknown": "WARNING"}.get(check["status"], "CRITICAL"),
                check["message"],
            )
    terminal.log("INFO", human.document(document)[-1])
    terminal.data(document)


def send_alerts(command: Command, document: dict) -> None:
    """Tell people, when the configuration or the old environment variables name a channel."""
    values, origin = command.merged("alert", {})
    if command.arguments.no_alert or not any(
        values.get(name) for name in ("email", "webhooks", "syslog", "command")
    ):
        return
    from ._core.alert import run as alert

    values["document"] = document
    result = alert.run(command.checked("alert", values, origin), command.world)
    for channel in result.to_dict()["channels"]:
        if channel["status"] in ("failed", "queued"):
            command.terminal.note(
                f"alert by {channel['name']} {channel['status']}: {channel.get('detail', '')}"
            )
            command.terminal.log(
                "WARNING",
                f"alert by {channel['name']} {channel['status']}: {channel.get('detail', '')}",
            )


def do_health(command: Command) -> int:
    document = judge(command, command.name)
    show_document(command, document)
    try:
        send_alerts(command, document)
    except FleetError as error:
        command.terminal.note(f"no alert was sent: {error}")
        command.terminal.log("ERROR", f"no alert was sent: {error}")
    return int(document["exit_code"])


def back_up(command: Command, flags=None, check: bool = False) -> dict:
    from ._core.backup.make import run

    return run.run(
        command.options("backup", flags), command.world, check=check, tell=command.terminal.progress
    ).to_dict()


def clean_up(command: Command, flags=None, check: bool = False) -> dict:
    from ._core.cleanup import run as job

    return job.run(
        command.options("cleanup", flags),
        command.world,
        check=check,
        tell=command.terminal.progress,
    ).to_dict()


def do_backup(command: Command) -> int:
    arguments, terminal = command.arguments, command.terminal
    if arguments.verify_file is not None:
        return verify_archive(command, arguments.verify_file)
    if arguments.s3_sync and not (command.merged("backup")[0].get("s3") or {}).get("bucket"):
        raise OptionError(
            "--s3-sync needs a bucket.",
            "Set S3_BUCKET, --s3-bucket or backup.s3.bucket in the configuration.",
            "s3.bucket",
        )
    terminal.log("INFO", "backup started" + (" (dry run)" if arguments.dry_run else ""))
    with job_lock(command):
        result = back_up(command, check=arguments.dry_run)
    lines = backup_lines(result, arguments.dry_run)
    terminal.say(*lines)
    for line in lines:
        terminal.log("INFO", line)
    terminal.data(result)
    return 0


def backup_lines(result: dict, dry_run: bool) -> list:
    """Return what a backup run did, or would do, as lines."""
    from ._core.system.text import human_size

    would = "would be " if dry_run else ""
    made, plan = result["backup"] or {}, result["plan"]
    if plan["action"] == "create" and dry_run:
        lines = [
            f"A backup would be made: {plan['files']} files, {human_size(plan['bytes'])} ({plan['reason']})"
        ]
    elif plan["action"] == "create":
        proof = "verified" if made.get("verified") else "NOT verified"
        lines = [
            f"Backup made: {made['path']} ({made['files']} files, {human_size(made['size'])}, {proof})"
        ]
    else:
        lines = [f"No new backup needed: {plan['reason']}"]
    lines += [f"Copy {would}stored: {copy['url']}" for copy in result["copies"]]
    return lines + [
        f"Expired backup {would}removed: {one['path']} ({one['reason']})"
        for one in result["removed"]
    ]


def verify_archive(command: Command, path: str) -> int:
    """Verify one archive, or all in the backup folder; exit status 2 when one is damaged or there is none."""
    from ._core.backup import info
    from ._core.backup.options import InfoOptions

    terminal = command.terminal
    try:
        result = info.run(
            InfoOptions.from_mapping({"path": path, "verify": "full"}), terminal.progress
        )
    except NotUsable as error:  # what is not there, or can't be read, is not verified
        raise VerificationFailed(error.message, error.todo, error.subject) from error
    found = result["backups"]
    for one in found:
        problems = "; ".join(one.get("problems") or [])
        line = f"{one['path']}: " + (
            "verified" if one.get("verified") else f"DAMAGED: {problems or 'not verified'}"
        )
        terminal.say(line)
        terminal.log("INFO" if one.get("verified") else "CRITICAL", line)
    if not found:
        terminal.say(f"There is no backup in {path}")
        terminal.log("CRITICAL", f"there is no backup in {path}")
    terminal.data(result)
    return 0 if found and all(one.get("verified") for one in found) else EXIT_BAD_BACKUP


def do_verify(command: Command) -> int:
    path = (
        command.options("backup", {}).destination
        if command.arguments.path is None
        else command.arguments.path
    )
    return verify_archive(command, path)


def do_restore(command: Command) -> int:
    from ._core.backup.options import RestoreOptions
    from ._core.backup.restore import run

    arguments, terminal = command.arguments, command.terminal
    given = {
        "backup": arguments.backup,
        "path": command.options("backup", {}).destination
        if arguments.path is None
        else arguments.path,
        "destination": arguments.destination,
        "files": arguments.files,
        "mode": "replace" if arguments.replace else "new",
    }
    with job_lock(command):
        result = run.run(
            RestoreOptions.from_mapping(given),
            command.world,
            check=arguments.dry_run,
            tell=terminal.progress,
        ).to_dict()
    restored = result["restored"]
    line = f"{'Would restore' if arguments.dry_run else 'Restored'} {restored.get('files')} files from {restored.get('backup')} to {arguments.destination}"
    terminal.say(line)
    terminal.log("INFO", line)
    terminal.data(result)
    return 0


def do_cleanup(command: Command) -> int:
    from ._core.output import human
    from ._core.system.text import human_size

    arguments, terminal = command.arguments, command.terminal
    flags = flags_given(arguments)
    if arguments.only_target:
        flags["only"] = arguments.only_target
    if flags.get("only") == []:
        raise OptionError(
            "--only names no target.", "Name some, or leave it out to clean up all.", "only"
        )
    dry_run = arguments.dry_run or command.rehearses_cleanup
    terminal.log("INFO", "cleanup started" + (" (dry run)" if dry_run else ""))
    with job_lock(command):
        result = clean_up(command, flags, check=dry_run)
    rows = [["TARGET", "ROOT", "STATUS", "REMOVED", "FREED"]]
    for target in result["targets"]:
        freed = human_size(target.get("freed_bytes") or 0)
        rows.append(
            [
                target["name"],
                target.get("root", ""),
                target.get("status", ""),
                target.get("removed_count", 0),
                freed,
            ]
        )
    if arguments.verbose or dry_run:
        for unit in result["plan"] if dry_run else result["removed"]:
            path = unit.get("path", "") if isinstance(unit, dict) else unit
            size = (
                f" ({human_size(unit.get('size') or unit.get('bytes') or 0)})"
                if isinstance(unit, dict)
                else ""
            )
            terminal.say(f"{'would remove' if dry_run else 'removed'} {path}{size}")
    terminal.say(*human.table(rows))
    line = f"{'Would free' if dry_run else 'Freed'} {human_size(result['freed_bytes'])}"
    terminal.say(line)
    terminal.log("INFO", line)
    terminal.data(result)
    return EXIT_FAILED if result.get("failed") else 0


def do_maintenance(command: Command) -> int:
    from ._core.fleet import report as fleet
    from ._core.maintenance import plan
    from ._core.maintenance import run as maintenance
    from ._core.system import text

    arguments, terminal = command.arguments, command.terminal
    flags = {f"run_{phase}": False for phase in fleet.PHASES if getattr(arguments, f"skip_{phase}")}
    if arguments.continue_on_error:
        flags["continue_on_error"] = True
    options = command.options("maintenance", flags)
    check = arguments.dry_run

    flags_of_health = {}
    leaves_gpus = plan.leaves_gpus(
        {
            name: value
            for (values, origin) in [command.merged("health", {})]
            for name, value in values.items()
            if origin[name] != "default"
        },
        options.run_gpu,
    )
    if leaves_gpus:
        flags_of_health["gpu"] = False

    def judged(part):
        document = judge(
            command, part, flags_of_health if part == "health" else {}, write=not check
        )
        if part == "health" and leaves_gpus:
            document = plan.note_gpus_left(document)
        if not check:
            try:
                send_alerts(command, document)
            except FleetError as error:
                terminal.note(f"no alert was sent: {error}")
        return document

    phases = {
        "health": lambda: judged("health"),
        "gpu": lambda: judged("gpu"),
        "backup": lambda: back_up(command, {}, check),
        "cleanup": lambda: clean_up(command, {}, check or command.rehearses_cleanup),
    }

    def started(phase: str) -> None:
        terminal.log("INFO", f"{phase} started")
        if not terminal.live:
            terminal.note(f"{phase} started")

    with job_lock(command):
        results = maintenance.run(options, phases, command.world, started)
    report = fleet.assemble(
        [command.world.hostname],
        lambda _host, phase: results[phase],
        timestamp=command.world.clock.now(),
        title="Maintenance",
    )
    report["results"] = {
        phase: {key: value for key, value in result.items() if key != "skip"}
        for phase, result in results.items()
    }
    rehearsed = (
        ("backup", "cleanup") if check else ("cleanup",) if command.rehearses_cleanup else ()
    )
    for entry in report["hosts"][0]["phases"]:
        if entry["phase"] in rehearsed and entry["status"] not in (fleet.FAILED, verdict.SKIPPED):
            entry["message"] = f"rehearsed, nothing was changed: {entry['message']}"
    headline = fleet.headline(report) + (
        f" ({' and '.join(rehearsed)} rehearsed: nothing was changed)" if rehearsed else ""
    )
    table = fleet.table(report)
    terminal.say(*table[:-1], headline)
    for entry in report["hosts"][0]["phases"]:
        took = "" if entry["duration"] is None else f" in {text.human_duration(entry['duration'])}"
        terminal.log(
            "ERROR" if entry["status"] == fleet.FAILED else "INFO",
            f"{entry['phase']}: {entry['status']}{took}: {entry['message']}",
        )
    terminal.log("INFO", headline)
    terminal.data(report)
    return EXIT_FAILED if report["failed_hosts"] else 0


def read_document(path: str):
    """Return the JSON document in a file, or on standard input (C(-))."""
    try:
        if path == "-":
            return json.load(sys.stdin)
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{path} can't be read as a JSON document: {error}.",
            "Give the output of a command with --json.",
            path,
        ) from None


def do_alert(command: Command) -> int:
    from ._core.alert import run as alert

    arguments, terminal = command.arguments, command.terminal
    values, origin = command.merged("alert", flags_given(arguments))
    if arguments.document_file:
        values["document"] = read_document(arguments.document_file)
    if arguments.unit:
        values.setdefault("severity", "critical")
        if not values.get("msg"):
            why = command.environ.get(
                "MONITOR_SERVICE_RESULT", ""
            )  # systemd 251 and later says it: oom-kill, timeout, exit-code
            values["msg"] = f"{arguments.unit} failed on {command.world.hostname}" + (
                f" ({why})" if why else ""
            )
    result = alert.run(
        command.checked("alert", values, origin), command.world, check=arguments.dry_run
    ).to_dict()
    for channel in result["channels"]:
        terminal.say(
            f"{channel['name']}: {channel['status']} {channel.get('detail') or ''}".rstrip()
        )
    if not result["channels"]:
        terminal.say(
            "No channel is configured: set alert.email, alert.webhooks, alert.syslog or alert.command in the configuration."
        )
    terminal.data(result)
    return (
        EXIT_FAILED
        if any(channel["status"] in ("failed", "queued") for channel in result["channels"])
        else 0
    )


def effective(command: Command) -> tuple[dict, list]:
    """Return the options in force with their origin, by part, and what is wrong with the configuration."""
    found: dict = {}
    problems = []
    for part in config.PARTS:
        values, origin = command.merged(part, {})
        try:
            shown = command.checked(part, values, origin, section=True).to_dict()
        except FleetError as error:
            problems.append(f"{part}: {error}")
            continue
        found[part] = {
            name: {"value": value, "from": origin[name]} for name, value in shown.items()
        }
    return found, problems


def do_config(command: Command) -> int:
    from ._core.output import human

    terminal = command.terminal
    found, problems = effective(command)
    rows = [["OPTION", "VALUE", "FROM"]]
    rows += [
        [f"{part}.{name}", json.dumps(one["value"]), one["from"]]
        for part, options in found.items()
        for name, one in options.items()
    ]
    if not command.arguments.quiet:
        terminal.say(*human.table(rows))
    terminal.say(*(f"wrong: {problem}" for problem in problems))
    if not problems:
        terminal.say(
            f"The configuration can be used ({command.arguments.config}{'' if command.file else ': empty or not there, so defaults'})."
        )
    terminal.data({"options": found, "problems": problems, "version": version()})
    return EXIT_NOT_RUN if problems else 0


def do_doctor(command: Command) -> int:
    from ._core import doctor, trial
    from ._core.backup import info
    from ._core.backup.options import InfoOptions
    from ._core.system import locks

    arguments, world = command.arguments, command.world
    if arguments.run is not None and os.geteuid():
        raise NotUsable(
            "Only root can start the jobs' units (--run).",
            "Run: sudo mlfleet doctor --run",
            "--run",
        )
    found = trial.scheduled(world)
    for environ in (os.environ, command.environ, world.environ):
        environ.update(trial.variables(world, found))
    wanted = set(found.jobs) or set(trial.UNITS)
    checks = doctor.configuration(arguments.config, effective(command)[1])
    with contextlib.suppress(FleetError):  # said by the check before
        options = command.options("maintenance", {})
        wanted |= {
            name
            for name in trial.UNITS
            if "maintenance" in wanted and getattr(options, f"run_{name}", False)
        }
    work = {
        "health": lambda: judge(command, "health", {}, write=False),
        "gpu": lambda: judge(command, "gpu", {}, write=False),
        "backup": lambda: back_up(command, {}, check=True),
        "cleanup": lambda: clean_up(command, {}, check=True),
    }
    obstacles, destination = {}, ""
    for name, run in work.items():
        check, result = doctor.job(name, run, name in wanted)
        checks.append(check)
        if check.status != verdict.PASS:
            obstacles[name] = f"{name} can't run"
        elif name == "backup":
            destination = command.options("backup", {}).destination
            checks.append(doctor.space(destination, result["plan"]))
            if checks[-1].status == verdict.CRITICAL:
                obstacles[name] = "there is not enough space for a backup"

    def backups() -> list:
        return (
            info.run(InfoOptions.from_mapping({"path": destination}))["backups"]
            if destination and os.path.isdir(destination)
            else []
        )

    before, changed = [one["path"] for one in backups()], False
    started = list(dict.fromkeys(arguments.run or found.jobs)) if arguments.run is not None else []
    # Two at once would take each other's drop-ins away, and a rehearsal would become a cleanup.
    with (
        locks.lock(os.path.join(locks.lock_folder(), "trial.lock"), "trial run of mlfleet")
        if started
        else contextlib.nullcontext()
    ):
        for name in sorted(started, key=list(trial.UNITS).index):
            needs = [name] if name != "maintenance" else [one for one in work if one in wanted]
            obstacle = "; ".join(obstacles[one] for one in needs if one in obstacles)
            check, how = doctor.trial_run(
                world, found, name, arguments.cleanup == "rehearse", obstacle
            )
            checks.append(check)
            changed = changed or (
                how is not None
                and arguments.cleanup == "run"
                and name in ("cleanup", "maintenance")
                and "Freed 0 B" not in how.said
            )
    if destination and os.path.isdir(destination):
        checks.append(doctor.proven(backups(), destination))
        changed = changed or before != [one["path"] for one in backups()]
    checks += doctor.logs(list(LOGS.values()))
    checks += [doctor.rotation(world), doctor.schedule(found, world)]
    checks += doctor.last_runs(world, [name for name in started if name in found.jobs])
    try:
        channels = alert_channels(command)
        if channels and arguments.alert_test:
            tested = (
                trial.alert_test(world, found, os.path.realpath(sys.argv[0]))
                if not os.geteuid()
                else None
            )
            channels = alert_channels(command, send=True) if tested is None else tested
        checks.append(doctor.alerts(channels, tested=arguments.alert_test))
    except FleetError as error:
        checks.append(doctor.alerts(None, str(error)))
    extra = {"version": version(), "changed": changed}
    document = verdict.Document(
        verdict.isoformat(time.time()), world.hostname, tuple(checks), extra
    ).to_dict()
    show_document(command, document)
    return int(document["exit_code"])


def alert_channels(command: Command, send: bool = False) -> list:
    """Return the channels that a test message would go to; C(send) it."""
    values, origin = command.merged("alert", {})
    if not any(values.get(name) for name in ("email", "webhooks", "syslog", "command")):
        return []
    from ._core.alert import run as alert

    options = command.checked("alert", {**values, "test": True}, origin)
    return alert.run(options, command.world, check=not send).to_dict()["channels"]


def do_completion(command: Command) -> int:
    """Print the completion script for bash, made from the parser, so that it names what this version knows."""
    parser = parser_of()
    (subparsers,) = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    files, plain, flags = [], [], []
    for name, sub in subparsers.choices.items():
        words = []
        for action in sub._actions:
            words += [word for word in action.option_strings if word.startswith("--")]
            patterns = "|".join(f'"{name} {word}"' for word in action.option_strings)
            choices = action.choices or (
                action.metavar[1:-1].split(",") if str(action.metavar).startswith("{") else ()
            )
            if (
                not patterns
                or action.nargs == 0
                or isinstance(action, argparse.BooleanOptionalAction)
            ):
                continue
            if choices:
                flags.append(f"    {patterns}) words='{' '.join(map(str, choices))}' ;;")
            else:
                (files if action.metavar in ("FILE", "DIR", "PATH") else plain).append(patterns)
        flags.append(f"    \"{name} \"*) words='{' '.join(words)}' ;;")
    # The flags with values first: the line of the subcommand itself matches whatever comes before the cursor.
    flags.sort(key=lambda line: line.startswith('    "') and '"*)' in line)
    names = " ".join([*subparsers.choices, "--help", "--version"])
    script = _COMPLETION.replace("@NAMES@", names).replace("@FLAGS@", "\n".join(flags))
    command.terminal.say(
        script.replace("@FILES@", "|".join(files)).replace("@PLAIN@", "|".join(plain)).rstrip()
    )
    return 0


# Works without the package bash-completion: plain bash 4 built-ins only.
_COMPLETION = """# Completion of mlfleet for bash. Installed by mlops.fleet.agent; changes are lost.
_mlfleet() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command word words
    command='' words=''
    # bash takes the = of --flag=value for a word
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ $word != -* ]]; then
            command=$word
            break
        fi
    done
    COMPREPLY=()
    case "$command $previous" in
    @FILES@)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    @PLAIN@) return ;;
    " "*) words='@NAMES@' ;;
@FLAGS@
    esac
    if [[ $command == @(verify|restore) && $current != -* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _mlfleet mlfleet
"""


# --- the command line -----------------------------------------------------------------------------------------------

EPILOG = """exit status: 0 all well, 1 warning (backup, cleanup, maintenance: failed), 2 critical (backup: a backup is damaged), 3 could not run.
Flags win over environment variables (in brackets), these over the configuration file, that over defaults; 'mlfleet config' shows what is in force."""


EXAMPLES = {
    "health": (
        "mlfleet health --verbose",
        'mlfleet health --disk-warn 70 --services "docker nginx" --no-network',
        "mlfleet health --json | jq .summary.health_score",
    ),
    "gpu": (
        "mlfleet gpu --verbose",
        "TEMP_THRESHOLD=75 mlfleet gpu",
        "mlfleet gpu --json | jq '.gpus[] | .id, .temp'",
    ),
    "backup": (
        "mlfleet backup --dry-run",
        "MODEL_DIR=/opt/ml/models BACKUP_DIR=/backup/models mlfleet backup",
        "S3_BUCKET=my-backups mlfleet backup --s3-sync",
        "mlfleet backup --verify /backup/models/models_backup_20250131_020000.tar.gz",
    ),
    "verify": (
        "mlfleet verify",
        "mlfleet verify /backup/models/models_backup_20250131_020000.tar.gz",
    ),
    "restore": (
        "mlfleet restore --dry-run /srv/restored",
        "mlfleet restore /srv/restored 'bert/*' --backup models_backup_20250131_020000.tar.gz",
    ),
    "cleanup": (
        "mlfleet cleanup --dry-run",
        "mlfleet cleanup --aggressive",
        "EXPERIMENTS_RETENTION=14 mlfleet cleanup --experiments-only",
    ),
    "maintenance": (
        "mlfleet maintenance --dry-run",
        "mlfleet maintenance --skip-gpu --continue-on-error",
    ),
    "alert": (
        "mlfleet alert --test",
        "mlfleet alert --severity warning --msg 'The tape library is full'",
        "mlfleet health --json | mlfleet alert --document -",
    ),
    "config": ("mlfleet config --check", "mlfleet config --json | jq .options.backup"),
    "doctor": (
        "mlfleet doctor",
        "mlfleet doctor --run",
        "mlfleet doctor --run gpu health --alert-test",
    ),
}


def parser_of(names=None) -> argparse.ArgumentParser:
    """Return the parser; only the subcommands in C(names) get their options (importing a part costs time)."""
    parser = argparse.ArgumentParser(
        prog="mlfleet",
        description="Keeps this ML node healthy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mlfleet {version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(
        name: str, text: str, work, part: str | None = None, leave_out=(), dry_run=False
    ) -> argparse.ArgumentParser:
        examples = "".join(f"  {line}\n" for line in EXAMPLES[name])
        epilog = f"examples:\n{examples}\n{EPILOG}"
        sub = subparsers.add_parser(
            name,
            help=text,
            description=text,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(work=work)
        sub.add_argument(
            "--config",
            default=CONFIG,
            metavar="FILE",
            help=f"configuration file (default {CONFIG}) [MLFLEET_CONFIG]",
        )
        sub.add_argument(
            "--json", action="store_true", help="print one JSON document and nothing else on stdout"
        )
        sub.add_argument("--verbose", "-v", action="store_true", help="show what passed too")
        if name in LOGS:
            sub.add_argument(
                "--log-file", metavar="FILE", help=f"append to this log (default {LOGS[name]})"
            )
        if dry_run:
            sub.add_argument(
                "--dry-run",
                "-n",
                action="store_true",
                help="change nothing, say what would be done",
            )
            if name != "alert":
                sub.add_argument(
                    "--wait",
                    type=float,
                    default=0,
                    metavar="SECONDS",
                    help="wait this long for another job to end (default 0)",
                )
        if part and (names is None or name in names):
            add_options(sub, config.option_set(part).TABLE, leave_out)
        return sub

    for name, text in (("health", "judge this node"), ("gpu", "judge the GPUs of this node")):
        sub = add(name, text, do_health, name, leave_out=("fail_on",))
        sub.add_argument(
            "--format",
            choices=formats.FORMATS.names,
            default=formats.DEFAULT,
            help="what to print: for people, plugin output, or JUnit XML",
        )
        sub.add_argument(
            "--no-alert", action="store_true", help="tell nobody, whatever the verdict"
        )
    sub = add(
        "backup",
        "back up the models, verified",
        do_backup,
        "backup",
        leave_out=("verify",),
        dry_run=True,
    )
    sub.add_argument(
        "--s3-sync",
        action="store_true",
        help="store a copy in the bucket named by S3_BUCKET or the configuration",
    )
    sub.add_argument(
        "--verify",
        dest="verify_file",
        metavar="FILE",
        type=full_path,
        help="make no backup; verify this archive",
    )
    sub.add_argument(
        "--no-verify",
        dest="option:verify",
        action="store_false",
        default=None,
        help="do not read the new archive back [VERIFY_BACKUP=false]",
    )
    sub = add("verify", "read backups again and compare every file", do_verify)
    sub.add_argument(
        "path",
        nargs="?",
        type=full_path,
        help="an archive or a backup folder (default: the configured one)",
    )
    sub = add("restore", "restore a backup, verified while it is written", do_restore, dry_run=True)
    sub.add_argument("destination", type=full_path, help="folder to restore to")
    sub.add_argument("files", nargs="*", help="only these files (patterns)")
    sub.add_argument(
        "--backup", default="latest", type=_archive, help="archive, its name, or latest"
    )
    sub.add_argument(
        "--path", metavar="DIR", type=full_path, help="backup folder (default: the configured one)"
    )
    sub.add_argument("--replace", action="store_true", help="replace what is in the destination")
    sub = add(
        "cleanup",
        "remove old experiments, checkpoints, logs and temporary files",
        do_cleanup,
        "cleanup",
        dry_run=True,
    )
    for target in ("experiments", "checkpoints"):
        sub.add_argument(
            f"--{target}-only",
            dest="only_target",
            action="append_const",
            const=target,
            help=f"clean up {target} and nothing else",
        )
    sub = add(
        "maintenance", "health, GPU, backup, cleanup, in this order", do_maintenance, dry_run=True
    )
    for phase in ("health", "gpu", "backup", "cleanup"):
        sub.add_argument(f"--skip-{phase}", action="store_true", help=f"leave out {phase}")
    sub.add_argument(
        "--continue-on-error",
        action="store_true",
        help="go on after a phase that failed (cleanup never follows a failed backup)",
    )
    sub.add_argument("--no-alert", action="store_true", help="tell nobody, whatever the verdict")
    sub = add(
        "alert",
        "tell people, over the configured channels",
        do_alert,
        "alert",
        leave_out=("document",),
        dry_run=True,
    )
    sub.add_argument(
        "--document",
        dest="document_file",
        metavar="FILE",
        help="verdict to tell about (- for standard input)",
    )
    sub.add_argument("--unit", help="say that this systemd unit failed (for OnFailure=)")
    sub = add("config", "show the effective configuration and where it comes from", do_config)
    sub.add_argument(
        "--check",
        action="store_true",
        help="the same: show it, and end with 3 when it can't be used",
    )
    sub.add_argument("--quiet", "-q", action="store_true", help="only say whether it can be used")
    sub = add(
        "doctor",
        "say whether this node can look after itself; changes nothing unless told to start the jobs",
        do_doctor,
    )
    jobs = ("health", "gpu", "backup", "cleanup", "maintenance")
    text = "start these jobs too (default: all scheduled ones), once, in their own units as their timers do; needs root"
    sub.add_argument(
        "--run", nargs="*", choices=jobs, metavar="JOB", help=f"{text}; known: {' '.join(jobs)}"
    )
    sub.add_argument(
        "--cleanup",
        choices=("rehearse", "run"),
        default="rehearse",
        help="whether a cleanup that is started removes anything (default rehearse)",
    )
    sub.add_argument(
        "--alert-test",
        action="store_true",
        help="send a marked test message over each alert channel",
    )
    subparsers.add_parser(
        "completion", description="Print the completion script for bash."
    ).set_defaults(work=do_completion)
    return parser


class Stopped(BaseException):
    """A signal asked this process to end: everything half-made is removed on the way out, as on any error."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _stop(number: int, _frame) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the tidying up
    raise Stopped(number)


def _prepare() -> None:
    """Open what the caller closed of the three standard streams, and turn the signals that end a process into exceptions."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(
                os.devnull, os.O_RDWR
            )  # takes the lowest free number, so no file of ours ever becomes stdout
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a file name may hold any bytes
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and so do we then
            signal.signal(number, _stop)


def _exit_status(command: Command, error: FleetError) -> int:
    if isinstance(error, VerificationFailed):
        return EXIT_BAD_BACKUP
    if command.name in ("backup", "restore", "cleanup") and not isinstance(
        error, (OptionError, MissingLibrary, LockBusy)
    ):
        return EXIT_FAILED
    return EXIT_NOT_RUN


def run(command: Command) -> int:
    """Run one subcommand and say what went wrong; return its exit status."""
    terminal = command.terminal

    def failed(error: FleetError) -> None:
        terminal.note(str(error))
        terminal.log("ERROR", str(error))
        terminal.data({"error": error.to_dict()})

    try:
        return int(command.arguments.work(command))
    except FleetError as error:
        failed(error)
        return _exit_status(command, error)
    except KeyboardInterrupt:
        terminal.note("interrupted")
        terminal.log("ERROR", f"{command.name} interrupted")
        return 130
    except Stopped as error:
        terminal.note(f"stopped by {error}")
        terminal.log("ERROR", f"{command.name} stopped by {error}")
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is: one line, and the way to more
        if command.environ.get("MLFLEET_DEBUG"):
            import traceback

            _tell(traceback.format_exc())
        lines = " ".join(str(error).split())
        todo = "This is a fault of mlfleet; run it again with MLFLEET_DEBUG=1 in the environment for the traceback."
        failed(
            FleetError(
                f"{command.name} ended unexpectedly: {type(error).__name__}: {lines}.",
                todo,
                command.name,
            )
        )
        return EXIT_NOT_RUN


def main(argv=None) -> int:
    """Run the command line; return the exit status."""
    _prepare()
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except Stopped as error:
        # End by the signal itself: systemd and shells tell a stop from a failure by that.
        signal.signal(error.number, signal.SIG_DFL)
        os.kill(os.getpid(), error.number)
        return 128 + error.number


def _main(argv) -> int:
    named = [word for word in argv[:1] if not word.startswith("-")]
    try:
        arguments = parser_of(named).parse_args(argv)
    except SystemExit as leaving:
        try:
            sys.stdout.flush()
        except OSError:  # the reader of --help has gone away
            _silence(sys.stdout)
        return 0 if leaving.code in (None, 0) else EXIT_NOT_RUN
    command = Command(arguments)
    status = run(command)
    lost = command.terminal.unwritten
    return max(status, EXIT_NOT_RUN) if lost and lost != os.strerror(errno.EPIPE) else status


if __name__ == "__main__":
    sys.exit(main())
