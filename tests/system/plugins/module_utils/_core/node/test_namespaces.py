# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults made for real in namespaces of their own: routes, neighbours, full file systems."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[6]
RUN = f"""
import json, subprocess, sys
sys.path.insert(0, {str(ROOT / ".build" / "collections")!r})
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import system
if "chronyc" in sys.argv[2:]:  # a container would skip the clock, and this machine may be one
    system.in_container = lambda world: False
def few(argv, **more):
    if argv[0] not in sys.argv[2:]:
        raise CommandFailed(argv[0] + " is not installed")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=more["timeout"])
    return CommandResult(done.returncode, done.stdout, done.stderr)
print(json.dumps(run(NodeOptions.from_mapping(json.loads(sys.argv[1])), World(run=few)).to_dict()))
"""
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="needs root, unshare and ip",
)


def _checks(script, *programs, **given):
    """Run the check in new namespaces after a shell script; return the checks by name and subject.

    :param programs: what the check may call.
    """
    line = f'set -e; {script}\n"$0" -c "$@"'
    argv = ["unshare", "--net", "--mount", "sh", "-c", line, sys.executable, RUN, json.dumps(given)]
    argv += programs
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode and "not permitted" in result.stderr + result.stdout:
        pytest.skip("namespaces are not allowed here")
    assert result.returncode == 0, result.stderr
    checks = json.loads(result.stdout)["checks"]
    return {(check["check"], check.get("subject")): check for check in checks}


PAIR = "ip link add veth0 type veth peer name veth1; ip link set veth0 up; ip link set veth1 up; "


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
def test_a_default_route_that_rejects(kind):
    checks = _checks(PAIR + f"ip route add {kind} default", checks=["network_gateway"])
    (_name, _subject), check = checks.popitem()
    assert check["status"] == "warning" and "rejects packets" in check["message"]


@pytest.mark.parametrize("kind", ["unreachable", "blackhole"])
def test_a_default_route_of_ipv6_that_rejects(kind):
    script = PAIR + f"ip -6 route add {kind} default metric 100"
    ((_name, check),) = _checks(script, checks=["network_gateway"]).items()
    assert check["status"] == "warning" and "rejects packets" in check["message"]


def test_a_mount_that_another_one_hides(tmp_path):
    point = tmp_path / "data" / "far"
    point.mkdir(parents=True)
    script = f"mount -t tmpfs none {point}"
    given = {"checks": ["mount_present"], "expected_mounts": [str(point)]}
    assert _checks(script, **given)[("mount_present", str(point))]["status"] == "pass"
    script += f"; mount -t tmpfs none {tmp_path}/data"
    assert _checks(script, **given)[("mount_present", str(point))]["status"] == "critical"
    script += f"; mkdir {point}; mount -t tmpfs none {point}"
    assert _checks(script, **given)[("mount_present", str(point))]["status"] == "pass"


def test_an_ipv6_gateway_that_nobody_is():
    """The kernel asks for the neighbour in vain, and keeps it as INCOMPLETE, then FAILED."""
    script = (
        PAIR + "sysctl -qw net.ipv6.conf.veth0.accept_dad=0 || exit 77;"
        "ip -6 addr add fd00::1/64 dev veth0 nodad; ip -6 route add default via fd00::99 dev veth0;"
        "python3 -c 'import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)"
        '.sendto(b"x", ("2001:db8::1", 9))\' || true; sleep 0.2'
    )
    check = _checks(script, checks=["network_gateway"])[("network_gateway", "fd00::99")]
    assert check["status"] == "warning" and "does not answer" in check["message"]


def test_a_full_mount_whose_name_is_not_utf8(tmp_path):
    point = f"{tmp_path}/caf$(printf '\\351')"
    script = (
        f'mkdir "{point}"; mount -t tmpfs -o size=1m none "{point}";'
        f'head -c 1000000 /dev/zero > "{point}/full"'
    )
    checks = _checks(script, checks=["disk_usage"], disk_floor_warning=0, disk_floor_critical=0)
    check = checks[("disk_usage", f"{tmp_path}/caf\\udce9")]
    assert check["status"] == "critical"


def test_a_bind_mount_of_fstab_that_is_missing(tmp_path):
    fstab = tmp_path / "fstab"
    fstab.write_text(f"{tmp_path} /srv none bind 0 0\n")
    script = f"mount --bind {fstab} /etc/fstab"
    check = _checks(script, checks=["mount_present"])[("mount_present", "/srv")]
    assert check["status"] == "critical"
    mounted = script + f"; mount --bind {tmp_path} /srv"
    assert _checks(mounted, checks=["mount_present"]) == {}


NFS_SERVER = """
import socket, struct
server = socket.socket(); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("10.9.0.2", 2049)); server.listen()
while True:
    line, _ = server.accept()
    call = line.recv(4096)
    if call: line.sendall(struct.pack(">I", 1 << 31 | 24) + call[4:8] + struct.pack(">IIIII", 1, 0, 0, 0, 0))
    line.close()
"""
NFS_CLIENT = f"""
import contextlib, os, signal, socket, subprocess, sys, time
sys.path.insert(0, {str(ROOT / ".build" / "collections")!r})
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import FleetError
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.servers import Server, ask_nfs
def ip(line, *inside):
    subprocess.run([*inside, "ip", *line.split()], check=True)
inner = subprocess.Popen(["unshare", "--net", "sleep", "60"])
time.sleep(0.3)
inside = ["nsenter", f"--net=/proc/{{inner.pid}}/ns/net"]
ip(f"link add veth0 type veth peer name veth1 netns {{inner.pid}}")
ip("addr add 10.9.0.1/24 dev veth0"); ip("link set veth0 up")
ip("addr add 10.9.0.2/24 dev veth1", *inside); ip("link set veth1 up", *inside)
server = subprocess.Popen([*inside, *sys.argv[1:]])
for _attempt in range(100):  # until it listens
    time.sleep(0.1)
    with contextlib.suppress(OSError):
        socket.create_connection(("10.9.0.2", 2049), 1).close()
        break
def ask():
    begun = time.monotonic()
    try:
        ask_nfs(Server("10.9.0.2", 2049, 4), 1.0)
        verdict = "replies"
    except FleetError as error:
        verdict = str(error)
    print(verdict if time.monotonic() - begun < 3 else "too late", flush=True)
ask()
os.kill(server.pid, signal.SIGSTOP); ask()
os.kill(server.pid, signal.SIGCONT); ask()
server.kill(); server.wait(); ask()
ip("link set veth1 down", *inside); ask()
inner.kill()
"""


@pytest.mark.parametrize(
    ("resolv", "nsswitch", "status", "part"),
    [
        (None, "hosts: files dns", "warning", "(/etc/resolv.conf names no server)"),
        ("", "hosts: files dns", "warning", "(/etc/resolv.conf names no server)"),
        ("nameserver 127.0.0.1", "hosts: files dns", "warning", "does not resolve"),
        ("nameserver 127.0.0.1", "hosts: files", "warning", "no server is asked (hosts: files in"),
        (
            "nameserver 127.0.0.1",
            "hosts: files [NOTFOUND=return] dns",
            "warning",
            "no server is asked (hosts: files in",
        ),
    ],
)
def test_a_resolver_that_can_not_work(tmp_path, resolv, nsswitch, status, part):
    etc = tmp_path / "etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore=lambda path, names: set(names) - {"hosts"})
    (etc / "nsswitch.conf").write_text(nsswitch + "\n")
    if resolv is not None:
        (etc / "resolv.conf").write_text(resolv + "\n")
    script = PAIR + f"mount --bind {etc} /etc"
    ((_name, check),) = _checks(script, checks=["dns"], timeout=8).items()
    assert (check["status"], part in check["message"]) == (status, True), check["message"]


#: Two chronyd that leave the clock alone: a server, and a client that believes it to be wrong.
CHRONY = """
ip link set lo up; mount -t tmpfs none /run; mkdir -m 750 /run/chrony
cd {directory}
chronyd -d -x -u root -f ./server.conf > server.log 2>&1 &
chronyd -d -x -u root -f ./client.conf > client.log 2>&1 &
for attempt in $(seq 50); do
  sleep 0.2; chronyc -n sources | grep -q '^^[*]' && break
done
trap 'kill $(cat /run/server.pid /run/client.pid)' EXIT
"""


@pytest.mark.skipif(not shutil.which("chronyd"), reason="needs chronyd and chronyc")
@pytest.mark.parametrize(
    ("offset", "status"), [("0", "pass"), ("0.5", "warning"), ("-2.5", "critical")]
)
def test_a_clock_that_chrony_measures(tmp_path, offset, status):
    (tmp_path / "server.conf").write_text(
        "local stratum 5\nallow\nbindaddress 127.0.0.1\nport 11123\ncmdport 0\n"
        "bindcmdaddress /\npidfile /run/server.pid\n"
    )
    (tmp_path / "client.conf").write_text(
        f"server 127.0.0.1 port 11123 iburst minpoll -2 maxpoll 0 offset {offset}\nport 0\n"
        "bindcmdaddress /run/chrony/chronyd.sock\npidfile /run/client.pid\n"
    )
    script = CHRONY.format(directory=tmp_path)
    ((_name, check),) = _checks(script, "chronyc", checks=["time_sync"]).items()
    assert check["status"] == status, check["message"]
    assert abs(check["value"] - abs(float(offset))) < 0.1


#: Of NFS-Ganesha, a server in user space.
GANESHA = """
NFS_CORE_PARAM {{ Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = "{directory}"; }}
EXPORT {{ Export_Id = 1; Path = "{directory}"; Pseudo = "/x"; Access_Type = RO; FSAL {{ Name = VFS; }} }}
"""
#: It wants directories of its own, and must find no bus of the host.
START_GANESHA = """
mount -t tmpfs none /run && mkdir -p /run/ganesha /run/dbus
exec ganesha.nfsd -F -f "$0" -L "$0.log" -p /run/ganesha.pid
"""


@pytest.mark.parametrize("kind", ["of our own", "ganesha"])
def test_an_nfs_server_in_another_network(tmp_path, kind):
    """It replies, hangs, replies again, is gone, and its link is down: within the deadline each."""
    server = [sys.executable, "-c", NFS_SERVER]
    if kind == "ganesha":
        if not shutil.which("ganesha.nfsd"):
            pytest.skip("needs ganesha.nfsd (packages nfs-ganesha and nfs-ganesha-vfs)")
        config = tmp_path / "ganesha.conf"
        config.write_text(GANESHA.format(directory=tmp_path))
        server = ["unshare", "--mount", "sh", "-c", START_GANESHA, str(config)]
    argv = ["unshare", "--net", sys.executable, "-c", NFS_CLIENT, *server]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode and "not permitted" in result.stderr:
        pytest.skip("namespaces are not allowed here")
    verdicts = result.stdout.splitlines()
    assert verdicts[:4] == [
        "replies",
        "no reply within 1 s",
        "replies",
        "Connection refused",
    ], result.stderr
    assert verdicts[4] in ("no reply within 1 s", "No route to host"), verdicts


@pytest.mark.skipif(not shutil.which("mkfs.btrfs"), reason="no btrfs-progs")
def test_a_full_btrfs_subvolume_below_usr(tmp_path):
    script = (
        f"cd {tmp_path}; truncate -s 200M image; mkfs.btrfs -q image >/dev/null; mkdir all;"
        "mount -o loop image all || exit 77; btrfs subvolume create all/models >/dev/null;"
        "head -c 300M /dev/zero > all/models/full 2>/dev/null || true; sync;"
        "mount -t tmpfs none /usr/lib/python3; mkdir /usr/lib/python3/models;"
        "mount -o loop,subvol=models image /usr/lib/python3/models; umount all; cd /"
    )
    checks = _checks(script, checks=["disk_usage"], disk_floor_warning=0, disk_floor_critical=0)
    assert checks[("disk_usage", "/usr/lib/python3/models")]["status"] == "critical"
