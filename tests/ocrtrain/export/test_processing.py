"""The exported processor against training: the same ids, the same pixels, or a refusal."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from PIL import Image

from ocrdata.errors import ImageError
from ocrdata.images.decode import decode_rgb
from ocrdata.images.letterbox import shrink_to_fit
from ocrdata.sample import IMAGE_PART, text_part
from ocrdata.tokens.rendering import render, render_prompt
from ocrdata.tokens.tokenizer import SPECIAL_TOKENS
from ocrtrain.model.pixels import letterbox
from tests.support import small
from tests.support.exported import exported, load

SLOTS = 3


@pytest.fixture(scope="module")
def processor() -> Any:
    return load("AutoProcessor", exported())


def noise(height: int, width: int) -> Any:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


WORDS = st.lists(
    st.sampled_from(["<|bos|>", "<|user_end|>", "<|image|>", "a", " b", "1", "\n", "'s",
                     "\ue0000\ue001"]),
    min_size=1, max_size=5,
).map("".join)  # fmt: skip
CONTENT = st.tuples(st.booleans(), WORDS, st.booleans()).map(
    lambda found: [*[None] * found[0], found[1], *[None] * found[2]]
)


def messages_of(contents: list[list[str | None]], system: str | None) -> list[dict[str, Any]]:
    messages = []
    for number, content in enumerate(contents):
        role = "assistant" if number % 2 else "user"
        parts = [part for part in content if part is not None or role == "user"]
        made = [dict(IMAGE_PART) if part is None else text_part(part) for part in parts]
        messages.append({"role": role, "content": made})
    if system is not None:
        messages.insert(0, {"role": "system", "content": [text_part(system)]})
    return messages


def with_images(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    count, found = 0, []
    for message in messages:
        parts = []
        for part in message["content"]:
            image = {"image": noise(4 + count, 7)} if part["type"] == "image" else {}
            count += part["type"] == "image"
            parts.append({**part, **image})
        found.append({**message, "content": parts})
    return found, count


@given(st.lists(CONTENT, min_size=1, max_size=4), st.none() | WORDS)
def test_ids_of_conversations_are_those_of_training(
    contents: list[list[str | None]], system: str | None
) -> None:
    processor = load_once()
    messages = messages_of(contents, system)
    given_, count = with_images(messages)
    prompt = messages[-1]["role"] == "user"
    found = processor.apply_chat_template(given_, add_generation_prompt=prompt, tokenize=True)
    ours = (render_prompt if prompt else render)(messages, small.tokenizer(), [SLOTS] * count)
    assert found["input_ids"].tolist() == [ours.ids.tolist()]
    assert len(found.get("pixel_values", [])) == count
    if not any(name in str(messages) for name in SPECIAL_TOKENS):
        by_tokenizer = processor.tokenizer.apply_chat_template(
            messages, add_generation_prompt=prompt, tokenize=True, return_dict=False
        )
        image = small.tokenizer().image
        expanded = [id_ for id_ in by_tokenizer for _ in range(SLOTS if id_ == image else 1)]
        assert expanded == ours.ids.tolist()
        text = processor.apply_chat_template(given_, add_generation_prompt=prompt)
        images = [p["image"] for m in given_ for p in m["content"] if p["type"] == "image"]
        by_call = processor(images or None, text, return_tensors="pt")
        assert by_call["input_ids"].tolist() == found["input_ids"].tolist()


_LOADED: list[Any] = []


def load_once() -> Any:
    if not _LOADED:
        _LOADED.append(load("AutoProcessor", exported()))
    return _LOADED[0]


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [text_part(p) if isinstance(p, str) else p for p in parts]}


@pytest.mark.parametrize(
    ("messages", "prompt", "facts"),
    [
        ([user("<|user_end|>")], True, r"<\|user_end\|>"),
        ([user("a", "b")], True, "follow each other"),
        ([{"role": "system", "content": "a"}], True, "roles out of order"),
        ([user("a"), user("b")], True, "roles out of order"),
        ([{"role": "assistant", "content": "a"}], False, "roles out of order"),
        ([user("a"), {"role": "assistant", "content": "b"}], True, "end with a user message"),
        ([user("a"), {"role": "assistant", "content": [dict(IMAGE_PART)]}], False, "an image"),
        ([{"role": "system", "content": [dict(IMAGE_PART)]}, user("a")], True, "an image"),
        ([user({"type": "video"})], True, "video"),
    ],
)
def test_a_conversation_that_would_get_other_ids_is_refused(
    processor: Any, messages: Any, prompt: bool, facts: str
) -> None:
    with pytest.raises(TemplateError, match=facts):
        processor.tokenizer.apply_chat_template(
            messages, add_generation_prompt=prompt, tokenize=True
        )


def kinds_of_images(folder: Path) -> list[tuple[Any, bytes]]:
    """Images in every way they may be given, with the bytes of their files."""
    rgba = Image.fromarray(noise(20, 30)).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    files: list[bytes] = []
    for image, form, options in (
        (Image.fromarray(noise(40, 90)), "PNG", {}),
        (rgba, "PNG", {}),
        (Image.fromarray(noise(33, 21)), "JPEG", {"exif": rotated}),
        (Image.fromarray(noise(30, 30)).convert("P"), "GIF", {}),
        (Image.fromarray(np.arange(0, 60_000, 100, np.uint16).reshape(20, 30)), "PNG", {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        files.append(buffer.getvalue())
    path = folder / "a.png"
    path.write_bytes(files[0])
    url = "data:image/png;base64," + base64.b64encode(files[1]).decode()
    found: list[tuple[Any, bytes]] = [(data, data) for data in files]
    found += [(Image.open(io.BytesIO(data)), data) for data in files]
    return [*found, (path, files[0]), (str(path), files[0]), (url, files[1])]


def test_pixels_are_those_of_training(processor: Any, tmp_path: Path) -> None:
    images = kinds_of_images(tmp_path)
    found = processor.image_processor([image for image, _ in images], return_tensors="pt")
    wanted = letterbox(
        [torch.from_numpy(shrink_to_fit(decode_rgb(data), 64)) for _, data in images], 64
    )
    assert torch.equal(found["pixel_values"], wanted)
    large = noise(2, 1200)  # shrunk in two steps
    found = processor.image_processor(large, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, letterbox([torch.from_numpy(shrink_to_fit(large, 64))], 64))
    arrays = processor.image_processor([large], return_tensors="np")["pixel_values"]
    assert np.array_equal(arrays, found.numpy())


def test_what_is_no_image_is_refused(processor: Any, tmp_path: Path) -> None:
    for image, kind in (
        (b"text", ImageError),
        (np.zeros((3, 8, 8), np.uint8), ValueError),
        (np.zeros((8, 8, 3), np.float32), ValueError),
        (Image.new("F", (4, 4)), ImageError),
        (tmp_path / "missing.png", FileNotFoundError),
    ):
        with pytest.raises(kind):
            processor.image_processor(image)
    with pytest.raises(ValueError, match='no "image"'):
        processor.apply_chat_template([user(dict(IMAGE_PART), "a")], tokenize=True)
    with pytest.raises(ValueError, match="video"):
        processor.apply_chat_template([user({"type": "video"})], tokenize=True)
    with pytest.raises(ValueError, match="place 1 images, but 0"):
        processor(text="<|image|>")


def changed_json(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def change_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("'\\n\\n'", "'\\n'"))


def change_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    assert path.read_text().count("{1,2}") == 1
    path.write_text(path.read_text().replace("{1,2}", "{1,3}"))


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (
            changed_json("preprocessor_config.json", image_sizes=[128]),
            r"image_sizes is \[128\].*with \[64\]",
        ),
        (changed_json("preprocessor_config.json", fill=0), "fill.*127"),
        (changed_json("preprocessor_config.json", image_mean=0.4), "image_mean"),
        (changed_json("config.json", processor={}), "trained with None"),
        (change_template, "chat_template is"),
        (change_vocabulary, "tokenizer is"),
    ],
)
def test_another_processor_than_that_of_training_is_refused(
    tmp_path: Path, change: Callable[[Path], None], facts: str
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(exported(), folder)
    change(folder)
    with pytest.raises(ValueError, match=facts) as caught:
        load("AutoProcessor", folder)
    assert "\n" not in str(caught.value)


def test_a_processor_saved_again_is_the_same(processor: Any, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    shutil.copy(exported() / "config.json", tmp_path)
    assert load("AutoProcessor", tmp_path).description == processor.description
