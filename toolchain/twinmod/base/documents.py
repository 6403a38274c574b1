# SPDX-License-Identifier: GPL-2.0-only
"""Documents that verbs write and others read: Structs, which are validated when they are read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from twinmod.base import bugs, cache
from twinmod.errors import ConfigError

#: What the text of a document that is damaged, or of another version of twinmod, is refused with.
INVALID = (ValueError, RecursionError)

#: Of the schemas themselves.
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object in a document. A field is a key; the keys stand in the fields' order."""


class Document(Part, frozen=True, kw_only=True, tag_field="schema"):
    """A document. Its first key is ``schema``, and its value is the tag of the class."""


D = TypeVar("D", bound=Document)
P = TypeVar("P", bound=Part)


def name_schema(kind: type[Document]) -> str:
    """Return the name that a document's ``schema`` is, such as "twinmod.test/1"."""
    return str(kind.__struct_config__.tag)


def to_json(document: Part) -> dict[str, Any]:
    """Return a document as JSON's own types."""
    # Through text, for a tuple is none of them.
    values: dict[str, Any] = json.loads(json.dumps(msgspec.to_builtins(document)))
    return values


def render(document: Part) -> str:
    """Return a document as its file has it, without the last line's end."""
    return json.dumps(msgspec.to_builtins(document), indent=2)


def encode(document: Part) -> bytes:
    """Return the content of a document's file."""
    return f"{render(document)}\n".encode()


def write(path: Path, document: Part) -> None:
    """Write a document; a reader sees all of it or none."""
    cache.write_atomically(path, f"{render(document)}\n")


def parse(content: str | bytes, kind: type[D]) -> D:
    """Return the document that a text is.

    Raises:
        ValueError: It is not JSON, of another schema, or has a key or a value that this has not.
        RecursionError: It is nested too deeply.
    """
    values = _load(content)
    wanted = name_schema(kind)
    # msgspec takes an object without a tag.
    if isinstance(values, dict) and values.get("schema") != wanted:
        raise ValueError(f"schema {values.get('schema')!r}, not {wanted!r}")
    return msgspec.convert(values, kind)


def parse_part(content: str | bytes, kind: type[P]) -> P:
    """Return the object without a schema that a text is, such as a record of our own.

    Raises:
        ValueError: It is not JSON, or has a key or a value that this has not.
        RecursionError: It is nested too deeply.
    """
    return msgspec.convert(_load(content), kind)


def _load(content: str | bytes) -> Any:
    # Not msgspec's decoder: a report may have half of a surrogate pair, which that refuses.
    return json.loads(content, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read(path: Path, kind: type[D], what: str, hint: str) -> D:
    """Return the document in a file.

    Args:
        path: The file.
        kind: Which document it is to be.
        what: How a person calls it, as in "the report of `test`".
        hint: The command that makes it.

    Raises:
        ConfigError: The file cannot be read, or is not such a document.
    """
    try:
        return parse(path.read_bytes(), kind)
    except (OSError, *INVALID) as error:
        raise plan_refusal(path, what, hint, error) from error


def plan_refusal(path: Path, what: str, hint: str, error: Exception) -> ConfigError:
    """Return the error of a document that nothing can be made of; see read."""
    return ConfigError(
        f"{what} is not whole, or of another version of twinmod",
        facts=(("file", str(path)), ("why", bugs.render_words(error))),
        hint=hint,
    )


# -- schemas ----------------------------------------------------------------------------------


def name_file(kind: type[Document]) -> str:
    """Return the name of the file with a document's schema: "twinmod.test-1.json"."""
    return name_schema(kind).replace("/", "-") + ".json"


def render_schema(kind: type[Document]) -> str:
    """Return the JSON Schema of a document, as its file has it."""
    schema = {"$schema": DIALECT, **msgspec.json.schema(kind)}
    return json.dumps(schema, indent=2) + "\n"


def write_schemas(folder: Path, kinds: Iterable[type[Document]]) -> None:
    """Write the schema of each document into a folder."""
    for kind in kinds:
        cache.write_atomically(folder / name_file(kind), render_schema(kind))
