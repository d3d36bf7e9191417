"""The commands of `bcnet`."""

from __future__ import annotations

from bcnet.cli import COMMANDS, Group


def command_lines(commands=COMMANDS, names=()) -> list[str]:
    """All commands and groups of commands, such as "data" and "data annotate"."""
    lines = []
    for name, entry in commands.items():
        lines.append(" ".join([*names, name]))
        lines += command_lines(entry.commands, (*names, name)) if isinstance(entry, Group) else []
    return lines
