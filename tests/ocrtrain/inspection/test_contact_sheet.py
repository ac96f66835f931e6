"""The contact sheet: every image in its place, a card for every text, bars as long as rows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from ocrtrain.inspection.contact_sheet import (
    BAR,
    BARS,
    COLUMNS,
    KINDS,
    MARGIN,
    MASKED,
    THUMB,
    WIDTH,
    sheet,
    thumbnail,
    tile_place,
    tiles,
    tiles_top,
)
from ocrtrain.inspection.limits import Limits
from ocrtrain.inspection.rebuild import RebuiltBatch
from ocrtrain.model.pixels import encoder_view
from tests.support.showing import rebuilt_of, talk


def drawn(rebuilt: RebuiltBatch, limits: Limits) -> Image.Image:
    """The sheet after saving it as PNG and reading it back."""
    buffer = io.BytesIO()
    sheet(rebuilt, limits).save(buffer, "PNG")
    image = Image.open(buffer)
    image.load()
    assert (image.format, image.mode, image.width) == ("PNG", "RGB", WIDTH)
    return image


def at(image: Image.Image, rebuilt: RebuiltBatch, limits: Limits, number: int) -> Image.Image:
    left, top = tile_place(number, tiles_top(rebuilt, limits))
    assert left >= MARGIN and left + THUMB <= WIDTH - MARGIN and top + THUMB <= image.height
    return image.crop((left, top, left + THUMB, top + THUMB))


def test_tiles_are_in_the_order_of_the_batch() -> None:
    limits = Limits()
    rebuilt = rebuilt_of([[talk("q", "a", 3), talk("q", "a")], [talk("q", "a", 2)], ["torn"]])
    image = drawn(rebuilt, limits)
    found = tiles(rebuilt, limits)
    assert [tile.image for tile in found] == [0, 1, 2, -1, 3, 4, -1]
    for number, tile in enumerate(found):
        piece = np.asarray(at(image, rebuilt, limits, number))
        if tile.image >= 0:
            wanted = Image.fromarray(encoder_view(rebuilt.batch.images[tile.image], 64).numpy())
            assert np.array_equal(piece, np.asarray(thumbnail(wanted)))
        else:
            assert piece.min() < 100, "a card with letters on it"
    masked = np.asarray(at(image, rebuilt, limits, 6)).reshape(-1, 3)
    assert (masked == ImageColor.getrgb(MASKED)).all(1).any()


@pytest.mark.parametrize("rows", [[["why"]], [[talk("q", "a")]] * 7, [[talk("", "")] * 9]])
def test_batches_without_images(rows: list[list[object]]) -> None:
    rebuilt = rebuilt_of(rows)  # type: ignore[arg-type]
    image = drawn(rebuilt, Limits())
    assert len(tiles(rebuilt, Limits())) == len(rebuilt.samples)
    assert image.height > tiles_top(rebuilt, Limits()) + THUMB


def test_limits_are_kept() -> None:
    rebuilt = rebuilt_of([[talk("q", "a", 3), talk("q", "a")] for _ in range(90)])
    limits = Limits(rows=9999, samples=9999, images=4)
    found = tiles(rebuilt, limits)
    assert sum(tile.image >= 0 for tile in found) == 4
    assert len(found) == 94
    assert len(tiles(rebuilt, Limits(samples=1))) == 3
    image = drawn(rebuilt, Limits(images=4))
    assert image.height < 8000
    few, more = (tiles_top(rebuilt, Limits(rows=n, images=4)) for n in (2, BARS))
    assert more - few == (BARS - 2) * (BAR + 4)
    assert tiles_top(rebuilt, Limits(rows=BARS + 9, images=4)) == more
    assert drawn(rebuilt, Limits(0, 0, 0, 0)).height < 400


def test_bars_show_what_the_positions_are() -> None:
    rebuilt = rebuilt_of([[talk("question", "answer " * 9, 1)], [talk("q", "a")]])
    image = np.asarray(drawn(rebuilt, Limits()))
    top = tiles_top(rebuilt, Limits()) - MARGIN - 2 * (BAR + 4)
    left, right = MARGIN + 70, WIDTH - MARGIN
    width = rebuilt.batch.input_ids.shape[1]
    for row in range(2):
        line = image[top + row * (BAR + 4) + 7, left:right]
        for kind, colour in KINDS.items():
            share = (line == ImageColor.getrgb(colour)).all(1).mean()
            wanted = {
                "image": 3 * rebuilt.batch.rows[row].images,
                "supervised": int((rebuilt.batch.targets[row] != -100).sum()),
            }
            wanted["context"] = rebuilt.batch.rows[row].length - sum(wanted.values())
            assert share == pytest.approx(wanted[kind] / width, abs=0.01)


def test_any_text_can_be_drawn() -> None:
    for text in ("中文🙂", "\x00\x1b[31m", "\u202eabc", "a" * 500, "\n" * 50, ""):
        drawn(rebuilt_of([[talk(text, text, 1)], [talk(text, text)], [text or "x"]]), Limits())


def test_five_tiles_a_line() -> None:
    assert COLUMNS == 5
    places = [tile_place(number, 100) for number in range(12)]
    assert len(set(places)) == 12 and places[5][0] == places[0][0] and places[5][1] > places[0][1]
