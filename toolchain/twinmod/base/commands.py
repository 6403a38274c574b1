# SPDX-License-Identifier: GPL-2.0-only
"""Commands that a message advises, as the person who reads it types them.

Whoever works in a checkout runs nox sessions; whoever installed twinmod runs its verbs. What goes
into a file is read by both, and so names verbs alone.
"""

import os
import shlex

#: nox sets it for the programs of a session.
NOX_SESSION = "NOX_CURRENT_SESSION"

#: The verbs that no session of noxfile.py runs.
WITHOUT_SESSION = ("completion", "init", "manual", "new")


def render(verb: str, *arguments: str) -> str:
    """Return the command that runs a verb, as one line for a shell.

    Args:
        verb: Of ``twinmod``, such as ``test``.
        arguments: What follows it. A word in capitals stands for what the reader puts there.
    """
    prefix = render_prefix(verb) if arguments else render_prefix(verb).removesuffix(" --")
    return " ".join((prefix, *map(shlex.quote, arguments)))


def render_prefix(verb: str) -> str:
    """Return what stands before the arguments of a verb."""
    if NOX_SESSION not in os.environ or verb in WITHOUT_SESSION:
        return f"twinmod {verb}"
    return f"nox -s {verb} --"
