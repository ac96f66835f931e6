"""The model: a vision encoder and a nanochat decoder.

The encoder's features replace the embeddings of the image tokens; the loss is computed at
supervised positions only. Parameters are fp32; the caller wraps calls in autocast. Weights are
loaded by `ocrtrain.model.pretrained` and `ocrtrain.model.encoder_file`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageLayout
from ocrtrain.model.attention import packed_rows
from ocrtrain.model.decoder import build_decoder, cache_argument
from ocrtrain.model.encoder import DeepEncoder
from ocrtrain.model.head import HEAD_CHUNK, soft_cap, summed_loss
from ocrtrain.model.init import initialise
from ocrtrain.model.inputs import ModelInputs, model_inputs, sample_lengths
from ocrtrain.model.pixels import letterbox
from ocrtrain.model.row_cache import RowCache
from ocrtrain.model.sam_attention import SamAttention
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.settings.model_config import PARTS, ModelConfig

BLANK_SIDE = 64  # px of the image that is encoded to take part: the smallest


class LossSum(NamedTuple):
    """Cross-entropy summed over the K supervised positions (fp32 scalar, in nats), their number,
    and the loss of each (fp32 [K], row by row, without a graph)."""

    loss_sum: Tensor
    supervised: int
    losses: Tensor


class TokenLosses(NamedTuple):
    """Loss in nats (fp32 [K]) and row (int64 [K]) of each supervised position, row by row."""

    losses: Tensor
    rows: Tensor


class OcrModel(nn.Module):
    """Encoder and decoder.

    `image_size` is the side in px of the square view of an image that has no other layout;
    `image_token` is the token id that marks an image's slots. Raises UsageError where one of them
    is out of range.
    """

    def __init__(self, config: ModelConfig, *, image_size: int, image_token: int) -> None:
        super().__init__()
        if not 0 <= image_token < config.vocab_size:
            raise UsageError(
                f"image token {image_token} is out of range for {config.vocab_size} tokens"
            )
        self.config, self.image_size, self.image_token = config, image_size, image_token
        self.attention = "sdpa"  # one of `ocrtrain.model.attention.WAYS`, for packed rows
        self.slots = image_slots(image_size)
        self.encoder = DeepEncoder(config)
        self.gpt = build_decoder(config)
        self._cache_argument = cache_argument(self.gpt)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.encoder.image_newline.device

    def freeze(self, parts: Iterable[str]) -> None:
        """Clear `requires_grad` in the named parts: "sam", "clip", "projector", "gpt".

        The newline and the separator belong to the projector. Raises UsageError for another name.
        """
        for part in parts:
            if part not in PARTS:
                raise UsageError(f"unknown part {part!r} to freeze; choose from {', '.join(PARTS)}")
            for name, parameter in self.named_parameters():
                if part_of(name) == part:
                    parameter.requires_grad_(False)

    def checkpoint_blocks(self, enabled: bool) -> None:
        """Save only each block's input for the backward pass, in SAM, CLIP and decoder.

        It takes effect in training mode only. Attributes are set directly because transformers 5
        renamed the method that sets them.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        # No block draws random numbers, so that no random state need be saved.
        function = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        for module in self.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module._gradient_checkpointing_func = function
                module.gradient_checkpointing = enabled
            elif isinstance(module, SamAttention):
                module.spare = not enabled

    def layouts(self, images: Sequence[Tensor]) -> tuple[ImageLayout, ...]:
        """The layout of each of the images that have no other: one view of `image_size` px."""
        return (ImageLayout(self.image_size),) * len(images)

    def pixels(self, images: Iterable[Tensor], size: int = 0) -> Tensor | None:
        """N uint8 [H, W, 3] images -> float32 [N, 3, S, S] on the model's device; None for none. S
        is `size` or, if that is 0, `image_size`."""
        moved = [image.to(self.device) for image in images]
        return letterbox(moved, size or self.image_size) if moved else None

    def prepare(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        targets: Tensor,
        images: Sequence[Tensor],
        layouts: Sequence[ImageLayout] | None = None,
    ) -> ModelInputs:
        """The inputs for rows on the CPU, as `model_inputs` makes and checks them; without
        `layouts`, of images that have no other than `layouts()`."""
        shown = self.layouts(images) if layouts is None else layouts
        return model_inputs(
            input_ids, position_ids, targets, images, shown, image_token=self.image_token
        )

    def see(
        self,
        images: Sequence[Tensor],
        layouts: Sequence[ImageLayout] | None = None,
        *,
        passes: int = 0,
    ) -> Tensor | None:
        """N uint8 [H, W, 3] images -> features [slots of all, D], image by image; None for none.

        Images of one size are encoded together, in one pass (`encoder_passes`). If there are fewer
        passes than `passes`, blank images are encoded, of which no feature is left: the encoder's
        parameters then have gradients, of 0 if there are no images, and ranks that compute a model
        together encode equally often (`run/parallel.py`).
        """
        shown = self.layouts(images) if layouts is None else layouts
        parts: list[Tensor] = [torch.empty(0)] * len(images)
        groups = _by_size(shown)
        for size, numbers in groups.items():
            pixels = self.pixels([images[number] for number in numbers], size)
            encoded = self.encoder(pixels)
            if len(groups) == 1:
                parts = [encoded.flatten(0, 1)]
            else:
                for number, features in zip(numbers, encoded, strict=True):
                    parts[number] = features
        for _ in range(passes - len(groups)):
            blank = torch.zeros(1, 3, BLANK_SIDE, BLANK_SIDE, device=self.device)
            parts.append(self.encoder(blank)[:0].flatten(0, 1))
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def features(self, images: Sequence[Tensor], size: int = 0) -> Tensor:
        """N >= 1 uint8 [H, W, 3] images in square views of `size` px (0: `image_size`) -> the
        encoder's features before the projector, as `DeepEncoder.features`."""
        pixels = self.pixels(images, size)
        if pixels is None:
            raise ValueError("no images, so no features")
        found: Tensor = self.encoder.features(pixels)
        return found

    def embed(
        self, input_ids: Tensor, features: Tensor | None, slots_at: Tensor | None = None
    ) -> Tensor:
        """ids [B, T] and features [..., D] -> embeddings [B, T, D], features at their slots.

        Features are in the order of their slots, row by row. `slots_at` are the positions of the
        slots in the flattened ids; None looks for them, and waits for the device. Raises ValueError
        where slots and features do not match.
        """
        embeds: Tensor = self.gpt.model.embed_tokens(input_ids)
        if slots_at is None:
            slots_at = (input_ids == self.image_token).flatten().nonzero().squeeze(1)
        count = 0 if features is None else features.shape[:-1].numel()
        if count != slots_at.numel():
            raise ValueError(
                f"{count} features of images, but the rows have {slots_at.numel()} image tokens"
            )
        if features is None:
            return embeds
        features = features.to(embeds.dtype).flatten(0, -2)
        return embeds.flatten(0, 1).index_copy(0, slots_at, features).view_as(embeds)

    def hidden(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        lengths: tuple[tuple[int, ...], ...] | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Embeddings [B, T, D] and positions [B, T] -> final hidden states [B, T, D].

        Attention stays within a sample. `lengths` and `starts` are those of the samples, as in
        `ModelInputs`; None takes them from the positions, and waits for the device.
        """
        lengths = sample_lengths(position_ids.cpu()) if lengths is None else lengths
        output = self.gpt.model(
            inputs_embeds=embeds,
            position_ids=position_ids,
            use_cache=False,
            packed=packed_rows(lengths, embeds.device, way=self.attention, starts=starts),
        )
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] -> soft-capped fp32 logits [..., V]."""
        return soft_cap(self.gpt.lm_head(hidden))

    def head_loss(self, hidden: Tensor, supervised_at: Tensor, targets: Tensor) -> LossSum:
        """Summed loss of the hidden states [B, T, D] at K positions of the flattened rows, against
        their targets [K].

        Its gradients are computed with it (`ocrtrain.model.head`): called within `forward`, where
        DDP and FSDP have the whole weight at hand.
        """
        states = hidden.flatten(0, 1).index_select(0, supervised_at)
        total, losses = summed_loss(states, targets, self.gpt.lm_head.weight)
        return LossSum(total, len(targets), losses)

    def forward(self, inputs: ModelInputs, *, passes: int = 0) -> LossSum:
        """Summed loss of the supervised positions; `passes` is that of `see`. Waits for the device
        nowhere.

        Raises ValueError where image slots and images do not match.
        """
        return self.read(inputs, self.see(inputs.images, inputs.layouts, passes=passes))

    def read(self, inputs: ModelInputs, features: Tensor | None) -> LossSum:
        """`forward`, from the features of the images."""
        states = self._states(inputs, features)
        return self.head_loss(states, inputs.supervised_at, inputs.targets)

    def _states(self, inputs: ModelInputs, features: Tensor | None) -> Tensor:
        """Final hidden states [B, T, D]."""
        embeds = self.embed(inputs.input_ids, features, inputs.slots_at)
        return self.hidden(embeds, inputs.position_ids, inputs.lengths, inputs.starts)

    @torch.no_grad()
    def token_losses(self, inputs: ModelInputs) -> TokenLosses:
        """Loss of each supervised position, without gradients; errors as `forward`."""
        states = self._states(inputs, self.see(inputs.images, inputs.layouts)).flatten(0, 1)
        states = states.index_select(0, inputs.supervised_at)
        losses = [torch.zeros(0, device=states.device)]
        for start in range(0, len(states), HEAD_CHUNK):
            chunk = slice(start, start + HEAD_CHUNK)
            logits = self.logits(states[chunk])
            losses.append(F.cross_entropy(logits, inputs.targets[chunk], reduction="none"))
        rows = inputs.supervised_at // inputs.input_ids.shape[1]
        return TokenLosses(torch.cat(losses), rows)

    @torch.no_grad()
    def step(
        self,
        inputs_embeds: Tensor,
        cache: RowCache,
        position_ids: Tensor,
        lengths: tuple[tuple[int, ...], ...] | None = None,
    ) -> Tensor:
        """One step of generation: fp32 logits [B, V] of the last position.

        Embeddings [B, T, D] at positions [B, T] are appended to `cache`. With `lengths`, as in
        `hidden`, they are the first ones. The image token's logit is -inf, so that it is never
        generated. Raises RuntimeError in training mode, in which checkpointed blocks ignore the
        cache.
        """
        if self.training:
            raise RuntimeError("call eval() first: in training mode blocks may ignore the cache")
        output = self.gpt.model(
            inputs_embeds=inputs_embeds,
            attention_mask=(
                cache.seen(inputs_embeds.shape[1], inputs_embeds.device) if len(cache) else None
            ),
            position_ids=position_ids,
            use_cache=True,
            packed=None if lengths is None else packed_rows(lengths, inputs_embeds.device),
            **{self._cache_argument: cache},
        )
        logits = self.logits(output.last_hidden_state[:, -1])
        logits[:, self.image_token] = -torch.inf
        return logits


def _by_size(layouts: Sequence[ImageLayout]) -> dict[int, list[int]]:
    """The numbers of the images that are encoded together, by the side of their view in px."""
    groups: dict[int, list[int]] = {}
    for number, layout in enumerate(layouts):
        groups.setdefault(layout.size, []).append(number)
    return dict(sorted(groups.items()))


def encoder_passes(layouts: Sequence[ImageLayout]) -> int:
    """How often `OcrModel.see` runs the encoder for images of these layouts."""
    return len(_by_size(layouts))


def part_of(name: str) -> str:
    """The part, one of `PARTS`, to which the `OcrModel` parameter `name` belongs."""
    if name.startswith("gpt."):
        return "gpt"
    part = name.split(".")[1]
    return part if part in PARTS else "projector"


def build_model(config: ModelConfig, *, image_size: int, image_token: int, seed: int) -> OcrModel:
    """A model on the CPU with random weights (`ocrtrain.model.init`), a function of the arguments.

    torch's global random state is unchanged. Raises UsageError as `OcrModel` does.
    """
    from transformers.initialization import no_init_weights

    # The default initialisation is skipped: it is overwritten, and takes a minute at full size.
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model = OcrModel(config, image_size=image_size, image_token=image_token)
    initialise(model, config, seed=seed)
    return model
