import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.shards.arrow import (
    SCHEMA,
    elements,
    numbers,
    rows_digest,
    starts,
    strings,
    terminated,
    words,
)
from tests.support.rows import sample, write_shard


def test_the_rows_digest_matches_its_definition(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1, ()), sample(2, ("GIF", "PNG"))])
    table = pq.read_table(tmp_path / "x-000.index.parquet", schema=SCHEMA)
    hasher = xxhash.xxh3_128()

    def number(*values: int) -> None:
        for value in values:
            hasher.update(value.to_bytes(8, "little"))

    def text(values: list[str]) -> None:
        number(*(len(value.encode()) for value in values))
        hasher.update("".join(values).encode())

    rows = table.to_pylist()
    text([row["key"] for row in rows])
    number(*(row["offset"] for row in rows), *(row["size"] for row in rows))
    number(*(len(row["members"]) for row in rows))
    members = [member for row in rows for member in row["members"]]
    text([member["name"] for member in members])
    number(*(m["offset"] for m in members), *(m["size"] for m in members))
    hasher.update(b"".join(member["xxh3_128"] for member in members))
    number(*(len(row["images"]) for row in rows))
    images = [image for row in rows for image in row["images"]]
    text([image["format"] for image in images])
    number(*(i["width"] for i in images), *(i["height"] for i in images))
    number(*(row["turns"] for row in rows))
    text([row["source"] for row in rows])
    assert rows_digest(table) == hasher.hexdigest()
    # Independent of how Arrow splits the rows into chunks.
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1, 2)])
    assert rows_digest(parts) == hasher.hexdigest()


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4), max_size=9), st.data())
def test_elements_numbers_and_starts_of_any_slice(
    rows: list[list[int]], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(rows)))
    rows, whole = rows[first:], pa.array(rows, pa.list_(pa.int32()))
    array = whole.slice(first)
    flat = [value for row in rows for value in row]
    assert elements(array).to_pylist() == flat
    assert list(numbers(elements(array))) == flat
    assert list(numbers(elements(array).cast(pa.int64()))) == flat
    bounds = list(starts(array))
    assert [flat[a:b] for a, b in pairwise(bounds)] == rows
    assert len(bounds) == len(rows) + 1


@given(st.lists(st.text(st.sampled_from("aé\0世"), max_size=3), max_size=9), st.data())
def test_strings_of_any_slice(values: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(values)))
    array = pa.array(values, pa.string()).slice(first)
    values = values[first:]
    assert strings(array) == words(array) == values
    text, begins = terminated(array)
    assert text == "".join(f"{value}\0" for value in values).encode()
    assert [text[a : b - 1].decode() for a, b in pairwise(begins)] == values


def test_reading_imports_neither_pandas_nor_pyarrow_compute(tmp_path: Path) -> None:
    """They would take a quarter of a second and 40 MB in every process that reads."""
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    code = """
import sys
from ocrdata.reading.view import open_shards
shards = open_shards(sys.argv[1])
assert len(list(shards)) == len(list(shards.iter_views())) == 2
shards[1], shards.ref(1), shards.row(1), shards.by_key("000000001")
print(sorted({"pandas", "pyarrow.compute", "torch"} & set(sys.modules)))
"""
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.stdout == "[]\n"
