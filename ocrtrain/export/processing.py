"""What is behind `AutoProcessor`: images and conversations as the model was trained with them.

Pixels come from the modules that training uses. Ids come from the chat template, with every text
encoded as text: the name of a special token in it is not one. The description of a processor is
compared with the one in the model's config, so that another one is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from ocrdata.images.decode import RGB, decode_rgb, pillow_to_rgb
from ocrdata.images.letterbox import shrink_to_fit
from ocrtrain.model.pixels import FILL, letterbox
from ocrtrain.settings.image_slots import image_slots

IMAGE_TOKEN = "<|image|>"
DONE = {"fill": FILL, "resample": "bicubic, antialiased", "image_mean": 0.5, "image_std": 0.5}
"""What is done to every image beside its size (`ocrtrain.model.pixels`)."""

_MARK = re.compile("\ue000(\\d+)\ue001")


class OcrImageProcessor(BaseImageProcessor):
    """Images -> `pixel_values`, float32 [N, 3, S, S] in [-1, 1], letterboxed as in training. S is
    one of `image_sizes`, in px; the first unless another is asked for."""

    model_input_names = ["pixel_values"]  # noqa: RUF012 - as in `transformers`

    def __init__(self, image_sizes: Sequence[int] = (1024,), **kwargs: Any) -> None:
        asked = {name: kwargs.pop(name, value) for name, value in DONE.items()}
        if asked != DONE:
            raise ValueError(f"preprocessor_config.json asks for {asked}, but only {DONE} is done")
        for size in image_sizes:
            image_slots(size)  # raises for a wrong size
        super().__init__(image_sizes=list(image_sizes), **DONE, **kwargs)

    @property
    def description(self) -> dict[str, Any]:
        """What pixels depend on."""
        return {name: getattr(self, name) for name in ("image_sizes", *DONE)}

    def size(self, asked: int | None) -> int:
        """The size asked for, or the first. Raises ValueError if it was not trained with."""
        size = self.image_sizes[0] if asked is None else asked
        if size not in self.image_sizes:
            raise ValueError(
                f"image_size {size}: the model was trained with images of "
                f"{' and '.join(map(str, self.image_sizes))} px"
            )
        return int(size)

    def preprocess(
        self,
        images: Any,
        return_tensors: str | None = None,
        *,
        image_size: int | None = None,
        device: Any = "cpu",
        **_: Any,
    ) -> BatchFeature:
        """The pixels of one image, or of several, also in nested lists.

        An image is the bytes of a file, a path, a Pillow image, or uint8 [H, W, 3]. They are
        letterboxed on `device`. Raises ImageError for what is no image.
        """
        size = self.size(image_size)
        rgb = [shrink_to_fit(_rgb(image), size) for image in _flat(images)]
        pixels = letterbox([torch.from_numpy(one).to(device) for one in rgb], size)
        kept = pixels if return_tensors in (None, "pt") else pixels.cpu().numpy()
        return BatchFeature({"pixel_values": kept}, tensor_type=return_tensors)

    __call__ = preprocess


def _flat(images: Any) -> list[Any]:
    if isinstance(images, list | tuple):
        return [one for image in images for one in _flat(image)]
    return [] if images is None else [images]


def _rgb(image: Any) -> RGB:
    """The pixels of an image, uint8 [H, W, 3]."""
    if isinstance(image, bytes):
        return decode_rgb(image)
    if isinstance(image, str | Path):
        return decode_rgb(_bytes_at(str(image)))
    if isinstance(image, Image.Image):
        return pillow_to_rgb(image)
    array = image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"an image is {array.dtype} {list(array.shape)}, not uint8 [H, W, 3]")
    return np.array(array)


def _bytes_at(place: str) -> bytes:
    """The bytes at a path, a data URL, or an http(s) URL."""
    if place.startswith("data:"):
        return base64.b64decode(place.partition(",")[2], validate=True)
    if place.startswith(("http://", "https://")):
        from huggingface_hub.utils import get_session

        answer = get_session().get(place, timeout=30)
        answer.raise_for_status()
        return bytes(answer.content)
    return Path(place).read_bytes()


class OcrProcessor(ProcessorMixin):
    """Images, and texts or conversations -> `input_ids`, `attention_mask` and `pixel_values`.

    Rows are padded on the left."""

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token = IMAGE_TOKEN
        self._special = {
            name: tokenizer.convert_tokens_to_ids(name) for name in _special(tokenizer)
        }

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """The processor of a folder or repository. Raises ValueError if it is not the one that the
        model there was trained with."""
        found = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        config = AutoConfig.from_pretrained(
            pretrained_model_name_or_path,
            **{name: kwargs[name] for name in _HUB if kwargs.get(name) is not None},
        )
        found.check_trained(config, str(pretrained_model_name_or_path))
        return found

    def check_trained(self, config: Any, where: str) -> None:
        """Check that a model with this config was trained with this processor. Raises ValueError
        with `where` it lies."""
        ours = self.description
        for name in sorted({*ours, *config.processor}):
            if ours.get(name) != config.processor.get(name):
                raise ValueError(
                    f"{where}: the processor's {name} is {ours.get(name)}, but the model was "
                    f"trained with {config.processor.get(name)}; export the model again"
                )

    @property
    def description(self) -> dict[str, Any]:
        """What ids and pixels depend on: the settings of images, and digests of the tokenizer and
        the chat template."""
        return {
            **self.image_processor.description,
            "tokenizer": tokenizer_digest(self.tokenizer),
            "chat_template": _digest(self._template()),
        }

    def _template(self) -> str:
        return str(self.chat_template or self.tokenizer.chat_template)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        return_tensors: str | None = None,
        image_size: int | None = None,
        device: Any = "cpu",
        **_: Any,
    ) -> BatchFeature:
        """Inputs for texts in the format of the chat template, in which `<|image|>` is the place of
        an image and the names of special tokens are these tokens.

        Texts of a conversation are safer in `apply_chat_template(..., tokenize=True)`. Raises
        ValueError where the texts do not place as many images as there are.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        size = self.image_processor.size(image_size)
        rows = [self._ids(one, [], size) for one in texts]
        how = {"return_tensors": return_tensors, "image_size": size, "device": device}
        return self._inputs(rows, images, how)

    def apply_chat_template(  # noqa: PLR0913 - the signature is that of `transformers`
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = True,
        return_tensors: str | None = "pt",
        image_size: int | None = None,
        device: Any = "cpu",
        **kwargs: Any,
    ) -> Any:
        """The inputs for one conversation, or for several, exactly as in training; without
        `tokenize` their texts.

        An image is a part `{"type": "image"}` with its content, as `OcrImageProcessor` takes it, as
        "image", "path", "url" or "base64". Raises ValueError for a part of another kind, and what
        the template refuses.
        """
        template = chat_template or self._template()
        several = bool(conversation) and isinstance(conversation[0], list | tuple)
        conversations = list(conversation) if several else [conversation]
        if not tokenize:
            texts = [
                self._render(one, template, add_generation_prompt, **kwargs)
                for one in conversations
            ]
            return texts if several else texts[0]
        size = self.image_processor.size(image_size)
        rows: list[list[int]] = []
        images: list[Any] = []
        for one in conversations:
            texts, marked = _marked(one, images)
            rendered = self._render(marked, template, add_generation_prompt, **kwargs)
            rows.append(self._ids(rendered, texts, size))
        how = {"return_tensors": return_tensors, "image_size": size, "device": device}
        inputs = self._inputs(rows, images, how)
        return inputs if return_dict else inputs["input_ids"]

    def _render(self, messages: Any, template: str, prompt: bool, **kwargs: Any) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                add_generation_prompt=prompt,
                tokenize=False,
                **kwargs,
            )
        )

    def _ids(self, rendered: str, texts: Sequence[str], size: int) -> list[int]:
        """The ids of what the template gave; `texts` are those that marks stand for in it."""
        names = "|".join(map(re.escape, self._special))
        ids: list[int] = []
        for piece in re.split(f"({names})", rendered):
            if piece == IMAGE_TOKEN:
                ids += [self._special[piece]] * image_slots(size)
            elif piece in self._special:
                ids.append(self._special[piece])
            elif piece:
                plain = _MARK.sub(lambda mark: texts[int(mark[1])], piece) if texts else piece
                ids += self.tokenizer.encode(
                    plain, add_special_tokens=False, split_special_tokens=True
                )
        return ids

    def _inputs(self, rows: list[list[int]], images: Any, how: Mapping[str, Any]) -> BatchFeature:
        """Padded rows and pixels; `how` is what `OcrImageProcessor.preprocess` takes."""
        flat = _flat(images)
        places = sum(row.count(self._special[IMAGE_TOKEN]) for row in rows)
        placed = places // image_slots(how["image_size"])
        if placed != len(flat):
            raise ValueError(f"the texts place {placed} images, but {len(flat)} are given")
        found: dict[str, Any] = {}
        if rows:
            longest, pad = max(map(len, rows)), self.tokenizer.pad_token_id
            found["input_ids"] = [[pad] * (longest - len(row)) + row for row in rows]
            found["attention_mask"] = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        found = dict(BatchFeature(found, tensor_type=how["return_tensors"]))
        if flat:
            found |= self.image_processor.preprocess(flat, **how)
        return BatchFeature(found)


_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder",
        "trust_remote_code")  # fmt: skip


def _special(tokenizer: Any) -> Iterable[str]:
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]


def _marked(
    messages: Sequence[Mapping[str, Any]], images: list[Any]
) -> tuple[list[str], list[dict[str, Any]]]:
    """The texts of a conversation, and its messages with a mark in place of each; appends its
    images to `images`."""
    texts: list[str] = []

    def mark(text: Any) -> str:
        texts.append(str(text))
        return f"\ue000{len(texts) - 1}\ue001"

    marked = []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            marked.append({**message, "content": mark(content)})
            continue
        parts: list[dict[str, Any]] = []
        for part in content:
            if part["type"] == "text":
                parts.append({"type": "text", "text": mark(part["text"])})
            elif part["type"] == "image":
                images.append(_content(part))
                parts.append({"type": "image"})
            else:
                raise ValueError(f"a part is of type {part['type']!r}, not text or image")
        marked.append({**message, "content": parts})
    return texts, marked


def _content(part: Mapping[str, Any]) -> Any:
    for name in ("image", "path", "url"):
        if part.get(name) is not None:
            return part[name]
    if part.get("base64") is not None:
        return base64.b64decode(part["base64"], validate=True)
    raise ValueError('an image part has no "image", "path", "url" or "base64"')


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of what the ids of a fast tokenizer depend on."""
    value = json.loads(tokenizer.backend_tokenizer.to_str())
    added = [[one["id"], one["content"]] for one in value["added_tokens"]]
    parts = [value["normalizer"], value["pre_tokenizer"], value["model"], sorted(added)]
    return _digest(json.dumps(parts, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
