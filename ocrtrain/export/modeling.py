"""The model behind `AutoModelForImageTextToText`: encoder and decoder as they were trained.

Its tensors have the names of an `OcrModel`. Rows may be padded on the left; images are letterboxed
by `OcrProcessor`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from ocrtrain.export.configuration import OcrConfig
from ocrtrain.model.attention import packed_rows
from ocrtrain.model.decoder import build_decoder, cache_argument
from ocrtrain.model.encoder import DeepEncoder
from ocrtrain.model.head import soft_cap
from ocrtrain.settings.image_slots import image_slots


class OcrForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A vision encoder, whose features take the places of the image tokens, and a decoder."""

    config_class = OcrConfig
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: OcrConfig) -> None:
        super().__init__(config)
        self.encoder = DeepEncoder(config.sizes)
        self.gpt = build_decoder(config.sizes)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        """The table of the tokens' embeddings."""
        return self.gpt.model.embed_tokens

    def get_output_embeddings(self) -> Any:
        """The layer that gives the logits."""
        return self.gpt.lm_head

    def forward(  # noqa: PLR0913, PLR0917 - the signature is that of `transformers`
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, fp32 [B, T, V] (of the last `logits_to_keep` positions; 0: of all), and the loss
        if there are `labels` [B, T].

        `pixel_values` are those of all images, float [N, 3, S, S], in the order of their places,
        row by row; S is one of the config's `image_sizes`. Raises ValueError where places and
        images do not match, for another S, and where rows are padded on the right of a cache.
        """
        if inputs_embeds is None and input_ids is not None:
            inputs_embeds = self._embed(input_ids, pixel_values)
        elif inputs_embeds is None or input_ids is not None:
            raise ValueError("give either input_ids or inputs_embeds")
        rows, new, _ = inputs_embeds.shape
        before = 0 if past_key_values is None else past_key_values.get_seq_length()
        lengths = mask = None
        if attention_mask is not None and attention_mask.dim() == 2:
            real = attention_mask.bool()
            if real.shape != (rows, before + new):
                raise ValueError(
                    f"attention_mask is {list(real.shape)}, but there are {rows} rows of "
                    f"{before + new} positions"
                )
            if position_ids is None:
                position_ids = (real.long().cumsum(-1) - 1).clamp(min=0)[:, before:]
            if not bool(real.all()):
                if (use_cache or before) and bool((real[:, 1:] < real[:, :-1]).any()):
                    raise ValueError("rows are padded on the right; pad them on the left")
                if before:
                    places = torch.arange(before + new, device=real.device)
                    mask = real[:, None, None] & (places <= places[-new:, None])
                else:
                    lengths = _stretches(real)
        elif attention_mask is not None:
            mask = attention_mask
        if position_ids is None:
            position_ids = torch.arange(before, before + new, device=inputs_embeds.device)[None]
        output = self.gpt.model(
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            position_ids=position_ids,
            use_cache=use_cache,
            packed=None if lengths is None else packed_rows(lengths, inputs_embeds.device),
            **{cache_argument(self.gpt): past_key_values},
        )
        hidden = output.last_hidden_state[:, -logits_to_keep if logits_to_keep else 0 :]
        logits = soft_cap(self.gpt.lm_head(hidden))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=output.past_key_values
        )

    def _embed(self, input_ids: Tensor, pixel_values: Tensor | None) -> Tensor:
        """Ids [B, T] and images -> embeddings [B, T, D]."""
        embeds: Tensor = self.gpt.model.embed_tokens(input_ids)
        places = (input_ids == self.config.image_token).flatten().nonzero().squeeze(1)
        images = 0 if pixel_values is None else len(pixel_values)
        slots = 0 if pixel_values is None else self._slots(pixel_values)
        if images * slots != len(places):
            raise ValueError(
                f"{images} images take {slots} positions each, but the ids have {len(places)}; "
                "make ids and pixels with the processor of this folder"
            )
        if pixel_values is None or not images:
            return embeds
        pixels = pixel_values.to(self.encoder.projector.weight.dtype)  # the model may be in bf16
        features = self.encoder(pixels).to(embeds.dtype).flatten(0, 1)
        return embeds.flatten(0, 1).index_copy(0, places, features).view_as(embeds)

    def _slots(self, pixel_values: Tensor) -> int:
        """Positions of each image. Raises ValueError for a size that was not trained with."""
        shape, sizes = pixel_values.shape[1:], self.config.image_sizes
        if shape not in [(3, size, size) for size in sizes]:
            raise ValueError(
                f"images are {list(shape)}, but the model was trained with squares of "
                f"{' and '.join(map(str, sizes))} px"
            )
        return image_slots(shape[-1])

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """Rows repeated for beams or several answers, and with each of them its images, which may
        be several or none."""
        pixels = model_kwargs.pop("pixel_values", None)
        expanded = super()._expand_inputs_for_generation(
            expand_size=expand_size,
            is_encoder_decoder=is_encoder_decoder,
            input_ids=input_ids,
            **model_kwargs,
        )
        if pixels is not None and input_ids is not None:
            counts = (input_ids == self.config.image_token).sum(dim=1) // self._slots(pixels)
            of_rows = pixels.split(counts.tolist())
            pixels = torch.cat([one for one in of_rows for _ in range(expand_size)])
        if pixels is not None:
            expanded[1]["pixel_values"] = pixels
        return expanded


def _stretches(real: Tensor) -> tuple[tuple[int, ...], ...]:
    """The lengths of the stretches of equal values in each row of bool [B, T]: padding is one of
    its own, to which nothing else attends."""
    found = []
    for row in real.cpu():
        ends = [*((row[1:] != row[:-1]).nonzero().squeeze(1) + 1).tolist(), len(row)]
        found.append(tuple(end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)))
    return tuple(found)
