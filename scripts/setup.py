# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make what the other commands need: virtual environments under .build/ and, for root on Debian or
Ubuntu, system packages.

    python3 scripts/setup.py run            the environment of `make run`
    python3 scripts/setup.py test           everything `make test` uses
    python3 scripts/setup.py dev unit-3.9   single environments by name

Every environment carries a stamp with the fingerprint of its requirements and its interpreter:
nothing happens while that is unchanged. Where packages come from is the machine's own setting
(pip.conf, PIP_* variables): no index is named here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import (
    BUILD,
    PYTHONS,
    ROOT,
    UNPACKED,
    Problem,
    ask,
    digest,
    find_tool,
    install_command,
    interpreter,
    locked,
    main_wrapper,
    packages_for,
    run,
    say,
    timed,
)

REQUIREMENTS = ROOT / "tests" / "requirements"
COLLECTIONS = (
    ROOT / ".build" / "collections"
)  # always in the checkout: tests and the molecule scenario count on it
# Environment -> (requirements file, the Pythons it may stand on, best first)
ENVIRONMENTS = {
    "venv": ("run", ("3.13", "3.12", "3.11")),
    "dev": ("dev", ("3.11", "3.12", "3.13")),
    "core221": ("core221", ("3.13", "3.12")),
    "readers": ("readers", ("3.11", "3.12", "3.13")),
    "importer": ("importer", ("3.13", "3.12")),
    "molecule": ("molecule", ("3.12", "3.11", "3.13")),
    "core218": ("core218", ("3.12", "3.11", "3.13")),
    "fleet": ("fleet", ("3.13", "3.12", "3.11")),
    **{f"unit-{version}": ("unit", (version,)) for version in PYTHONS},
}
GROUPS = {
    "run": ["venv"],
    "test": [name for name in ENVIRONMENTS if name != "venv"],
}
# What the stages of `make test` want from the system; what is missing costs those stages only.
TOOLS_FOR_TESTS = [
    "gcc",
    "make",
    "git",
    "shellcheck",
    "logrotate",
    "promtool",
    "prometheus-alertmanager",
    "ssh",
    "ssh-keygen",
    "podman",
    "mmdebstrap",
    "restic",
    "rclone",
]
TOOLS_FOR_TESTS += ["iptables", "netavark"] if os.geteuid() == 0 else ["newuidmap", "slirp4netns"]
TOOLS_FOR_TESTS += [] if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else ["runc"]


class Unavailable(Exception):
    """An environment that can't exist here, with the reason and what would change that."""


def environment_python(name: str) -> Path:
    """The interpreter inside an environment."""
    return BUILD / name / "bin" / "python"


def find_base(name: str) -> Path:
    """The interpreter an environment stands on; Unavailable where no allowed one is found."""
    pythons = ENVIRONMENTS[name][1]
    if (
        name == "venv"
        and sys.prefix == sys.base_prefix
        and "%d.%d" % sys.version_info[:2] not in pythons
    ):
        return Path(sys.executable)  # newer than any version known here: let pip decide
    if name == "venv" and sys.prefix == sys.base_prefix:
        return Path(sys.executable)
    for version in pythons:
        found = interpreter(version)
        if found:
            return found
    raise Unavailable(
        f"Python {' or '.join(pythons)} is not on this machine"
        f" ({install_command(['python' + pythons[0], f'python{pythons[0]}-venv'])}, or with pyenv)"
    )


def stamp_text(name: str, base: Path) -> str:
    """What an environment is made of: Python's version and the requirements.

    The path of the interpreter is left out: shims have many.
    """
    version = ask([base, "-c", "import platform; print(platform.python_version())"])
    return f"{version} {digest((REQUIREMENTS / f'{ENVIRONMENTS[name][0]}.txt').read_bytes())}\n"


def ensure(name: str) -> Path:
    """Make an environment unless it is there; returns its interpreter."""
    base = find_base(name)
    directory, stamp, wanted = BUILD / name, BUILD / name / ".stamp", stamp_text(name, base)
    with locked(BUILD / "locks" / f"{name}.lock"):
        found = ""
        if stamp.exists():
            found = stamp.read_text(encoding="utf-8")
        if found == wanted and environment_python(name).exists():
            return environment_python(name)
        with timed() as seconds:
            say(f"setup: .build/{name} with {base}: installing")
            # Other requirements on the same Python are installed on top: somebody may be using the
            # environment.
            if not environment_python(name).exists() or (
                found and found.split()[0] != wanted.split()[0]
            ):
                shutil.rmtree(directory, ignore_errors=True)
                make_environment(base, directory)
            pip: list[str | Path] = [
                environment_python(name),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-input",
            ]
            try:
                run(
                    [*pip, "--requirement", REQUIREMENTS / f"{ENVIRONMENTS[name][0]}.txt"],
                    capture=True,
                    env=clean_environment(),
                )
            except Problem as problem:
                if find_tool("gcc") or find_tool("cc"):
                    raise
                hint = (
                    "There is no C compiler, which a package without a ready wheel needs. Install:"
                    f" {install_command(packages_for(['gcc']))}"
                )
                raise Problem(f"{problem}\n{hint}") from problem
            stamp.write_text(wanted, encoding="utf-8")
            say(f"setup: .build/{name} is ready after {seconds():.0f} s")
    return environment_python(name)


def clean_environment() -> dict[str, str]:
    """The environment without what would pull an outer virtual environment or user packages into
    ours.
    """
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    }
    return {**env, "PYTHONNOUSERSITE": "1"}


def make_environment(base: Path, directory: Path) -> None:
    """`python -m venv`, with the package named where Debian has split the module off."""
    probe = subprocess.run(
        [str(base), "-c", "import venv, ensurepip"], capture_output=True, text=True, check=False
    )
    if probe.returncode != 0:
        version = subprocess.run(
            [str(base), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        package = f"python{version.stdout.strip()}-venv"
        if not install_packages([package]):
            raise Unavailable(
                f"{base} can't make virtual environments. Install: {install_command([package])}"
            )
    directory.parent.mkdir(parents=True, exist_ok=True)
    run([base, "-m", "venv", directory], capture=True, env=clean_environment())


def unpack(package: str) -> bool:
    """Put the programs of a Debian package into .build/tools without installing it: no service
    starts, no root is needed.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return False
    say(f"setup: unpacking the programs of {package} into .build/tools")
    with tempfile.TemporaryDirectory() as directory:
        got = run(
            ["apt-get", "download", "--quiet", package], capture=True, check=False, cwd=directory
        )
        files = list(Path(directory).glob("*.deb"))
        if got.returncode != 0 or not files:
            return False
        (BUILD / "tools").mkdir(
            parents=True, exist_ok=True
        )  # dpkg-deb makes no parents, and in a fresh clone there is no .build yet
        return (
            run(
                ["dpkg-deb", "--extract", files[0], BUILD / "tools"], capture=True, check=False
            ).returncode
            == 0
        )


def install_packages(packages: list[str]) -> bool:
    """Install system packages where this process may; False where it may not or apt has failed."""
    if (
        os.geteuid() == 0
        and shutil.which("apt-get")
        and not any(Path("/var/lib/apt/lists").glob("*Packages*"))
    ):
        run(["apt-get", "update", "--quiet"], capture=True, check=False)
    unpacked = [unpack(package) for package in packages if package in UNPACKED]
    packages = [package for package in packages if package not in UNPACKED]
    if not packages:
        return all(unpacked)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    say(f"setup: apt-get install {' '.join(packages)}")
    argv = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    first = run(argv, capture=True, check=False, env=env, stdin=subprocess.DEVNULL)
    if first.returncode == 0:
        return all(unpacked)
    run(["apt-get", "update", "--quiet"], capture=True, check=False, env=env)
    again = run(argv, capture=True, check=False, env=env, stdin=subprocess.DEVNULL)
    if again.returncode != 0:
        words = "\n".join(again.stdout.strip().splitlines()[-5:])
        say(f"setup: apt-get could not install them:\n{words}")
    return again.returncode == 0 and all(unpacked)


def system_tools(tools: list[str]) -> list[str]:
    """Install the tools that are missing; returns those still missing, and says which command
    brings them.
    """
    missing = [tool for tool in tools if not find_tool(tool)]
    if missing and not install_packages(packages_for(missing)):
        # One package that does not exist here must not cost the others.
        for tool in missing:
            if len(missing) > 1:
                install_packages(packages_for([tool]))
    missing = [tool for tool in tools if not find_tool(tool)]
    if missing:
        say(
            f"setup: not on this machine: {', '.join(missing)}. What needs them is skipped."
            f" Install: {install_command(packages_for(missing))}"
        )
    return missing


def link_collection() -> Path:
    """A collections path in which this checkout is mlops.fleet, for ad-hoc calls and for mypy;
    returns it.
    """
    link = COLLECTIONS / "ansible_collections" / "mlops" / "fleet"
    if not link.is_symlink() or link.resolve() != ROOT:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT)
    return COLLECTIONS


def environment_bin(name: str) -> Path:
    """The directory of an environment's programs; made when missing."""
    return ensure(name).parent


def describe(name: str) -> str:
    """An environment's ansible-core and Python."""
    code = (
        "import sys, ansible.release; print('core %s, Python %d.%d' % (ansible.release.__version__,"
        " *sys.version_info[:2]))"
    )
    return ask([environment_python(name), "-c", code])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        nargs="*",
        default=["test"],
        help=f"groups ({', '.join(GROUPS)}), 'tools', or environments ({', '.join(ENVIRONMENTS)})",
    )
    given = parser.parse_args().what
    unknown = [
        name
        for name in given
        if name not in GROUPS and name not in ENVIRONMENTS and name != "tools"
    ]
    if unknown:
        raise Problem(
            f"unknown: {', '.join(unknown)}. Choose from:"
            f" {', '.join([*GROUPS, 'tools', *ENVIRONMENTS])}"
        )
    link_collection()
    if "test" in given or "tools" in given:
        system_tools(TOOLS_FOR_TESTS)
    code = 0
    for name in dict.fromkeys(
        member for one in given if one != "tools" for member in GROUPS.get(one, [one])
    ):
        try:
            ensure(name)
        except Unavailable as reason:
            # In a group an environment that can't exist is a skipped one; asked for by name it is a
            # failure.
            say(f"setup: .build/{name} is left out: {reason}")
            code = code or (1 if name in given or "run" in given else 0)
    return code


if __name__ == "__main__":
    if importlib.util.find_spec("common") is None:
        sys.path.insert(0, str(Path(__file__).resolve().parent))
    main_wrapper(main)
