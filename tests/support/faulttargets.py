"""The files that `tests.support.fault` damages, and how each is read by its public reader.

A new format needs one entry, in `TARGETS` or in `tests.support.faultmatrix`.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from xxhash import xxh3_128_hexdigest

from ocrdata.errors import OcrError
from ocrdata.planning.counting import count_shards
from ocrdata.reading.verify import ShardStatistics, find, verify_shards
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.index import index_path, read_index
from ocrdata.shards.manifest import Manifest, write_manifest
from ocrdata.tokens.counts import counts_path
from ocrdata.tokens.counts_list import counts_list_path, read_counts_list
from tests.support.fault import KEY, Reading, Span, Target
from tests.support.rows import write_shard

if TYPE_CHECKING:
    from torch import Tensor

    from ocrdata.tokens.tokenizer import Tokenizer
    from ocrtrain.model.ocr_model import OcrModel

SHARD = "x-000.tar"
STEP = "checkpoints/step_000001"


@cache
def noise(seed: int, kind: str, side: int) -> bytes:
    """An image of random pixels: a few KiB that do not compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _sample(number: int) -> Sample:
    pick = random.Random(number)
    images = [noise(number, "PNG", 20 + number % 7), noise(number + 50, "JPEG", 30)][: number % 3]
    turns = [(f"What is {number}?", "It is " + str(pick.random()) * (1 + number % 4))]
    return from_turns(turns, images, source="noise", meta={"number": number})


def make_set(folder: Path) -> None:
    """Two shards with a manifest; the first has twelve samples with no, one or two images each."""
    infos = (
        write_shard(folder / SHARD, [_sample(number) for number in range(12)]),
        write_shard(folder / "x-001.tar", [_sample(number) for number in range(12, 15)], 12),
    )
    write_manifest(folder / "x.json", Manifest("x", infos, totals={"rows": 15}))


def make_tars(folder: Path) -> None:
    """The same shards without a manifest."""
    make_set(folder)
    (folder / "x.json").unlink()


def make_bare(folder: Path) -> None:
    """One tar without index and manifest."""
    make_tars(folder)
    for path in [index_path(folder / SHARD).path, *folder.glob("x-001*")]:
        path.unlink()


def read_set(folder: Path) -> Reading:
    """Every sample and index row, read by position, by key and sequentially, and the digest of the
    set."""
    shards = open_shards(str(folder))
    found: Reading = {
        "": (len(shards), shards.digest, shards.source_name, shards.spec),
    }
    for at in range(len(shards)):
        name = f"{at:09d}"
        try:
            found[name] = (shards.members(at), shards[at], shards.row(at), shards.ref(at))
        except OcrError as exc:
            found[name] = exc
        try:
            found[KEY + name] = shards.by_key(name)
        except OcrError as exc:
            found[KEY + name] = exc
    try:
        for at, members in enumerate(shards.iter_members()):
            expected = found[f"{at:09d}"]
            assert isinstance(expected, tuple), (
                f"sample {at} was read sequentially but not by position"
            )
            assert members == expected[0]
    except OcrError as exc:
        assert any(isinstance(value, OcrError) for value in found.values()), exc
    return found


def read_bare(folder: Path) -> Reading:
    """Read a shard without an index, which creates one; the new index is removed."""
    try:
        return read_set(folder)
    finally:
        index_path(folder / SHARD).path.unlink(missing_ok=True)


def check_all(folder: Path) -> Reading:
    """The errors that the checker finds, by the sample they name."""
    found: Reading = {"": "checked"}
    for error in verify_shards(find(str(folder)), ShardStatistics()):
        found[error.key] = error
    return found


COUNTS, COUNTS_LIST = "x-000.tokens.parquet", "x.tokens.list"


@cache
def bytes_tokenizer() -> Tokenizer:
    """A tokenizer with only bytes and special tokens."""
    from ocrdata.tokens.tokenizer import train_tokenizer

    return train_tokenizer(["What?"], 266)


def make_counts(folder: Path) -> None:
    """The shards with token counts. Those of the first shard are renamed to `COUNTS`, their list
    to `COUNTS_LIST`."""
    make_set(folder)
    count_shards(open_shards(str(folder)), bytes_tokenizer())
    fingerprint = bytes_tokenizer().fingerprint
    counts_path(folder / SHARD, fingerprint).path.rename(folder / COUNTS)
    counts_list_path(folder / "x.json", fingerprint).path.rename(folder / COUNTS_LIST)


def read_listed(folder: Path) -> Reading:
    """The list of the shards' token counts."""
    return {"list": read_counts_list(folder / COUNTS_LIST)}


def read_counted(folder: Path) -> Reading:
    """The counts of every sample, as a plan reads them."""
    path = counts_path(folder / SHARD, bytes_tokenizer().fingerprint).path
    path.write_bytes((folder / COUNTS).read_bytes())
    found: Reading = {}
    for first, counts in count_shards(open_shards(str(folder)), bytes_tokenizer()):
        found |= {str(first + at): counts.turns(at) for at in range(len(counts))}
    return found


def samples(folder: Path) -> list[Span]:
    """Where the samples of the first shard are."""
    index = read_index(index_path(folder / SHARD))
    rows = [index.row(at) for at in range(len(index))]
    return [(row.key, row.offset, row.offset + row.size) for row in rows]


def members(folder: Path) -> list[Span]:
    """Where its members are, header and padding included."""
    index = read_index(index_path(folder / SHARD))
    return [
        (member.name, member.offset - 512, member.offset + member.size + -member.size % 512)
        for at in range(len(index))
        for member in index.members(at)
    ]


def without_index(spans: Callable[[Path], list[Span]]) -> Callable[[Path], list[Span]]:
    """`spans` for a folder whose shard has no index: the index is created, used and removed."""

    def find(folder: Path) -> list[Span]:
        open_shards(str(folder))
        try:
            return spans(folder)
        finally:
            index_path(folder / SHARD).path.unlink()

    return find


def make_run(folder: Path) -> None:
    """A run's checkpoint after one step of a small model, and its final encoder file."""
    import torch

    from ocrtrain.model.encoder_file import save_deepencoder
    from ocrtrain.run.optimizer import build_optimizer
    from ocrtrain.state import checkpoint
    from tests.support import small

    torch.manual_seed(3)
    model = small.untrained()
    optimizer = build_optimizer(model, small.CONFIG)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    checkpoint.save(
        folder, checkpoint.State(step=1, total_tokens=77), config=small.CONFIG,
        tensors=checkpoint.collect(model, optimizer), tokenizer=small.tokenizer(),
    )  # fmt: skip
    save_deepencoder(model, folder / "deepencoder_000001.safetensors", {"step": 1})


def read_run(folder: Path) -> Reading:
    """Everything a resumed run reads from its checkpoint, in the same order."""
    import torch

    from ocrtrain.run.optimizer import build_optimizer
    from ocrtrain.settings.saved_config import to_json
    from ocrtrain.state import checkpoint
    from tests.support import small

    model = _zeroed_model()
    optimizer = build_optimizer(model, small.CONFIG)
    saved = checkpoint.Checkpoint.open(checkpoint.newest(folder))
    found: Reading = {
        "config": to_json(saved.config),
        "state": vars(saved.state),
        "versions": saved.changed_versions(),
        "tokenizer": _encodings(saved.tokenizer()),
    }
    saved.load_weights(model)
    saved.load_optimizer(model, optimizer)
    saved.load_random_state()
    tensors = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        for kind, value in optimizer.state[parameter].items():
            tensors[f"{kind}/{name}"] = value
    tensors["random"] = torch.get_rng_state()
    return found | {name: _digest(tensor) for name, tensor in tensors.items()}


def read_encoder(folder: Path) -> Reading:
    """The encoder that stage 2 starts from."""
    from ocrtrain.model.encoder_file import read_deepencoder
    from tests.support.pretrained import take

    model, path = _zeroed_model(), folder / "deepencoder_000001.safetensors"
    take(model, path)
    meta = read_deepencoder(path)[1]["meta"]
    found: Reading = {name: _digest(tensor) for name, tensor in model.encoder.state_dict().items()}
    return found | {"meta": meta}


@cache
def _one_model() -> OcrModel:
    from tests.support import small

    return small.untrained()


def _zeroed_model() -> OcrModel:
    """A model of zeros, so that tensors that are not loaded differ."""
    model = _one_model()
    for tensor in model.state_dict().values():
        tensor.zero_()
    return model


def _digest(tensor: Tensor) -> str:
    return xxh3_128_hexdigest(tensor.detach().numpy().tobytes())


def _encodings(tokenizer: Tokenizer) -> list[list[int]]:
    return [list(tokenizer.encode(text)) for text in ("Which colour?", "é 漢 0123", "\n\t{}")]


ANY = ("flip", "cut", "zeroed")
OF_TARS = (*ANY, "cut at member", "swapped")
RUN_FILES = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json",
             "config.json", "tokenizer.json", "complete")  # fmt: skip

TARGETS: tuple[Target, ...] = (
    Target("tar", SHARD, make_set, read_set, OF_TARS, SHARD, by_sample=True, spans=samples),
    Target("tar, members swapped", SHARD, make_tars, read_set, ("cut at member", "swapped"),
           SHARD, by_sample=True, spans=members),
    Target("tar, checked", SHARD, make_set, check_all, OF_TARS, SHARD, must_detect=True,
           spans=samples),
    Target("tar without index", SHARD, make_bare, read_bare, ("cut", "cut at member"), SHARD,
           must_detect=True, spans=without_index(members)),
    Target("index", "x-000.index.parquet", make_set, read_set, ANY, "x-000"),
    Target("index, no manifest", "x-000.index.parquet", make_tars, read_set, ANY, "x-000"),
    Target("index, checked", "x-000.index.parquet", make_set, check_all, ANY, "x-000",
           must_detect=True),
    Target("token counts", COUNTS, make_counts, read_counted, ANY, "x-000"),
    Target("list of token counts", COUNTS_LIST, make_counts, read_listed, ANY, COUNTS_LIST),
    Target("manifest", "x.json", make_set, read_set, ANY, "x.json"),
    *(Target(f"checkpoint {name}", f"{STEP}/{name}", make_run, read_run, ANY, "step_000001",
             must_detect=name != "complete") for name in RUN_FILES),
    Target("deepencoder", "deepencoder_000001.safetensors", make_run, read_encoder, ANY,
           "deepencoder_000001"),
)  # fmt: skip
