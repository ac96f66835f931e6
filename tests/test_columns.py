from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ocrdata.columns import SCHEMA, rows_digest
from tests.rows import sample, write_shard


def test_the_rows_digest_is_what_its_definition_says(tmp_path: Path) -> None:
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
    # It does not depend on how Arrow happens to hold the rows.
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1, 2)])
    assert rows_digest(parts) == hasher.hexdigest()
