# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that few nodes need, against real sockets, real backups, and configuration spaces of devices."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import os
import pathlib
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import tempfile
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make.run import (
    run as make_backup,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import acs, plan, servers
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import mounts
from ansible_collections.mlops.fleet.tests.unit.plugins.module_utils._core.node.conftest import (
    Machine,
)

HOUR = 3600.0


def checks_of(machine, options, name, **given):
    """Return status and message by subject."""
    given.setdefault("timeout", 1.0)
    document = run(options(checks=[name], **given), machine.world).to_dict()
    assert {check["check"] for check in document["checks"]} <= {name}
    return {
        check.get("subject"): (check["status"], check["message"]) for check in document["checks"]
    }


@contextlib.contextmanager
def listener(family, address, reply, wait=0.0):
    """Serve one socket: after the first bytes of each connection answer with ``reply(them)``."""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    line, dummy = server.accept()
                    with line:
                        data = line.recv(4096)
                        time.sleep(wait)
                        line.sendall(reply(data))

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


# --- container runtimes -----------------------------------------------------------------------

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\n\r\nOK"
SETTINGS = b"\0\0\0\4\0\0\0\0\0\0\0\4\1\0\0\0\0"


@pytest.fixture
def machine(clock):
    """A machine in a directory with a short name: the address of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as directory:
        made = Machine(pathlib.Path(directory), clock)
        made.put("/proc/uptime", "864000.00 1000.00\n")
        yield made


@pytest.mark.parametrize(
    ("name", "path", "reply", "status"),
    [
        ("docker", "run/docker.sock", PING, "pass"),
        ("docker", "run/docker.sock", b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "critical"),
        ("containerd", "run/containerd/containerd.sock", SETTINGS, "pass"),
        ("containerd", "run/k3s/containerd/containerd.sock", SETTINGS, "pass"),
        ("cri-o", "run/crio/crio.sock", b"", "critical"),
    ],
)
def test_a_runtime_is_asked(machine, options, name, path, reply, status):
    machine.put("/run/docker.pid", "77\n")
    machine.put("/proc/77/stat", "")
    socket_path = machine.put("/" + path, "")
    socket_path.unlink()
    with listener(socket.AF_UNIX, str(socket_path), lambda dummy: reply):
        checks = checks_of(machine, options, "container_runtime")
    assert {subject: value[0] for subject, value in checks.items()} == {name: status}


class Crio(http.server.BaseHTTPRequestHandler):
    """The part of CRI-O's socket that speaks HTTP (server/inspect.go)."""

    status = 200

    def do_GET(self):
        body = b'{"storage_driver":"overlay","cgroup_driver":"systemd"}'
        self.send_response(self.status if self.path == "/info" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *dummy):
        pass


class Broken(Crio):
    status = 500


@pytest.mark.parametrize(("handler", "status"), [(Crio, "pass"), (Broken, "critical")])
def test_crio_is_asked_for_its_information(machine, options, handler, status):
    path = machine.put("/run/crio/crio.sock", "")
    path.unlink()
    with socketserver.ThreadingUnixStreamServer(str(path), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        checks = checks_of(machine, options, "container_runtime")
        server.shutdown()
    assert checks["cri-o"][0] == status


def test_a_runtime_that_is_silent_is_critical_within_the_deadline(machine, options):
    path = machine.put("/run/containerd/containerd.sock", "")
    path.unlink()
    begun = time.monotonic()
    with listener(socket.AF_UNIX, str(path), lambda dummy: SETTINGS, wait=30):
        ((status, message),) = checks_of(machine, options, "container_runtime").values()
    assert status == "critical" and "does not answer" in message
    assert time.monotonic() - begun < 5


def test_a_docker_that_systemd_would_start_is_not_asked(machine, options):
    path = machine.put("/run/docker.sock", "")
    path.unlink()
    asked = []
    with listener(socket.AF_UNIX, str(path), lambda data: asked.append(data) or PING):
        checks = checks_of(machine, options, "container_runtime")
    assert checks["docker"][0] == "skipped" and not asked


def test_a_socket_that_nobody_listens_on(machine, options):
    path = machine.put("/run/crio/crio.sock", "")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert checks_of(machine, options, "container_runtime")["cri-o"][0] == "warning"


CONTAINERD = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{directory}/run/containerd/containerd.sock"
[ttrpc]
  address = "{directory}/ttrpc.sock"
"""
DOCKERD = (
    "dockerd --bridge=none --iptables=false --ip6tables=false --storage-driver=vfs"
    " --data-root={0}/data --exec-root={0}/exec -p {0}/docker.pid -H unix://{0}/run/docker.sock"
    " --containerd {0}/run/containerd/containerd.sock"
)


@contextlib.contextmanager
def daemon(argv, path):
    """Run a daemon in namespaces of its own until its socket is there; kill it at the end."""
    with open(f"{path}.log", "wb") as log:
        process = subprocess.Popen(["unshare", "--mount", "--net", *argv], stdout=log, stderr=log)
    try:
        for dummy in range(200):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
                line.connect(str(path))
                break
            if process.poll() is not None:
                pytest.skip(f"{argv[0]} does not run here: " + open(f"{path}.log").read()[-200:])
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("containerd") or not shutil.which("dockerd"),
    reason="needs root, containerd and dockerd (package docker.io)",
)
def test_real_runtimes(machine, options):
    """They answer; stopped by a signal they hang; killed they leave sockets that nobody serves."""
    (machine.root / "config.toml").write_text(CONTAINERD.format(directory=machine.root))
    (machine.root / "run/containerd").mkdir(parents=True)
    containerd = ["containerd", "--config", f"{machine.root}/config.toml"]
    docker = machine.root / "run/docker.sock"

    def states():
        checks = checks_of(machine, options, "container_runtime", timeout=1.5)
        return {name: status for name, (status, dummy) in checks.items()}

    with daemon(containerd, machine.root / "run/containerd/containerd.sock") as below:
        with daemon(DOCKERD.format(machine.root).split(), docker) as above:
            pid = (machine.root / "docker.pid").read_text()
            machine.put("/run/docker.pid", pid)
            machine.put(f"/proc/{pid.strip()}/stat", "")
            assert states() == {"docker": "pass", "containerd": "pass"}
            for process in (below, above):
                process.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            assert states() == {"docker": "critical", "containerd": "critical"}
            assert time.monotonic() - begun < 5
            for process in (below, above):
                process.send_signal(signal.SIGCONT)
            assert states() == {"docker": "pass", "containerd": "pass"}
        assert states() == {"docker": "warning", "containerd": "pass"}


# --- servers of mounts ------------------------------------------------------------------------


def mount_line(fstype, super_options, number=7):
    return (
        f"{number} 1 0:{number} / /mnt/{number} rw shared:1 - {fstype} srv:/x rw,{super_options}\n"
    )


def rpc_reply(call):
    (header,) = struct.unpack_from(">I", call)
    assert header == 1 << 31 | len(call) - 4
    xid, kind, version, program, nfs, procedure = struct.unpack_from(">IIIIII", call, 4)
    assert (kind, version, program, procedure) == (0, 2, 100003, 0) and nfs in (3, 4)
    body = struct.pack(">IIIIII", xid, 1, 0, 0, 0, 0)
    return struct.pack(">I", 1 << 31 | len(body)) + body


@pytest.mark.parametrize("fstype", ["nfs", "nfs4"])
def test_an_nfs_server_replies(machine, options, fstype):
    with listener(socket.AF_INET, ("127.0.0.1", 0), rpc_reply) as (address, port):
        given = f"vers={'4.2' if fstype == 'nfs4' else '3'},proto=tcp,port={port},addr={address}"
        machine.put("/proc/self/mountinfo", mount_line(fstype, given))
        checks = checks_of(machine, options, "storage_server")
    label = f"NFS server 127.0.0.1:{port}"
    assert checks == {label: ("pass", f"{label} answers")}


def test_nfs_servers_that_do_not_reply(machine, options):
    """One takes calls and is silent, one speaks something else, one is gone."""
    with (
        listener(socket.AF_INET, ("127.0.0.1", 0), rpc_reply, wait=30) as silent,
        listener(socket.AF_INET, ("127.0.0.1", 0), lambda dummy: b"SSH-2.0-x\r\n..") as other,
    ):
        ports = [silent[1], other[1], 1]
        table = "".join(
            mount_line("nfs", f"vers=3,proto=tcp,port={port},addr=127.0.0.1", number)
            for number, port in enumerate(ports, 7)
        )
        machine.put("/proc/self/mountinfo", table)
        checks = checks_of(machine, options, "storage_server")
    assert [status for status, dummy in checks.values()] == ["critical"] * 3
    texts = " ".join(text for dummy, text in checks.values())
    assert "no reply within" in texts and "is no RPC" in texts and "refused" in texts


@pytest.mark.parametrize(
    ("fstype", "given"),
    [("nfs", "proto=rdma,addr=10.0.0.1"), ("nfs", "proto=udp,addr=10.0.0.1"), ("ext4", "addr=1.1")],
)
def test_what_is_not_asked_over_tcp(fstype, given):
    (mount,) = mounts.parse(mount_line(fstype, given))
    assert servers.nfs_server(mount) is None


LUSTRE = "fs-MDT0000-mdc-ffff9a2 active.\nfs-OST0000-osc-ffff9a2 {}\n"
#: As the GPFS exporter for Prometheus has it in its tests.
GPFS = (
    "mmgetstate::HEADER:version:reserved:reserved:nodeName:nodeNumber:state:quorum:nodesUp:"
    "totalNodes:remarks:cnfsState:\nmmgetstate::0:1:::ib-proj-nsd05.domain:11:{}:4:7:1122::(undefined):\n"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="the tools are for root")
@pytest.mark.parametrize(
    ("fstype", "tool", "output", "status"),
    [
        ("lustre", "/usr/bin/lfs", LUSTRE.format("active."), "pass"),
        ("lustre", "/usr/bin/lfs", "fs-OST0000-osc-ffff9a2: active\n", "pass"),
        ("lustre", "/usr/bin/lfs", "fs-OST0000-osc-ffff9a2: inactive\n", "critical"),
        ("lustre", "/usr/bin/lfs", LUSTRE.format("inactive."), "critical"),
        ("lustre", "/usr/bin/lfs", LUSTRE.format("error: Timer expired"), "critical"),
        (
            "lustre",
            "/usr/bin/lfs",
            "check 'fs-OST000b-osc-ffff': Input/output error (5)\n",
            "critical",
        ),
        ("gpfs", "/usr/lpp/mmfs/bin/mmgetstate", GPFS.format("active"), "pass"),
        ("gpfs", "/usr/lpp/mmfs/bin/mmgetstate", GPFS.format("unknown"), "critical"),
        ("gpfs", "/usr/lpp/mmfs/bin/mmgetstate", GPFS.format("arbitrating"), "critical"),
        ("gpfs", "/usr/lpp/mmfs/bin/mmgetstate", "", "critical"),
        ("lustre", None, "", "skipped"),
        ("gpfs", None, "", "skipped"),
    ],
)
def test_lustre_and_gpfs_are_asked_by_their_tools(machine, options, fstype, tool, output, status):
    machine.put("/proc/self/mountinfo", mount_line(fstype, "flock"))
    if tool:
        machine.put(tool, "").chmod(0o755)
    machine.world = dataclasses.replace(
        machine.world, run=lambda dummy, **more: CommandResult(0, output, "")
    )
    ((decided, dummy),) = checks_of(machine, options, "storage_server").values()
    assert decided == status


@pytest.mark.skipif(os.geteuid() != 0, reason="the tools are for root")
@pytest.mark.parametrize(
    ("fstype", "tool"), [("lustre", "/usr/bin/lfs"), ("gpfs", "/usr/lpp/mmfs/bin/mmgetstate")]
)
def test_a_tool_that_hangs_with_its_server(machine, options, world, fstype, tool):
    machine.put("/proc/self/mountinfo", mount_line(fstype, "flock"))
    program = machine.put(tool, "#!/bin/sh\ntrap '' TERM\nsleep 60\n")
    program.chmod(0o755)

    def here(argv, **more):
        return world.run([str(program), *argv[1:]], **more)

    machine.world = dataclasses.replace(machine.world, run=here)
    begun = time.monotonic()
    ((status, message),) = checks_of(machine, options, "storage_server").values()
    assert status == "critical" and "does not answer" in message
    assert time.monotonic() - begun < 5


# --- InfiniBand -------------------------------------------------------------------------------


def test_error_counters_of_infiniband_ports(machine, options):
    machine.put("/proc/uptime", f"{2 * 86400}.00 1.00\n")
    for port, layer, errors in (
        ("mlx5_0/ports/1", "InfiniBand", "199"),
        ("mlx5_1/ports/1", "InfiniBand", "200"),
        ("mlx5_2/ports/1", "Ethernet", "900000"),
    ):
        machine.put(f"/sys/class/infiniband/{port}/link_layer", layer + "\n")
        machine.put(f"/sys/class/infiniband/{port}/counters/symbol_error", errors + "\n")
        machine.put(f"/sys/class/infiniband/{port}/counters/port_xmit_discards", "99999\n")
    assert checks_of(machine, options, "infiniband_errors") == {
        "mlx5_0/1": ("pass", "InfiniBand errors on mlx5_0/1: 99.5 per day (symbol_error 199)"),
        "mlx5_1/1": ("warning", "InfiniBand errors on mlx5_1/1: 100.0 per day (symbol_error 200)"),
    }


# --- PCI --------------------------------------------------------------------------------------


def configuration(control):
    """Return a configuration space whose second extended capability is ACS."""
    space = bytearray(4096)
    struct.pack_into("<I", space, 0x100, 0x0001 | 1 << 16 | 0x148 << 20)  # AER
    struct.pack_into("<IHH", space, 0x148, 0x000D | 1 << 16, 0x5F, control)
    return bytes(space)


def gpus_below(machine, *bridges):
    """Make two GPUs, each below the bridges with these configuration spaces."""
    devices = machine.root / "sys/bus/pci/devices"
    devices.mkdir(parents=True)
    path = machine.root / "sys/devices/pci0000:80"
    for number, content in enumerate(bridges):
        path = path / f"0000:8{number}:01.0"
        path.mkdir(parents=True)
        (path / "config").write_bytes(content)
        (devices / path.name).symlink_to(path)
    for gpu in ("0000:A1:00.0", "0000:A2:00.0"):
        target = path / gpu.lower()
        target.mkdir(parents=True)
        (target / "config").write_bytes(configuration(0x5F))  # its own does not matter
        (devices / target.name).symlink_to(target)
        machine.put(f"/proc/driver/nvidia/gpus/{gpu}/information", "")


@pytest.mark.parametrize(
    ("spaces", "status", "part"),
    [
        ([configuration(0), configuration(0)], "pass", "none of 2"),
        ([configuration(0x1D), configuration(0)], "warning", "0000:80:01.0"),
        ([configuration(0x04)], "warning", "1 bridge above the GPUs redirects"),
        ([configuration(0x40)], "pass", ""),  # direct translated requests are for peers
        ([bytes(256)], "pass", "none of 1"),  # no extended configuration space
        ([bytes(64)], "skipped", "only root"),
        ([bytes(4096)], "pass", ""),
    ],
)
def test_bridges_that_redirect(machine, options, spaces, status, part):
    gpus_below(machine, *spaces)
    ((decided, message),) = checks_of(machine, options, "pci_acs").values()
    assert decided == status and part in message


@pytest.mark.parametrize(("kind", "status"), [("0x120000", "warning"), ("0x030000", None)])
def test_accelerators_of_amd_are_peers_too(machine, options, kind, status):
    gpus_below(machine, configuration(0x1D))
    shutil.rmtree(machine.root / "proc/driver")
    for gpu in ("0000:a1:00.0", "0000:a2:00.0"):
        (device,) = (machine.root / "sys/devices").rglob(gpu)
        (device / "class").write_text(kind + "\n")
        driver = machine.root / "sys/bus/pci/drivers/amdgpu"
        driver.mkdir(parents=True, exist_ok=True)
        (driver / gpu).symlink_to(device)
    checks = checks_of(machine, options, "pci_acs")
    assert [decided for decided, dummy in checks.values()] == ([status] if status else [])


def test_in_a_virtual_machine_the_host_decides(machine, options):
    gpus_below(machine, configuration(0x1D))
    machine.put("/proc/cpuinfo", "processor : 0\nflags : fpu hypervisor\n")
    assert checks_of(machine, options, "pci_acs")[None][0] == "skipped"


def test_a_chain_of_capabilities_that_loops_ends():
    space = bytearray(4096)
    struct.pack_into("<I", space, 0x100, 0x0001 | 0x100 << 20)
    assert acs.parse(bytes(space)) == 0


def test_nothing_applies_to_an_ordinary_node(machine, options):
    names = {check.name for check in plan.CHECKS if check.applies is not None}
    document = run(options(checks=sorted(names)), machine.world).to_dict()
    assert len(names) == 5 and document["checks"] == []


# --- backups ----------------------------------------------------------------------------------


@pytest.fixture
def backups(machine, tmp_path, clock):
    """Make real backups: call it with the hours ago and the source; returns their directory."""
    directory = machine.root / "backup"
    directory.mkdir(parents=True)

    def make(hours=0.0, source="models", verify=True):
        place = tmp_path / source
        place.mkdir(exist_ok=True)
        (place / "weights").write_text(f"{source} {hours}")
        now = clock.time
        clock.time -= hours * HOUR
        given = {"source": str(place), "destination": str(directory), "verify": verify}
        made = make_backup(
            BackupOptions.from_mapping({**given, "retention_days": 0, "force": True}),
            dataclasses.replace(machine.world, root="/"),
        )
        clock.time = now
        return made

    clock.time = time.time()
    return make


def age_of(machine, options, **wanted):
    given = {"path": "/backup", **wanted}
    ((status, message),) = checks_of(machine, options, "backup_age", backups=[given]).values()
    return status, message


@pytest.mark.parametrize(
    ("hours", "limits", "status"),
    [
        (29.0, {}, "pass"),
        (31.0, {}, "warning"),
        (55.0, {}, "critical"),
        (3.0, {"warning": 2}, "warning"),
        (3.0, {"warning": 1, "critical": 2}, "critical"),
        (60.0, {"warning": 100, "critical": 200}, "pass"),
    ],
)
def test_the_age_of_the_newest_backup(machine, options, backups, hours, limits, status):
    backups(hours + 100)
    backups(hours)
    decided, message = age_of(machine, options, **limits)
    assert decided == status and f"{hours:.1f} hours old" in message


def test_no_backup_is_critical(machine, options):
    assert age_of(machine, options) == ("critical", "Backups in /backup: none")


def test_a_backup_that_was_not_verified_does_not_count(machine, options, backups):
    backups(60)
    backups(1, verify=False)
    status, message = age_of(machine, options)
    assert status == "critical" and "60.0 hours old" in message


def test_a_damaged_backup_does_not_count(machine, options, backups):
    backups(1)
    (archive,) = (machine.root / "backup").glob("*.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-5])
    status, message = age_of(machine, options)
    assert (status, message) == (
        "critical",
        "Backups in /backup: 1, but none is complete and verified",
    )


def test_each_source_has_an_age_of_its_own(machine, options, backups, tmp_path):
    backups(1, "models")
    backups(70, "data")
    status, dummy = age_of(machine, options, source=str(tmp_path / "models"))
    assert status == "pass"
    status, message = age_of(machine, options, source=str(tmp_path / "data"))
    assert status == "critical" and "70.0 hours" in message
    status, message = age_of(machine, options, source=str(tmp_path / "other"))
    assert status == "critical" and message.endswith(": none")


def test_fresh_backups_of_one_source_or_host_hide_no_other(machine, options, backups, tmp_path):
    def decided(**wanted):
        given = [{"path": "/backup", **wanted}]
        checks = checks_of(machine, options, "backup_age", backups=given)
        return {subject: status for subject, (status, message) in checks.items()}

    models, data = (f"/backup of {tmp_path / name}" for name in ("models", "data"))
    own = machine.world
    backups(1, "models")
    backups(70, "data")
    assert decided() == {models: "pass", data: "critical"}
    # Another host in the same directory has nothing to do with this one.
    machine.world = dataclasses.replace(own, hostname="node2")
    backups(80, "models")
    machine.world = own
    assert decided() == {models: "pass", data: "critical"}
    # A host without backups of its own, where the others' are collected.
    machine.world = dataclasses.replace(own, hostname="store")
    assert decided() == {
        f"{models} on {own.hostname}": "pass",
        f"{models} on node2": "critical",
        f"{data} on {own.hostname}": "critical",
    }
    assert list(decided(source=str(tmp_path / "data"))) == [f"/backup of {tmp_path / 'data'}"]


def test_a_source_with_an_entry_of_its_own_counts_once(machine, options, backups, tmp_path):
    backups(1, "models")
    backups(70, "data")
    given = [
        {"path": "/backup"},
        {"path": "/backup", "source": str(tmp_path / "data"), "critical": 90},
    ]
    checks = checks_of(machine, options, "backup_age", backups=given)
    assert {subject: status for subject, (status, message) in checks.items()} == {
        "/backup": "pass",
        f"/backup of {tmp_path / 'data'}": "warning",
    }


def test_a_backup_of_the_future_hides_nothing(machine, options, backups):
    backups(60)
    backups(-24 * 365)
    status, message = age_of(machine, options)
    assert status == "critical" and "60.0 hours old" in message


def test_what_can_not_be_read_is_unknown(machine, options, backups):
    """A user without rights must never hear that there is no backup."""
    backups(1)
    directory = machine.root / "backup"
    machine.root.chmod(0o755)
    for path in [*pathlib.Path(machine.root).parents, machine.root]:
        if path.is_dir() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    verdicts = []
    for target in (directory, *directory.glob("*.json")):
        mode = target.stat().st_mode
        target.chmod(0)
        child = os.fork()
        if not child:
            status = "none"
            with contextlib.suppress(BaseException):
                os.setgid(65534)
                os.setuid(65534)
                status = age_of(machine, options)[0]
            os._exit(7 if status == "unknown" else 1)
        verdicts.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        target.chmod(mode)
    assert verdicts == [7, 7], "directory, and manifest"


def test_an_unreadable_directory_counts_as_critical(options, machine, monkeypatch):
    from ansible_collections.mlops.fleet.plugins.module_utils._core.node import backup_age
    from ansible_collections.mlops.fleet.plugins.module_utils._core.node.probes import Problem

    given = options(backups=[{"path": "/backup"}])
    (check,) = backup_age.decide({"/backup": Problem("no answer within 5 s")}, 0.0, given)
    assert (check.status, check.counts_as) == ("unknown", "critical")
