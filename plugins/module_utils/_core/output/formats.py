# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of formats in which the node command prints a verdict document (``--format``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..records import NamedTuple
from ..registry import Registry


class Style(NamedTuple):
    """How to print.

    :param suite: the subcommand (``gpu``, ``health``), which names the service or test suite.
    :param colour: use ANSI colours. :param verbose: print what passed, too.
    """

    suite: str
    colour: bool = False
    verbose: bool = False


class Format(NamedTuple):
    """A format.

    :param name: value of ``--format``. :param help: who reads it, for ``--help``.
    :param documentation: the specification, or the docstring of our own form.
    :param render: returns a verdict document (Document.to_dict()) as lines.
    """

    name: str
    help: str
    documentation: str
    render: Callable[[Mapping[str, Any], Style], list[str]]


def _text(document: Mapping[str, Any], style: Style) -> list[str]:
    from . import human

    lines = human.document(document, style.colour, style.verbose)
    if style.verbose and document.get("gpus"):
        return [*human.gpus(document["gpus"]), "", *lines]
    return lines


def _nagios(document: Mapping[str, Any], style: Style) -> list[str]:
    from . import nagios

    return nagios.render(document, "GPU" if style.suite == "gpu" else "NODE").splitlines()


def _junit(document: Mapping[str, Any], style: Style) -> list[str]:
    from . import junit

    return junit.render(document, style.suite).splitlines()


FORMATS: Registry[Format] = Registry(
    "output format",
    [
        Format("text", "for people", "plugins/module_utils/_core/output/human.py", _text),
        Format(
            "nagios",
            "plugin output",
            "https://www.monitoring-plugins.org/doc/guidelines.html",
            _nagios,
        ),
        Format(
            "junit",
            "JUnit XML",
            "https://github.com/jenkinsci/xunit-plugin/blob/master/src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd",
            _junit,
        ),
    ],
    required=("help", "documentation", "render"),
)
#: The format when none is named.
DEFAULT = "text"
