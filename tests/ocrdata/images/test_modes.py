"""Grids of tiles compared with the rule of DeepSeek-OCR's processor, image by image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageLayout, ImageMode, parse_mode

GUNDAM = ImageMode(1024, 640, 6)
sides = st.one_of(st.integers(1, 4000), st.sampled_from([1, 639, 640, 641, 1280, 65_500]))


def by_hand(width: int, height: int, tile: int, most: int) -> tuple[int, int]:
    """Columns and rows: grids by their number of tiles; a closer aspect ratio wins, and of equal
    ones a later grid if the image has more than half of its pixels. (0, 0): it fits into a tile."""
    if width <= tile and height <= tile:
        return 0, 0
    best, closest = (0, 0), float("inf")
    for tiles in range(2, most + 1):
        for columns in range(1, tiles + 1):
            rows, rest = divmod(tiles, columns)
            gap = abs(width / height - columns / rows)
            if rest:
                continue
            if gap < closest:
                best, closest = (columns, rows), gap
            elif gap == closest and width * height > 0.5 * tile * tile * tiles:
                best = columns, rows
    return best


@given(sizes=st.lists(st.tuples(sides, sides), min_size=1, max_size=20), most=st.integers(2, 12))
@example([(1000, 400), (2000, 800), (100, 1200), (641, 640), (640, 641)], 6)
def test_grids_are_those_of_the_rule(sizes: list[tuple[int, int]], most: int) -> None:
    mode = GUNDAM._replace(most=most)
    widths, heights = np.array(sizes).T
    columns, rows = mode.grids(widths, heights)
    for number, (width, height) in enumerate(sizes):
        grid = by_hand(width, height, 640, most)
        assert (columns[number], rows[number]) == grid, (width, height)
        wanted = ImageLayout(1024, 640, *grid) if grid != (0, 0) else ImageLayout(1024)
        assert mode.layout(width, height) == wanted
        assert wanted.tiles == grid[0] * grid[1] <= most


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (640, 640, (0, 0)), (641, 640, (2, 2)), (1000, 1400, (2, 3)), (1400, 1000, (3, 2)),
        (3000, 500, (6, 1)), (300, 5000, (1, 6)), (1700, 800, (2, 1)),
        # 2.5 is as far from 2:1 as from 3:1: three tiles if their pixels are more than half filled.
        (1000, 400, (2, 1)), (2000, 800, (3, 1)),
    ],
)  # fmt: skip
def test_known_grids(width: int, height: int, grid: tuple[int, int]) -> None:
    layout = GUNDAM.layout(width, height)
    assert (layout.columns, layout.rows) == grid


def test_a_mode_without_tiles_has_one_layout() -> None:
    assert ImageMode(256).layout(5000, 7) == ImageLayout(256)
    columns, rows = ImageMode(256).grids(np.array([5000]), np.array([7]))
    assert (columns.tolist(), rows.tolist()) == ([0], [0])


@pytest.mark.parametrize("text", ["64", "1024", "6x640+1024", "2x64+128"])
def test_a_mode_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_mode(text)) == text


def test_gundam_is_read() -> None:
    assert parse_mode("6x640+1024") == GUNDAM
    assert parse_mode("256") == ImageMode(256)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not .*6x640"), ("-64", "'-64'"), ("640x640", "'640x640'"), ("1e3", "'1e3'"),
        ("6x640", "'6x640'"), ("0", "image size 0: 0 px"), ("6x0+1024", "6x0.1024: 0 px"),
        ("1x640+1024", "1 tiles; give 2 to 64"), ("65x64+64", "65 tiles"),
    ],
)  # fmt: skip
def test_what_is_no_mode_is_refused_with_the_rule(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_mode(text)
