# SPDX-License-Identifier: GPL-2.0-only
"""The numbered rules of a contract."""

import difflib
import re
from collections.abc import Iterable

from twinmod.base import commands, nearest
from twinmod.errors import ConfigError, SelectionError
from twinmod.project.config import Config
from twinmod.project.model import Subject


def read_rules(config: Config) -> tuple[tuple[str, str], ...]:
    """Return (number, title) of the contract's rules; () of a driver without a contract.

    Raises:
        ConfigError: The contract is not there, no rule is in it, or it lacks the rule of a
            declared difference.
    """
    if config.contract_path is None:
        return ()
    try:
        text = config.contract_path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the contract cannot be read: {getattr(error, 'strerror', error)}",
            facts=(("file", str(config.contract_path)),),
        ) from error
    rules = parse_rules(text)
    if not rules:
        raise ConfigError(
            "the contract has no rule: no heading '## R1 Title'",
            facts=(("file", str(config.contract_path)),),
        )
    _require_declared(config, tuple(number for number, _ in rules))
    return rules


def _require_declared(config: Config, known: tuple[str, ...]) -> None:
    """Refuse a difference that is declared of a rule which the contract does not have."""
    for number, one in enumerate(config.driver.differences, 1):
        if one.subject == Subject.RULE and one.pattern not in known:
            raise ConfigError(
                f"drivers.{config.driver.name}.differences, number {number}, has the rule "
                f"{one.pattern!r}, which {config.driver.contract} does not have",
                facts=(nearest.plan_fact(one.pattern, known, "rules"),),
            )


def require_rules(config: Config, wanted: Iterable[str]) -> None:
    """Refuse a rule that the contract does not have.

    Raises:
        SelectionError: There is one; the nearest that it has are among the facts.
        ConfigError: See read_rules.
    """
    known = tuple(number for number, _ in read_rules(config))
    for rule in wanted:
        if config.contract_path is None:
            raise SelectionError(f"--rule {rule}: the driver {config.driver.name} has no contract")
        if rule not in known:
            near = difflib.get_close_matches(rule.upper(), known)
            raise SelectionError(
                f"--rule {rule}: {config.contract_path.name} has no such rule",
                facts=(("nearest" if near else "rules", " ".join(near or known)),),
                hint=commands.render("test", "--rule", (near or known)[0]),
            )


Rules = tuple[tuple[str, str], ...]


def parse_rules(contract: str) -> tuple[tuple[str, str], ...]:
    """Return (number, title) of the rules that a contract has: its headings ``## R1 Title``."""
    return tuple(re.findall(r"^## (R\d+) (.+)$", contract, re.MULTILINE))
