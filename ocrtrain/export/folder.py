"""Writes the folder of an exported model, and checks it before it gets its name.

    model.safetensors, config.json, generation_config.json
    tokenizer.json, tokenizer_config.json, chat_template.jinja
    preprocessor_config.json, processor_config.json
    ocr_*.py                 the code that trained the model, for `trust_remote_code`
    ocr-tokenizer.json       the tokenizer as this project keeps it, for `--init`
    README.md                the model card
    export.json              where it comes from, and size and digest of every other file

The folder is written under a temporary name. Its tokenizer, template and processor are loaded from
there and compared with those of training; one that differs is an error, and nothing is left.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from ocrdata.errors import OcrError, TrainError, UsageError
from ocrdata.sample import IMAGE_PART, Message, image_parts, text_part
from ocrdata.storage.file import digest_of_file, open_file
from ocrdata.storage.files import explain_disk, fsync_folder, make_folder, publish, temporary_name
from ocrdata.storage.sealed import seal
from ocrdata.tokens.fast_tokenizer import check_same, fast_tokenizer, hard_texts
from ocrdata.tokens.rendering import render, render_prompt
from ocrdata.tokens.tokenizer import OWN_FILE, Tokenizer
from ocrtrain.export.bundle import bundle, file_name
from ocrtrain.export.card import Facts, answers_summary, newest_numbers, write_card
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.model.pixels import letterbox
from ocrtrain.model.pretrained import EXPORTED
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.state.checkpoint import Checkpoint, State, newest

CODE = "ocrtrain.export"
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
LONGEST_ANSWER = 1024
"""Tokens; the default of `ask`."""

TRIES = 3
"""How often a checkpoint may vanish, because its run goes on and keeps only the newest."""


class Loaded(NamedTuple):
    """What is read of a checkpoint."""

    folder: Path
    config: Config
    state: State
    tokenizer: Tokenizer
    weights: dict[str, torch.Tensor]


def export(source: Path, folder: Path, *, say: Callable[[str], None] = lambda line: None) -> None:
    """Write the newest checkpoint of a run, or a checkpoint, to `folder`, which must not exist.

    Raises UsageError for a folder that exists, TrainError where there is no checkpoint or it is
    damaged, OcrError where what was written would not do what training did, DiskError.
    """
    check_names(source, folder)
    loaded = _read(source)
    make_folder(folder.parent)
    temporary = temporary_name(folder)
    with explain_disk(temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            _write(loaded, temporary)
            _check(loaded, temporary)
            _finish(loaded, temporary)
            check_names(source, folder)  # it may have been made in the meantime
            publish(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    size = sum(file.stat().st_size for file in folder.iterdir())
    say(f"{folder}: step {loaded.state.step:,} of {loaded.folder}, {size:,} bytes")


def check_names(source: Path, folder: Path) -> None:
    """Check what can be checked at once. Raises UsageError."""
    if not source.is_dir():
        raise UsageError(f"{source}: no such folder; name a run folder or its checkpoints/step_N")
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists; name another folder, or delete it")


def _read(source: Path) -> Loaded:
    for left in range(TRIES, 0, -1):
        folder = newest(source)
        try:
            found = Checkpoint.open(folder)
            return Loaded(folder, found.config, found.state, found.tokenizer(), found.weights())
        except (TrainError, UsageError):
            if folder.exists() or left == 1:
                raise
    raise AssertionError("unreachable")


def _write(loaded: Loaded, folder: Path) -> None:
    config, tokenizer = loaded.config, loaded.tokenizer
    save_file(loaded.weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library makes it readable to its owner alone
    tokenizer.save(folder / OWN_FILE)
    fast_tokenizer(tokenizer).save(str(folder / "tokenizer.json"))
    shutil.copyfile(TEMPLATE, folder / TEMPLATE.name)
    for name, text in bundle([f"{CODE}.{name}" for name in ("modeling", "processing")]).items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, value in _settings(loaded).items():
        _write_json(folder / name, value)
    processor = _load_processor(folder, check=False)
    description = {"processor": processor.description}
    _write_json(folder / "config.json", _model_config(config, tokenizer) | description)
    facts = Facts(
        config,
        loaded.state,
        parameters=sum(tensor.numel() for tensor in loaded.weights.values()),
        image_sizes=image_sizes(config),
        numbers=newest_numbers(_run_of(loaded), loaded.state.step),
        answers=answers_summary(_run_of(loaded), loaded.folder.name),
    )
    (folder / "README.md").write_text(write_card(facts), encoding="utf-8")


def _run_of(loaded: Loaded) -> Path:
    return loaded.folder.parent.parent


def _model_config(config: Config, tokenizer: Tokenizer) -> dict[str, Any]:
    model = _module("modeling", "OcrForConditionalGeneration")
    sizes = dataclasses.asdict(config.model) | {"vocab_size": tokenizer.vocab_size}
    return {
        "model_type": "ocr_shards",
        "architectures": ["OcrForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": _module("configuration", "OcrConfig"),
            "AutoModel": model,
            "AutoModelForImageTextToText": model,
        },
        "dtype": "float32",
        "image_sizes": image_sizes(config),
        "image_token": tokenizer.image,
        "tie_word_embeddings": False,
        "preset": config.preset,
        "precision": config.precision,
        "seq_len": config.seq_len,
        **sizes,
    }


def _settings(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """The JSON files by name; the model's config gets the processor's description later."""
    from ocrtrain.export.processing import DONE

    config, tokenizer = loaded.config, loaded.tokenizer
    processor = _module("processing", "OcrProcessor")
    images = _module("processing", "OcrImageProcessor")
    return {
        "config.json": _model_config(config, tokenizer),
        "generation_config.json": {
            "do_sample": False,
            "max_new_tokens": LONGEST_ANSWER,
            "eos_token_id": [tokenizer.assistant_end, tokenizer.bos],
            "pad_token_id": tokenizer.assistant_end,
            "suppress_tokens": [tokenizer.image],
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "OcrProcessor",
            "bos_token": "<|bos|>",
            "eos_token": "<|assistant_end|>",
            "pad_token": "<|assistant_end|>",
            "padding_side": "left",
            "model_max_length": config.seq_len,
            "clean_up_tokenization_spaces": False,
        },
        "preprocessor_config.json": {
            "image_processor_type": "OcrImageProcessor",
            "processor_class": "OcrProcessor",
            "auto_map": {"AutoImageProcessor": images, "AutoProcessor": processor},
            "image_sizes": image_sizes(config),
            **DONE,
        },
        "processor_config.json": {
            "processor_class": "OcrProcessor",
            "auto_map": {"AutoProcessor": processor},
        },
    }


def image_sizes(config: Config) -> list[int]:
    """The sides of the square images that a run trained with, in px."""
    return [mode.size for mode in config.image_modes]


def _module(name: str, what: str) -> str:
    """'ocr_modeling.OcrForConditionalGeneration'."""
    return f"{file_name(f'{CODE}.{name}')[:-3]}.{what}"


def _load_processor(folder: Path, *, check: bool) -> Any:
    """The processor in a folder, by the code of this package."""
    from transformers import PreTrainedTokenizerFast

    from ocrtrain.export.configuration import OcrConfig
    from ocrtrain.export.processing import OcrImageProcessor, OcrProcessor

    processor = OcrProcessor(
        OcrImageProcessor.from_pretrained(folder),
        PreTrainedTokenizerFast.from_pretrained(folder),
        chat_template=(folder / TEMPLATE.name).read_text(encoding="utf-8"),
    )
    if check:
        processor.check_trained(OcrConfig.from_pretrained(folder), str(folder))
    return processor


def _check(loaded: Loaded, folder: Path) -> None:
    """Compare what was written with what trained. Raises OcrError where it differs."""
    processor = _load_processor(folder, check=True)
    tokenizer = loaded.tokenizer
    check_same(tokenizer, processor.tokenizer.backend_tokenizer, hard_texts(tokenizer))
    processor.tokenizer.backend_tokenizer.encode_special_tokens = False
    for size, (images, messages) in product(image_sizes(loaded.config), _conversations()):
        slots = [image_slots(size)] * len(images)
        whole = messages[-1]["role"] == "assistant"
        ours = (render if whole else render_prompt)(messages, tokenizer, slots).ids.tolist()
        found = processor.apply_chat_template(
            _with_images(messages, images),
            add_generation_prompt=not whole,
            tokenize=True,
            image_size=size,
        )
        if found["input_ids"][0].tolist() != ours:
            raise OcrError(f"{folder}: the chat template gives other ids than training: {messages}")
        if images:
            tensors = [torch.from_numpy(image) for image in images]
            if not torch.equal(found["pixel_values"], letterbox(tensors, size)):
                raise OcrError(f"{folder}: the processor gives other pixels than training")
    with torch.device("meta"):
        wanted = OcrModel(
            dataclasses.replace(loaded.config.model, vocab_size=tokenizer.vocab_size),
            image_size=loaded.config.image_size,
            image_token=tokenizer.image,
        ).state_dict()
    if {n: t.shape for n, t in wanted.items()} != {n: t.shape for n, t in loaded.weights.items()}:
        raise TrainError(f"{loaded.folder}: its weights do not fit its config")


def _conversations() -> Iterator[tuple[list[np.ndarray[Any, Any]], list[Message]]]:
    """Conversations of all forms, with their images."""
    generator = np.random.default_rng(0)

    def image(height: int, width: int) -> np.ndarray[Any, Any]:
        return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)

    def message(role: str, *parts: Any) -> Message:
        content = [dict(IMAGE_PART) if part is None else text_part(part) for part in parts]
        return {"role": role, "content": content}

    tricky = "Ends <|user_end|> and <|image|>\n"
    yield [], [message("user", "Hello")]
    yield [image(40, 70)], [message("user", None, tricky)]
    yield (
        [image(9, 200), image(64, 64)],
        [
            message("system", "Read aloud."),
            message("user", None, "Before: ", None, " after"),
        ],
    )
    yield [image(130, 30)], [message("system", ""), message("user", "1 ", None)]
    yield (
        [image(5, 5), image(300, 200)],
        [
            message("user", None, "12 apples' "),
            message("assistant", " \n"),
            message("user", None),
            message("assistant", "It's 3.5 <|bos|>"),
        ],
    )


def _with_images(messages: list[Message], images: list[Any]) -> list[dict[str, Any]]:
    assert image_parts(messages) == len(images)
    left = iter(images)
    return [
        {
            **message,
            "content": [
                {**part, "image": next(left)} if part["type"] == "image" else part
                for part in message["content"]
            ],
        }
        for message in messages
    ]


def _finish(loaded: Loaded, folder: Path) -> None:
    """Write the file of digests, and sync everything."""
    files = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        found = open_file(path)
        files[path.name] = {"bytes": found.size, "xxh3_128": digest_of_file(found)}
    origin = {
        "run": loaded.config.name,
        "step": loaded.state.step,
        "tokenizer": loaded.tokenizer.fingerprint,
    }
    _write_json(folder / EXPORTED, seal({"version": 1, "origin": origin, "files": files}))
    fsync_folder(folder)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
