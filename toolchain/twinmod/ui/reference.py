# SPDX-License-Identifier: GPL-2.0-only
"""The page of all keys of the configuration, docs/configuration.md, made of the tables. Pure."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from twinmod.base import templates
from twinmod.project import devices, tables
from twinmod.project.tables import Keys

#: The tables in the order of the page, as a twinmod.toml has them.
TABLES: tuple[tuple[str, type[Keys]], ...] = (
    ("", tables.Table),
    ("drivers.NAME", tables.DriverTable),
    ("drivers.NAME.modules.LABEL", tables.ModuleTable),
    ("drivers.NAME.testers.NAME", tables.TesterTable),
    ("drivers.NAME.differences", tables.DifferenceTable),
    ("drivers.NAME.vm", tables.DriverVmTable),
    ("vm", tables.VmTable),
    ("vm.devices", tables.DeviceTable),
    ("kernels.NAME", tables.KernelTable),
    ("roots.NAME", tables.RootTable),
)


#: How the page calls the types of values that have no parts.
WORDS: dict[type[inspect.Type], str] = {
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.BoolType: "boolean",
    inspect.FloatType: "number",
    inspect.StructType: "table",
}


def render_type(kind: inspect.Type) -> str:
    """Return how the page calls the type of a value."""
    match kind:
        case inspect.DictType(value_type=value):
            return f"{render_type(value)} by name"
        case inspect.VarTupleType(item_type=item):
            return f"list of {render_type(item)}"
        case inspect.UnionType(types=types):
            some = (one for one in types if not isinstance(one, inspect.NoneType))
            return " or ".join(map(render_type, some))
        case _:
            return WORDS[type(kind)]


def render_default(field: inspect.Field) -> str:
    """Return the default of a key as TOML has it, "" for one that is empty or a table."""
    value = field.default
    if value is msgspec.NODEFAULT or isinstance(value, msgspec.Struct) or not value:
        return ""
    return f"`{json.dumps(value)}`"


def iterate_keys(table: type[Keys], builtin: Collection[str]) -> Iterator[dict[str, str]]:
    """Yield what the page says of each key of a table, some of which have a built-in value."""
    kind = inspect.type_info(table)
    assert isinstance(kind, inspect.StructType)
    _, texts = tables.split_docstring(table)
    for field in kind.fields:
        name = field.encode_name
        yield {
            "name": name,
            "type": render_type(field.type),
            "needed": "yes" if field.required and name not in builtin else "",
            "default": "built in" if name in builtin else render_default(field),
            "text": texts[name],
        }


def render_page(builtin: Mapping[str, Any]) -> str:
    """Return the page, in Markdown.

    Args:
        builtin: What every project has, as TOML has it.
    """
    sections = [
        {
            "name": name,
            "text": tables.split_docstring(table)[0],
            "keys": tuple(iterate_keys(table, builtin if table is tables.Table else ())),
        }
        for name, table in TABLES
    ]
    values = {
        "sections": sections,
        "kernels": msgspec.convert(builtin["kernels"], dict[str, tables.KernelTable]),
        "roots": msgspec.convert(builtin["roots"], dict[str, tables.RootTable]),
        "models": devices.MODELS,
        "short": sorted(devices.SHORT),
    }
    return templates.render_template("configuration.md.j2", values)
