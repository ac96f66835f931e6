"""The number of positions an image takes."""

from __future__ import annotations

import pytest

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageLayout
from ocrtrain.settings.image_slots import image_slots, layout_slots


@pytest.mark.parametrize(("size", "slots"), [(512, 73), (640, 111), (1024, 273), (1280, 421)])
def test_image_slots(size: int, slots: int) -> None:
    assert image_slots(size) == slots


@pytest.mark.parametrize(("columns", "rows"), [(2, 1), (1, 2), (2, 3), (6, 1), (1, 6)])
def test_slots_of_gundam(columns: int, rows: int) -> None:
    """273 + 10 * rows * (10 * columns + 1): lines of 10 features a tile, and a newline each."""
    lines = [["feature"] * 10 * columns + ["newline"] for _ in range(10 * rows)]
    view = [["feature"] * 16 + ["newline"] for _ in range(16)]
    count = sum(map(len, lines)) + sum(map(len, view)) + 1
    layout = ImageLayout(1024, 640, columns, rows)
    assert layout_slots(layout) == count == 273 + 10 * rows * (10 * columns + 1)
    assert layout_slots(ImageLayout(1024)) == 273


@pytest.mark.parametrize("size", [0, -64, 100, 1000])
def test_sizes_that_are_not_multiples_of_64_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"{size} px .*multiple of 64"):
        image_slots(size)
