"""A pipe in place of a file is an error at once; no reader waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ocrdata.shards.index import index_path
from tests.support.bombs import ROOT
from tests.support.rows import sample, write_set, write_shard

# All in one child process, which is killed if a reader hangs.
READ = """
import sys
from pathlib import Path
from ocrdata.tokens.counts import check_counts, read_counts
from ocrdata.errors import OcrError
from ocrdata.shards.index import read_header, read_index, read_key_range
from ocrdata.shards.manifest import is_manifest, read_manifest
from ocrdata.reading.view import open_shards
from ocrdata.shards.writer import shard_info
from ocrdata.sources.jsonl import RecordFormat
from ocrdata.sources.json_rows import RowFile
from ocrdata.storage.local import LocalFile
from ocrdata.tokens.tokenizer import load_tokenizer

def counts(read):
    return lambda path: read(path, rows_digest="0" * 32, fingerprint="f" * 16)

pipe = Path("pipe")
record = b'{"prompt": "q", "answer": "a", "image": "pipe"}'
readers = {
    read.__name__: read
    for read in (LocalFile, read_manifest, read_index, read_header, read_key_range, load_tokenizer,
                 RowFile)
}
readers |= {"read_counts": counts(read_counts), "check_counts": counts(check_counts),
            "image": lambda path: RecordFormat(Path(), "x")(record)}
places = {"tar": lambda: open_shards("tar")[0], "index": lambda: open_shards("index")[0],
          "manifest": lambda: open_shards("manifest")[0]}
for name, call in [*((name, lambda read=read: read(pipe)) for name, read in readers.items()),
                   *places.items()]:
    try:
        call()
        print(name, "accepted")
    except OcrError as exc:
        print(name, type(exc).__name__, str(exc).splitlines()[0])
assert not is_manifest(pipe)
open_shards("beside/x-000.tar")[0], open_shards("other")[0]
"""


def test_no_reader_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("tar", "index", "manifest", "beside", "other"):
        (tmp_path / name).mkdir()
    write_set(tmp_path / "manifest", "x", [1])
    for name in ("index", "beside", "other"):
        write_shard(tmp_path / name / "x-000.tar", [sample(0)])
    for path in (
        tmp_path / "tar" / "x-000.tar",
        tmp_path / "manifest" / "x.json",
        index_path(tmp_path / "index" / "x-000.tar").path,
        tmp_path / "beside" / "x.json",
        tmp_path / "other" / "y.json",  # not the manifest of this shard: ignored
    ):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    done = subprocess.run(
        [sys.executable, "-c", READ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OCR_SHARDS_CACHE": str(tmp_path / "cache")},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    printed = done.stdout.splitlines()
    assert len(printed) == 13
    assert not [line for line in printed if "not a regular file" not in line], printed
