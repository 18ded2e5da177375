# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The situations: each prepares a node, does what an operator would do, and returns the results to
record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import os
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator

from node import HERE, Node

SITUATIONS: dict[str, Situation] = {}
XID_BUS = "PCI:0000:2A:00"
#: What a kernel prints in /proc/meminfo of a node whose memory is nearly full.
FULL_MEMORY = """MemTotal:       65536000 kB
MemFree:         1000000 kB
MemAvailable:    6000000 kB
Buffers:          100000 kB
Cached:          5000000 kB
SReclaimable:     200000 kB
Shmem:            100000 kB
SwapTotal:      10000000 kB
SwapFree:        1000000 kB
"""
H100 = {
    "index": "0",
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-4f2a9c10-0000-4d3e-9b1a-012345678900",
    "serial": "1654922000000",
    "pci.bus_id": "00000000:18:00.0",
    "driver_version": "590.48.01",
    "vbios_version": "96.00.89.00.01",
    "temperature.gpu": "59",
    "temperature.gpu.tlimit": "26",
    "temperature.memory": "70",
    "utilization.gpu": "100",
    "utilization.memory": "31",
    "memory.used": "76000",
    "memory.total": "81559",
    "power.draw": "629.14",
    "enforced.power.limit": "700.00",
    "power.limit": "700.00",
    "pstate": "P0",
    "ecc.mode.current": "Enabled",
    "ecc.errors.corrected.volatile.total": "0",
    "ecc.errors.uncorrected.volatile.total": "0",
    "persistence_mode": "Enabled",
    "mig.mode.current": "Disabled",
    "gpu_recovery_action": "None",
}


@dataclasses.dataclass(frozen=True)
class Situation:
    """``act`` takes the node and returns what to record; ``needs`` names what the machine must
    have.
    """

    name: str
    act: Callable[[Node], object]
    needs: str = ""


def situation(act: Callable | None = None, *, needs: str = ""):
    """Register a situation under the name of its function."""
    if act is None:
        return lambda function: situation(function, needs=needs)
    SITUATIONS[act.__name__] = Situation(act.__name__, act, needs)
    return act


# --- GPUs ---


def _gpu_scenario(name: str, scenario: str, *arguments: str) -> None:
    def act(node: Node) -> object:
        node.gpus(scenario)
        return node.run("gpu", "--no-alert", *arguments)

    SITUATIONS[name] = Situation(name, act, "compiler")


_gpu_scenario("gpu_healthy", "h100x8")
_gpu_scenario("gpu_busy", "h100x8_busy")
_gpu_scenario("gpu_faulty", "faulty")
_gpu_scenario("gpu_lost", "lost")
_gpu_scenario("gpu_lost_midway", "lost_midway")
_gpu_scenario("gpu_hang", "hang", "--timeout", "1")
_gpu_scenario("gpu_remap_failure", "remap_failure")
_gpu_scenario("gpu_nvlink_down", "nvlink_down")
_gpu_scenario("gpu_pcie_narrow", "pcie_narrow")
_gpu_scenario("gpu_orphan", "orphan")
_gpu_scenario("gpu_recovery_reset", "recovery_reset")
_gpu_scenario("gpu_version_mismatch", "version_mismatch")
_gpu_scenario("gpu_no_driver", "no_driver", "--expected-count", "8")
_gpu_scenario("gpu_a100_with_mig", "a100x4")
_gpu_scenario("gpu_old_driver", "driver470")
_gpu_scenario(
    "gpu_desktop_card", "rtx4080", "--temperature-warning", "20", "--temperature-critical", "90"
)
_gpu_scenario("gpu_too_few", "l40s", "--expected-count", "2")


@situation
def gpu_none_on_the_node(node: Node) -> object:
    return node.run("gpu", "--no-alert")


@situation(needs="compiler")
def gpu_xids_in_a_log(node: Node) -> object:
    """Several codes of one GPU, one overridden, one unknown, one of a bus that no GPU has."""
    node.gpus("h100x8")
    now = time.strftime("%b %e %H:%M:%S", time.gmtime(time.time() - 60))
    lines = [
        f"NVRM: Xid ({XID_BUS}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        f"NVRM: Xid ({XID_BUS}): 13, pid=1234, name=python, Graphics Exception",
        f"NVRM: Xid ({XID_BUS}): 13, pid=1234, name=python, Graphics Exception",
        "NVRM: Xid (PCI:0000:18:00): 94, pid=99, name=train, Contained",
        "NVRM: Xid (PCI:0000:77:00): 48, DBE",
        "NVRM: Xid (PCI:0000:18:00): 9999, something new",
    ]
    node.put("kern.log", "".join(f"{now} n1 kernel: [  100.000000] {line}\n" for line in lines))
    arguments = (
        "--no-alert",
        "--log-source",
        str(node.base / "kern.log"),
        "--xid-overrides",
        '{"94": "ignore"}',
    )
    return [
        node.run("gpu", *arguments),
        node.run("gpu", "--no-alert", "--log-source", str(node.base / "missing.log")),
    ]


@situation
def gpu_by_nvidia_smi(node: Node) -> object:
    hot = {
        **H100,
        "index": "1",
        "uuid": "GPU-2",
        "pci.bus_id": "00000000:2A:00.0",
        "temperature.gpu.tlimit": "-1",
    }
    hot["ecc.errors.uncorrected.volatile.total"] = "3"
    node.env["NVIDIA_SMI_ANSWERS"] = str(
        node.put("answers.json", json.dumps({"gpus": [H100, hot], "rows": []}))
    )
    node.program("nvidia-smi", f'exec {sys.executable} {HERE / "nvidia_smi.py"} "$@"\n')
    return node.run("gpu", "--no-alert", "--backend", "nvidia_smi")


@situation(needs="compiler")
def gpu_metrics_and_textfile(node: Node) -> object:
    """Two runs append to the CSV file; the text file for node_exporter is replaced."""
    node.gpus("faulty")
    node.env["METRICS_FILE"] = str(node.base / "metrics.csv")
    for _run in range(2):
        node.run("gpu", "--no-alert", "--textfile", str(node.base / "gpu.prom"))
    prometheus = [
        line
        for line in (node.base / "gpu.prom").read_text().splitlines()
        if "timestamp" not in line and "duration" not in line
    ]
    return {"csv": (node.base / "metrics.csv").read_text().splitlines(), "prometheus": prometheus}


@situation(needs="compiler")
def gpu_output_as_text(node: Node) -> object:
    """Text for a terminal and plugin output."""
    node.gpus("faulty")
    return {
        form: node.run("gpu", "--no-alert", "--format", form, text=True)
        for form in ("text", "nagios")
    }


@situation(needs="compiler")
def gpu_module_fails_on_request(node: Node) -> object:
    node.gpus("faulty")
    asked = {"log_source": "none", "metrics_csv": str(node.base / "metrics.csv")}
    return [
        node.module("gpu_health", check_mode=True, **asked),
        node.module("gpu_health", fail_on="critical", **asked),
        node.module("gpu_health", **asked, temperature_warning=90, temperature_critical=80),
        node.tree("."),
    ]


# --- the node ---


@situation(needs="namespaces")
def health_memory_full(node: Node) -> object:
    node.replace("/proc/meminfo", FULL_MEMORY)
    return [
        node.run("health", "--no-alert", "--checks", "memory_usage swap_usage"),
        node.run("health", "--no-alert", "--checks", "memory_usage swap_usage", "--mem-warn", "97"),
    ]


@situation(needs="namespaces")
def health_load_and_pressure(node: Node) -> object:
    node.replace("/proc/loadavg", "20.00 18.00 16.00 3/200 4242\n")
    node.replace("/proc/stat", "cpu  1 1 1 1\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nbtime 1700000000\n")
    for resource in ("cpu", "memory", "io"):
        if os.path.exists(f"/proc/pressure/{resource}"):
            node.replace(
                f"/proc/pressure/{resource}",
                "some avg10=45.00 avg60=45.00 avg300=45.00 total=1\nfull avg10=15.00 avg60=15.00"
                " avg300=15.00 total=1\n",
            )
    return node.run(
        "health", "--no-alert", "--checks", "cpu_load cpu_pressure io_pressure memory_pressure"
    )


@situation(needs="namespaces")
def health_kernel_tables(node: Node) -> object:
    node.replace("/proc/sys/fs/file-nr", "950 0 1000\n")
    node.replace("/proc/sys/kernel/tainted", "128\n")
    return node.run("health", "--no-alert", "--checks", "file_descriptors kernel_taint")


@situation(needs="namespaces")
def health_hardware(node: Node) -> object:
    """Memory errors, a degraded array, a dead NVMe controller, an InfiniBand port that is down."""
    files = {
        "devices/system/edac/mc/mc0/ce_count": "12\n",
        "devices/system/edac/mc/mc0/ue_count": "1\n",
        "class/nvme/nvme0/state": "live\n",
        "class/nvme/nvme1/state": "dead\n",
        "class/infiniband/mlx5_0/ports/1/state": "1: DOWN\n",
        "class/infiniband/mlx5_0/ports/1/phys_state": "3: Disabled\n",
        "class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
        "class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand\n",
    }
    for name, content in (
        ("level", "raid1"),
        ("array_state", "clean"),
        ("degraded", "1"),
        ("sync_action", "idle"),
        ("raid_disks", "2"),
    ):
        files[f"block/md0/md/{name}"] = content + "\n"
    node.replace_tree("/sys", files)
    node.replace("/proc/uptime", "864000.00 1000.00\n")
    checks = "memory_errors raid nvme_state infiniband_port"
    return node.run(
        "health", "--no-alert", "--checks", checks, "--infiniband-ports", "1", "--no-disk-health"
    )


@situation(needs="namespaces")
def health_services(node: Node) -> object:
    """Units as systemctl prints them: active, failed, restarting, unknown."""
    node.replace_tree("/run", {"systemd/system/.keep": ""})
    blocks = {
        "nginx.service": ("loaded", "active", "running", "success", "0", "notify"),
        "broken.service": ("loaded", "failed", "failed", "exit-code", "5", "simple"),
        "loop.service": ("loaded", "activating", "auto-restart", "exit-code", "4", "simple"),
        "gone.service": ("not-found", "inactive", "dead", "success", "0", ""),
    }
    for name, block in blocks.items():
        keys = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "Type")
        node.put(
            f"units/{name}",
            f"Id={name}\nNames={name}\n"
            + "".join(f"{key}={value}\n" for key, value in zip(keys, block)),
        )
    script = f"""if [ "$1" = list-units ]; then
    echo 'broken.service loaded failed failed Broken'
    echo 'loop.service loaded activating auto-restart Loop'
    exit
fi
while [ "$1" != -- ]; do shift; done
shift
for unit; do cat "{node.base}/units/$unit"; echo; done
"""
    node.program("systemctl", script)
    node.program("journalctl", "exit 1\n")
    return node.run(
        "health",
        "--no-alert",
        "--checks",
        "service failed_units flapping_units",
        "--services",
        "nginx broken loop gone",
    )


@situation(needs="namespaces")
def health_journal(node: Node) -> object:
    """A journal with a disk error, an OOM kill, a service's complaint and restarts of a unit."""
    node.replace_tree("/run", {"systemd/system/.keep": "", "log/journal/0123/system.journal": ""})
    now = int(time.time()) * 1_000_000
    common = {"__REALTIME_TIMESTAMP": str(now - 60_000_000)}
    kernel = {**common, "_TRANSPORT": "kernel", "PRIORITY": "3"}
    entries = [
        {
            **kernel,
            "MESSAGE": (
                "I/O error, dev sda, sector 12345 op 0x0:(READ) flags 0x80700 phys_seg 1 prio"
                " class 2"
            ),
        },
        {
            **kernel,
            "MESSAGE": (
                "Out of memory: Killed process 77 (trainer) total-vm:1kB, anon-rss:1kB, UID:1000"
                " oom_score_adj:0"
            ),
        },
        {
            **common,
            "PRIORITY": "3",
            "_SYSTEMD_UNIT": "train.service",
            "MESSAGE": "could not open the data set",
        },
        {**kernel, "PRIORITY": "4", "MESSAGE": "our own rule: fan 3 stopped"},
    ]
    node.put("journal.json", "".join(json.dumps(entry) + "\n" for entry in entries))
    node.program("journalctl", f"cat '{node.base}/journal.json'\n")
    node.program("systemctl", "exit 1\n")
    node.settings["health"] = {
        "error_patterns": [{"name": "fan", "pattern": r"fan \d+ stopped", "status": "critical"}]
    }
    return node.run("health", "--no-alert", "--checks", "oom_kills kernel_errors journal_errors")


@situation(needs="namespaces")
def health_remembers_its_verdicts(node: Node) -> object:
    """A warning is raised only when seen twice, and cleared only when gone twice."""
    node.replace("/proc/meminfo", FULL_MEMORY)
    node.replace("/proc/uptime", "864000.00 1000.00\n")
    asked = (
        "--no-alert",
        "--checks",
        "memory_usage",
        "--state-file",
        str(node.base / "state.json"),
        "--raise-after",
        "2",
    )
    seen = [node.run("health", *asked) for _run in range(2)]
    node.put("kernel/proc/meminfo", FULL_MEMORY.replace("6000000", "60000000"))
    return seen + [node.run("health", *asked) for _run in range(3)]


@situation
def health_mounts_and_certificates(node: Node) -> object:
    arguments = (
        "--expected-mounts",
        str(node.base / "missing"),
        "--certificates",
        str(node.base / "missing.pem"),
    )
    return node.run("health", "--no-alert", "--checks", "mount_present certificate", *arguments)


@situation(needs="compiler namespaces")
def health_with_gpus_and_textfile(node: Node) -> object:
    """The GPUs count as part of the node; the result goes to a text file for node_exporter too."""
    node.gpus("faulty")
    node.replace("/proc/meminfo", FULL_MEMORY)
    asked = (
        "--no-alert",
        "--checks",
        "gpu memory",
        "--skip",
        "memory_pressure",
        "--textfile",
        str(node.base / "node.prom"),
    )
    document = node.run("health", *asked)
    prometheus = [
        line
        for line in (node.base / "node.prom").read_text().splitlines()
        if "timestamp" not in line and "duration" not in line
    ]
    return {"document": document, "prometheus": prometheus}


@situation
def health_bad_options(node: Node) -> object:
    asked = (
        ("--checks", "memory_usag"),
        ("--disk-warn", "much"),
        ("--limits", '{"cpu_lod": {"warning": 1}}'),
        ("--timeout", "0"),
    )
    return [node.run("health", "--no-alert", *arguments) for arguments in asked]


@situation(needs="namespaces")
def health_module(node: Node) -> object:
    node.replace("/proc/meminfo", FULL_MEMORY)
    asked = {"checks": ["memory_usage"], "network": False}
    limits = {"memory_usage": {"warning": "@0:100", "critical": "~:"}}
    return [
        node.module("node_health", **asked),
        node.module("node_health", fail_on="warning", limits=limits, **asked),
        node.module("node_health", checks=["gpu_temprature", "bogus"]),
    ]


# --- backups ---


@situation
def backup_first_unchanged_changed(node: Node) -> object:
    node.models()
    first, unchanged = node.run("backup"), node.run("backup")
    node.put("models/bert/config.json", '{"layers": 24}\n')
    os.utime(node.base / "models/bert/config.json", (1_700_000_100, 1_700_000_100))
    time.sleep(1)  # archives are named by the second
    return [
        first,
        unchanged,
        node.run("backup"),
        node.run("verify"),
        len(list((node.base / "backups").glob("*.tar.gz"))),
    ]


@situation
def backup_dry_run(node: Node) -> object:
    node.models()
    return [node.run("backup", "--dry-run"), node.tree(".")]


@situation
def backup_module_check_mode(node: Node) -> object:
    node.models()
    asked = {
        "source": str(node.base / "models"),
        "destination": str(node.base / "backups"),
        "exclude": ["config.json"],
        "workers": 1,
    }
    return [
        node.module("model_backup", check_mode=True, **asked),
        node.module("model_backup", **asked),
        node.module("model_backup", **asked),
    ]


@situation
def backup_other_compressions(node: Node) -> object:
    node.models()
    return node.run("backup", "--compression", "none")


@situation
def backup_retention(node: Node) -> object:
    """Three complete backups; the rules leave the newest two."""
    node.models()
    for _run in range(2):
        node.run("backup", "--force", "--retention-days", "0")
        time.sleep(1)  # archives are named by the second
    last = node.run("backup", "--force", "--retention-days", "0", "--keep-last", "2")
    return [last, node.module("model_backup_info", path=str(node.base / "backups"))]


@situation
def backup_refusals(node: Node) -> object:
    """Wrong options, no source, a source that holds its destination, another program's lock."""
    node.models()
    node.put("empty/.keep")
    return [
        node.run("backup", "--compression-level", "12"),
        node.run("backup", "--compression", "rar"),
        node.run("backup", "--source", str(node.base / "nowhere")),
        node.run("backup", "--destination", str(node.base / "models" / "backups")),
        node.run("backup", "--destination", "/"),
        node.run("backup", "--s3-sync"),
    ]


def _backed_up(node: Node) -> pathlib.Path:
    node.models()
    node.run("backup")
    (archive,) = (node.base / "backups").glob("*.tar.gz")
    return archive


@situation
def verify_damaged(node: Node) -> object:
    archive = _backed_up(node)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 4
    archive.write_bytes(data)
    results = [
        node.module("model_backup_info", path=str(node.base / "backups"), verify=depth)
        for depth in ("none", "quick")
    ]
    results += [node.run("verify", str(node.base / name)) for name in ("nowhere", "models")]
    return [*results, node.run("backup", "--verify", str(archive))["exit"]]


@situation
def verify_and_list(node: Node) -> object:
    _backed_up(node)
    results = [
        node.module("model_backup_info", path=str(node.base / "backups"), verify=depth)
        for depth in ("none", "quick", "full")
    ]
    return [
        *results,
        node.run("verify"),
        node.module("model_backup_info", path=str(node.base / "nowhere")),
    ]


@situation
def restore_all_some_and_again(node: Node) -> object:
    archive = _backed_up(node)
    restored = str(node.base / "restored")
    return [
        node.run("restore", "--dry-run", restored),
        node.run("restore", restored),
        node.run("restore", restored),
        node.run("restore", restored, "--replace"),
        node.run("restore", str(node.base / "some"), "bert/*", "--backup", archive.name),
        node.tree("restored", "some"),
    ]


@situation
def restore_refusals(node: Node) -> object:
    archive = _backed_up(node)
    node.put("occupied/file", "mine")
    results = [
        node.run("restore", str(node.base / "occupied")),
        node.run(
            "restore", str(node.base / "new"), "--backup", "models_backup_19990101_000000.tar.gz"
        ),
        node.run("restore", str(node.base / "new"), "nothing/*"),
        node.run("restore", "/etc"),
        node.module(
            "model_restore",
            check_mode=True,
            path=str(node.base / "backups"),
            destination=str(node.base / "new"),
        ),
    ]
    archive.unlink()
    return [*results, node.run("restore", str(node.base / "new")), node.tree("occupied", "new")]


# --- cleanup ---


@situation
def cleanup_dry_run_then_real(node: Node) -> object:
    node.experiments()
    dry = node.run("cleanup", "--dry-run")
    before = node.tree("experiments", "checkpoints")
    real = node.run("cleanup")
    return [dry, before, real, node.tree("experiments", "checkpoints"), node.run("cleanup")]


@situation
def cleanup_keeps(node: Node) -> object:
    """What keep_last, exclude, a link and a recently changed file keep."""
    node.experiments()
    node.put("experiments/run-b/keep.me", "x")
    node.age("experiments/run-b", 60)
    (node.base / "experiments" / "link").symlink_to(node.base / "experiments" / "run-a")
    target, _other = node.settings["cleanup"]["targets"]
    target.update(keep_last=1, exclude=["keep.*"])
    return [node.run("cleanup", "--only", "experiments"), node.tree("experiments")]


@situation
def cleanup_brake(node: Node) -> object:
    node.experiments()
    results = [
        node.run("cleanup", "--brake-max-units", "1"),
        node.run("cleanup", "--dry-run", "--brake-max-share", "0.1"),
    ]
    return [*results, node.tree("experiments", "checkpoints")]


@situation
def cleanup_refused_roots(node: Node) -> object:
    results = []
    for path in ("/", "/etc", "/home", "relative", str(node.base / "nowhere")):
        node.settings["cleanup"] = {
            "targets": [{"name": "wrong", "path": path, "retention_days": 1}]
        }
        results.append(node.run("cleanup"))
    return results


@situation
def cleanup_needs_a_backup(node: Node) -> object:
    node.experiments()
    node.models()
    node.settings["cleanup"]["require_backup"] = {"path": str(node.base / "backups")}
    before = node.run("cleanup")
    node.run("backup")
    return [
        before,
        node.run("cleanup", "--dry-run"),
        node.run("cleanup")["exit"],
        node.tree("experiments", "checkpoints"),
    ]


@situation
def cleanup_bad_options(node: Node) -> object:
    node.experiments()
    return [
        node.run("cleanup", "--only", "experimnts"),
        node.run("cleanup", "--only", ""),
        node.run("cleanup", "--age-by", "size"),
        node.run("cleanup", "--experiments-retention", "-1"),
    ]


@situation
def cleanup_module_check_mode(node: Node) -> object:
    node.experiments()
    targets = node.settings["cleanup"]["targets"]
    asked = {"targets": targets, "age_by": "mtime", "report_path": str(node.base / "report.json")}
    checked = node.module("artifact_cleanup", check_mode=True, **asked)
    return [
        checked,
        node.tree("experiments"),
        node.module("artifact_cleanup", **asked),
        node.tree("experiments"),
        os.path.exists(node.base / "report.json"),
    ]


# --- alerts ---

PROBLEM = {
    "hostname": "gpu1",
    "timestamp": "2026-01-31T02:00:00+00:00",
    "status": "critical",
    "checks": [
        {
            "check": "gpu_ecc",
            "subject": "1",
            "status": "critical",
            "message": "GPU 1: 3 uncorrected memory errors",
            "value": 3,
            "action": "drain_reset",
        },
        {
            "check": "disk_usage",
            "subject": "/data",
            "status": "warning",
            "message": "/data: 85% used <&>",
            "value": 85,
            "unit": "%",
        },
        {"check": "dns", "status": "pass", "message": "DNS answers"},
    ],
}
SOLVED = {
    **PROBLEM,
    "status": "pass",
    "checks": [{**check, "status": "pass", "message": "fine"} for check in PROBLEM["checks"]],
}


@contextlib.contextmanager
def receiver(status: int = 200) -> Iterator[tuple[str, list]]:
    """Receive what is posted to a port of the loopback interface; yields the address and the list
    of requests.
    """
    requests: list = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {
                name: self.headers[name]
                for name in ("Content-Type", "Authorization", "X-Token")
                if self.headers[name]
            }
            requests.append({"path": self.path, "headers": headers, "body": json.loads(body)})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_arguments) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _webhook(name: str, payload: str, **more) -> None:
    """Register a situation: a problem, the same again, its end, sent in one payload's form."""

    def act(node: Node) -> object:
        with receiver() as (url, requests):
            node.secrets[url] = "$URL"
            node.settings["alert"].update(
                webhooks=[{"url": url + "/hook", "payload": payload, "retries": 0, **more}]
            )
            results = [
                node.run("alert", "--document", "-", stdin=json.dumps(document))
                for document in (PROBLEM, PROBLEM, SOLVED)
            ]
        return {"results": results, "requests": requests}

    SITUATIONS[name] = Situation(name, act)


_webhook("alert_plain", "plain", headers={"X-Token": "secret"})
_webhook("alert_slack", "slack")
_webhook("alert_mattermost", "mattermost")
_webhook("alert_teams", "teams")
_webhook("alert_pagerduty", "pagerduty", routing_key="R0UTING")
_webhook("alert_opsgenie", "opsgenie", api_key="AP1")
_webhook("alert_alertmanager", "alertmanager")
_webhook(
    "alert_template", "template", template={"text": "$title", "level": "$severity", "fixed": 1}
)
_webhook("alert_without_recoveries", "auto", send_resolved=False)


@situation
def alert_check_mode_and_test(node: Node) -> object:
    with receiver() as (url, requests):
        node.secrets[url] = "$URL"
        hook = {"url": url, "payload": "slack"}
        node.settings["alert"].update(webhooks=[hook])
        results = [
            node.run("alert", "--dry-run", "--document", "-", stdin=json.dumps(PROBLEM)),
            node.run("alert", "--test"),
            node.run(
                "alert",
                "--severity",
                "warning",
                "--msg",
                "The tape library is full",
                "--check",
                "tape",
            ),
            node.run(
                "alert",
                "--severity",
                "pass",
                "--msg",
                "The tape library has space",
                "--check",
                "tape",
            ),
            node.module(
                "alert",
                check_mode=True,
                document=PROBLEM,
                webhooks=[hook],
                state_dir=str(node.base / "alert2"),
            ),
            node.module(
                "alert",
                document=PROBLEM,
                webhooks=[hook],
                state_dir=str(node.base / "alert2"),
                digest_after=1,
            ),
        ]
    return {"results": results, "requests": requests}


@situation
def alert_undelivered(node: Node) -> object:
    """A server that refuses, a server that does not exist, and the delivery of queued messages."""
    with receiver(500) as (url, requests):
        node.secrets[url] = "$URL"
        node.settings["alert"].update(webhooks=[{"url": url, "payload": "plain", "retries": 0}])
        refused = node.run("alert", "--msg", "lost?", "--check", "tape")
    node.settings["alert"].update(
        webhooks=[{"url": "http://127.0.0.1:1/", "payload": "plain", "retries": 0}]
    )
    absent = node.run("alert", "--msg", "lost?", "--check", "other")
    return [refused, len(requests), absent]


@situation
def alert_by_command(node: Node) -> object:
    node.program(
        "notify",
        f'echo "$@" >> "{node.base}/notified"; env | grep ^MLOPS_ | grep -v _DIR= | sort >>'
        f' "{node.base}/notified"\n',
    )
    node.settings["alert"].update(command=[str(node.bin / "notify"), "--page"])
    results = [
        node.run("alert", "--document", "-", stdin=json.dumps(document))
        for document in (PROBLEM, SOLVED)
    ]
    return [results, (node.base / "notified").read_text().splitlines()]


@situation
def alert_bad_options(node: Node) -> object:
    hooks: tuple = (
        {"url": "ftp://x"},
        {"url": "https://x.example", "payload": "pagerduty"},
        {"url": "https://x.example", "payload": "template"},
        {"url": "https://x.example", "payload": "fax"},
        {"url": "https://x.example", "headers": {"Host": "y"}},
    )
    results = [node.run("alert")]
    for hook in hooks:
        node.settings["alert"]["webhooks"] = [hook]
        results.append(node.run("alert", "--test"))
    return results


# --- configuration, maintenance, the fleet's report ---


@situation
def config_shown_and_wrong(node: Node) -> object:
    node.models()
    node.env["DISK_WARN_THRESHOLD"] = "70"
    good = node.run("config")
    node.settings["backup"]["compresion"] = "zstd"
    node.settings["gpu"]["timeout"] = "soon"
    wrong = node.run("config", "--check")
    node.settings["nonsense"] = {}
    return [good, wrong, node.run("config")]


@situation
def config_that_is_no_json(node: Node) -> object:
    node.put("broken.json", "{ not json")
    argv = [
        str(node.programs.command),
        "gpu",
        "--json",
        "--no-alert",
        "--config",
        str(node.base / "broken.json"),
    ]
    done = node.start(argv)
    return {
        "exit": done.returncode,
        "stdout": json.loads(done.stdout),
        "stderr": done.stderr.splitlines(),
    }


def _ready(node: Node) -> None:
    node.models()
    node.experiments()
    node.settings["health"] = {
        "checks": ["mount_present"],
        "expected_mounts": ["/"],
        "network": False,
    }


@situation(needs="compiler")
def maintenance_all_well(node: Node) -> object:
    _ready(node)
    node.gpus("l40s")
    dry = node.run("maintenance", "--dry-run")
    return [
        dry,
        node.tree("experiments", "backups"),
        node.run("maintenance"),
        node.tree("experiments"),
    ]


@situation(needs="compiler")
def maintenance_backup_fails(node: Node) -> object:
    """Cleanup never follows a failed backup, whatever continue_on_error says."""
    _ready(node)
    node.gpus("faulty")
    shutil.rmtree(node.base / "models")
    calls = ((), ("--continue-on-error",), ("--skip-backup", "--skip-gpu"))
    return [*(node.run("maintenance", *flags) for flags in calls), node.tree("experiments")]


@situation
def fleet_report_of_one_host(node: Node) -> object:
    """The controller's report of a host whose backup failed, from registered results."""
    health = {
        "changed": False,
        "hostname": "n1",
        "status": "warning",
        "exit_code": 1,
        "duration": 0.5,
        "checks": [
            {"check": "cpu_load", "status": "warning", "message": "CPU load: high"},
            {"check": "dns", "status": "pass", "message": "DNS answers"},
        ],
        "summary": {
            "total": 2,
            "passed": 1,
            "warnings": 1,
            "failed": 0,
            "skipped": 0,
            "health_score": 75.0,
            "status": "warning",
            "exit_code": 1,
        },
    }
    results = {
        "maintenance_result_health": health,
        "maintenance_result_gpu": {"skipped": True},
        "maintenance_result_backup": {"failed": True, "msg": "/models does not exist."},
        "maintenance_result_cleanup": {"skipped": True, "skip_reason": "the backup failed"},
    }
    reports = node.base / "reports"
    found = node.ansible(
        "-m",
        "mlops.fleet.fleet_report",
        "-a",
        json.dumps({"dest": str(reports)}),
        "-e",
        json.dumps(results),
    )
    found["report"] = json.loads((reports / "latest.json").read_text())
    return found
