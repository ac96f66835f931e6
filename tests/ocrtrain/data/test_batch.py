"""Batches: shifted targets, padding that no token attends to, images in the order of their rows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError, UsageError
from ocrdata.images.modes import ImageLayout, ImageMode
from ocrdata.reading.samples import DecodedSample
from ocrdata.reading.view import SampleRef
from ocrdata.sample import Sample, from_turns
from ocrdata.tokens.rendering import IGNORE, render
from ocrdata.tokens.tokenizer import Tokenizer, train_tokenizer
from ocrtrain.data.batch import Batch, collate, masked_sample, prepare_sample
from ocrtrain.data.batch_rows import identity_of
from ocrtrain.settings.image_slots import image_slots

SIZE = 64  # px; 2 image positions
MODE = ImageMode(SIZE)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["What is the value of the blue bar? It is 12 percent."] * 9, 300)


def item(position: int, turns: list[tuple[str, str]], images: int = 0) -> DecodedSample:
    """A sample with recognisable images: image n of sample p is filled with 10 p + n."""
    pixels = tuple(
        np.full((4 + n, 6 + position, 3), 10 * position + n, np.uint8) for n in range(images)
    )
    return DecodedSample(
        ref=SampleRef("charts-000.tar", f"{position:09d}", position, "0" * 32),
        source="charts" if images else "chat",
        sample=from_turns(turns, [b""] * images, source="x", meta={}),
        images=pixels,
    )


def make(items: list[DecodedSample], tokenizer: Tokenizer, seq_len: int = 500) -> Batch:
    return pack([[one] for one in items], tokenizer, seq_len)


def pack(rows: list[list[DecodedSample]], tokenizer: Tokenizer, seq_len: int = 500) -> Batch:
    """Several samples a row."""
    samples = [
        [prepare_sample(one, tokenizer=tokenizer, mode=MODE, seq_len=seq_len) for one in row]
        for row in rows
    ]
    return collate(3, samples, tokenizer=tokenizer)


texts = st.text("What blue 12%", min_size=1, max_size=20)
some_items = st.lists(
    st.tuples(st.lists(st.tuples(texts, texts), min_size=1, max_size=3), st.integers(0, 2)),
    min_size=1,
    max_size=6,
).map(lambda rows: [item(n, turns, images) for n, (turns, images) in enumerate(rows)])


@given(items=some_items)
@settings(max_examples=100, deadline=None)
def test_each_row_is_the_rendering_of_its_sample(
    tokenizer: Tokenizer, items: list[DecodedSample]
) -> None:
    batch = make(items, tokenizer)
    slots = image_slots(SIZE)
    rendered = [render(i.sample.messages, tokenizer, [slots] * len(i.images)) for i in items]
    longest = max(map(len, rendered))
    assert batch.input_ids.shape == batch.targets.shape == (len(items), longest)
    assert batch.input_ids.dtype == batch.targets.dtype == batch.position_ids.dtype == torch.int64
    assert torch.equal(batch.position_ids, torch.arange(longest).expand(len(items), -1))
    assert batch.tokens == sum(map(len, rendered))
    assert batch.supervised == sum(int(r.loss_mask.sum()) for r in rendered)
    for row, r in enumerate(rendered):
        ids = [*r.ids.tolist(), *[tokenizer.bos] * (longest - len(r))]
        assert batch.input_ids[row].tolist() == ids
        expected = [
            ids[t + 1] if t + 1 < len(r) and r.loss_mask[t + 1] else IGNORE for t in range(longest)
        ]
        assert batch.targets[row].tolist() == expected
    assert int((batch.input_ids == tokenizer.image).sum()) == slots * len(batch.images)
    assert [int(image[0, 0, 0]) for image in batch.images] == [
        10 * n + k for n, i in enumerate(items) for k in range(len(i.images))
    ]
    assert batch.refs == tuple(i.ref for i in items)
    assert batch.sources == tuple(i.source for i in items)
    assert batch.step == 3 and batch.truncated_tokens == batch.truncated_turns == 0


@given(items=some_items, data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_packed_row_is_its_samples_rows_one_after_the_other(
    tokenizer: Tokenizer, items: list[DecodedSample], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(items) - 1)))))
    bounds = [0, *(cut for cut in cuts if cut < len(items)), len(items)]
    groups = [items[a:b] for a, b in itertools.pairwise(bounds)]
    packed, alone = pack(groups, tokenizer), make(items, tokenizer)
    assert (packed.tokens, packed.supervised) == (alone.tokens, alone.supervised)
    assert [int(i[0, 0, 0]) for i in packed.images] == [int(i[0, 0, 0]) for i in alone.images]
    assert packed.refs == alone.refs
    flat = [(number, part) for number, row in enumerate(packed.rows) for part in row.segments]
    for (row, part), single, own in zip(flat, alone.rows, range(len(items)), strict=True):
        where = slice(part.start, part.start + part.length)
        assert part.length == single.length and part.images == single.images
        for name in ("input_ids", "targets", "position_ids"):
            found, wanted = getattr(packed, name)[row, where], getattr(alone, name)[own]
            assert torch.equal(found, wanted[: single.length])
    for row in packed.rows:
        starts = [part.start for part in row.segments]
        assert starts == np.cumsum([0, *(part.length for part in row.segments)])[:-1].tolist()


def test_the_identity_of_a_batch_follows_from_its_parts_row_identities(
    tokenizer: Tokenizer,
) -> None:
    items = [item(n, [("What?", "12" * (n + 1))], n % 2) for n in range(4)]
    whole = make(items, tokenizer)
    halves = [make(items[:2], tokenizer), make(items[2:], tokenizer)]
    rows = [identity for half in halves for identity in half.row_identities]
    assert identity_of(rows) == whole.identity
    assert len(set(rows)) == 4


def test_a_masked_sample_keeps_its_place(tokenizer: Tokenizer) -> None:
    items = [item(n, [("What?", "12")], 1) for n in range(3)]
    samples = [prepare_sample(i, tokenizer=tokenizer, mode=MODE, seq_len=500) for i in items]
    samples[1] = masked_sample(items[1].ref, "charts", reason="truncated", tokenizer=tokenizer)
    for rows in ([samples], [[sample] for sample in samples]):
        batch = collate(3, rows, tokenizer=tokenizer)
        assert [part.skipped for part in batch.segments] == ["", "truncated", ""]
        assert [part.ref for part in batch.skipped] == [items[1].ref]
        assert [part.length for part in batch.segments][1] == 1
        assert len(batch.images) == 2
        whole = make([items[0], items[2]], tokenizer)
        assert batch.supervised == whole.supervised and batch.tokens == whole.tokens + 1


@given(items=some_items, rows=st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_micro_batches_are_the_batches_of_their_rows(
    tokenizer: Tokenizer, items: list[DecodedSample], rows: int
) -> None:
    batch = make(items, tokenizer)
    parts = batch.split(rows)
    assert [len(part.rows) for part in parts][:-1] == [rows] * (len(parts) - 1)
    assert sum(part.tokens for part in parts) == batch.tokens
    assert sum(part.supervised for part in parts) == batch.supervised
    assert [row for part in parts for row in part.rows] == list(batch.rows)
    assert [id(i) for part in parts for i in part.images] == [id(i) for i in batch.images]
    for start, part in zip(range(0, len(items), rows), parts, strict=True):
        again = make(items[start : start + rows], tokenizer)
        assert part.identity == again.identity  # a micro-batch is the batch of its own rows


def test_a_micro_batch_of_no_rows_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"micro-batch.*\b0\b"):
        make([item(0, [("a", "b")])], tokenizer).split(0)


def test_the_identity_depends_on_every_part_of_a_batch(tokenizer: Tokenizer) -> None:
    items = [item(0, [("What?", "12")], 1), item(1, [("blue?", "12 and more")], 1)]
    batch = make(items, tokenizer)
    assert batch.identity == make(items, tokenizer).identity
    assert len(batch.identity) == 32
    one_pixel = batch.images[0].clone()
    one_pixel[0, 0, 0] += 1
    targets = batch.targets.clone()
    targets[1, -2] = 5
    others: list[Batch] = [
        make(items[::-1], tokenizer),
        make(items[:1], tokenizer),
        make([items[0], item(1, [("blue?", "12 and mora")], 1)], tokenizer),
        replace(batch, images=(one_pixel, batch.images[1])),
        replace(batch, images=(batch.images[0].transpose(0, 1).contiguous(), batch.images[1])),
        replace(batch, layouts=(ImageLayout(128),) * len(batch.images)),
        replace(batch, targets=targets),
        replace(batch, position_ids=batch.position_ids + 1),
    ]
    assert len({batch.identity, *(other.identity for other in others)}) == 9


def test_truncating_at_a_turn_removes_its_images(tokenizer: Tokenizer) -> None:
    messages: list[dict[str, Any]] = []
    for number in range(2):
        user = [{"type": "image"}, {"type": "text", "text": f"blue {number}?"}]
        messages.append({"role": "user", "content": user})
        answer = [{"type": "text", "text": "12 percent"}]
        messages.append({"role": "assistant", "content": answer})
    base = item(5, [("", "")], 2)
    two = replace(base, sample=Sample(messages, [b"", b""]))
    whole = make([two], tokenizer)
    assert len(whole.images) == 2
    cut = make([two], tokenizer, seq_len=whole.tokens - 1)
    assert [int(image[0, 0, 0]) for image in cut.images] == [50]
    assert cut.rows[0].images == 1 and cut.truncated_turns == 1
    assert cut.tokens + cut.truncated_tokens == whole.tokens
    assert cut.input_ids[0, -1] == tokenizer.assistant_end


def test_errors_name_the_sample(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match=r"charts-000\.tar: sample 000000007: .*seq_len 1\b"):
        make([item(7, [("What is the value?", "12")], 1)], tokenizer, seq_len=1)
    broken = replace(item(7, [("a", "b")]), sample=Sample([{"role": "user", "content": []}]))
    with pytest.raises(ShardError, match=r"charts-000\.tar: sample 000000007: .*role"):
        make([broken], tokenizer)
    missing = replace(item(7, [("a", "b")], 2), images=())
    with pytest.raises(ShardError, match=r"sample 000000007: .*\b2 images"):
        make([missing], tokenizer)
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match=r"step 3: .*no samples"):
            collate(3, rows, tokenizer=tokenizer)


def test_a_question_that_does_not_fit_is_masked_and_counted_as_truncated(
    tokenizer: Tokenizer,
) -> None:
    whole = make([item(0, [("What?", "12")], 1)], tokenizer)
    batch = make([item(7, [("What is it? " * 40, "12")], 1), item(0, [("What?", "12")], 1)],
                 tokenizer, seq_len=whole.tokens)  # fmt: skip
    assert [row.length for row in batch.rows] == [1, whole.tokens]
    assert [row.images for row in batch.rows] == [0, 1]
    assert (batch.targets[0] == IGNORE).all()
    assert torch.equal(batch.targets[1:], whole.targets)
    assert len(batch.images) == 1
    assert (batch.truncated_turns, batch.supervised) == (1, whole.supervised)
