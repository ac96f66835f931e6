"""What the members of a tar mean: ours, in any order, and other people's."""

import json
import shlex
import subprocess
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.commands.make_shards import main as make_shards
from ocrdata.errors import ShardError
from ocrdata.planning.counting import count_shards
from ocrdata.reading.view import open_shards
from ocrdata.sample import from_turns
from ocrdata.shards.members import fields_of, image_names, roles
from ocrdata.tokens.tokenizer import train_tokenizer
from tests.support.countkill import turns_of
from tests.support.rows import image, write_shard, write_tar


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
        ('[{"role": "assistant", "content": [], "loss_weight": 0}]', "sample a: .*other fields"),
        ('[{"role": "assistant", "content": [], "tool_calls": [1]}]', "sample a: .*other fields"),
        (
            '[{"role": "user", "content": [{"type": "image", "image": "b.png"}]}]',
            "sample a: .*other fields",
        ),
        (
            '[{"role": "user", "content": [{"type": "text", "text": "q", "image": "b.png"}]}]',
            "sample a: .*other fields",
        ),
        ('[{"role": "user", "content": [{"type": "image"}]}]', "sample a: .* 1 images.* 0$"),
    ],
)
def test_messages_that_are_not_ours(tmp_path: Path, messages: str, message: str) -> None:
    raw = f'{{"messages": {messages}}}'.encode()
    shards = open_shards(str(write_tar(tmp_path / "x.tar", [("a.json", raw)])))
    with pytest.raises(ShardError, match=message):
        shards[0]
    assert shards.members(0) == {"a.json": raw}


def test_fields_that_are_null_say_nothing(tmp_path: Path) -> None:
    """A table that became a tar has every field in every message."""
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "q", "image": None}]
    messages = [{"role": "user", "content": parts, "name": None, "weight": None}]
    files = [("a.json", json.dumps({"messages": messages}).encode()), ("a.png", image("PNG"))]
    assert open_shards(str(write_tar(tmp_path / "x.tar", files)))[0].messages == messages


def picture(number: int) -> bytes:
    """An image that is like no other one."""
    return image("PNG", 8 + number)


@settings(deadline=None, max_examples=20)
@given(data=st.data(), count=st.integers(0, 12))
def test_the_order_of_members_changes_no_sample(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int
) -> None:
    """Of a shard of ours, however another tool packs the members of a sample again."""
    folder = tmp_path_factory.mktemp("order")
    own = from_turns(
        [("Which?", "These.")], [picture(at) for at in range(count)], source="s", meta={}
    )
    write_shard(folder / "own-000.tar", [own])
    with tarfile.open(folder / "own-000.tar") as tar:
        files = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    written = open_shards(str(folder / "own-000.tar"))
    packed = write_tar(folder / "packed-000.tar", data.draw(st.permutations(files)))
    shards = open_shards(str(packed))
    assert list(shards) == [shards[0]] == [own]
    assert shards.row(0).images == written.row(0).images
    assert shards.image_digests(0) == written.image_digests(0)
    assert (shards.row(0).turns, shards.row(0).source) == (1, "s")


def test_a_shard_written_again_by_other_tools(tmp_path: Path) -> None:
    own = [
        from_turns([("Which?", "?")], [picture(at) for at in range(12)], source="s", meta={}),
        from_turns([("None?", "None.")], [], source="s", meta={}),
    ]
    write_shard(tmp_path / "own-000.tar", own)
    subprocess.run(["tar", "xf", "own-000.tar"], cwd=tmp_path, check=True)
    subprocess.run(["tar", "cf", "tar-000.tar", "--sort=name", "--exclude=*.tar",
                    "--exclude=*.parquet", "."], cwd=tmp_path, check=True)  # fmt: skip
    with webdataset.TarWriter(str(tmp_path / "wds-000.tar")) as sink:
        for at, members in enumerate(open_shards(str(tmp_path / "own-000.tar")).iter_members()):
            key = f"{at:09d}"
            fields = {name.removeprefix(f"{key}."): value for name, value in members.items()}
            sink.write({"__key__": key, **fields})
    for name in ("tar-000.tar", "wds-000.tar"):
        assert list(open_shards(str(tmp_path / name))) == own


def test_foreign_images_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = sorted(f"p.{number}.jpg" for number in range(12))
    assert names[2] == "p.10.jpg"
    files = [(name, picture(int(name.split(".")[1]))) for name in names]
    shards = open_shards(str(write_tar(tmp_path / "x.tar", [*files, ("p.txt", b"12 pages")])))
    assert shards[0].images == [picture(number) for number in range(12)]
    assert [info.width for info in shards.row(0).images] == [8 + number for number in range(12)]


@pytest.mark.parametrize(
    ("names", "images", "unused"),
    [
        ("jpg seg.png txt", "jpg", "seg.png"),
        ("depth.png jpg mask.png txt", "jpg", "depth.png mask.png"),
        ("2.jpg 1.JPG seg.png caption", "1.JPG 2.jpg", "seg.png"),
        ("png 2.png 1.png TXT", "png 1.png 2.png", ""),
        ("image.jpg seg.png txt", "image.jpg", "seg.png"),
        ("image.jpg png txt", "png", "image.jpg"),
        ("input.png output.png txt", "input.png", "output.png"),
        ("page.1.tif page.0.tif txt cls", "page.0.tif page.1.tif", "cls"),
        ("image.png input.png txt", "image.png", "input.png"),
        ("txt caption Webp json", "Webp", "caption"),
        ("jpg.txt jpg txt", "jpg", "jpg.txt"),
    ],
)
def test_which_fields_are_images(tmp_path: Path, names: str, images: str, unused: str) -> None:
    files = {f"a/k.{field}": picture(at) for at, field in enumerate(names.split())}
    texts = {name: b'{"x": 1}' for name in files if name.lower().endswith(("txt", "ion", "json"))}
    files |= texts
    shards = open_shards(str(write_tar(tmp_path / "x.tar", files.items())))
    wanted = [f"a/k.{field}" for field in images.split()]
    assert shards[0].images == [files[name] for name in wanted]
    assert image_names(list(files)) == wanted
    assert len(shards.row(0).images) == len(wanted)
    found = roles(fields_of(files))
    assert [list(files)[at].removeprefix("a/k.") for at in found.unused] == unused.split()


@pytest.mark.parametrize("names", ["seg.png txt", "depth.png mask.png txt", "output.jpg caption"])
def test_a_sample_without_an_image_of_its_own(tmp_path: Path, names: str) -> None:
    files = [(f"k.{field}", picture(1)) for field in names.split()]
    shards = open_shards(str(write_tar(tmp_path / "x.tar", files)))
    with pytest.raises(ShardError, match=rf"sample k: .*{files[0][0]}"):
        shards[0]
    assert (shards.row(0).turns, shards.row(0).images) == (0, ())
    assert shards.members(0) == dict(files)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("jpg png txt", "number, 0: jpg and png"),
        ("jpg 0.jpg txt", r"number, 0: 0\.jpg and jpg"),
        ("1.jpg 01.jpg txt", r"number, 1: 01\.jpg and 1\.jpg"),
        ("jpg txt TXT", "txt, .*capital"),
        ("jpg JPG txt", "jpg, .*capital"),
    ],
)
def test_ambiguous_fields_make_a_sample_unusable(tmp_path: Path, names: str, message: str) -> None:
    files = [(f"k.{field}", picture(1)) for field in names.split()]
    shards = open_shards(str(write_tar(tmp_path / "x.tar", files)))
    with pytest.raises(ShardError, match=f"sample k: .*{message}") as caught:
        shards[0]
    assert (caught.value.key, shards.row(0).turns) == ("k", 0)
    assert shards.members(0) == dict(files)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_captions_without_a_text_are_no_answers(tmp_path: Path, mark: bytes) -> None:
    blanks = [b"", b" \n\t", "\u3000\u00a0".encode()]
    texts = [*blanks, b"  a red square\r\n", b" " * (2 << 20)]
    files = [
        file
        for at, text in enumerate(texts)
        for file in ((f"{at}.jpg", image("JPEG")), (f"{at}.TXT", mark + text))
    ]
    shards = open_shards(str(write_tar(tmp_path / "x.tar", files)))
    assert shards[3].messages[1]["content"] == [{"type": "text", "text": "  a red square\r\n"}]
    assert [shards.row(at).turns for at in range(5)] == [0, 0, 0, 1, 0]
    for at in (0, 1, 2, 4):
        with pytest.raises(ShardError, match=rf"sample {at}: member {at}\.TXT: .*blank"):
            shards[at]
    tokenizer = train_tokenizer(["a red square"], 270)
    assert [len(counts) for counts in turns_of(count_shards(shards, tokenizer))] == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path, form: int) -> None:
    with tarfile.open(
        tmp_path / "x.tar", "w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        tar.addfile(tarfile.TarInfo("a\udcff.jpg"))
    with pytest.raises(ShardError, match=r"x\.tar: .*name .*UTF-8") as caught:
        open_shards(str(tmp_path / "x.tar"))
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_what_an_error_says_converts_the_tar_does(tmp_path: Path) -> None:
    """A text in a field of another name, messages whose content is a string, LLaVA's, and messages
    that say more than ours, in an order of images of their own."""
    strings = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A square."}]
    named = [{"type": "image", "image": f"a.{name}"} for name in ("1.png", "png")]
    more = [{"role": "user", "content": named}, {**strings[1], "name": "n"}]
    pictures = [("a.png", picture(0)), ("a.1.png", picture(1))]
    ours = {"messages": more, "source": "s", "meta": {}}
    spoken = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A square."}]
    tars = {
        "llava": [("a.json", json.dumps({"conversations": spoken}).encode()), pictures[0]],
        "more": [("a.json", json.dumps(ours).encode()), *pictures],
        "fields": [("a.input.jpg", image("JPEG")), ("a.outputs.txt", b"a square")],
        "strings": [("a.json", json.dumps({"messages": strings}).encode())],
    }
    for name, files in tars.items():
        with pytest.raises(ShardError) as caught:
            open_shards(str(write_tar(tmp_path / f"{name}.tar", files)))[0]
        words = shlex.split(caught.value.remedy)
        assert words[:3] == ["python", "tools/make_shards.py", "webdataset"]
        command = words[2 : words.index("FIELD") + 1 if "FIELD" in words else 5]
        command = ["outputs.txt" if word == "FIELD" else word for word in command]
        assert make_shards([*command, "--out", str(tmp_path / "out")]) == 0
        (made,) = open_shards(str(tmp_path / "out" / f"{name}-000.tar"))
        assert made.turns == 1
        if name == "more":
            assert made.images == [picture(1), picture(0)]
            assert made.meta["message_fields"] == {"1": {"name": "n"}}
