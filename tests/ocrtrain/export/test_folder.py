"""The exported folder: complete or absent, checked against training, and taken back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ocrdata.errors import OcrError, TrainError, UsageError, WeightsError
from ocrdata.storage.file import digest_of_file, open_file
from ocrdata.storage.sealed import check_seal
from ocrdata.tokens.tokenizer import load_tokenizer, train_tokenizer
from ocrtrain.export import folder as module
from ocrtrain.export.folder import export
from ocrtrain.model.factory import find_tokenizer, new_model
from ocrtrain.model.pretrained import find_weights
from ocrtrain.state.checkpoint import newest
from tests.support import small
from tests.support.exported import exported, exported_run, load


def test_every_tensor_is_there_and_every_file_has_its_digest() -> None:
    folder = exported()
    weights = load_file(folder / "model.safetensors")
    ours = small.trained(folder.parent).weights
    assert weights.keys() == ours.keys()
    assert all(torch.equal(weights[name], ours[name]) for name in ours)
    value = json.loads((folder / "export.json").read_text())
    check_seal("export.json", value)
    assert {*value["files"], "export.json"} == {path.name for path in folder.iterdir()}
    for name, listed in value["files"].items():
        file = open_file(folder / name)
        assert listed == {"bytes": file.size, "xxh3_128": digest_of_file(file)}
    assert value["origin"]["step"] == small.CONFIG.steps
    assert not list(folder.parent.glob(".*"))
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_an_export_is_taken_back_by_init() -> None:
    folder = str(exported())
    weights = find_weights(folder)
    assert weights.verified and weights.image_size == 64
    assert weights.parts == ("sam", "clip", "projector", "gpt") and not weights.names.unused
    config = replace(small.CONFIG, init=folder)
    tokenizer = find_tokenizer(config)
    assert tokenizer.fingerprint == small.tokenizer().fingerprint
    lines: list[str] = []
    model = new_model(config, tokenizer, say=lines.append)
    ours = small.trained(exported().parent).weights
    assert all(torch.equal(value, ours[name]) for name, value in model.state_dict().items())
    assert len(lines) == 1 and "verified" in lines[0] and f"{len(ours)} tensors" in lines[0]


@pytest.mark.parametrize("name", ["model.safetensors", "export.json"])
def test_a_changed_export_is_not_taken_back(tmp_path: Path, name: str) -> None:
    shutil.copytree(exported(), tmp_path / "changed")
    path = tmp_path / "changed" / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=f"changed/{name}"):
        find_weights(str(tmp_path / "changed"))


def test_other_sizes_than_those_of_an_export_are_named() -> None:
    model = replace(small.MODEL, gpt_heads=4)
    config = replace(small.CONFIG, init=str(exported()), model=model)
    with pytest.raises(WeightsError, match="gpt_heads"):
        new_model(config, small.tokenizer())


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "note").write_text("mine")
    with pytest.raises(UsageError, match="there exists"):
        export(exported_run(), tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["note"]
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        export(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(TrainError, match="no complete checkpoint"):
        export(tmp_path / "there", tmp_path / "out")


def test_a_damaged_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    shutil.copytree(exported_run(), tmp_path / "run")
    path = newest(tmp_path / "run") / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrainError, match="checksum mismatch"):
        export(tmp_path / "run", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_newest_checkpoint_is_taken_if_one_vanishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(exported_run(), run)
    real, calls = module.newest, []

    def vanishing(path: Path) -> Path:
        calls.append(path)
        if len(calls) == 1:
            return run / "checkpoints" / "step_000100"  # the run has just removed it
        return real(path)

    monkeypatch.setattr(module, "newest", vanishing)
    export(run, tmp_path / "out")
    assert len(calls) == 2
    assert json.loads((tmp_path / "out" / "export.json").read_text())["origin"]["step"] == 150


def break_template(written: Path) -> None:
    path = written / "chat_template.jinja"
    path.write_text(path.read_text().replace("'\\n\\n'", "'\\n'"))


def break_vocabulary(written: Path) -> None:
    path = written / "tokenizer.json"
    path.write_text(path.read_text().replace("{1,2}", "{1,3}"))


def break_pixels(written: Path) -> None:
    path = written / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_sizes": [128]}))


@pytest.mark.parametrize(
    ("spoil", "facts"),
    [
        (break_template, "chat_template"),
        (break_vocabulary, "tokenizer"),
        (break_pixels, r"image_sizes is \[128\]"),
    ],
)
def test_an_export_that_differs_from_training_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, facts: str
) -> None:
    real = module._check

    def spoiled(loaded: Any, written: Path) -> None:
        spoil(written)
        real(loaded, written)

    monkeypatch.setattr(module, "_check", spoiled)
    with pytest.raises((OcrError, ValueError), match=facts):
        export(exported_run(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "facts"),
    [("letterbox", "other pixels"), ("render_prompt", "other ids"), ("fast_tokenizer", "ids")],
)
def test_each_check_can_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, facts: str
) -> None:
    """The comparisons themselves, with another reference than what was written."""
    real = getattr(module, name)
    texts = ["the apple and the pear"] * 20
    others = {
        "letterbox": lambda images, size: real(images, size).neg(),
        "render_prompt": lambda messages, tokenizer, slots: real(
            [*messages[:-1], {"role": "user", "content": []}], tokenizer, []
        ),
        "fast_tokenizer": lambda _: real(train_tokenizer(texts, 300)),
    }
    monkeypatch.setattr(module, name, others[name])
    with pytest.raises((OcrError, UsageError), match=facts):
        export(exported_run(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_code_in_the_folder_is_used_with_trust_remote_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = exported()
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    for one in (processor, processor.image_processor, model, model.config):
        assert type(one).__module__.startswith("transformers_modules.")
    picture = torch.tensor(small.COLOURS["green"], dtype=torch.uint8).expand(40, 40, 3)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "Which colour?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True
    )
    ours = load("AutoProcessor", folder).image_processor(picture, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], ours["pixel_values"])
    with torch.no_grad():
        found = model.eval().generate(**inputs, max_new_tokens=8)
    new = found[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(new, skip_special_tokens=True) == "green"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert tokenizer("Which?", add_special_tokens=False)["input_ids"] == small.tokenizer().encode(
        "Which?"
    )


def test_a_run_of_several_image_sizes(tmp_path: Path) -> None:
    run = small.trained(tmp_path).save(
        tmp_path / "run", source=("a=a.tar:1", "b=b.tar:2"), image_size_of=("b=128",)
    )
    export(run, tmp_path / "out")
    processor = load("AutoProcessor", tmp_path / "out")
    assert processor.image_processor.image_sizes == [64, 128]
    assert load("AutoConfig", tmp_path / "out").image_sizes == [64, 128]


def test_the_saved_tokenizer_is_the_run_s() -> None:
    assert load_tokenizer(exported()).fingerprint == small.tokenizer().fingerprint
