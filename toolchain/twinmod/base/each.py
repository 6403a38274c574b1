# SPDX-License-Identifier: GPL-2.0-only
"""Several works one after the other, of which one may fail."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from twinmod.errors import SelectionError, TwinmodError

Result = TypeVar("Result")


def run_each(
    works: Mapping[str, Callable[[], Result]], tell: Callable[[str, TwinmodError], None]
) -> tuple[dict[str, Result], dict[str, TwinmodError]]:
    """Do each of several works; one that fails ends none of the others.

    Args:
        works: What is done, by the name of what it is done for, such as a kernel.
        tell: Told at once of one that failed, and why.

    Returns:
        By that name, what was done, and what it failed with.

    Raises:
        SelectionError: The caller asks for something that none of them has.
        TwinmodError: The only one failed.
    """
    if len(works) == 1:
        return {name: work() for name, work in works.items()}, {}
    done: dict[str, Result] = {}
    failed: dict[str, TwinmodError] = {}
    for name, work in works.items():
        try:
            done[name] = work()
        except SelectionError:
            raise
        except TwinmodError as error:
            failed[name] = error
            tell(name, error)
    return done, failed
