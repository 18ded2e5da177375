# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a full node check costs, and what others ask for the same checks.

    .build/dev/bin/python tests/benchmarks/node_health.py [ROUNDS]        (make bench runs it too)
    MLOPS_NHC=/path/to/unpacked/nhc …                                     compares with LBNL Node Health Check as well

1. All checks with default options, but without GPUs, as the packed module and as the installed command, against a module that does nothing.
2. Only the checks that monitoring-plugins has as well, on the same mounts: the plugins one after the other as Nagios would start them, and each
   as a task of its own, which is how Ansible would start them.
3. Only the checks that LBNL NHC has as well (its own scripts, run from the unpacked tree; it marks no node and writes no log).

What is skipped on this machine (services without systemd, say) costs nothing, so it is named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bench
import node_command
import setup
from common import Problem, main_wrapper, say

CPU_OVER_EMPTY_MS, WALL_MS = 200, 1000
# Plugins and NHC end with other codes where a limit is passed; that is a run all the same.
VERDICTS = (0, 1, 2)
PLUGIN_CHECKS = [
    "disk_usage",
    "inode_usage",
    "swap_usage",
    "cpu_load",
    "zombie_processes",
    "process_ids",
]
NHC_CHECKS = [
    "disk_usage",
    "inode_usage",
    "read_only",
    "memory_usage",
    "swap_usage",
    "cpu_load",
    "network_link",
    "kernel_errors",
    "service",
]


def without_gpus() -> dict:
    """Options of the full check: all defaults, GPUs left out where this machine has some."""
    return {"gpu": False} if os.path.exists("/dev/nvidiactl") else {}


def report(argv: list[str], env: dict[str, str]) -> list[dict]:
    """The checks of one run of the command."""
    done = subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False, env=env)
    try:
        return json.loads(done.stdout)["checks"]
    except (ValueError, KeyError):
        raise Problem(
            f"{' '.join(argv)} --json ended with {done.returncode}:"
            f" {(done.stderr or done.stdout)[-500:]}"
        ) from None


def plugins(mounts: list[str]) -> list[list[str]] | None:
    """The plugins' command lines for PLUGIN_CHECKS; None where they are not installed."""
    lines = [
        [
            "check_disk",
            "-w",
            "20%",
            "-c",
            "10%",
            "-W",
            "20%",
            "-K",
            "10%",
            *(word for mount in mounts for word in ("-p", mount)),
        ],
        ["check_load", "-r", "-w", "2,2,2", "-c", "4,4,4"],
        ["check_swap", "-w", "50%", "-c", "20%", "-n", "ok"],
        ["check_procs", "-s", "Z", "-w", "5", "-c", "10"],
        ["check_procs", "-w", "20000", "-c", "30000"],
    ]
    found = bench.peer("check_disk", "monitoring-plugins-basic")
    return (
        None
        if found is None
        else [[str(Path(found).parent / line[0]), *line[1:]] for line in lines]
    )


def nhc(directory: Path, mounts: list[str], links: list[str]) -> list[str] | None:
    """NHC's command line for NHC_CHECKS; None where no tree is given."""
    tree = os.environ.get("MLOPS_NHC")
    if not tree:
        place = "https://github.com/mej/nhc"
        say(f"skipped: LBNL NHC. Unpack a release of {place} and name the directory in MLOPS_NHC")
        return None
    program = Path(tree).resolve() / "nhc"
    if not program.is_file():
        raise Problem(f"MLOPS_NHC is {tree}, but there is no {program}")
    rules = [
        f"{check} {mount}{rest}"
        for mount in mounts
        for check, rest in (
            ("check_fs_mount_rw -f", ""),
            ("check_fs_used", " 95%"),
            ("check_fs_iused", " 95%"),
        )
    ]
    rules += [
        "check_hw_physmem_free 1mb",
        "check_ps_loadavg 1000 1000 1000",
        f"check_ps_daemon {Path('/proc/1/comm').read_text(encoding='utf-8').strip()}",
    ]
    rules += [f"check_hw_eth {link}" for link in links]
    if len(Path("/proc/swaps").read_text(encoding="utf-8").splitlines()) > 1:
        rules.append("check_hw_swap_free 1mb")
    rules += ["check_cmd_dmesg -m '!/kernel BUG at/' -m '!/EXT4-fs error/' -m '!/Hardware Error/'"]
    config = directory / "nhc.conf"
    config.write_text("".join(f"* || {rule}\n" for rule in rules), encoding="utf-8")
    settings = [
        "MARK_OFFLINE=0",
        "ONLINE_NODE=:",
        "OFFLINE_NODE=:",
        f"INCDIR={program.parent / 'scripts'}",
    ]
    return [
        "bash",
        str(program),
        "-a",
        "-l",
        "-",
        "-D",
        str(directory),
        "-c",
        str(config),
        *settings,
    ]


def main() -> int:
    setup.ensure("dev")
    number = bench.rounds()
    result: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-bench-") as name:
        directory = Path(name)
        env = bench.environment(directory)
        command = node_command.install(directory)

        def ours(label: str, options: dict) -> dict[str, list[list[str]]]:
            """The same check as a task and as the command."""
            config = directory / f"{label}.json"
            config.write_text(json.dumps({"health": options}), encoding="utf-8")
            packed = bench.pack(
                directory, "mlops.fleet.node_health", options, env, f"node_health {label}"
            )
            return {
                f"task node_health, {label}": [[sys.executable, str(packed)]],
                f"mlfleet health, {label}": [
                    [
                        str(command),
                        "health",
                        "--config",
                        str(config),
                        "--log-file",
                        str(directory / "log"),
                    ]
                ],
            }

        everything = ours("all checks", without_gpus())
        checks = report(everything["mlfleet health, all checks"][0], env)
        mounts = [check["subject"] for check in checks if check["check"] == "disk_usage"]
        links = [
            check["subject"]
            for check in checks
            if check["check"] == "network_link" and check["status"] == "pass"
        ]
        empty = {
            "task that does nothing": [
                [sys.executable, str(bench.pack(directory, "empty", {}, env))]
            ]
        }

        full = bench.take_turns({**empty, **everything}, number, env, VERDICTS)
        bench.show("1. the full check", full, next(iter(empty)), "/ empty")
        result["full"] = full
        skipped = sorted({check["check"] for check in checks if check["status"] == "skipped"})
        say(
            f"{len(checks)} checks on {len(mounts)} mounts; skipped on this machine:"
            f" {', '.join(skipped) or 'none'}"
        )
        base, task, _command = full.values()
        over = result["cpu_over_empty_ms"] = round(task["cpu_ms"] - base["cpu_ms"], 1)
        met = bench.target("CPU of the task over an empty one", over, CPU_OVER_EMPTY_MS, "ms")
        met &= bench.target("wall clock of the task", task["wall_ms"], WALL_MS, "ms")

        lines = plugins(mounts)
        if lines:
            tasks = [
                [
                    sys.executable,
                    str(
                        bench.pack(
                            directory, "ansible.builtin.command", {"argv": argv}, env, f"plugin {n}"
                        )
                    ),
                ]
                for n, argv in enumerate(lines)
            ]
            things = {
                f"{len(lines)} monitoring-plugins": lines,
                f"{len(lines)} monitoring-plugins, a task each": tasks,
            }
            result["plugins"] = bench.take_turns(
                {**things, **ours("same checks", {"checks": PLUGIN_CHECKS}), **empty},
                number,
                env,
                VERDICTS,
            )
            bench.show(
                "2. what monitoring-plugins have too",
                result["plugins"],
                next(iter(things)),
                "/ theirs",
            )

        line = nhc(directory, mounts, links)
        if line:
            failures = bench.run(line, capture=True, check=False, env=env).stdout.strip()
            say(f"NHC says: {failures[-300:] or 'healthy'}")
            result["nhc"] = bench.take_turns(
                {"LBNL NHC": [line], **ours("same as NHC", {"checks": NHC_CHECKS}), **empty},
                number,
                env,
                range(100),
            )
            bench.show("3. what NHC has too", result["nhc"], "LBNL NHC", "/ NHC")
    bench.save("node_health", result)
    return 0 if met else 1


if __name__ == "__main__":
    main_wrapper(main)
