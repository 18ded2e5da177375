# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real nodes to test on: Debian with systemd and sshd, booted under podman and reached over SSH.

    python3 scripts/nodes.py check                       what this machine lacks for it
    python3 scripts/nodes.py image bookworm trixie       build the images (minutes, the first time)
    python3 scripts/nodes.py up a=bookworm b=trixie,full --inventory hosts.json
    python3 scripts/nodes.py inventory                   the same inventory again
    python3 scripts/nodes.py ssh-config                  for `ssh -F FILE NAME`
    python3 scripts/nodes.py down

`full` nodes are privileged: the kernel then enforces resource limits, and loop devices and the
kernel log work. Nodes belong to a group (`--group`, default `dev`), so that several sets live
beside each other.

Variables: MLOPS_NODE_IMAGE_BOOKWORM / MLOPS_NODE_IMAGE_TRIXIE name a ready image to use instead (it
needs systemd, sshd and Python), MLOPS_DEBIAN_MIRROR another source of Debian packages,
MLOPS_NODES_DIR another directory for keys and settings than .build/nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import (
    BUILD,
    Problem,
    ask,
    digest,
    find_tool,
    install_command,
    locked,
    main_wrapper,
    packages_for,
    run,
    say,
    timed,
)

STATE = Path(os.environ.get("MLOPS_NODES_DIR") or BUILD / "nodes").absolute()
KEY = STATE / "id_ed25519"
LABEL = "org.mlops-fleet.group"
RELEASES = ("bookworm", "trixie")
# What a plain ML node has. pynvml is left out on purpose: a node without it is the common case.
NODE_PACKAGES = (
    "ca-certificates cron dbus e2fsprogs iproute2 kmod logrotate openssh-server procps python3"
    " python3-boto3 python3-psutil python3-venv sudo systemd systemd-sysv zstd"
).split()
# An empty machine-id lets every node get its own; units that need real hardware only delay the
# start.
CUSTOMIZE = (
    'truncate -s 0 "$1/etc/machine-id"; rm -f "$1/var/lib/dbus/machine-id"',
    # On a machine systemd shares the root mount; in a container it leaves it as it is: private in a
    # privileged one, and then a unit's credentials (LoadCredential=) are mounted where nobody sees
    # them.
    r"""printf '[Unit]\nDefaultDependencies=no\nConditionCapability=CAP_SYS_ADMIN\nBefore=sysinit.target\n[Service]\nType=oneshot\n"""
    r"""ExecStart=/bin/mount --make-rshared /\n[Install]\nWantedBy=sysinit.target\n' > "$1/etc/systemd/system/shared-mounts.service" """,
    'chroot "$1" systemctl enable ssh.service cron.service shared-mounts.service',
    (
        'chroot "$1" systemctl mask systemd-udevd.service systemd-modules-load.service'
        " systemd-logind.service getty.target apt-daily.timer apt-daily-upgrade.timer"
        " e2scrub_all.timer fstrim.timer"
    ),
    (
        'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/locale/* "$1"/usr/share/man/*'
        ' "$1"/var/cache/apt/*.bin'
    ),
)
BOOT_SECONDS = 90


# --- what this machine can do


def cgroup_v2() -> bool:
    """Whether the machine has the unified hierarchy; the hybrid one of older set-ups counts as
    version 1.
    """
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def rootless() -> bool:
    """Whether podman works without root here; its nodes then have no address that the host
    reaches.
    """
    return os.geteuid() != 0


def can_raise_limits() -> bool:
    """Whether this process holds CAP_SYS_RESOURCE (bit 24 of the effective set)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 24 & 1)
    return False


def obstacle(ready_image: bool = False) -> str:
    """Why nodes can't run on this machine, with the command that changes it; empty where they
    can.
    """
    wanted = ["podman", "ssh", "ssh-keygen"]
    wanted += ["newuidmap", "slirp4netns"] if rootless() else ["iptables", "netavark"]
    if not cgroup_v2():
        wanted.append("runc")
    if not ready_image:
        wanted.append("mmdebstrap")
    missing = [tool for tool in wanted if not find_tool(tool)]
    if missing:
        return f"nodes need {', '.join(missing)}. Install: {install_command(packages_for(missing))}"
    if rootless() and not cgroup_v2():
        return (
            "booted nodes without root need cgroup version 2, which this machine has not. Run it as"
            " root"
        )
    if rootless():
        user = pwd.getpwuid(os.getuid()).pw_name
        ranges = ""
        if Path("/etc/subuid").exists():
            ranges = Path("/etc/subuid").read_text(encoding="utf-8")
        if not any(line.split(":")[0] in (user, str(os.getuid())) for line in ranges.splitlines()):
            return (
                f"{user} has no subordinate user numbers. Give some: sudo usermod --add-subuids"
                f" 100000-165535 --add-subgids 100000-165535 {user}"
            )
    return ""


def demand_tools(ready_image: bool = False) -> None:
    """Stop with the command that helps where nodes can't run."""
    reason = obstacle(ready_image)
    if reason:
        raise Problem(reason)


def environment() -> dict[str, str]:
    """The environment for podman: with its own containers.conf only where the default runtime
    refuses the machine's cgroups.
    """
    env = dict(os.environ)
    if not cgroup_v2():
        # crun refuses a hybrid hierarchy ("cgroups in hybrid mode not supported"); runc takes it.
        conf = STATE / "containers.conf"
        text = '[engine]\nruntime = "runc"\n'
        if not conf.exists() or conf.read_text(encoding="utf-8") != text:
            STATE.mkdir(parents=True, exist_ok=True)
            conf.write_text(text, encoding="utf-8")
        env["CONTAINERS_CONF"] = str(conf)
    return env


def podman(*argv: str, **options: Any) -> str:
    """The output of a podman command."""
    return ask([find_tool("podman") or "podman", *argv], env=environment(), **options)


def limit_flags() -> list[str]:
    """Limits for a node where this process can't raise its own: podman's defaults would then stop
    the start.
    """
    if rootless() or can_raise_limits():
        return []
    flags = []
    for name, number, usual in (
        ("nofile", resource.RLIMIT_NOFILE, 4096),
        ("nproc", resource.RLIMIT_NPROC, 30000),
    ):
        hard = resource.getrlimit(number)[1]
        value = usual if hard == resource.RLIM_INFINITY else min(hard, usual)
        flags.append(f"--ulimit={name}={value}:{value}")
    return flags


# --- images


def image_name(release: str) -> str:
    """The image of a release: named by the fingerprint of its recipe, so a changed recipe is a new
    image.
    """
    ready = os.environ.get(f"MLOPS_NODE_IMAGE_{release.upper()}")
    if ready:
        return ready
    if release not in RELEASES:
        raise Problem(f"unknown release {release!r}: choose {' or '.join(RELEASES)}")
    recipe = json.dumps(
        [release, NODE_PACKAGES, CUSTOMIZE, os.environ.get("MLOPS_DEBIAN_MIRROR", "")]
    )
    return f"localhost/mlops-fleet-node:{release}-{digest(recipe)}"


def have_image(name: str) -> bool:
    """Whether podman holds the image."""
    env = environment()
    return (
        subprocess.run(
            [find_tool("podman") or "podman", "image", "exists", name], env=env, check=False
        ).returncode
        == 0
    )


def build_image(release: str) -> str:
    """Make the image of a release from Debian's packages unless it is there; returns its name."""
    name = image_name(release)
    ready = bool(os.environ.get(f"MLOPS_NODE_IMAGE_{release.upper()}"))
    demand_tools(ready)
    with locked(STATE / f"image-{release}.lock"):
        if have_image(name):
            return name
        if ready:
            podman("pull", name)
            return name
        with timed() as seconds, tempfile.TemporaryDirectory(dir=STATE) as directory:
            say(
                f"image {name}: downloading {len(NODE_PACKAGES)} packages and what they need"
                " (minutes, once)"
            )
            tarball = Path(directory) / "node.tar"
            argv = [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={','.join(NODE_PACKAGES)}",
            ]
            argv += [f"--customize-hook={hook}" for hook in CUSTOMIZE]
            argv += [release, str(tarball)]
            if os.environ.get("MLOPS_DEBIAN_MIRROR"):
                argv.append(os.environ["MLOPS_DEBIAN_MIRROR"])
            run(
                argv,
                capture=True,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
            )
            podman(
                "import",
                "--change=CMD=/sbin/init",
                "--change=STOPSIGNAL=SIGRTMIN+3",
                str(tarball),
                name,
            )
            say(f"image {name}: ready after {seconds():.0f} s")
    return name


# --- nodes


def key_pair() -> Path:
    """The key that opens the nodes, made on first use; returns the private half's path."""
    with locked(STATE / "key.lock"):
        if not KEY.exists():
            run(
                [
                    find_tool("ssh-keygen") or "ssh-keygen",
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-C",
                    "mlops-fleet-test-nodes",
                    "-f",
                    KEY,
                ]
            )
    return KEY


def container(group: str, name: str) -> str:
    """The container's name of a node."""
    return f"mlops-{group}-{name}"


def running(group: str) -> list[dict[str, Any]]:
    """The nodes of a group as podman sees them: name, address, port, release, full."""
    names = podman(
        "ps", "--all", "--filter", f"label={LABEL}={group}", "--format", "{{.Names}}"
    ).split()
    nodes = []
    for name in sorted(names):
        data = json.loads(podman("inspect", name))[0]
        network = data["NetworkSettings"]
        address, port = network.get("IPAddress") or "", 22
        for other in (network.get("Networks") or {}).values():
            address = address or other.get("IPAddress") or ""
        published = (network.get("Ports") or {}).get("22/tcp") or []
        if published:
            address, port = "127.0.0.1", int(published[0]["HostPort"])
        labels = data["Config"]["Labels"]
        nodes.append(
            {
                "name": name[len(container(group, "")) :],
                "container": name,
                "address": address,
                "port": port,
                "release": labels.get("org.mlops-fleet.release", ""),
                "full": labels.get("org.mlops-fleet.full") == "yes",
            }
        )
    return nodes


def parse_node(text: str) -> tuple[str, str, bool]:
    """`NAME=RELEASE[,full]` -> name, release, full."""
    name, _sign, rest = text.partition("=")
    release, *flags = (rest or "bookworm").split(",")
    if not name.replace("-", "").isalnum() or set(flags) - {"full"}:
        raise Problem(f"{text!r} is no node: write NAME=RELEASE or NAME=RELEASE,full")
    return name, release, "full" in flags


def start(group: str, name: str, release: str, full: bool) -> None:
    """Start one node (a node of that name that is left over is replaced)."""
    image = build_image(release)
    argv = [
        "run",
        "--detach",
        "--name",
        container(group, name),
        "--replace",
        "--hostname",
        name,
        "--systemd=always",
        "--pull=never",
    ]
    argv += [
        "--label",
        f"{LABEL}={group}",
        "--label",
        f"org.mlops-fleet.release={release}",
        "--label",
        f"org.mlops-fleet.full={'yes' if full else 'no'}",
    ]
    argv += limit_flags()
    if not cgroup_v2():
        # systemd 256 and later refuses to boot on version 1 unless told; older ones don't know the
        # variable.
        argv += ["--env", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
    if rootless():
        argv += ["--publish", "127.0.0.1::22"]
    if full:
        argv += ["--privileged", "--cgroupns=host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    podman(*argv, image, "/sbin/init")


def await_boot(node: dict[str, Any], deadline: float) -> None:
    """Wait until systemd has finished and sshd lets the key in; put the key there first."""
    public = KEY.with_suffix(".pub").read_text(encoding="utf-8")
    podman_path = find_tool("podman") or "podman"
    install = "umask 077; mkdir -p /root/.ssh && cat > /root/.ssh/authorized_keys"
    run(
        [podman_path, "exec", "-i", node["container"], "sh", "-c", install],
        input=public,
        env=environment(),
        capture=True,
    )
    state = words = ""
    while time.monotonic() < deadline:
        argv = [podman_path, "exec", node["container"], "systemctl", "is-system-running"]
        state = run(
            argv, env=environment(), check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ).stdout.strip()
        if state in ("running", "degraded"):
            login = run(
                [*ssh_command(node), "true"], capture=True, check=False, stdin=subprocess.DEVNULL
            )
            words = login.stdout.strip()
            if login.returncode == 0:
                if state == "degraded":
                    failed = podman(
                        "exec", node["container"], "systemctl", "--failed", "--plain", "--no-legend"
                    )
                    say(
                        f"node {node['name']}: booted, with failed units:"
                        f" {' '.join(line.split()[0] for line in failed.splitlines())}"
                    )
                return
        time.sleep(0.5)
    raise Problem(
        f"node {node['name']} ({node['container']}) did not come up in {BOOT_SECONDS} s: systemd"
        f" says {state!r}, ssh says {words!r}"
    )


SSH_OPTIONS = {
    # Nodes are made again, with new host keys under old addresses: remembering them would only get
    # in the way. Test nodes only.
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "IdentitiesOnly": "yes",
    "PasswordAuthentication": "no",
    "ConnectTimeout": "10",
}


def ssh_command(node: dict[str, Any]) -> list[str]:
    """The ssh command line that reaches a node."""
    options = [part for key, value in SSH_OPTIONS.items() for part in ("-o", f"{key}={value}")]
    return [
        find_tool("ssh") or "ssh",
        "-F",
        "/dev/null",
        "-i",
        str(KEY),
        "-p",
        str(node["port"]),
        *options,
        f"root@{node['address']}",
    ]


def inventory(group: str) -> dict[str, Any]:
    """An Ansible inventory (YAML is a superset of JSON, so it reads this) of a group's nodes."""
    common = " ".join(f"-o {key}={value}" for key, value in SSH_OPTIONS.items())
    hosts = {
        node["name"]: {
            "ansible_host": node["address"],
            "ansible_port": node["port"],
            "node_release": node["release"],
            "node_full": node["full"],
        }
        for node in running(group)
    }
    shared = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(KEY),
        "ansible_ssh_common_args": f"-F /dev/null {common}",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    return {"all": {"vars": shared, "hosts": hosts}}


def up(group: str, wanted: list[str]) -> None:
    """Start nodes and wait until all of them have booted."""
    nodes = [parse_node(text) for text in wanted]
    for release in dict.fromkeys(release for _name, release, _full in nodes):
        build_image(release)
    key_pair()
    with timed() as seconds:
        for name, release, full in nodes:
            start(group, name, release, full)
        deadline = time.monotonic() + BOOT_SECONDS
        names = {name for name, _release, _full in nodes}
        for node in running(group):
            if node["name"] in names:
                await_boot(node, deadline)
        say(
            f"nodes {', '.join(name for name, _r, _f in nodes)}: booted and reachable after"
            f" {seconds():.0f} s"
        )


def down(group: str) -> None:
    """Remove all nodes of a group."""
    names = podman(
        "ps", "--all", "--filter", f"label={LABEL}={group}", "--format", "{{.Names}}"
    ).split()
    if names:
        podman("rm", "--force", "--time=2", "--volumes", *names)
        say(f"removed {', '.join(sorted(names))}")


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="say what this machine lacks for nodes")
    image = commands.add_parser("image", help="build images where they are missing")
    image.add_argument("release", nargs="*", default=list(RELEASES))
    for name, text in (
        ("up", "start nodes"),
        ("down", "remove a group's nodes"),
        ("inventory", "print the inventory"),
        ("ssh-config", "print an ssh_config"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--group", default="dev")
        if name == "up":
            command.add_argument("node", nargs="+", metavar="NAME=RELEASE[,full]")
        if name in ("up", "inventory"):
            command.add_argument("--inventory", type=Path, help="write the inventory to this file")
    return parser.parse_args()


def main() -> int:
    given = parse()
    if given.command == "check":
        demand_tools()
        say("nodes can be built and started here")
    elif given.command == "image":
        for release in given.release:
            say(build_image(release))
    elif given.command == "down":
        if find_tool("podman"):
            down(given.group)
    elif given.command == "ssh-config":
        demand_tools(ready_image=True)
        for node in running(given.group):
            say(
                f"Host {node['name']}\n  HostName {node['address']}\n  Port {node['port']}\n  User"
                f" root\n  IdentityFile {KEY}"
            )
            for key, value in SSH_OPTIONS.items():
                say(f"  {key} {value}")
    else:
        demand_tools(ready_image=given.command == "inventory")
        if given.command == "up":
            up(given.group, given.node)
        text = json.dumps(inventory(given.group), indent=2) + "\n"
        if given.inventory:
            given.inventory.parent.mkdir(parents=True, exist_ok=True)
            given.inventory.write_text(text, encoding="utf-8")
        elif given.command == "inventory":
            sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    main_wrapper(main)
