"""Loading one decoded sample, and which errors allow skipping it."""

from pathlib import Path

import pytest

from ocrdata.errors import DigestError, ShardError, TransportError
from ocrdata.images.modes import ImageMode
from ocrdata.reading.samples import load_sample, skippable
from ocrdata.reading.view import open_shards
from ocrdata.sample import from_turns
from ocrdata.shards.writer import ShardWriter
from tests.support.numbered import square


def shard(folder: Path, images: list[bytes]) -> str:
    path = folder / "x-000.tar"
    with ShardWriter(path) as writer:
        writer.write("000000000", from_turns([("what?", "this")], images, source="s", meta={}))
    return str(path)


def test_images_are_decoded_in_order(tmp_path: Path) -> None:
    spec = shard(tmp_path, [square("red", (4, 2)), square("blue", (1, 3))])
    item = load_sample(open_shards(spec), 0, source="mine", mode=ImageMode(64))
    assert (item.source, item.sample.source, item.ref.key) == ("mine", "s", "000000000")
    assert [image.shape for image in item.images] == [(2, 4, 3), (3, 1, 3)]
    assert item.images[0].tolist() == [[[255, 0, 0]] * 4] * 2


def test_error_of_an_undecodable_image_names_the_sample(tmp_path: Path) -> None:
    spec = shard(tmp_path, [square("red", (40, 40))[:-30]])
    with pytest.raises(ShardError, match="image 0: ") as caught:
        load_sample(open_shards(spec), 0, source="mine", mode=ImageMode(64))
    assert (caught.value.shard, caught.value.key) == ("x-000.tar", "000000000")
    assert skippable(caught.value)


def test_only_the_content_of_one_sample_is_skippable() -> None:
    assert skippable(DigestError("x.tar", "mismatch", key="1"))
    assert not skippable(ShardError("x.tar", "about the whole shard"))
    assert not skippable(TransportError("x.tar", "cannot be read", key="1"))
