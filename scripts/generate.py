# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the files and tables that are made from the option tables and registries:

    python3 scripts/generate.py            write them
    python3 scripts/generate.py --check    name those that differ; end with 1 then

A whole file is generated, or a block of it between the lines "generated: NAME" and "end of
generated: NAME".
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import module_docs  # noqa: E402
import reference  # noqa: E402
import role_specs  # noqa: E402
import setup  # noqa: E402

sys.path.insert(0, str(setup.link_collection()))

from ansible_collections.mlops.fleet.plugins.module_utils._core import (  # noqa: E402
    config,
    schedule,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.jobs import JOBS  # noqa: E402
from ansible_collections.mlops.fleet.plugins.module_utils._core.maintenance import (  # noqa: E402
    plan,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.maintenance.options import (  # noqa: E402
    MaintenanceOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import Option  # noqa: E402

HEADER = """# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
---
# Made by scripts/generate.py from the option tables; changes are lost.
"""
#: Modules that are parts of roles and take no options that users would set for several modules at
#: once.
INTERNAL = {"agent_install", "maintenance_phase", "schedule_check", "schedule_timers"}


# --- the maintenance role


def _yaml(value: Any) -> str:
    """Return a value as YAML on one line, in the style of the files written by hand."""
    if value is None or isinstance(value, (bool, int, float, list, dict)):
        return json.dumps(value)
    if re.fullmatch(r"[A-Za-z/][\w/.-]*", str(value)):
        return str(value)
    return json.dumps(value)


def role_options() -> Iterator[tuple[str, Any, str, str | None, str]]:
    """Yield the variables of the maintenance role: name, default, type, type of elements,
    description.

    Types are those that a survey can give: text for every scalar ("" means not given), so a type
    that Ansible would not make out of an empty text is C(raw). The role's first task checks the
    values against the option tables.
    """
    for entry in MaintenanceOptions.TABLE:
        yield f"maintenance_{entry.name}", entry.default, "raw", None, f"(bool) {entry.help}"
    yield (
        "maintenance_max_fail_percentage",
        100,
        "raw",
        None,
        (
            "(float) Start no further host when more than this share (percent) of those started"
            " failed. 100 switches the brake off. Works per batch of C(maintenance_serial)."
        ),
    )
    yield (
        "maintenance_canary",
        "",
        "str",
        None,
        (
            "Group that the playbook maintains first, as a batch of its own. When the brake holds"
            " it, no other host is started."
        ),
    )
    yield (
        "maintenance_brake_groups",
        [],
        "list",
        "str",
        (
            "Groups that the brake counts one by one. When too many hosts of one failed, no further"
            " host of that group is started; other groups go on. Hosts in none of them are counted"
            " together."
        ),
    )
    for phase in plan.PHASES:
        module = phase.module
        yield (
            f"maintenance_{phase.name}_time_limit",
            0,
            "raw",
            None,
            (
                "(float) Seconds that this phase may take on one host. Then it is stopped and has"
                " failed, also where the host does not answer any more. 0 is no limit."
            ),
        )
        if phase.name == "backup":
            yield (
                "maintenance_backup_progress",
                0,
                "raw",
                None,
                (
                    "(float) Seconds between two lines that say how far the backup of a host is."
                    " It then runs in the background of the host, and a lost connection does not"
                    " stop it. 0 is no progress."
                ),
            )
            yield (
                "maintenance_backup_throttle",
                0,
                "raw",
                None,
                (
                    "(int) Hosts that back up at the same time; 0 for as many as there are forks."
                    " Protects the object store."
                ),
            )
        for entry in config.option_set(phase.name).TABLE:
            if entry.name in phase.withheld:
                continue
            description = f"Option O({module}#module:{entry.name}) of M({module})."
            default = entry.default if entry.name in phase.variables else None
            kind, elements = _survey_type(entry)
            if kind != entry.type:
                description = f"({entry.type}) {description}"
            yield phase.variable(entry.name), default, kind, elements, description


def _survey_type(entry: Option) -> tuple[str, str | None]:
    if entry.type in ("str", "path"):
        return entry.type, None
    if entry.type == "list" and entry.elements in ("str", "path"):
        return "list", entry.elements
    return "raw", None


def argument_specs() -> str:
    lines = [
        "argument_specs:",
        "  main:",
        "    short_description: Maintenance of a node",
        "    description:",
        (
            "      - Health, GPU check, verified backup and cleanup, in this order, one module call"
            " each."
        ),
        "    options:",
    ]
    for name, default, kind, elements, description in role_options():
        lines += [f"      {name}:", f"        type: {kind}"]
        if elements:
            lines.append(f"        elements: {elements}")
        if default is not None:
            lines.append(f"        default: {_yaml(default)}")
        text = f"description: {_quoted(description)}"
        wrapped = textwrap.wrap(text, 112, break_long_words=False, break_on_hyphens=False)
        lines += [f"        {wrapped[0]}", *(f"          {more}" for more in wrapped[1:])]
    return HEADER + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if ": " in text or text.startswith(("(", "[", "{")):
        return json.dumps(text)
    return text


def role_defaults() -> str:
    comments = {
        "maintenance_run_health": (
            "What runs. The order is fixed: " + ", ".join(plan.PHASES.names) + "."
        ),
        "maintenance_continue_on_error": (
            "Whether later phases run on a host after one could not do its job. "
            "Cleanup never runs after a failed backup."
        ),
        "maintenance_max_fail_percentage": (
            "Start no further host when more than this share (percent) of those "
            "started failed; 100 switches the brake off."
        ),
        "maintenance_canary": (
            "Group that is maintained first; groups that the brake counts one by one."
        ),
        "maintenance_backup_progress": (
            "Seconds between two lines that say how far a backup is; 0: none."
        ),
        **{
            f"maintenance_{phase.name}_time_limit": (
                f"Seconds for the phase {phase.name} on one host; 0: no limit."
            )
            for phase in plan.PHASES
        },
        "maintenance_backup_throttle": (
            "Hosts that back up at the same time (0: as many as there are forks). "
            "Protects the object store."
        ),
        "maintenance_model_dir": "What is backed up, and where to.",
    }
    for phase in plan.PHASES:
        first = next(entry for entry in config.option_set(phase.name).TABLE)
        comments.setdefault(
            phase.variable(first.name),
            f"Options of {phase.module}; null or an empty text leaves them to module_defaults and"
            " the module's default.",
        )
    lines = []
    for name, default, _kind, _elements, _description in role_options():
        if name in comments:
            lines.append(f"# {comments[name]}")
        lines.append(f"{name}: {_yaml(default)}")
    return HEADER + "\n".join(lines) + "\n"


def role_table() -> str:
    rows = ["| variable | default | option of the module |", "|---|---|---|"]
    for phase in plan.PHASES:
        for entry in config.option_set(phase.name).TABLE:
            if entry.name in phase.withheld:
                continue
            default = "" if entry.default is None else f"`{_yaml(entry.default)}`"
            rows.append(
                f"| `{phase.variable(entry.name)}` | {default} |"
                f" `{phase.module.rsplit('.', 1)[1]}.{entry.name}`: {_cell(entry.help)} |"
            )
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- action groups


def action_groups() -> str:
    modules = {
        path.stem: path.read_text(encoding="utf-8")
        for path in (ROOT / "plugins" / "modules").glob("*.py")
    }
    groups = {
        "all": sorted(set(modules) - INTERNAL),
        "s3": sorted(
            name
            for name, text in modules.items()
            if "  - mlops.fleet.s3" in text or "\n  s3:\n" in text
        ),
    }
    lines = ["action_groups:"]
    for group, members in groups.items():
        if group == "s3":
            lines.append("  # Modules that talk to an object store share the option s3.")
        lines += [f"  {group}:", *(f"    - {name}" for name in members)]
    return "\n".join(lines) + "\n"


# --- the schedule role


def kernel_rules() -> str:
    """Return the table of the kernel messages that node_health recognises, for its page."""
    from ansible_collections.mlops.fleet.plugins.module_utils._core.node.kernel_rules import (
        PATTERNS,
    )

    lines = [
        "",
        ".. list-table::",
        "  :header-rows: 1",
        "  :widths: 25 15 60",
        "",
        "  * - Kernel messages",
        "    - Verdict, action",
        "    - Where they are written",
    ]
    for rule in PATTERNS:
        lines += [
            f"  * - {rule.name}",
            f"    - {rule.status}, {rule.action}",
            f"    - {rule.source}",
        ]
    return "\n".join([*lines, "", ""])


def schedule_settings() -> str:
    lines = ["__schedule_settings:"]
    for job in JOBS:
        lines += [f"  {job.name}:", f"    name: {job.name}"]
        for entry in schedule.JobOptions.TABLE:
            if entry.name != "name":
                lines.append(f'    {entry.name}: "{{{{ schedule_{job.name}_{entry.name} }}}}"')
    return "\n".join(lines) + "\n"


# --- the runbook in the fleet report


def runbook() -> str:
    """Return the entries of the runbook as JSON: the fleet report shows those of its faults."""
    text = (ROOT / "docs/docsite/rst/runbook.rst").read_text(encoding="utf-8")
    pattern = (
        r"((?:^\.\. _ansible_collections\.mlops\.fleet\.docsite\.runbook\.\w+:\n)+)\n"
        r"([^\n]+)\n\^{3,}\n(.*?)(?=^\.\. _|\Z)"
    )
    checks: dict[str, str] = {}
    entries: dict[str, Any] = {}
    for labels, title, content in re.findall(pattern, text, re.DOTALL | re.MULTILINE):
        names = re.findall(r"runbook\.(\w+):", labels)
        entries[names[0]] = {"id": names[0], "title": title, "blocks": list(_blocks(content))}
        checks.update(dict.fromkeys(names, names[0]))
    return json.dumps({"checks": checks, "entries": entries}, indent=1) + "\n"


def _blocks(content: str) -> Iterator[dict[str, Any]]:
    """Yield the paragraphs, list items and literal blocks of an entry."""
    code = False
    for block in re.split(r"\n\s*\n|\n(?=(?:\d+\.|\*|#\.) )", content.strip("\n")):
        if block.startswith(".. code-block"):
            code = True
        elif code and block.startswith(" "):
            yield {"kind": "pre", "text": textwrap.dedent(block)}
        elif block.strip():
            code = False
            line = re.sub(r"\s+", " ", block.strip())
            line = re.sub(r":\w+:`([^`<]+?)(?: <[^>]*>)?`", r"\1", line)
            line = re.sub(r"`([^`<]+?) <[^>]*>`__?", r"\1", line.replace("**", ""))
            kind = "li" if re.match(r"(\d+\.|\*|#\.) ", line) else "p"
            yield {"kind": kind, "parts": line.split("``")}


# --- what is generated

FILES: dict[str, Callable[[], str]] = {
    "roles/maintenance/meta/argument_specs.yml": argument_specs,
    "roles/maintenance/defaults/main.yml": role_defaults,
    "roles/fleet_report/files/runbook.json": runbook,
    "docs/docsite/rst/reference.rst": reference.page,
    "roles/schedule/defaults/main.yml": role_specs.schedule_defaults,
    **{
        f"plugins/modules/{module}.py": functools.partial(module_docs.module_text, module)
        for module in module_docs.MODULE_OPTIONS
    },
    **{
        f"plugins/doc_fragments/{fragment}.py": functools.partial(
            module_docs.fragment_text, fragment
        )
        for fragment in module_docs.FRAGMENT_OPTIONS
    },
    **{
        role_specs.specs_path(role): functools.partial(role_specs.argument_specs, role)
        for role in role_specs.ROLES
    },
}
BLOCKS: dict[tuple[str, str], Callable[[], str]] = {
    ("roles/maintenance/README.md", "options"): role_table,
    ("meta/runtime.yml", "action groups"): action_groups,
    ("roles/schedule/vars/main.yml", "settings"): schedule_settings,
    ("docs/docsite/rst/node_health.rst", "kernel rules"): kernel_rules,
}


def _with_block(text: str, name: str, content: str, path: str) -> str:
    pattern = (
        rf"(^[^\n]*\bgenerated: {re.escape(name)}[^\n]*\n).*?(^[^\n]*end of generated:"
        rf" {re.escape(name)}\b)"
    )
    result, count = re.subn(
        pattern,
        lambda match: match[1] + content + match[2],
        text,
        count=1,
        flags=re.DOTALL | re.MULTILINE,
    )
    if not count:
        raise SystemExit(f"{path} has no block 'generated: {name}' ... 'end of generated: {name}'")
    return result


def wanted() -> dict[str, str]:
    """Return the content that each generated file must have, by its path in the repository."""
    contents = {path: make() for path, make in FILES.items()}
    for (path, name), make in BLOCKS.items():
        text = contents.get(path) or (ROOT / path).read_text(encoding="utf-8")
        contents[path] = _with_block(text, name, make(), path)
    return contents


def differing() -> list[str]:
    """Return the paths of generated files that are missing or hold something else."""
    return [
        path
        for path, content in wanted().items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != content
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; name the files that differ"
    )
    check = parser.parse_args().check
    contents = wanted()
    changed = differing()
    for path in changed:
        print(
            f"{path} differs from what the tables say: run python3 scripts/generate.py"
            if check
            else path
        )
        if not check:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(contents[path], encoding="utf-8")
    if check and changed:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
