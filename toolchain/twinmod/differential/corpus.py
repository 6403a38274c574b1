# SPDX-License-Identifier: GPL-2.0-only
"""The scripts that every run carries out, and how a soak draws new ones."""

from collections import Counter
from pathlib import Path

from twinmod.base import commands
from twinmod.differential import scripts as differential_scripts
from twinmod.differential.scripts import SUFFIX, Definition, Sequence
from twinmod.errors import ConfigError

#: The folder of the project's package with the scripts that `test` carries out, and their suffix.
CORPUS = "corpus"

#: Of the first sequences that a soak draws for a size, so many are kept for a corpus.
KEPT = 30


def read_corpus(
    folder: Path, definition: Definition, testers: tuple[str, ...]
) -> tuple[Sequence, ...]:
    """Return the sequences of a folder's scripts, in the order of the scripts' names.

    Raises:
        ConfigError: A file is no script, or a size of the device has none.
    """
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"a script of the differential cannot be read: {error}",
                facts=(("script", str(path)),),
            ) from error
        found.append(differential_scripts.parse_file(text, str(path), definition, testers))
    missing = sorted({*definition.SIZES} - {sequence.size for sequence in found})
    if missing:
        sizes = ", ".join(map(str, missing))
        raise ConfigError(
            f"the differential has no script for a device of {sizes} bytes",
            facts=(("folder", str(folder)),),
            hint=f"{commands.render('soak')}, then copy out/soak/{CORPUS}/*{SUFFIX} to that folder",
        )
    return tuple(found)


def pick_sequences(drawn: list[Sequence]) -> list[Sequence]:
    """Return KEPT sequences: first those that bring a kind of step, then the longest."""
    first: list[Sequence] = []
    others: list[Sequence] = []
    seen: set[str] = set()
    for sequence in sorted(drawn, key=lambda sequence: -len(sequence.steps)):
        kinds = {name for name, _ in sequence.steps}
        (others if kinds <= seen else first).append(sequence)
        seen |= kinds
    return [*first, *others][:KEPT]


def plan_corpus(kept: tuple[Sequence, ...]) -> dict[str, str]:
    """Return name -> script of sequences that a soak kept."""
    counts: Counter[int] = Counter()
    scripts = {}
    for sequence in kept:
        counts[sequence.size] += 1
        name = f"{sequence.size}-{counts[sequence.size]:02}{SUFFIX}"
        scripts[name] = differential_scripts.render_script(sequence)
    return scripts
