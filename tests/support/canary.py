"""Files that leave a mark when executed, for every place where the project reads a file.

An `Entry` writes such a canary where an attacker could, and reads it through the public API. The
mark is a file. `EXECUTE` has a reader per kind that does execute it, to show that it works.
"""

from __future__ import annotations

import io
import json
import pickle
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ocrdata.errors import OcrError
from ocrdata.reading.view import open_shards
from ocrdata.sample import check as check_sample
from ocrdata.shards.index import index_path, read_index
from ocrdata.shards.manifest import read_manifest
from ocrdata.sources.jsonl import JsonlSource, RecordFormat
from ocrdata.sources.parquet import ParquetRows
from ocrdata.sources.shapes import ANYTHING
from ocrdata.tokens.counts import read_counts
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.state.checkpoint import COMPLETE, write_completion_marker
from ocrtrain.state.run_files import read_lines, read_sealed
from tests.support import small
from tests.support.faulttargets import RUN_FILES, STEP, make_run, read_run
from tests.support.pretrained import take
from tests.support.rows import write_tar


class Canary:
    """Creates the file `mark` when it is unpickled by an unsafe reader."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def plain(mark: Path) -> bytes:
    """A pickle."""
    return pickle.dumps({"x": Canary(mark)})


def zipped(mark: Path, *, archive: bool = True) -> bytes:
    """A file of torch.save: a zip archive, or its old format without one."""
    buffer = io.BytesIO()
    value = {"image_newline": torch.ones(3), "x": Canary(mark)}
    torch.save(value, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def old(mark: Path) -> bytes:
    """The old format of torch.save, without a zip archive."""
    return zipped(mark, archive=False)


def objects(mark: Path) -> bytes:
    """An .npy file of Python objects."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Canary(mark)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def extension(mark: Path) -> bytes:
    """A Parquet file whose column claims a pickled Python type (arrow.py_extension_type)."""
    claim = {"ARROW:extension:name": "arrow.py_extension_type",
             "ARROW:extension:metadata": plain(mark)}  # fmt: skip
    schema = pa.schema([pa.field("n", pa.int64(), metadata=claim)])
    buffer = io.BytesIO()
    pq.write_table(pa.table([[1, 2]], schema=schema), buffer)
    return buffer.getvalue()


def _execute_extension(data: bytes) -> None:
    """Unpickles the type of such a column, as old versions of pyarrow did."""
    field = pq.read_schema(io.BytesIO(data)).field("n")
    assert field.metadata is not None
    pickle.loads(field.metadata[b"ARROW:extension:metadata"])


# The only code that executes what it reads, all of it written above: a canary without a mark means
# something only if the canary can leave one.
EXECUTE: Mapping[str, tuple[Callable[[Path], bytes], Callable[[bytes], object]]] = {
    "pickle": (plain, pickle.loads),
    "torch": (zipped, lambda data: torch.load(io.BytesIO(data), weights_only=False)),
    "torch of old": (old, lambda data: torch.load(io.BytesIO(data), weights_only=False)),
    "numpy": (objects, lambda data: np.load(io.BytesIO(data), allow_pickle=True)),
    "arrow": (extension, _execute_extension),
    "shell": (
        lambda mark: f"touch {mark}".encode(),
        lambda data: subprocess.run(data, shell=True, check=True),
    ),
}
"""Each kind of canary with a reader that executes it."""


@dataclass(frozen=True)
class Entry:
    """`put(folder, mark)` writes the canary, `read(folder)` reads it. `harmless`: its bytes are
    returned unchanged, or it is not read; all others must raise our error."""

    name: str
    put: Callable[[Path, Path], None]
    read: Callable[[Path], object]
    harmless: bool = False


def _member(make: Callable[[Path], bytes], ending: str, folder: Path, mark: Path) -> None:
    data = make(mark)  # once: torch names its storages by their addresses
    write_tar(folder / "x.tar", [(f"a.{ending}", data), ("a.cls", b"1")])
    (folder / "expected").write_bytes(data)


def _as_bytes(ending: str, folder: Path) -> None:
    """Members read in every way are the bytes that were written."""
    shards, data = open_shards(str(folder / "x.tar")), (folder / "expected").read_bytes()
    for members in (shards.members(0), *shards.iter_members()):
        assert members[f"a.{ending}"] == data


def _as_sample(folder: Path) -> None:
    for _ in open_shards(str(folder / "x.tar")):
        pass


def _file(name: str, make: Callable[[Path], bytes], folder: Path, mark: Path) -> None:
    (folder / name).write_bytes(make(mark))


def _repository(name: str, beside: str, make: Callable[[Path], bytes]) -> Callable[..., None]:
    def put(folder: Path, mark: Path) -> None:
        _file(name, make, folder, mark)
        if beside:
            sizes = {"n_head": 2, "n_kv_head": 2, "n_layer": 2, "n_embd": 64, "vocab_size": 265}
            (folder / beside).write_text(json.dumps(sizes))

    return put


def _load(part: str, folder: Path) -> None:
    take(small.untrained(), folder, part)


def _checkpoint(name: str, sealed: bool, folder: Path, mark: Path) -> None:
    """A run with one checkpoint file replaced by a canary; `sealed`: with a valid digest for it."""
    make_run(folder)
    step = folder / STEP
    (step / name).write_bytes(plain(mark))
    if sealed and name != COMPLETE:
        (step / COMPLETE).unlink()
        write_completion_marker(step)


def _beside_checkpoint(folder: Path, mark: Path) -> None:
    make_run(folder)
    for name in ("optimizer.pt", "model.pt", "pytorch_model.bin", "random.pkl", "tokenizer.pkl"):
        (folder / STEP / name).write_bytes(plain(mark))


def _convert(folder: Path) -> None:
    source = JsonlSource(folder / "x.jsonl", None)
    for _, row in source.rows(0, source.count()):
        if isinstance(row, OcrError):
            raise row


def _picture(name: str, make: Callable[[Path], bytes], folder: Path, mark: Path) -> None:
    _file(name, make, folder, mark)
    (folder / "x.jsonl").write_text(json.dumps({"prompt": "q", "answer": "a", "image": name}))


def _decode(folder: Path) -> None:
    check_sample(RecordFormat(folder, "x")((folder / "x.jsonl").read_bytes()))


class _Folder:
    """Parquet files of a folder, as `ParquetRows` takes them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.paths = folder, ("x.parquet",)

    def open(self, path: str) -> io.BytesIO:
        return io.BytesIO((self.folder / path).read_bytes())


def _rows(folder: Path) -> None:
    rows = ParquetRows(_Folder(folder), {"n": ANYTHING}, ("n",)).rows(0, 2)
    assert [row for _, row in rows] == [{"n": 1}, {"n": 2}]


def _index(folder: Path, mark: Path) -> None:
    write_tar(folder / "x.tar", [("a.txt", b"1")])
    index_path(folder / "x.tar").path.write_bytes(extension(mark))


def _spec(pattern: str, folder: Path, mark: Path) -> None:
    (folder / "spec").write_text(pattern.replace("COMMAND", f"touch {mark}"))


def _open_spec(folder: Path) -> None:
    open_shards((folder / "spec").read_text())


SPECS = ("pipe:COMMAND", "pipe:COMMAND |", "|COMMAND", "exec:COMMAND", "COMMAND", "$(COMMAND)",
         "`COMMAND`.tar", "x.tar; COMMAND", "x.tar && COMMAND", "{COMMAND,x}.tar",
         "pipe:COMMAND[:10]", "shell://COMMAND", "s3://x.tar;COMMAND")  # fmt: skip
MEMBERS = (("pyd", plain), ("pickle", plain), ("pkl", plain), ("pt", zipped), ("pth", old),
           ("npy", objects), ("json", plain), ("png", plain), ("txt", plain))  # fmt: skip
TOKENIZERS = ("tokenizer.pkl", "tokenizer.json", "x.tiktoken", "tokenizer")
PARTS = (
    ("gpt", "pytorch_model.bin", "config.json"), ("gpt", "model_000001.pt", "meta_000001.json"),
    ("sam", "model.safetensors", ""), ("clip", "model.safetensors", ""),
)  # fmt: skip
ENTRIES = (
    *(Entry(f"member .{ending}", partial(_member, make, ending), partial(_as_bytes, ending),
            harmless=True) for ending, make in MEMBERS),
    *(Entry(f"sample of .{ending}", partial(_member, make, ending), _as_sample)
      for ending, make in MEMBERS),
    *(Entry(f"--deepencoder {name}, {kind.__name__}", partial(_file, name, kind),
            lambda folder, name=name: take(small.untrained(), folder / name))
      for name in ("x.pt", "x.safetensors") for kind in (plain, zipped, old)),
    *(Entry(f"{part} from {name}, {kind.__name__}", _repository(name, beside, kind),
            partial(_load, part)) for part, name, beside in PARTS for kind in (plain, zipped, old)),
    *(Entry(f"--tokenizer {name}", partial(_file, name, plain),
            lambda folder, name=name: load_tokenizer(folder / name)) for name in TOKENIZERS),
    Entry("--tokenizer FOLDER", partial(_file, "tokenizer.pkl", plain), load_tokenizer),
    *(Entry(f"spec {spec}", partial(_spec, spec), _open_spec) for spec in SPECS),
    *(Entry(f"checkpoint {name}{', vouched for' if sealed else ''}",
            partial(_checkpoint, name, sealed), read_run)
      for name in RUN_FILES for sealed in (False, True)),
    Entry("beside a checkpoint", _beside_checkpoint, read_run, harmless=True),
    Entry("jsonl", partial(_file, "x.jsonl", plain), _convert),
    *(Entry(f"image {name}", partial(_picture, name, make), _decode)
      for name, make in (("a.pkl", plain), ("a.npy", objects), ("a.pt", zipped), ("a.png", plain))),
    Entry("parquet rows", partial(_file, "x.parquet", extension), _rows, harmless=True),
    Entry("parquet that is a pickle", partial(_file, "x.parquet", plain), _rows),
    Entry("index", _index, lambda folder: read_index(index_path(folder / "x.tar"))),
    Entry("set with such an index", _index, _as_sample),
    *(Entry(f"token counts, {kind.__name__}", partial(_file, "c.parquet", kind),
            lambda folder: read_counts(folder / "c.parquet", rows_digest="0", fingerprint="0"))
      for kind in (plain, extension)),
    Entry("manifest", partial(_file, "x.json", plain), lambda f: read_manifest(f / "x.json")),
    *(Entry(name, partial(_file, name, plain), lambda folder, name=name: read_sealed(folder / name))
      for name in ("config.json", "plan.json")),
    *(Entry(name, lambda folder, mark, name=name: (folder / name).write_bytes(plain(mark) + b"\n"),
            lambda folder, name=name: list(read_lines(folder / name)))
      for name in ("metrics.jsonl", "bad.jsonl", "batches.jsonl")),
)  # fmt: skip
