import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError
from ocrdata.shards.manifest import Manifest, ShardInfo, is_manifest, read_manifest, write_manifest
from ocrdata.storage.sealed import seal
from tests.support.rows import flip

INFO = ShardInfo("x-000.tar", 3, 4096, "d" * 32, "i" * 32, "r" * 32)
MANIFEST = Manifest(
    "x",
    (INFO, ShardInfo("x-001.tar", 2, 2048, "e" * 32, "j" * 32, "s" * 32)),
    licence="MIT",
    provenance={"repository": "a/b", "slice": [0, None]},
    totals={"samples": 5},
    rejects={"rows": 0},
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_manifest(path, MANIFEST)
    assert read_manifest(path) == MANIFEST
    assert is_manifest(path)
    assert (MANIFEST.samples, MANIFEST.bytes) == (5, 6144)
    assert json.loads(path.read_text())["digest"] == MANIFEST.digest
    first = path.read_bytes()
    write_manifest(path, MANIFEST)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text("abc", max_size=3), json_values, max_size=4))
def test_any_provenance_round_trips(
    tmp_path_factory: pytest.TempPathFactory, provenance: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("m") / "x.json"
    write_manifest(path, Manifest("x", (INFO,), provenance=provenance))
    assert read_manifest(path).provenance == provenance


def test_every_flipped_bit_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_manifest(path, MANIFEST)
    before = path.read_bytes()
    for at in range(0, len(before), 2):
        flip(path, at, at % 8)
        try:
            assert read_manifest(path) == MANIFEST  # a space or a line feed elsewhere
        except ShardError as exc:
            assert str(path) in str(exc)
        path.write_bytes(before)
    for cut in range(0, len(before) - 2, 9):
        path.write_bytes(before[:cut])
        with pytest.raises(ShardError):
            read_manifest(path)


def document(**change: Any) -> str:
    body = {
        "format": "ocr-shards", "kind": "manifest", "version": "1.0", "name": "x", "licence": "",
        "provenance": {}, "totals": {}, "rejects": {}, "shards": [vars(INFO).copy()],
    }  # fmt: skip
    return json.dumps(seal(body | change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not an object"),
        ("{", "JSON"),
        ("[" * 10**5, "JSON"),
        ("{}", "not a manifest"),
        (document(kind="other"), "not a manifest"),
        (document(version="2.0"), "format version 2.0 is newer than 1.0"),
        (document(version=None), "format version None"),
        (document(shards=None), "field"),
        (document(shards=[{}]), "field.*file"),
        (document(shards=[vars(INFO) | {"file": "../x.tar"}]), r"'\.\./x\.tar'"),
        (document(shards=[vars(INFO) | {"file": ".."}]), r"'\.\.'"),
        (document(shards=[vars(INFO) | {"file": 3}]), "file 3"),
        (document(shards=[vars(INFO) | {"samples": -1}]), r"x-000\.tar.*count"),
        (document(shards=[vars(INFO) | {"bytes": "1"}]), r"x-000\.tar.*count"),
        (document(shards=[vars(INFO) | {"samples": 1 << 70}]), r"x-000\.tar.*count"),
        (document(shards=[vars(INFO) | {"samples": True}]), r"x-000\.tar.*count"),
        (document(shards=[vars(INFO) | {"digest": []}]), r"x-000\.tar.*digest"),
        (document(provenance=[]), "field.*provenance.*dict"),
        (document(licence=None), "field.*licence.*str"),
        (document(name=3), "field.*name.*str"),
        (document(totals=[]), "field.*totals.*dict"),
        (document(rejects=""), "field.*rejects.*dict"),
        (document(shards=[vars(INFO), vars(INFO)]), "twice"),
        (document().replace('"x-000.tar"', '"x-001.tar"'), "checksum mismatch"),
    ],
)
def test_invalid_manifests_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ShardError, match=message):
        read_manifest(path)


def test_a_newer_minor_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(document(version="1.9", added_later=[1]))
    assert read_manifest(path).version == "1.9"


def test_a_manifest_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="the manifest is missing"):
        read_manifest(tmp_path / "x.json")


def test_other_json_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"messages": []}')
    assert not is_manifest(tmp_path / "x.json")
