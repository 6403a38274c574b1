# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs of the command are made of: their state, common options, what click lacks."""

import math
from collections.abc import Callable, Iterable
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from twinmod import errors
from twinmod.base import commands, documents, each
from twinmod.base.documents import Document
from twinmod.base.progress import Console, Quiet, TerminalProgress
from twinmod.errors import ConfigError, ExitCode, TwinmodError
from twinmod.experiments.variants import Shown
from twinmod.project import config as project_config
from twinmod.project import skeleton
from twinmod.project.config import Config
from twinmod.project.model import LANGUAGES, DriverSpec
from twinmod.ui import failure
from twinmod.workspace import Workspace

Result = TypeVar("Result")

#: What a bug or a fault that a person writes is in. click shows a member's name, not its value.
LANGUAGE_NAMES = tuple(language.value for language in LANGUAGES)


class State:
    """What every verb starts from."""

    def __init__(self) -> None:
        self.progress = TerminalProgress()
        # The driver that a verb works on, "" for the first.
        self.driver = ""
        self._project: Config | None = None

    @property
    def project(self) -> Config:
        """The project with its first driver, read when the first verb asks for it."""
        if self._project is None:
            self._project = skeleton.read_project(Path.cwd(), self.progress)
        return self._project

    @property
    def workspace(self) -> Workspace:
        """The project with its configured kernel and the driver that a verb works on."""
        config = self.project
        if self.driver:
            config = project_config.select_driver(config, self.driver)
        return Workspace(config=config, progress=self.progress, phases=self.phases)

    def select(self, kernel: str) -> Workspace:
        """Return the project with a kernel, the configured one for ""."""
        return self.workspace.select(kernel) if kernel else self.workspace

    def select_kernels(self, kernel: str) -> tuple[Workspace, ...]:
        """Return the project with a kernel, or with each of them for "all"."""
        if kernel != "all":
            return (self.select(kernel),)
        return tuple(map(self.workspace.select, (k.name for k in self.workspace.config.kernels)))

    def phases(self) -> tuple[tuple[str, float], ...]:
        """Return (title, seconds) of every phase so far."""
        return tuple(self.progress.durations)


pass_state = click.make_pass_decorator(State, ensure=True)


def each_driver(function: Callable[..., ExitCode]) -> Callable[..., Any]:
    """Let a verb work on every driver of the project, one after the other, or on a named one.

    The verb's first parameter is the state, whose workspace is the driver's.
    """

    @wraps(function)
    def run(state: State, *, driver: str, **options: Any) -> ExitCode:
        quiet = bool(options.get("as_json"))
        return run_drivers(state, driver, lambda: function(state, **options), quiet=quiet)

    return _driver_option("Only this driver.")(run)


def one_driver(function: Callable[..., ExitCode]) -> Callable[..., Any]:
    """Let a verb work on one driver, which a person names where there are several."""

    @wraps(function)
    def run(state: State, *, driver: str, **options: Any) -> ExitCode:
        state.driver = driver or require_single(state.project)
        return function(state, **options)

    return _driver_option("This driver; needed where there are several.")(run)


def _driver_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--driver", "driver", default="", metavar="NAME", help=text)


def require_single(config: Config) -> str:
    """Return the name of the project's driver.

    Raises:
        ConfigError: There are several.
    """
    names = tuple(driver.name for driver in config.drivers)
    if len(names) > 1:
        raise ConfigError(
            "this verb works on one driver, and there are several",
            facts=(("drivers", ", ".join(names)),),
            hint=f"--driver {names[0]}",
        )
    return names[0]


def run_drivers(
    state: State, name: str, act: Callable[[], ExitCode], *, quiet: bool = False
) -> ExitCode:
    """Do the same for a driver or for each; one that fails ends none of the others.

    Args:
        state: What the act works on.
        name: Of the driver, "" for each.
        act: It.
        quiet: Whether its output goes without a line with the driver's name.
    """
    if name or len(state.project.drivers) == 1:
        state.driver = name
        return act()

    def work(driver: str) -> ExitCode:
        state.driver = driver
        if not quiet:
            click.echo(f"driver {driver}")
        with failure.os_errors():
            return act()

    def tell(driver: str, error: TwinmodError) -> None:
        click.echo(f"driver {driver}: {errors.render_error(error)}", err=True)

    names = tuple(driver.name for driver in state.project.drivers)
    done, failed = each.run_each({one: partial(work, one) for one in names}, tell)
    return errors.compare_exit_codes((*done.values(), *(e.exit_code for e in failed.values())))


def require_labels(config: Config, option: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels of modules that a person named.

    Raises:
        ConfigError: One names no module of the driver.
    """
    for label in wanted:
        if label not in config.labels:
            raise project_config.refuse_name(option, "module", label, config.labels)
    return tuple(dict.fromkeys(wanted))


def require_testers(config: Config, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the testers that a person named.

    Raises:
        ConfigError: One names no tester of the driver.
    """
    known = tuple(tester.name for tester in config.testers)
    for name in wanted:
        if name not in known:
            raise project_config.refuse_name("--tester", "tester", name, known)
    return tuple(dict.fromkeys(wanted))


def complete_labels(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the labels of the project's modules that begin as a person began one."""
    del context, parameter
    return _complete(lambda driver: (module.label for module in driver.modules), incomplete)


def complete_testers(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the project's testers that begin as a person began one."""
    del context, parameter
    return _complete(lambda driver: (tester.name for tester in driver.testers), incomplete)


def _complete(
    list_names: Callable[[DriverSpec], Iterable[str]], incomplete: str
) -> list[CompletionItem]:
    try:
        drivers = skeleton.read_project(Path.cwd(), Quiet()).drivers
    except (TwinmodError, OSError):
        # Whoever asks for a word reads no error.
        return []
    names = dict.fromkeys(name for driver in drivers for name in list_names(driver))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def kernel_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that names a kernel, with a verb's own words for it."""
    return click.option("--kernel", "kernel", default="", metavar="NAME", help=text)


#: Lets every VM boot.
cold_option = click.option("--cold", "cold", is_flag=True, help="Boot every VM; clone none.")


#: Chooses what is written in a language, and what is of a module.
language_option = click.option(
    "--module",
    "modules",
    multiple=True,
    type=click.Choice(LANGUAGE_NAMES),
    help="Only what is written in this language.",
)
module_option = click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="LABEL",
    shell_complete=complete_labels,
    help="Only this module; may be repeated.",
)


def experiment_options(
    *, keyword: str, listing: str, module: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the options of an experiment, with its own words for each.

    Args:
        keyword: What -k chooses.
        listing: What --list prints.
        module: The option that chooses modules.
    """
    options = (
        click.option("-k", "keyword", default="", metavar="NAME", help=keyword),
        module,
        click.option("--list", "listing", is_flag=True, help=listing),
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
        cold_option,
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Context(click.Context):
    """Where a command line is; it calls the verbs what the person calls them."""

    @property
    def command_path(self) -> str:
        """How the command line began, up to the verb's own arguments."""
        verb = self.info_name or ""
        is_verb = self.parent is not None and self.parent.parent is None
        return commands.render_prefix(verb) if is_verb else super().command_path


class Verb(click.Command):
    """A verb of the command."""

    context_class = Context


class Verbs(click.Group):
    """The command itself, and a verb that has verbs."""

    context_class = Context
    command_class = Verb
    group_class = type


class Number(click.FloatRange):
    """A number in a range; "nan" is in none, and compares with nothing."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number that an argument is."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def print_json(document: Document) -> None:
    """Print a document on standard output."""
    click.echo(documents.render(document))


def show_experiment(shown: Shown, *, as_json: bool) -> ExitCode:
    """Print what an experiment came to; return its exit code."""
    if as_json:
        print_json(shown.document)
    else:
        Console(highlight=False, soft_wrap=True).print(shown.table)
        click.echo(f"\n{shown.troubles}\n" if shown.troubles else "")
        for note in shown.notes:
            click.echo(note)
        click.echo(shown.totals)
    return shown.exit_code


def run_each(
    workspaces: tuple[Workspace, ...], act: Callable[[Workspace], Result]
) -> tuple[dict[str, Result], dict[str, TwinmodError]]:
    """Do the same on each kernel, and show at once why one failed; see each.run_each."""

    def guard(workspace: Workspace) -> Result:
        with failure.os_errors():
            return act(workspace)

    def tell(name: str, error: TwinmodError) -> None:
        click.echo(f"kernel {name}: {errors.render_error(error)}", err=True)

    return each.run_each({one.config.kernel.name: partial(guard, one) for one in workspaces}, tell)
