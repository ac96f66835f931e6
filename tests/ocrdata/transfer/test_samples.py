"""A sample on its way into another set: nothing of its JSON is lost, its first origin stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError
from ocrdata.sample import Sample
from ocrdata.transfer.samples import sample_of, with_origin
from tests.support.rows import image, samples

HERE = {"set": "a", "shard": "a-000.tar", "key": "000000001"}
THERE = {"set": "b", "shard": "b-000.tar", "key": "000000002"}
MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
]


@given(samples())
@settings(max_examples=20)
def test_only_the_origin_is_added(sample: Sample) -> None:
    before = json.loads(sample.to_json())
    moved = with_origin(sample, HERE)
    after = json.loads(moved.to_json())
    assert after["meta"].pop("origin") == HERE
    assert after == before and moved.images == sample.images
    assert with_origin(moved, THERE) == moved


@pytest.mark.parametrize(
    "own", ["web", None, {"set": "a"}, {**HERE, "page": 1}, {**HERE, "key": 1}, [HERE]]
)
def test_an_origin_of_the_data_set_itself_is_kept_inside(own: object) -> None:
    sample = Sample(MESSAGES, [image("PNG")], "s", {"origin": own})
    moved = with_origin(sample, HERE)
    assert moved.meta == {"origin": {**HERE, "was": own}}
    assert with_origin(moved, THERE) == moved


documents = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([1, "u", None]) for name in ("id", "url", "license")}
)


@given(others=documents, meta=documents)
@settings(max_examples=30)
def test_other_fields_of_a_json_are_in_the_meta(
    others: dict[str, object], meta: dict[str, object]
) -> None:
    document = {"messages": MESSAGES, "source": "s", "meta": meta, **others}
    members = {"k.jpg": image("JPEG"), "k.json": json.dumps(document).encode()}
    if others.keys() & meta.keys():
        with pytest.raises(ShardError) as caught:
            sample_of("x.tar", "k", members)
        assert caught.value.key == "k" and caught.value.shard == "x.tar"
        return
    sample = sample_of("x.tar", "k", members)
    assert sample.meta == {**meta, **others}
    assert (sample.messages, sample.source, sample.images) == (MESSAGES, "s", [image("JPEG")])


@pytest.mark.parametrize(
    ("document", "meta"),
    [
        ({"url": "u", "messages": "none"}, {"url": "u", "messages": "none"}),
        ([1, 2], {"json": [1, 2]}),
    ],
)
def test_a_json_beside_a_caption_is_its_meta(document: object, meta: dict[str, object]) -> None:
    members = {"k.json": json.dumps(document).encode(), "k.txt": b"text", "k.png": image("PNG")}
    assert sample_of("x.tar", "k", members).meta == meta


def test_a_json_with_nan_keeps_its_other_fields() -> None:
    data = json.dumps({"messages": MESSAGES, "meta": {"x": float("nan")}, "id": 7}).encode()
    sample = sample_of("x.tar", "k", {"k.json": data, "k.png": image("PNG")})
    assert sample.meta["id"] == 7 and sample.meta["x"] != sample.meta["x"]
