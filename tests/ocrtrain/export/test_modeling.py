"""The exported model against the model that was trained: the same logits, the same tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.sample import IMAGE_PART, text_part
from ocrtrain.evaluation.generation import Decoding, Question, answer, inference
from tests.support import small
from tests.support.exported import exported, load

PICTURES = {
    name: torch.tensor(colour, dtype=torch.uint8).expand(40, 40, 3).contiguous()
    for name, colour in small.COLOURS.items()
}
ASKED = [
    ([], "A much longer question about nothing in particular?", ""),
    (["red"], "Which colour?", ""),
    (["blue"], "Its first letter?", "You read."),
    (["green", "red", "grey"], "And these?", ""),
    ([], "5+1?", "Be brief."),
    (["grey"], "Which colour?", ""),
]


def question(names: Sequence[str], text: str, system: str) -> Question:
    content = [*(dict(IMAGE_PART) for _ in names), text_part(text)]
    messages: list[Any] = [{"role": "user", "content": content}]
    if system:
        messages.insert(0, {"role": "system", "content": [text_part(system)]})
    return Question(messages, tuple(PICTURES[name] for name in names))


def conversation(names: Sequence[str], text: str, system: str) -> list[dict[str, Any]]:
    asked = question(names, text, system)
    left = iter(asked.images)
    for part in asked.messages[-1]["content"]:
        if part["type"] == "image":
            part["image"] = next(left)
    return list(asked.messages)


@pytest.fixture(scope="module")
def processor() -> Any:
    return load("AutoProcessor", exported())


@pytest.fixture(scope="module")
def model() -> Any:
    return load("AutoModelForImageTextToText", exported()).eval()


def inputs_of(processor: Any, asked: Sequence[Any]) -> Any:
    conversations = [conversation(*one) for one in asked]
    return processor.apply_chat_template(conversations, add_generation_prompt=True, tokenize=True)


@torch.no_grad()
def generate(model: Any, processor: Any, asked: Sequence[Any], **kwargs: Any) -> list[str]:
    inputs = inputs_of(processor, asked)
    found = model.generate(**inputs, **{"max_new_tokens": 12, **kwargs})
    new = found[:, inputs["input_ids"].shape[1] :]
    return list(processor.batch_decode(new, skip_special_tokens=True))


@pytest.mark.parametrize("batch", [1, 4, len(ASKED)])
def test_the_same_answers_as_our_own_generation(model: Any, processor: Any, batch: int) -> None:
    trained = small.trained(exported().parent).model()
    questions = [question(*one) for one in ASKED]
    ours = answer(trained, small.tokenizer(), questions, Decoding(12))
    theirs = []
    for start in range(0, len(ASKED), batch):
        theirs += generate(model, processor, ASKED[start : start + batch])
    assert theirs == [one.text for one in ours]
    assert [ours[1].text, ours[2].text, ours[5].text] == ["red", "b", "grey"]


def test_padding_on_the_left_changes_no_logit(model: Any, processor: Any) -> None:
    inputs = inputs_of(processor, ASKED)
    assert not inputs["attention_mask"].all() and inputs["attention_mask"][:, -1].all()
    with torch.no_grad():
        together = model(**inputs).logits
        for row, one in enumerate(ASKED):
            alone = model(**inputs_of(processor, [one])).logits[0]
            torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-5, rtol=1e-5)


def test_logits_and_loss_are_those_of_training(model: Any, processor: Any) -> None:
    ours = small.trained(exported().parent).model()
    inputs = inputs_of(processor, ASKED[1:2])
    ids = inputs["input_ids"]
    with torch.no_grad(), inference(ours, None):
        embeds = ours.embed(ids, ours.see([PICTURES["red"]]))
        wanted = ours.logits(ours.hidden(embeds, torch.arange(ids.shape[1])[None]))
        found = model(**inputs, labels=ids)
        kept = model(**inputs, logits_to_keep=1)
    torch.testing.assert_close(found.logits, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kept.logits, wanted[:, -1:])
    loss = torch.nn.functional.cross_entropy(wanted[0, :-1], ids[0, 1:])
    torch.testing.assert_close(found.loss, loss)


def test_several_answers_keep_the_images_of_their_row(model: Any, processor: Any) -> None:
    beams = generate(model, processor, ASKED[1:4], num_beams=2, num_return_sequences=2)
    assert beams[0] == "red" and beams[2] == "b"
    again = [generate(model, processor, [one], num_beams=2) for one in ASKED[1:4]]
    assert beams[::2] == [one for (one,) in again]


def test_an_answer_is_streamed(
    model: Any, processor: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import TextStreamer

    streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    assert generate(model, processor, ASKED[1:2], streamer=streamer) == ["red"]
    assert capsys.readouterr().out == "red\n"


def test_the_image_token_is_never_generated(model: Any, processor: Any) -> None:
    assert model.generation_config.suppress_tokens == [small.tokenizer().image]
    table = model.gpt.lm_head.weight
    kept = table.detach().clone()
    try:
        with torch.no_grad():
            table.zero_()
            found = model.generate(**inputs_of(processor, ASKED[1:2]), max_new_tokens=3)
        assert small.tokenizer().image not in found[0, -3:].tolist()
    finally:
        table.data.copy_(kept)


def test_a_model_in_bf16_answers(processor: Any) -> None:
    model = load("AutoModelForImageTextToText", exported(), dtype=torch.bfloat16).eval()
    assert model.encoder.projector.weight.dtype == torch.bfloat16
    assert generate(model, processor, ASKED[1:3]) == ["red", "b"]


def test_a_loss_in_training_reaches_every_part(processor: Any) -> None:
    model = load("AutoModelForImageTextToText", exported()).train()
    inputs = inputs_of(processor, ASKED[:2])
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_wrong_inputs_are_refused(model: Any, processor: Any) -> None:
    inputs = inputs_of(processor, ASKED[:2])
    pixels = inputs["pixel_values"]
    for change, facts in (
        ({"pixel_values": torch.cat([pixels, pixels])}, "2 images take 3 "),
        ({"pixel_values": None}, "0 images"),
        ({"pixel_values": torch.zeros(1, 3, 128, 128)}, r"\[3, 128, 128\].* 64 px"),
        ({"attention_mask": inputs["attention_mask"].flip(1), "use_cache": True}, "left"),
        ({"attention_mask": inputs["attention_mask"][:, 1:]}, "attention_mask"),
        ({"inputs_embeds": torch.zeros(2, 4, 64)}, "inputs_embeds"),
    ):
        with pytest.raises(ValueError, match=facts):
            model(**{**inputs, **change})


def test_images_of_another_size_of_training(model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    shutil.copytree(exported(), folder)
    for name in ("config.json", "preprocessor_config.json"):
        value = json.loads((folder / name).read_text())
        for one in (value, value.get("processor", {})):
            one["image_sizes"] = [64, 128]
        (folder / name).write_text(json.dumps(value))
    processor = load("AutoProcessor", folder)
    two = load("AutoModelForImageTextToText", folder).eval()
    asked = [conversation(*one) for one in ASKED[1:4]]
    inputs = processor.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, image_size=128
    )
    assert inputs["pixel_values"].shape == (5, 3, 128, 128)
    token = small.tokenizer().image
    assert (inputs["input_ids"] == token).sum(dim=1).tolist() == [7, 7, 21]
    with torch.no_grad():
        assert two.generate(**inputs, max_new_tokens=2).shape[0] == 3
        assert two.generate(**inputs, max_new_tokens=2, num_beams=2).shape[0] == 3
        with pytest.raises(ValueError, match=r"128.* 64 px"):
            model(**inputs)
    with pytest.raises(ValueError, match=r"image_size 256: .* 64 and 128 px"):
        processor.apply_chat_template(asked, tokenize=True, image_size=256)
    assert inputs_of(processor, ASKED[1:2])["pixel_values"].shape[-1] == 64
