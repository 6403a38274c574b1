# SPDX-License-Identifier: GPL-2.0-only
"""What is made of the command itself: its manual page, and what completes it in a shell. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

import click
from click.shell_completion import get_completion_class

from twinmod.base import templates
from twinmod.errors import ExitCode

PROGRAM = "twinmod"

SHELLS = ("bash", "zsh", "fish")

#: What an exit status means, by its name in ExitCode.
MEANINGS = {
    ExitCode.PASSED: "passed",
    ExitCode.TESTS_FAILED: "tests failed",
    ExitCode.USAGE: "usage or configuration",
    ExitCode.ENVIRONMENT: "the environment is not ready",
    ExitCode.BUILD_FAILED: "a build failed",
    ExitCode.VM_LOST: "the VM was lost or ran out of time",
    ExitCode.KERNEL_FAULT: "a kernel fault",
    ExitCode.INTERNAL: "a bug of twinmod itself",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.UNREAD: "whoever read the output closed it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb, as a manual shows it."""

    # "cache list"
    name: str
    # "[OPTIONS] FOLDER"
    usage: str
    text: str
    # (how it is written, what it does)
    options: tuple[tuple[str, str], ...]


def list_verbs(
    command: click.Command, path: tuple[str, ...] = (), parent: click.Context | None = None
) -> Iterator[Verb]:
    """Yield the verbs below a command, by name, without hidden ones."""
    # A call inherits from its parents, and click keeps what the first context makes of an option.
    context = click.Context(
        command, parent, info_name=" ".join((PROGRAM, *path)), **command.context_settings
    )
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            inner = command.commands[name]
            if not inner.hidden:
                yield from list_verbs(inner, (*path, name), context)
        return
    records = (
        parameter.get_help_record(context)
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
    )
    yield Verb(
        name=" ".join(path),
        usage=" ".join(command.collect_usage_pieces(context)),
        text=" ".join((command.help or "").split()),
        options=tuple(record for record in records if record is not None),
    )


def escape_roff(text: str) -> str:
    """Return text as roff prints it: no request, no hyphen that cannot be pasted.

    Source: groff_man_style(7), "Portability".
    """
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def render_manual(command: click.Command) -> str:
    """Return the manual page of the whole command, in roff, without a version or a date."""
    verbs = [
        {
            "name": escape_roff(verb.name),
            "usage": escape_roff(verb.usage),
            "text": escape_roff(verb.text),
            "options": [tuple(map(escape_roff, record)) for record in verb.options],
        }
        for verb in list_verbs(command)
    ]
    codes = [(int(code), meaning) for code, meaning in MEANINGS.items()]
    text = escape_roff(" ".join((command.help or "").split()))
    return templates.render_template("twinmod.1.j2", {"text": text, "verbs": verbs, "codes": codes})


def render_completion(command: click.Command, shell: str) -> str:
    """Return the script that completes the command in a shell; warn on stderr of too old a bash.

    Args:
        command: The whole command.
        shell: One of SHELLS.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source().strip()
