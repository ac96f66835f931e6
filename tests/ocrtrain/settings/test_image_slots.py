"""The number of positions an image takes."""

from __future__ import annotations

import pytest

from ocrdata.errors import UsageError
from ocrtrain.settings.image_slots import image_slots


@pytest.mark.parametrize(("size", "slots"), [(512, 73), (640, 111), (1024, 273), (1280, 421)])
def test_image_slots(size: int, slots: int) -> None:
    assert image_slots(size) == slots


@pytest.mark.parametrize("size", [0, -64, 100, 1000])
def test_sizes_that_are_not_multiples_of_64_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"{size} px .*multiple of 64"):
        image_slots(size)
