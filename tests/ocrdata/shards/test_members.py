from pathlib import Path

import pytest

from ocrdata.errors import ShardError
from ocrdata.reading.view import open_shards
from tests.support.rows import image, write_tar


def test_anybodys_webdataset(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "photos.tar",
        [
            ("p/one.jpg", image("JPEG")),
            ("p/one.txt", b"ein Bild"),
            ("p/two.caption", b"two pictures"),
            ("p/two.0.png", image("PNG")),
            ("p/two.1.PNG", image("PNG", 9)),
            ("p/two.json", b'{"source": "web", "licence": "CC0"}'),
            ("p/three.txt", b"no image"),
            ("p/four.cls", b"4"),
            ("p/five.json", b"{"),
            ("p/six.png", image("PNG")),
            ("p/six.txt", b"\xff"),
            ("p/seven.json", b'{"messages": [], "source": "s"}'),
            ("p/eight.json", b'{"messages": [], "source": 8, "meta": 8}'),
        ],
    )
    shards = open_shards(str(tar))
    assert shards.source_name == "photos"
    assert len(shards) == 8
    one, two = shards[0], shards.by_key("p/two")
    assert one.messages == [
        {"role": "user", "content": [{"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "ein Bild"}]},
    ]
    assert (one.images, one.turns, one.meta) == ([image("JPEG")], 1, {})
    assert two.images == [image("PNG"), image("PNG", 9)]
    assert len(two.messages[0]["content"]) == 2
    assert (two.source, two.meta["licence"]) == ("web", "CC0")
    assert shards.members(3) == {"p/four.cls": b"4"}
    for at, message in (
        (2, r"sample p/three: .*p/three\.txt"),
        (3, r"sample p/four: .*p/four\.cls"),
        (4, r"sample p/five: member p/five\.json: .*JSON"),
        (5, "sample p/six: .*UTF-8"),
        (7, "sample p/eight: .*source.*meta"),
    ):
        with pytest.raises(ShardError, match=message):
            shards[at]
    assert shards[6].source == "s"


def test_suffixes_in_upper_case(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "photos.tar",
        [
            ("one.JSON", b'{"messages": [], "source": "s"}'),
            ("two.PNG", image("PNG")),
            ("two.TXT", b"a picture"),
            ("three.JSON", b"{"),
        ],
    )
    shards = open_shards(str(tar))
    assert shards[0].source == "s"
    assert (shards[1].turns, shards[1].images) == (1, [image("PNG")])
    with pytest.raises(ShardError, match=r"sample three: member three\.JSON: .*JSON"):
        shards[2]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ('[{"role": "user", "content": "a string"}]', "sample a: .*messages"),
        ('[{"role": "user", "content": ["a string"]}]', "sample a: .*messages"),
        ('[{"role": "user", "content": [{"type": "text"}]}]', "sample a: .*messages"),
        ('[{"role": "user", "content": [{"type": "audio"}]}]', "sample a: .*messages"),
        ('[{"content": []}]', "sample a: .*messages"),
        ("[1]", "sample a: .*messages"),
        ('[{"role": "user", "content": [{"type": "image"}]}]', "sample a: .* 1 images.* 0$"),
    ],
)
def test_messages_that_are_not_ours(tmp_path: Path, messages: str, message: str) -> None:
    raw = f'{{"messages": {messages}}}'.encode()
    shards = open_shards(str(write_tar(tmp_path / "x.tar", [("a.json", raw)])))
    with pytest.raises(ShardError, match=message):
        shards[0]
    assert shards.members(0) == {"a.json": raw}
