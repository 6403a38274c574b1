# SPDX-License-Identifier: GPL-2.0-only
"""What ships with twinmod, in a checkout or an installed wheel; templates, rendered strictly."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jinja2

from twinmod.base import versions
from twinmod.errors import ConfigError

PACKAGE_DIR = Path(__file__).resolve().parents[1]

#: The repository, when this copy of twinmod is in one.
_CHECKOUT_DIR = PACKAGE_DIR.parent.parent

#: The folder of the package in which the wheel carries mdriver, laid out as a checkout is. No verb
#: needs it in a project of one's own.
DATA = "data"

REINSTALL = "pip install --force-reinstall twinmod"


def find_shipped_dir() -> Path:
    """Return the project that twinmod ships with: a checkout's root, or what its wheel carries.

    Raises:
        ConfigError: This copy of twinmod does not have it.
    """
    for folder in (PACKAGE_DIR / DATA, _CHECKOUT_DIR):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise ConfigError(
        "this copy of twinmod lacks the project mdriver",
        facts=(("package", str(PACKAGE_DIR)),),
        hint=REINSTALL,
    )


def read_version() -> str:
    """Return the version of twinmod itself.

    Raises:
        ConfigError: This copy of twinmod is not whole.
    """
    return versions.read_version(find_resource(versions.FILE).parent)


def find_resource(name: str) -> Path:
    """Return a file or a folder of twinmod's own, such as ``templates``.

    The wheel carries it in the package. A checkout has it at its top, or in `toolchain`.

    Raises:
        ConfigError: This copy of twinmod is not whole.
    """
    for folder in (PACKAGE_DIR, _CHECKOUT_DIR, _CHECKOUT_DIR / "toolchain"):
        if (folder / name).exists():
            return folder / name
    raise ConfigError(
        f"this copy of twinmod lacks its {name!r}",
        facts=(("package", str(PACKAGE_DIR)),),
        hint=REINSTALL,
    )


@cache
def _make_environment(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        # "{#" stands in shell's ${#x}; no template of ours has comments of that form.
        comment_start_string="{##",
        comment_end_string="##}",
        # Makefiles and shell scripts would not want it.
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
    )


class TemplateError(ConfigError):
    """A template is not there, or uses a value that it was not given."""


def render_template(name: str, values: Mapping[str, object]) -> str:
    """Render one of our templates; a name it uses and is not given is an error.

    Args:
        name: The template's path below ``templates``.
        values: What it may use.

    Returns:
        The text, with the template's own trailing newline.

    Raises:
        TemplateError: It does not exist, or uses a value that was not given.
    """
    environment = _make_environment(find_resource("templates"))
    try:
        return environment.get_template(name).render(values)
    except jinja2.TemplateError as error:
        raise TemplateError(
            f"template {name} does not render: {error.message}", facts=(("template", name),)
        ) from error
