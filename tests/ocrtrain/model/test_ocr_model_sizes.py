"""Images of several sizes in one batch: each is what it would be alone, at its place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ocrdata.images.modes import ImageLayout
from ocrtrain.model.encoder import DeepEncoder
from ocrtrain.model.ocr_model import OcrModel, encoder_passes
from ocrtrain.model.tensor_names import to_deepencoder
from ocrtrain.settings.image_slots import layout_slots
from tests.support import oracle
from tests.support.encoders import REAL_HEADS, SMALL, pixels, randomise
from tests.support.models import IMAGE, close, random_model

SIZES = (64, 128, 192)  # px: smaller than the position grids of 128 px, equal, larger


def pictures(count: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shape = (50, 90, 3)
    return [torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8) for _ in range(count)]


@given(st.lists(st.sampled_from(SIZES), min_size=1, max_size=6), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_features_are_those_of_each_image_alone_in_order(sizes: list[int], passes: int) -> None:
    model = random_model()
    images, layouts = pictures(len(sizes)), [ImageLayout(size) for size in sizes]
    with torch.no_grad():
        found = model.see(images, layouts, passes=passes)
        alone = [model.see([one], [at]) for one, at in zip(images, layouts, strict=True)]
    assert found is not None and encoder_passes(layouts) == len(set(sizes))
    assert len(found) == sum(layout_slots(layout) for layout in layouts)
    close(found, torch.cat([one for one in alone if one is not None]))


@pytest.mark.parametrize("size", [64, 192])
def test_position_grids_fit_every_size(size: int) -> None:
    """SMALL has grids of 128 px for SAM and of 256 px for CLIP, REAL_HEADS those of 1,024 px."""
    for config in (SMALL, REAL_HEADS):
        encoder = DeepEncoder(config)
        randomise(encoder)
        with torch.no_grad():
            wanted = oracle.encoder(
                to_deepencoder(encoder), pixels(size),
                heads=(config.sam_heads, config.clip_heads), window=config.sam_window,
                full=config.sam_global_layers,
            )  # fmt: skip
            close(encoder(pixels(size)), wanted)


def prepared(model: OcrModel, rows: Sequence[Sequence[ImageLayout]]) -> Tensor:
    """Ids of rows of images, one text id between them, and padding."""
    ids = [
        [token for layout in row for token in ([IMAGE] * layout_slots(layout) + [7])] or [7]
        for row in rows
    ]
    longest = max(map(len, ids))
    return torch.tensor([row + [0] * (longest - len(row)) for row in ids])


def test_mixed_images_fill_their_slots_in_order() -> None:
    model, (small, large) = random_model(), (ImageLayout(64), ImageLayout(128))
    rows = [[large, small], [], [small], [small, large, small]]
    ids = prepared(model, rows)
    layouts = [layout for row in rows for layout in row]
    images = pictures(len(layouts))
    inputs = model.prepare(ids, torch.arange(ids.shape[1]).repeat(4, 1), ids, images, layouts)
    with torch.no_grad():
        embeds = model.embed(ids, model.see(images, layouts), inputs.slots_at)
    number = 0
    for at, row in enumerate(rows):
        start = 0
        for layout in row:
            alone = model.see([images[number]], [layout])
            assert alone is not None
            close(embeds[at, start : start + len(alone)], alone.detach())
            start, number = start + len(alone) + 1, number + 1


@pytest.mark.parametrize(
    "layouts",
    [
        [ImageLayout(64), ImageLayout(128)],  # the order differs: rows of 7 and 3 tokens
        [ImageLayout(128)],
        [ImageLayout(128), ImageLayout(64), ImageLayout(64)],
        [ImageLayout(64)] * 2,
    ],
)
def test_layouts_that_do_not_match_the_rows_are_an_error(layouts: list[ImageLayout]) -> None:
    model = random_model()
    ids = prepared(model, [[ImageLayout(128)], [ImageLayout(64)]])
    positions = torch.arange(ids.shape[1]).repeat(2, 1)
    with pytest.raises(ValueError, match=rf"^{len(layouts)} images .*slots.* \[7, 3\]"):
        model.prepare(ids, positions, ids, pictures(len(layouts)), layouts)


def test_gradients_of_a_mixed_batch_are_the_sums_of_its_images() -> None:
    layouts = [ImageLayout(64), ImageLayout(128), ImageLayout(64)]
    images, found = pictures(3), []
    for groups in ([range(3)], [range(1), range(1, 2), range(2, 3)]):
        model = random_model()
        for group in groups:
            features = model.see([images[n] for n in group], [layouts[n] for n in group])
            assert features is not None
            features.square().sum().backward()
        found.append({name: p.grad for name, p in model.encoder.named_parameters()})
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-3, atol=1e-4)


def test_blank_passes_leave_no_feature_and_gradients_of_zero() -> None:
    model = random_model()
    features = model.see([], [], passes=2)
    assert features is not None and features.shape == (0, SMALL.gpt_width)
    features.sum().backward()
    gradients = [p.grad for p in model.encoder.parameters()]
    assert all(one is not None and not one.any() for one in gradients)
    assert model.see([], []) is None
