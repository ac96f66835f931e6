"""Parquet files on this machine, in the layouts that datasets, pandas and pyarrow write."""

from __future__ import annotations

import base64
import json
import math
import pickle
from datetime import date, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from ocrdata.commands import make_shards
from ocrdata.errors import RejectedRow, SourceError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, check, text_of
from ocrdata.sources.annotations import AnnotationFormat
from ocrdata.sources.base import EditableSource, NotedSource, SizedSource, attempt
from ocrdata.sources.finevision import FineVisionRow
from ocrdata.sources.parquet import ParquetRows
from ocrdata.sources.parquet_files import LocalFiles, ParquetSource, default_name
from ocrdata.sources.smoltalk import ChatRow
from tests.support.hubdata import finevision_table, made_up_rows
from tests.support.numbered import square

RED, BLUE = square("red"), square("blue")
CHAT = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "red"}]


def source(
    path: Path, *, image: str = "", images: Path | None = None, **form: str
) -> ParquetSource:
    return ParquetSource(path, AnnotationFormat(**form), image=image, images=images)


def rows(found: ParquetSource) -> list[Sample]:
    """All rows, which must be samples, read as a worker does."""
    worker: ParquetSource = pickle.loads(pickle.dumps(found))
    read = list(worker.rows(0, worker.count()))
    assert [number for number, _ in read] == list(range(found.count()))
    samples = []
    for _, sample in read:
        assert isinstance(sample, Sample), sample
        check(sample)
        samples.append(sample)
    return samples


def write(path: Path, table: pa.Table, group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def texts_of(sample: Sample) -> list[str]:
    return [text_of(message) for message in sample.messages]


def kinds(sample: Sample) -> list[str]:
    return [part["type"] for part in sample.messages[0]["content"]]


def test_what_datasets_writes(tmp_path: Path) -> None:
    """Image features embedded in messages, FineVision's columns, and sequences of structs."""
    import datasets
    from datasets import Dataset, Features, Image, List, Value

    image = {"bytes": RED, "path": "a.png"}
    message = {"role": Value("string"), "content": Value("string")}
    chats = Features({"messages": List(message), "images": List(Image()), "when": Value("date32")})
    turns = {"user": Value("string"), "assistant": Value("string")}
    fine = Features({"images": List(Image()), "texts": datasets.Sequence(turns)})
    Dataset.from_dict(
        {"messages": [CHAT], "images": [[image]], "when": [None]}, features=chats
    ).to_parquet(tmp_path / "chat.parquet")
    Dataset.from_dict(
        {"images": [[image]], "texts": [{"user": ["q"], "assistant": ["a"]}]}, features=fine
    ).to_parquet(tmp_path / "fine.parquet")
    (chat,) = rows(source(tmp_path / "chat.parquet"))
    assert (kinds(chat), texts_of(chat)) == (["image", "text"], ["What?", "red"])
    assert (chat.images, chat.source, chat.meta) == ([RED], "chat", {"image_paths": ["a.png"]})
    (pairs,) = rows(source(tmp_path / "fine.parquet"))
    assert (kinds(pairs), texts_of(pairs)) == (["image", "text"], ["q", "a"])


def test_what_pandas_writes(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "question": ["What?", "Which?"],
            "answer": [np.int64(3), np.int64(4)],
            "image": [RED, BLUE],
            "source": pd.Categorical(["alpha", "beta"]),
            "rating": [np.nan, 2.5],
            "when": pd.to_datetime(["2026-02-03 04:05:06.5", None]),
        }
    )
    frame.to_parquet(tmp_path / "frame.parquet")
    first, second = rows(source(tmp_path / "frame.parquet"))
    assert (texts_of(first), first.images) == (["What?", "3"], [RED])
    assert (first.source, second.source) == ("alpha", "beta")
    assert first.meta == {"when": "2026-02-03T04:05:06.5"}
    assert second.meta == {"rating": 2.5}


def test_llava_and_names_of_images_in_a_folder(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}]
    table = pa.table({"conversations": [talk], "image": ["train/a.png"], "id": [7]})
    write(tmp_path / "set" / "llava.parquet", table)
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "images" / "train" / "a.png").write_bytes(RED)
    found = source(tmp_path / "set", images=tmp_path / "images")
    (sample,) = rows(found)
    assert (kinds(sample), sample.images) == (["image", "text"], [RED])
    assert sample.meta == {"id": 7, "image": "train/a.png"}
    assert found.size(0, 1) > len(RED)
    before = dict(found.provenance)
    (tmp_path / "images" / "train" / "a.png").write_bytes(BLUE + b"longer")
    again = dict(source(tmp_path / "set", images=tmp_path / "images").provenance)
    assert before.pop("images_xxh3_128") != again.pop("images_xxh3_128")
    assert before == again
    ((_, missing),) = source(tmp_path / "set").rows(0, 1)
    assert isinstance(missing, RejectedRow) and "train/a.png" in str(missing)


def test_images_as_data_urls_are_not_kept_twice(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(RED).decode()
    table = pa.table({"image": [url], "text": ["red"], "id": [1]})
    (sample,) = rows(source(write(tmp_path / "x.parquet", table)))
    assert (sample.images, sample.meta) == ([RED], {"id": 1})


def test_text_alone_beside_an_image_and_columns_named_on_the_command_line(tmp_path: Path) -> None:
    table = pa.table({"page": [RED], "ocr": ["words"], "text": ["other"], "q": ["Read?"]})
    path = write(tmp_path / "x.parquet", table)
    (sample,) = rows(source(path, image="page", answer="ocr", prompt="Read it."))
    assert (kinds(sample), texts_of(sample)) == (["image", "text"], ["Read it.", "words"])
    assert sample.meta == {"q": "Read?", "text": "other"}
    (sample,) = rows(source(path, image="page", answer="ocr", question="q"))
    assert texts_of(sample) == ["Read?", "words"]
    (sample,) = rows(source(path, image="page"))  # a usual name is found
    assert (texts_of(sample), kinds(sample)) == (["", "other"], ["image"])
    (note,) = source(path).notes()
    assert "page (binary: bytes)" in note and "--image" in note
    for wrong in ({"image": "pages"}, {"answer": "ocrs"}, {"question": "p"}):
        (flag, column), *_ = wrong.items()
        with pytest.raises(UsageError, match=rf"'{column}' \(--{flag}\).*page \(binary\)"):
            source(path, **wrong)


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_a_name_is_not_looked_up_where_the_table_has_the_images(tmp_path: Path) -> None:
    inside, name = {"bytes": RED, "path": "a.png"}, {"bytes": None, "path": "a.png"}
    nothing = {"bytes": None, "path": None}
    cells = pa.array([None, [inside], [name], [nothing]], pa.list_(IMAGE))
    table = pa.table({"messages": [CHAT] * 4, "images": cells})
    path = write(tmp_path / "x.parquet", table)
    (tmp_path / "a.png").write_bytes(BLUE)
    none, good, *bad = (row for _, row in source(path).rows(0, 4))
    assert isinstance(good, Sample) and good.images == [RED]
    assert all(isinstance(row, RejectedRow) for row in (none, *bad))
    assert "a.png" in str(bad[0]) and "images_xxh3_128" not in source(path).provenance


def test_images_that_datasets_did_not_embed_are_read_by_their_paths(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, Value

    place = tmp_path / "pictures" / "a.png"
    place.parent.mkdir()
    place.write_bytes(RED)
    texts = {"question": Value("string"), "answer": Value("string")}
    features = Features({"image": Image(), **texts})
    rows_of_names = {"image": [None, str(place)], "question": ["a", "b"], "answer": ["no", "red"]}
    (tmp_path / "set").mkdir()
    Dataset.from_dict(rows_of_names, features=features).to_parquet(tmp_path / "set" / "x.parquet")
    found = source(tmp_path / "set", images=place.parent)
    first, second = rows(found)
    assert (first.images, second.images) == ([], [RED])
    assert second.meta == {"image_paths": [str(place)]}
    assert "images_xxh3_128" in found.provenance


def test_files_of_a_folder_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        table = pa.table({"prompt": [f"{number}"], "answer": ["a"]})
        write(tmp_path / "set" / "deep" / f"x-{number}.PARQUET", table)
    write(tmp_path / "set" / ".hidden" / "x-0.parquet", table)
    (tmp_path / "set" / "notes.txt").write_text("no table")
    pattern = tmp_path / "set" / "**" / "x-*.PARQUET"
    for path in (tmp_path / "set", pattern):
        assert [texts_of(sample)[0] for sample in rows(source(path))] == ["1", "9", "10"]
        assert default_name(path) == "set"
    one = source(tmp_path / "set" / "deep" / "x-9.PARQUET")
    assert (one.name, one.count(), one.provenance["files"]) == ("x-9", 1, 1)
    for path in (tmp_path / "none", tmp_path / "*.parquet", tmp_path / "set" / ".hidden" / "deep"):
        with pytest.raises(UsageError, match="no "):
            source(path)


def test_files_of_several_splits_are_not_mixed(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["q"], "answer": ["a"]})
    for name in ("data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet"):
        write(tmp_path / name, table)
    with pytest.raises(UsageError, match=r"1 of test, 2 of train.*train\*\.parquet"):
        source(tmp_path)
    assert source(tmp_path / "data" / "train-*").count() == 2


def test_values_in_names_of_folders_are_said_to_be_left_out(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["q"], "answer": ["a"], "raw": [b"x"]})
    write(tmp_path / "lang=de" / "0.parquet", table)
    first, second = source(tmp_path).notes()
    assert "raw (binary: bytes)" in first and "lang=de" in second


def test_provenance_is_the_content_and_not_the_place(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["q"], "answer": ["a"]})
    other = pa.table({"prompt": ["q"], "answer": ["b"]})
    found = [source(write(tmp_path / place / "x.parquet", table)) for place in "ab"]
    changed = source(write(tmp_path / "c" / "x.parquet", other))
    assert found[0].provenance == found[1].provenance != changed.provenance
    assert source(tmp_path / "a").provenance != source(tmp_path / "b").provenance  # another source
    assert set(changed.content) >= {
        key for key in changed.provenance if changed.provenance[key] != found[0].provenance[key]
    }
    assert isinstance(changed, EditableSource | NotedSource | SizedSource)
    write(tmp_path / "a" / "x.parquet", pa.concat_tables([table, table]))
    with pytest.raises(SourceError, match=r"x\.parquet: the file has changed"):
        list(found[0].rows(0, 1))


def test_a_conversion_of_files_that_differ_in_their_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumable at any shard: each alone gives the bytes of all at once."""
    first = finevision_table(made_up_rows(30)).append_column("raw", pa.array([b"x"] * 30))
    second = finevision_table(made_up_rows(25), reverse=True)
    nulls = second.set_column(
        second.schema.get_field_index("images"), "images", pa.nulls(25)
    ).drop_columns("formatting_min")
    write(tmp_path / "set" / "0.parquet", first, 7)
    write(tmp_path / "set" / "1.parquet", nulls, 7)
    words = ["parquet", "--path", str(tmp_path / "set"), "--shard-samples", "20", "--workers", "1"]
    for shard in ("1", "2", "0"):
        assert make_shards.main([*words, "--out", str(tmp_path / "one"), "--only", shard]) == 0
    for out in ("one", "all"):
        assert make_shards.main([*words, "--out", str(tmp_path / out)]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert set(notes) == {notes[0]} and "raw (binary: bytes)" in notes[0]
    for shard in ("set-000.tar", "set-001.tar", "set-002.tar"):
        assert (tmp_path / "one" / shard).read_bytes() == (tmp_path / "all" / shard).read_bytes()
    shards = open_shards(str(tmp_path / "all" / "set.json"))
    assert len(shards) == 55 and sum(
        len(sample.images) for sample in map(shards.__getitem__, range(30))
    )
    manifest = json.loads((tmp_path / "all" / "set.json").read_bytes())
    assert str(tmp_path) not in json.dumps(manifest)


def test_columns_that_are_no_conversation(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", pa.table({"id": [1], "page": [b"x"]}))
    with pytest.raises(UsageError, match=r"--answer.*id \(int64\), page \(binary\)"):
        source(path)
    path = write(tmp_path / "y.parquet", pa.table({"messages": pa.nulls(1), "text": ["t"]}))
    ((_, row),) = source(path).rows(0, 1)
    assert isinstance(row, RejectedRow) and str(row) == "messages is null"


TEXT_KINDS = [
    pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()),
]  # fmt: skip
BYTE_KINDS = [
    pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary()),
    pa.binary(len(RED)),
]  # fmt: skip
LISTS = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view, partial(pa.list_, list_size=2)]
LEAVES: dict[pa.DataType, Any] = {
    **dict.fromkeys(TEXT_KINDS, "word"),
    **dict.fromkeys(BYTE_KINDS, RED),
    pa.null(): None,
    pa.bool_(): True,
    pa.uint8(): 1,
    pa.int64(): 1,
    pa.float16(): np.float16(1),
    pa.float64(): math.nan,
    pa.decimal128(9, 2): Decimal(1),
    pa.decimal256(50, 3): Decimal(1),
    pa.date32(): date(2026, 1, 1),
    pa.date64(): date(2026, 1, 1),
    pa.time32("ms"): time(1),
    pa.time64("ns"): 1,
    pa.timestamp("ns"): 1,
    pa.timestamp("s", "Asia/Tokyo"): 1,
    pa.duration("us"): timedelta(1),
}
"""A value of every kind of leaf."""


def value(kind: pa.DataType) -> Any:
    """A value of a nested type."""
    if kind in LEAVES:
        return LEAVES[kind]
    if pa.types.is_struct(kind):
        return {field.name: value(field.type) for field in kind}
    if pa.types.is_map(kind):
        return [("k", value(kind.item_type))]
    return [value(kind.value_type)] * 2


def of_lists(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    return st.builds(lambda make, kind: make(kind), st.sampled_from(LISTS), inner)


def of_structs(**fields: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    return st.fixed_dictionaries(fields).map(lambda kinds: pa.struct(list(kinds.items())))


TEXT_KIND, BYTE_KIND = st.sampled_from(TEXT_KINDS), st.sampled_from(BYTE_KINDS)
ANY_KIND = st.recursive(
    st.sampled_from(list(LEAVES)),
    lambda inner: st.one_of(
        of_lists(inner),
        of_structs(a=inner, b=inner),
        of_structs(bytes=inner, path=inner),
        of_structs(role=inner, content=inner, extra=inner),
        of_structs(user=inner, assistant=inner),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
    ),
    max_leaves=4,
)
ONE_IMAGE = st.one_of(BYTE_KIND, of_structs(bytes=BYTE_KIND, path=TEXT_KIND | st.just(pa.null())))
IMAGE_KIND = st.one_of(
    ONE_IMAGE, of_lists(ONE_IMAGE), of_structs(bytes=of_lists(BYTE_KIND), path=of_lists(TEXT_KIND))
)


def in_a_file(path: Path, columns: dict[str, tuple[pa.DataType, list[Any]]]) -> Path:
    """The file; the example is dropped if pyarrow cannot write such a type."""
    try:
        table = pa.table({name: pa.array(cells, kind) for name, (kind, cells) in columns.items()})
        return write(path, table)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError):
        reject()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts") / "x.parquet"


@settings(max_examples=30, deadline=None)
@given(image=IMAGE_KIND, other=ANY_KIND, text=TEXT_KIND, pair=st.data())
def test_images_and_turns_of_every_form_convert_and_no_other_column_is_lost(
    file: Path, image: pa.DataType, other: pa.DataType, text: pa.DataType, pair: st.DataObject
) -> None:
    texts = of_structs(user=TEXT_KIND, assistant=TEXT_KIND)
    lists = of_structs(user=of_lists(TEXT_KIND), assistant=of_lists(TEXT_KIND))
    turns = pair.draw(st.one_of(of_lists(texts), lists))
    columns = {"images": image, "texts": turns, "source": text, "other": other}
    cells = {name: (kind, [value(kind)] * 2) for name, kind in columns.items()}
    cells["other"][1][1] = None
    path = in_a_file(file, cells)
    fine = FineVisionRow("x")
    table = ParquetRows(LocalFiles(path), fine.shapes, fine.needed)
    found = [fine(row) for _, row in table.rows(0, 2) if not isinstance(row, RejectedRow)]
    notes, stored = table.notes(), pq.read_schema(path).field("other").type
    for samples in (found, rows(source(path))):
        assert len(samples) == 2
        for sample in samples:
            assert sample.images and set(sample.images) == {RED}
            assert set(texts_of(sample)) == {"word"} and sample.source == "word"
            json.loads(sample.to_json())
        known = LEAVES.get(other, 0)
        nothing = known is None or known is LEAVES[pa.float64()]
        said = any(f"other ({stored}: " in note for note in notes)
        assert ("other" in samples[0].meta) + said + nothing == 1
    assert source(path).notes() == notes


ROLES_OF_COLUMNS = ["images", "messages", "texts", "answer", "question", "source", "video"]


@settings(max_examples=80, deadline=None)
@given(kind=ANY_KIND, column=st.sampled_from(ROLES_OF_COLUMNS), with_turns=st.booleans())
def test_a_column_of_any_type_is_used_or_named_with_its_type(
    file: Path, kind: pa.DataType, column: str, with_turns: bool
) -> None:
    turns = pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))
    columns = {"texts": turns, "images": pa.binary()} if with_turns else {}
    columns[column] = kind
    path = in_a_file(file, {name: (one, [value(one), None]) for name, one in columns.items()})
    stored = str(pq.read_schema(path).field(column).type)
    for form in (FineVisionRow("x"), ChatRow("x"), None):
        try:
            if form is None:
                local = source(path)
                list(local.rows(0, 2))
                local.notes()
            else:
                table = ParquetRows(LocalFiles(path), form.shapes, form.needed)
                for _, sample in attempt(table.rows(0, 2), form):
                    if isinstance(sample, Sample):
                        json.loads(sample.to_json())
        except UsageError as exc:
            assert column in str(exc) and stored[:40] in str(exc)
        except SourceError as exc:
            named = f"column {column!r} has the type {stored}; " in str(exc)
            lacks = form is not None and not {*form.needed} <= columns.keys()
            assert named or (lacks and "no column" in str(exc))
