"""The data set of shards: any sample, verified, as the reader gives it, in any process."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ocrdata.errors import ShardError, SpecError, UsageError
from ocrdata.images.decode import decode_rgb
from ocrdata.planning.plan import PlanSettings
from ocrdata.reading.samples import tokenize_sample
from ocrdata.reading.view import open_shards
from ocrdata.sample import from_turns
from ocrdata.tokens.rendering import IGNORE
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrdata.torch import PadRows, ShardDataset, TokenOptions
from tests.support.data import square, write_set
from tests.support.streams import damaged

SLOTS = 2


def tokens(inputs: dict[str, str], seq_len: int = 64) -> TokenOptions:
    return TokenOptions(load_tokenizer(inputs["tokenizer"]), seq_len, SLOTS)


def keys(rows: list[Any]) -> list[tuple[str, str]]:
    return [(row["source"], row["key"]) for row in rows]


@given(at=st.integers(-80, 79))
@settings(max_examples=20)
def test_a_sample_is_the_readers(inputs: dict[str, str], at: int) -> None:
    specs = {"squares": inputs["shards"] + "[::-1]", "sums": inputs["text"] + "[:20]"}
    data = ShardDataset(specs, images="bytes")
    views = {name: open_shards(spec) for name, spec in specs.items()}
    assert len(data) == 80
    name, sample = [(name, sample) for name, view in views.items() for sample in view][at]
    assert data[at] == {
        "messages": sample.messages,
        "images": sample.images,
        "source": name,
        "key": sample.key,
        "meta": sample.meta,
    }


def test_images_are_decoded_as_in_training(inputs: dict[str, str]) -> None:
    wanted = [decode_rgb(data) for data in open_shards(inputs["shards"])[7].images]
    [array] = ShardDataset(inputs["shards"])[7]["images"]
    [pil] = ShardDataset(inputs["shards"], images="pil")[7]["images"]
    assert np.array_equal(array, wanted[0])
    assert pil.mode == "RGB" and np.array_equal(np.asarray(pil), wanted[0])


@pytest.mark.parametrize("seq_len", [14, 64])
def test_ids_and_targets_are_those_of_training(inputs: dict[str, str], seq_len: int) -> None:
    view, options = open_shards(inputs["shards"]), tokens(inputs, seq_len)
    data = ShardDataset(inputs["shards"], tokens=options)
    cut = 0
    for at in range(6):
        item = data[at]
        whole = tokenize_sample(view[at], view.ref(at), options.tokenizer, slots=[SLOTS],
                                seq_len=seq_len)  # fmt: skip
        assert item["input_ids"].tolist() == whole.ids.tolist()
        for place, target in enumerate(item["targets"].tolist()):
            following = place + 1
            supervised = following < len(whole) and whole.loss_mask[following]
            assert target == (whole.ids[following] if supervised else IGNORE)
        assert len(item["images"]) == len(whole.image_starts)
        cut += whole.truncated_tokens
    assert (cut > 0) == (seq_len == 14)


def test_images_of_cut_turns_are_left_out(tmp_path: Path, inputs: dict[str, str]) -> None:
    turns = [("<i>Which?", "red"), ("<i>And this?", "blue")]
    images = [square("red"), square("blue")]
    sample = from_turns(turns, images, source="two", meta={}, placeholder="<i>")
    data = ShardDataset(write_set(tmp_path, "two", [sample]), tokens=tokens(inputs, 20))
    assert len(data[0]["images"]) == 1
    assert (
        len(ShardDataset(str(tmp_path / "two-*.tar"), tokens=tokens(inputs, 99))[0]["images"]) == 2
    )


def test_forked_workers_read_what_this_process_reads(inputs: dict[str, str]) -> None:
    data = ShardDataset(inputs["shards"])
    wanted = keys([data[at] for at in range(len(data))])  # before the fork
    loader = DataLoader(data, batch_size=7, num_workers=1, multiprocessing_context="fork",
                        collate_fn=keys)  # fmt: skip
    assert [key for batch in loader for key in batch] == wanted


def test_a_copy_refuses_shards_that_were_replaced(inputs: dict[str, str], tmp_path: Path) -> None:
    for path in Path(inputs["text"]).parent.glob("sums-*"):
        shutil.copy(path, tmp_path)
    spec = str(tmp_path / "sums-*.tar")
    data = ShardDataset({"sums": spec})
    copied = pickle.dumps(data)
    assert pickle.loads(copied)[3] == data[3]
    (tmp_path / "sums-001.tar").unlink()
    with pytest.raises(ShardError, match=r"sums-\*\.tar: source sums holds other samples"):
        pickle.loads(copied)


def test_a_damaged_sample_is_named(inputs: dict[str, str], tmp_path: Path) -> None:
    data = ShardDataset(damaged(inputs, tmp_path, 17))
    assert data[16]["key"] == "000000016"
    with pytest.raises(ShardError, match=r"squares-000\.tar: sample 000000017: member .*checksum"):
        data[17]


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    sample = from_turns([("q", "a")], [square("red")[:-30]], source="", meta={})
    data = ShardDataset(write_set(tmp_path, "cut", [sample]))
    with pytest.raises(ShardError, match=r"cut-000\.tar: sample 000000000: image 0: "):
        data[0]


def test_mistakes_are_told_at_once(inputs: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="none-here"):
        ShardDataset(str(tmp_path / "none-here-*.tar"))
    with pytest.raises(UsageError, match=r"source sums .*holds no samples"):
        ShardDataset({"sums": inputs["text"] + "[5:5]"})
    with pytest.raises(UsageError, match=r"images 'tensor': .*array, pil, bytes"):
        ShardDataset(inputs["text"], images="tensor")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match=r"sample 60 .* 60 samples"):
        ShardDataset(inputs["shards"])[60]
    data = ShardDataset(inputs["shards"])
    packed = PlanSettings(batch=4, steps=3, seed=1, seq_len=64, pack_window=8, row_images=3)
    with pytest.raises(UsageError, match=r"seq_len is 64; give the data set its tokens"):
        data.plan(packed)
    with pytest.raises(UsageError, match=r"weights of charts, but the sources are squares"):
        data.plan(PlanSettings(batch=4, steps=3, seed=1), {"charts": 1})
    with pytest.raises(UsageError, match="without token ids"):
        PadRows(0)([data[0]])
    long = PlanSettings(batch=4, steps=3, seed=1, seq_len=12, too_long="error")
    with pytest.raises(UsageError, match=r"squares: .*longer than --seq-len 12"):
        ShardDataset(inputs["shards"], tokens=tokens(inputs, 12)).plan(long)


@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_padded_as_in_training(inputs: dict[str, str], packed: bool) -> None:
    data = ShardDataset([inputs["shards"], inputs["text"]], tokens=tokens(inputs))
    rows = data.__getitems__([(0, 61), (3,), (99, 1)] if packed else [0, 61, 3])
    batch = PadRows(9)(rows)
    groups = [row if isinstance(row, list) else [row] for row in rows]
    longest = max(sum(len(one["input_ids"]) for one in group) for group in groups)
    assert set(batch) == {"input_ids", "targets", "position_ids", "images"}
    assert {tuple(batch[name].shape) for name in list(batch)[:3]} == {(3, longest)}
    for number, group in enumerate(groups):
        ids = torch.cat([one["input_ids"] for one in group])
        assert batch["input_ids"][number].tolist() == [*ids.tolist(), *[9] * (longest - len(ids))]
        starts = (batch["position_ids"][number] == 0).nonzero().flatten().tolist()
        lengths = [len(one["input_ids"]) for one in group]
        assert starts == [sum(lengths[:at]) for at in range(len(lengths))]
    shown = [image for group in groups for one in group for image in one["images"]]
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(batch["images"], shown, strict=True))
    labels = PadRows(9, labels="labels")(rows)
    supervised = labels["labels"] != IGNORE
    assert torch.equal(labels["labels"][supervised], labels["input_ids"][supervised])
    assert torch.equal(labels["labels"][:, 1:], batch["targets"][:, :-1])


def test_rows_of_text_have_no_images(inputs: dict[str, str]) -> None:
    data = ShardDataset(inputs["text"], tokens=tokens(inputs))
    assert PadRows(9)([data[0], data[1]])["images"] == []
