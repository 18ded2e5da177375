# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that situations run on: directories of its own, the installed command, modules as Ansible
starts them.

Only interfaces that users have are used, so that a recorded result outlives every change inside the
collection.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DAY = 86400
#: What differs between two runs of the same program: replaced in every text, in this order.
_VARYING = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "$SHA256"),
    # The size of an archive depends on the library that compresses it.
    (re.compile(r"(new backup: \d+ files?, )[\d.]+ [KMG]?i?B"), r"\1$SIZE"),
    (re.compile(r"for another [\w .]+$"), "for another $DURATION"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?"), "$TIME"),
    (re.compile(r"\d{8}_\d{6}"), "$TIME"),
    (re.compile(r"\d{8}T\d{6}Z"), "$TIME"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:ms|s) ago\b"), "$DURATION ago"),
    (re.compile(r"(?<=for another )(?:1 h 00 min|59 min \d\d s)"), "$DURATION"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:ms|s)(?= *(?:$|  |ok\b|skipped\b|failed\b|-))"), "$DURATION"),
    (re.compile(r"\b1[789]\d{8}\b"), "$TIME"),  # seconds since the epoch
    (re.compile(r"\b\d+\.\d+\.\d+(?:-dev\d*)?-[0-9a-f]{12}\b"), "$VERSION"),
)
#: Keys whose numbers and texts differ between two runs or machines: times, durations, free space,
#: what zlib's version decides.
_VARYING_KEYS = frozenset(
    "duration duration_ms durations timestamp created started last since mtime archive_sha256"
    " sha256 bytes_written ratio estimated_size available_before available_after difference".split()
)


def harness():
    """Return the module that builds the simulated GPUs."""
    spec = importlib.util.spec_from_file_location(
        "nvml_harness", ROOT / "tests" / "nvml_double" / "harness.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def collections_of(tree: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    """Make a collections path below ``base`` that holds the checkout ``tree``."""
    link = base / "collections" / "ansible_collections" / "mlops" / "fleet"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(tree)
    return base / "collections"


def install_command(collections: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    """Install the node command of a checkout as the agent role does; return its path.

    The one place that knows where the command comes from: when its files move, only this function
    follows.
    """
    program = (
        "import sys\n"
        "from ansible_collections.mlops.fleet.plugins.action import agent_install\n"
        "from ansible_collections.mlops.fleet.plugins.module_utils._core import agent\n"
        "version, data = agent_install.bundle()\n"
        "agent.install(sys.argv[1], sys.argv[2], sys.executable, version, data)\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(collections),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLOPS_FLEET_LOCK_DIR": str(base / "locks"),
    }
    (base / "locks").mkdir(mode=0o700, exist_ok=True)
    subprocess.run(
        [sys.executable, "-c", program, str(base / "opt"), str(base / "bin")],
        env=environment,
        check=True,
    )
    return base / "bin" / "mlfleet"


class Programs:
    """The collection under test, once per session: a collections path and the installed command."""

    def __init__(self, tree: pathlib.Path, base: pathlib.Path) -> None:
        self.tree = tree
        self.collections = collections_of(tree, base)
        self.command = install_command(self.collections, base)


class Node:
    """One node.

    ``run`` starts the command, ``module`` a module; both return what came out as plain data.
    """

    def __init__(self, programs: Programs, base: pathlib.Path) -> None:
        self.programs = programs
        self.base = base
        self.bin = base / "bin"
        self.locks = base / "locks"
        self.state = base / "state"
        for directory in (self.bin, self.locks):
            directory.mkdir(mode=0o700)
        self.config = base / "config.json"
        self.env: dict[str, str] = {
            "PATH": (
                f"{self.bin}:{pathlib.Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
            ),
            "HOME": str(base),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "COLUMNS": "120",
            "MLOPS_FLEET_LOCK_DIR": str(self.locks),
            "MLOPS_FLEET_STATE_DIR": str(self.state),
            "NVML_DOUBLE_SCENARIO": "",
        }
        self.binds: list[str] = []
        self.settings: dict = {
            "alert": {"state_dir": str(base / "alert")},
            "gpu": {"log_source": "none"},
        }
        self.secrets: dict[str, str] = {}

    # --- what is on the node ---

    def put(self, path: str, content: str | bytes = "", days: float = 0) -> pathlib.Path:
        """Write a file below the node's directory, ``days`` old."""
        target = self.base / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        self.age(path, days)
        return target

    def age(self, path: str, days: float) -> None:
        """Make a file or directory and all in it ``days`` (and an hour, so that no whole day is
        ever close) old.
        """
        when = int(time.time()) - days * DAY - 3600
        target = self.base / path
        for found in [*(target.rglob("*") if target.is_dir() else ()), target]:
            os.utime(found, (when, when))

    def models(self) -> None:
        """Two models with fixed contents and times, as source and destination of backups."""
        self.put("models/bert/weights.bin", bytes(range(256)) * 800)
        self.put("models/bert/config.json", '{"layers": 12}\n')
        self.put("models/tiny/weights.bin", b"tiny" * 500)
        for path in sorted((self.base / "models").rglob("*")):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        self.settings["backup"] = {
            "source": str(self.base / "models"),
            "destination": str(self.base / "backups"),
            "workers": 1,
        }

    def experiments(self) -> None:
        """Four experiments and two checkpoints of several ages, and targets that cover them."""
        for name, days in (("run-a", 90), ("run-b", 60), ("run-c", 20), ("run-d", 1)):
            self.put(f"experiments/{name}/metrics.json", '{"loss": 0.5}\n' * 50)
            self.age(f"experiments/{name}", days)
        for name, days in (("epoch1.pt", 9), ("epoch2.pt", 2)):
            self.put(f"checkpoints/{name}", b"w" * 4000, days)
        targets = [
            {"name": "experiments", "path": str(self.base / "experiments"), "retention_days": 30},
            {
                "name": "checkpoints",
                "path": str(self.base / "checkpoints"),
                "unit": "file",
                "retention_days": 7,
            },
        ]
        self.settings["cleanup"] = {"targets": targets, "age_by": "mtime"}

    def gpus(self, scenario: str) -> None:
        """Put simulated GPUs in, by the name of a shipped scenario."""
        self.env.update(
            {
                key: value
                for key, value in harness().environment(scenario).items()
                if key.startswith(("LD_", "NVML_"))
            }
        )

    def program(self, name: str, script: str) -> None:
        """Install a shell script as a program of the node."""
        path = self.bin / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)

    def replace(self, path: str, content: str) -> None:
        """Let a file of the kernel (``/proc/...``) have this content, for programs of this node."""
        source = self.put("kernel" + path, content)
        self.binds.append(f"mount --bind '{source}' '{path}'")

    def replace_tree(self, path: str, files: dict[str, str]) -> None:
        """Let a directory (``/sys``, ``/run``) hold these files only, for programs of this node."""
        for name, content in files.items():
            self.put(f"kernel{path}/{name}", content)
        self.binds.append(f"mount --rbind '{self.base}/kernel{path}' '{path}'")

    # --- what is started ---

    def _argv(self, argv: list[str]) -> list[str]:
        if not self.binds:
            return argv
        return [
            "unshare",
            "--mount",
            "--",
            "sh",
            "-ec",
            "\n".join([*self.binds, 'exec "$@"']),
            "sh",
            *argv,
        ]

    def start(self, argv: list[str], stdin: str = "") -> subprocess.CompletedProcess:
        return subprocess.run(
            self._argv(argv),
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.base,
        )

    def run(self, subcommand: str, *arguments: str, stdin: str = "", text: bool = False) -> dict:
        """Run ``mlfleet``: with ``--json``, or for what people read (``text``)."""
        self.config.write_text(json.dumps(self.settings))
        argv = [
            str(self.programs.command),
            subcommand,
            "--config",
            str(self.config),
            *([] if text else ["--json"]),
            *arguments,
        ]
        if subcommand not in ("alert", "config", "doctor"):
            argv += ["--log-file", str(self.base / "job.log")]
        done = self.start(argv, stdin)
        result: dict = {"exit": done.returncode}
        try:
            result["stdout"] = done.stdout.splitlines() if text else json.loads(done.stdout)
        except ValueError:
            result["stdout"] = done.stdout.splitlines()
        result["stderr"] = done.stderr.splitlines()
        return result

    def module(self, name: str, check_mode: bool = False, **options) -> dict:
        """Run a module as Ansible does on a node: a process that reads its arguments and prints one
        JSON document.
        """
        arguments = {
            **options,
            "_ansible_check_mode": check_mode,
            "_ansible_tmpdir": str(self.base),
            "_ansible_remote_tmp": str(self.base),
        }
        path = self.put("arguments.json", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        self.env["PYTHONPATH"] = str(self.programs.collections)
        self.env["PYTHONDONTWRITEBYTECODE"] = "1"
        done = self.start(
            [
                sys.executable,
                "-m",
                f"ansible_collections.mlops.fleet.plugins.modules.{name}",
                str(path),
            ]
        )
        document = json.loads(done.stdout)
        document.pop("invocation", None)  # the arguments again
        return {"exit": done.returncode, "stdout": document, "stderr": done.stderr.splitlines()}

    def ansible(self, *arguments: str) -> dict:
        """Run ``ansible localhost``; return its result and what it displays."""
        argv = [
            str(pathlib.Path(sys.executable).with_name("ansible")),
            "localhost",
            "-i",
            "localhost,",
            "-c",
            "local",
            *arguments,
        ]
        argv += ["-e", f"ansible_python_interpreter={sys.executable}"]
        self.env.update(
            ANSIBLE_COLLECTIONS_PATH=str(self.programs.collections),
            ANSIBLE_LOCALHOST_WARNING="0",
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_HOME=str(self.base / "ansible"),
            PYTHONDONTWRITEBYTECODE="1",
        )
        done = self.start(argv)
        before, _arrow, document = done.stdout.partition("=> ")
        return {
            "exit": done.returncode,
            "lines": before.splitlines(),
            "stdout": json.loads(document) if document else None,
        }

    def tree(self, *names: str) -> list[str]:
        """Return the files below directories of the node, as relative paths."""
        return sorted(
            str(path.relative_to(self.base))
            for name in names
            for path in (self.base / name).rglob("*")
            if not path.is_dir()
        )

    # --- what is recorded ---

    def normal(self, value, key: str = ""):
        """Return a result without what differs from run to run and from machine to machine."""
        if isinstance(value, dict) and key not in _VARYING_KEYS:
            name = os.path.basename(str(value.get("name") or value.get("path") or ""))
            size = {}
            if name.startswith("models_backup_") or (key == "protection" and value.get("size")):
                size["size"] = "$SIZE"
            return {
                self.normal(name): self.normal(item, name)
                for name, item in {**value, **size}.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.normal(item) for item in value]
        if key in _VARYING_KEYS and value is not None and not isinstance(value, (bool, list)):
            return f"${key.upper()}"
        if not isinstance(value, str):
            return value
        for path, name in [
            (str(self.base), "$NODE"),
            (os.path.realpath(self.base), "$NODE"),
            *self.secrets.items(),
        ]:
            value = value.replace(path, name)
        host = rf"(?<![\w.-]){re.escape(socket.gethostname())}"
        value = re.sub(rf"{host}\.(\w+)\.[0-9a-f]{{16}}", r"$HOST.\1.$HASH", value)
        value = re.sub(rf"{host}(?![\w.-])", "$HOST", value)
        for pattern, name in _VARYING:
            value = pattern.sub(name, value)
        return value


def can_replace_kernel_files() -> bool:
    """Whether this user may make mount namespaces, which ``Node.replace`` needs."""
    return (
        bool(shutil.which("unshare"))
        and subprocess.run(
            ["unshare", "--mount", "true"], capture_output=True, check=False
        ).returncode
        == 0
    )
