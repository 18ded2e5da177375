# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the project's scripts share: where things lie, how commands run, which tools are missing and
how to get them.

Standard library only, and importable by any Python 3 so that an old interpreter gets a sentence
instead of a traceback.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from versions import CONTROLLER_PYTHON, TARGET_PYTHONS

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("MLOPS_BUILD_DIR") or ROOT / ".build").absolute()
OLDEST = tuple(map(int, CONTROLLER_PYTHON.split(".")))
PYTHONS = TARGET_PYTHONS

# Tool -> the Debian/Ubuntu packages that bring it.
PACKAGES = {
    "gcc": ["gcc", "libc6-dev"],
    "git": ["git"],
    "make": ["make"],
    "shellcheck": ["shellcheck"],
    "logrotate": ["logrotate"],
    "promtool": ["prometheus"],
    "prometheus-alertmanager": ["prometheus-alertmanager"],
    "podman": ["podman"],
    "runc": ["runc"],
    "mmdebstrap": ["mmdebstrap", "debian-archive-keyring"],
    "ssh": ["openssh-client"],
    "ssh-keygen": ["openssh-client"],
    "iptables": ["iptables"],
    "newuidmap": ["uidmap"],
    "slirp4netns": ["slirp4netns"],
    "netavark": ["netavark", "aardvark-dns"],
}
# Packages that would start a service: only their programs are wanted, unpacked into .build/tools.
UNPACKED = {"prometheus", "prometheus-alertmanager"}
# netavark lives outside PATH, and root's tools may be missing from the PATH of cron or CI.
EXTRA_PATH = (
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/lib/podman",
    "/usr/libexec/podman",
    "/usr/local/libexec/podman",
)


class Problem(Exception):
    """Something that stops this script, in words for the person who started it."""


def say(text: str = "") -> None:
    """Print one line at once, so that the lines stay in order with those of the commands."""
    print(text, flush=True)


def demand_python() -> None:
    """Go on under a Python that is new enough, or say what to install."""
    if sys.version_info >= OLDEST:
        return
    for version in reversed(PYTHONS):
        if tuple(map(int, version.split("."))) >= OLDEST and interpreter(version):
            os.execv(str(interpreter(version)), [str(interpreter(version)), *sys.argv])
    wanted = ".".join(map(str, OLDEST))
    sys.exit(
        f"Python {wanted} or newer is needed, this is {sys.version.split()[0]}. Install one:"
        f" {install_command(['python3'])}"
    )


def find_tool(name: str) -> str | None:
    """The path of a program, looked for in PATH and where system tools hide; None where there is
    none.
    """
    return shutil.which(
        name,
        path=os.pathsep.join(
            [os.environ.get("PATH", ""), *EXTRA_PATH, str(BUILD / "tools" / "usr" / "bin")]
        ),
    )


def packages_for(tools: list[str]) -> list[str]:
    """The packages that bring these tools, each once, in order."""
    return list(dict.fromkeys(package for tool in tools for package in PACKAGES.get(tool, [tool])))


def install_command(packages: list[str]) -> str:
    """The command a person types to get packages on this machine."""
    names = " ".join(packages)
    sudo = "sudo "
    if os.geteuid() == 0:
        sudo = ""
    if shutil.which("apt-get"):
        return f"{sudo}apt-get install -y --no-install-recommends {names}"
    if shutil.which("dnf"):
        return f"{sudo}dnf install -y {names}"
    return f"(with your system's package manager) {names}"


def run(argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure becomes a Problem that shows the command and its last
    words.
    """
    command = [str(part) for part in argv]
    capture = options.pop("capture", False)
    if capture:
        options.update(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check = options.pop("check", True)
    try:
        process = subprocess.run(command, text=True, check=False, **options)
    except OSError as error:
        raise Problem(f"could not start {command[0]}: {error}") from error
    if check and process.returncode != 0:
        output = "\n".join((process.stdout or "").strip().splitlines()[-15:])
        raise Problem(
            f"{shlex.join(command)} ended with {process.returncode}"
            + (f":\n{output}" if output else "")
        )
    return process


def ask(argv: Sequence[str | Path], **options: Any) -> str:
    """The standard output of a command, stripped; a Problem where it fails."""
    command = [str(part) for part in argv]
    try:
        process = subprocess.run(command, text=True, check=False, capture_output=True, **options)
    except OSError as error:
        raise Problem(f"could not start {command[0]}: {error}") from error
    if process.returncode != 0:
        output = (process.stderr or process.stdout).strip()
        raise Problem(f"{shlex.join(command)} ended with {process.returncode}: {output}")
    return str(process.stdout).strip()


def digest(*parts: str | bytes) -> str:
    """A short fingerprint of texts and file contents: 12 hexadecimal digits of a SHA-256."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(b"%d:" % len(data) + data)
    return total.hexdigest()[:12]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two runs in one checkout wait for each other instead of disturbing
    each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Give a function that tells the seconds since the start."""
    start = time.monotonic()
    yield lambda: time.monotonic() - start


def _answers(candidate: Path | str, version: str) -> bool:
    """Whether a candidate really is that Python: a pyenv shim exists for versions that are not
    selected and then fails.
    """
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [str(candidate), "-c", code], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


@functools.lru_cache(maxsize=None)
def interpreter(version: str) -> Path | None:
    """A working interpreter of version X.Y from PATH or from pyenv's directory of versions."""
    candidates: list[Path | str] = []
    if "%d.%d" % sys.version_info[:2] == version and sys.prefix == sys.base_prefix:
        candidates.append(sys.executable)
    found = shutil.which("python" + version)
    if found:
        candidates.append(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    for candidate in candidates:
        if _answers(candidate, version):
            return Path(candidate)
    return None


def interpreters(*wanted: str) -> dict[str, Path]:
    """The interpreters found on this machine, by version; all known ones, or only those wanted, in
    the order asked for.
    """
    found = {version: interpreter(version) for version in wanted or PYTHONS}
    return {version: path for version, path in found.items() if path}


def main_wrapper(main: Callable[[], int | None]) -> None:
    """Run a script's main: problems become one message and exit code 2, Ctrl-C stays quiet."""
    demand_python()
    try:
        sys.exit(main())
    except Problem as problem:
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {problem}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
