# SPDX-License-Identifier: GPL-2.0-only
"""A document is written as JSON with its schema first, and read only if it is what it says."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from twinmod.base import documents
from twinmod.base.documents import Document, Part
from twinmod.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[2]


class Inner(Part, frozen=True, kw_only=True):
    """A part of one."""

    words: tuple[str, ...]


class Sample(Document, frozen=True, kw_only=True, tag="twinmod.sample/1"):
    """One of each kind of value."""

    name: str
    share: float
    inner: Inner | None
    counts: dict[str, int]


SAMPLE = Sample(name="half \ud800", share=0.5, inner=Inner(words=("a",)), counts={"x": 1})

TEXT = """{
  "schema": "twinmod.sample/1",
  "name": "half \\ud800",
  "share": 0.5,
  "inner": {
    "words": [
      "a"
    ]
  },
  "counts": {
    "x": 1
  }
}
"""


def test_a_document_is_written_with_its_schema_first_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    documents.write(path, SAMPLE)
    assert path.read_text() == TEXT
    assert documents.read(path, Sample, "it", "") == SAMPLE
    assert documents.to_json(SAMPLE) == json.loads(TEXT)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "twinmod.sample/2"},
        {"schema": None},
        {"nme": "renamed"},
        {"share": "0.5"},
        {"inner": {}},
        {"inner": {"words": ["a"], "more": 1}},
        {"counts": {"x": 1.5}},
        {"share": float("nan")},
        {"share": 10**400},
    ],
    ids=str,
)
def test_a_document_that_is_not_what_it_says_is_refused(
    change: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**json.loads(TEXT), **change}))
    with pytest.raises(ConfigError, match=r"^the sample is not whole") as caught:
        documents.read(path, Sample, "the sample", "make it")
    assert dict(caught.value.facts)["file"] == str(path)
    assert caught.value.hint == "make it"


@pytest.mark.parametrize("key", ["schema", "name", "share", "inner", "counts"])
def test_a_document_lacks_no_key(key: str) -> None:
    values = json.loads(TEXT)
    del values[key]
    with pytest.raises(ValueError, match=key):
        documents.parse(json.dumps(values), Sample)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"schema": []}'],
    ids=["empty", "list", "number", "no text", "deep", "no name"],
)
def test_what_is_no_document_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        documents.read(path, Sample, "the sample", "")
    with pytest.raises(ConfigError):
        documents.read(tmp_path / "none", Sample, "the sample", "")


# -- schemas ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schemas() -> ModuleType:
    """The script, which lies outside the package."""
    spec = importlib.util.spec_from_file_location("schemas", CHECKOUT / "tests/schemas.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_schemas_are_those_of_the_documents(schemas: ModuleType) -> None:
    kinds = schemas.list_documents()
    found = {path.name: path.read_text() for path in schemas.FOLDER.iterdir()}
    made = {documents.name_file(kind): documents.render_schema(kind) for kind in kinds}
    assert found == made, "python tests/schemas.py"


def test_every_document_has_a_schema(schemas: ModuleType) -> None:
    sources = (*CHECKOUT.glob("toolchain/**/*.py"), *CHECKOUT.glob("tests/*/*.py"))
    texts = (path.read_text() for path in sources if path != Path(__file__))
    tags = [tag for text in texts for tag in re.findall(r'\btag="(twinmod[^"]+)"', text)]
    assert sorted(tags) == sorted(map(documents.name_schema, schemas.list_documents()))


class Renamed(Document, frozen=True, kw_only=True, tag="twinmod.sample/1"):
    """A sample of which a key has another name."""

    name: str
    share: float
    inside: Inner | None
    counts: dict[str, int]
    added: int


class Higher(Document, frozen=True, kw_only=True, tag="twinmod.sample/2"):
    """One that says so."""

    name: str


class Grown(Sample, frozen=True, kw_only=True, tag="twinmod.sample/1"):
    """One with a key more."""

    added: int


def test_a_schema_without_a_key_that_it_had_needs_a_higher_tag(
    schemas: ModuleType, tmp_path: Path
) -> None:
    documents.write_schemas(tmp_path, (Sample,))
    for kind in (Sample, Grown, Higher):
        schemas.require_keys(tmp_path, (kind,))
    with pytest.raises(SystemExit) as refused:
        schemas.require_keys(tmp_path, (Renamed,))
    path = tmp_path / "twinmod.sample-1.json"
    assert refused.value.code == (
        "twinmod.sample/1 loses inner inner.words: make the number in its tag one higher, "
        f"and remove {path}"
    )


def test_the_keys_of_a_schema_are_those_of_its_parts_too(schemas: ModuleType) -> None:
    schema = json.loads((schemas.FOLDER / "twinmod.matrix-1.json").read_text())
    assert {"schema", "cells", "cells.reason"} < schemas.find_keys(schema)
