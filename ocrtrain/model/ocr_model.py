"""The model: the vision encoder, the nanochat decoder, and what joins them.

Owner of the forward pass: images to the places of the image token, the loss on the supervised
positions alone, one step of generation. Parameters are fp32; the caller wraps calls in autocast. It
never loads weights (`ocrtrain.model.pretrained`), and never chooses what is trained: it only reads
`requires_grad`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ocrdata.errors import UsageError
from ocrdata.tokens.rendering import IGNORE
from ocrtrain.model.encoder import DeepEncoder
from ocrtrain.model.init import initialise
from ocrtrain.model.pixels import letterbox
from ocrtrain.settings.config import PARTS, ModelConfig
from ocrtrain.settings.image_slots import image_slots

SOFTCAP = 15.0  # nanochat: logits = 15 * tanh(logits / 15)
HEAD_CHUNK = 1024  # supervised positions whose logits exist at one time; x 65,537 x 4 B = 0.27 GB
MAX_POSITIONS = 65_536  # written into the decoder's config; default rotary embeddings ignore it


class LossSum(NamedTuple):
    """Cross-entropy summed over the supervised positions (fp32 scalar, nats), and their number."""

    loss_sum: Tensor
    supervised: int


class TokenLosses(NamedTuple):
    """Loss of each supervised position, fp32 [K], in row-major order, and its row, int64 [K]."""

    losses: Tensor
    rows: Tensor


def soft_cap(logits: Tensor) -> Tensor:
    """nanochat's cap: fp32 logits within (-15, 15)."""
    return SOFTCAP * torch.tanh(logits.float() / SOFTCAP)


class OcrModel(nn.Module):
    """Encoder and decoder. `image_size` is the side images are letterboxed to, in px."""

    def __init__(self, config: ModelConfig, *, image_size: int, image_token: int) -> None:
        super().__init__()
        if not 0 <= image_token < config.vocab_size:
            raise UsageError(f"image token {image_token} is outside the {config.vocab_size} tokens")
        self.config, self.image_size, self.image_token = config, image_size, image_token
        self.slots = image_slots(image_size)
        self.encoder = DeepEncoder(config)
        self.gpt = build_decoder(config)
        # Renamed within transformers 5: the old name is to go with 5.40.
        takes = inspect.signature(self.gpt.model.forward).parameters
        self._cache_argument = "cache" if "cache" in takes else "past_key_values"

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.encoder.image_newline.device

    def freeze(self, parts: Iterable[str]) -> None:
        """Train nothing in the named parts (of "sam", "clip", "projector", "gpt").

        The newline and the separator belong to the projector. Raises UsageError on another name.
        """
        for part in parts:
            if part not in PARTS:
                raise UsageError(f"no part {part!r} to freeze; parts are {', '.join(PARTS)}")
            for name, parameter in self.named_parameters():
                if part_of(name) == part:
                    parameter.requires_grad_(False)

    def checkpoint_blocks(self, enabled: bool) -> None:
        """Keep only each block's input for the backward pass, of SAM, CLIP and decoder.

        The attributes are set directly: the method that does it was renamed within
        transformers 5. Blocks obey in training mode only.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        # Nothing here draws random numbers, so that no random state need be kept.
        function = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        for module in self.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module._gradient_checkpointing_func = function
                module.gradient_checkpointing = enabled

    def pixels(self, images: Iterable[Tensor]) -> Tensor | None:
        """uint8 [H, W, 3] images -> [N, 3, S, S] on the model's device; None where none are."""
        here = [image.to(self.device) for image in images]
        return letterbox(here, self.image_size) if here else None

    def embed(self, input_ids: Tensor, pixels: Tensor | None) -> Tensor:
        """ids [B, T] and pixels [N, 3, S, S] -> [B, T, D], images at the image token's places.

        Images stand in the order of their places, row by row. Without images the encoder does
        not run. Raises ValueError where places and images disagree.
        """
        embeds: Tensor = self.gpt.model.embed_tokens(input_ids)
        places = input_ids == self.image_token
        per_row = places.sum(dim=1).tolist()
        slots = image_slots(pixels.shape[-1]) if pixels is not None else self.slots
        images = 0 if pixels is None else pixels.shape[0]
        if sum(per_row) != images * slots or any(count % slots for count in per_row):
            raise ValueError(
                f"{images} images of {slots} positions each, but the rows hold {per_row} places"
            )
        if pixels is None:
            return embeds
        features = self.encoder(pixels).to(embeds.dtype).flatten(0, 1)
        return embeds.masked_scatter(places.unsqueeze(-1), features)

    def hidden(self, embeds: Tensor, position_ids: Tensor) -> Tensor:
        """[B, T, D], positions [B, T] -> final hidden states [B, T, D].

        Positions that do not rise by one begin another sample: attention stays within a sample.
        That holds only without a cache, so that none is ever used here.
        """
        output = self.gpt.model(inputs_embeds=embeds, position_ids=position_ids, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> capped fp32 logits [..., V]."""
        return soft_cap(self.gpt.lm_head(hidden))

    def head_loss(self, hidden: Tensor, targets: Tensor) -> LossSum:
        """Loss of [B, T, D] against targets [B, T] (IGNORE: no loss), head in chunks.

        Logits exist for `HEAD_CHUNK` supervised positions at a time, in the forward pass and
        again in the backward pass: 65,537 fp32 logits a position are by far the largest thing
        in training.
        """
        at = (targets != IGNORE).flatten().nonzero().squeeze(1)
        states, wanted = hidden.flatten(0, 1)[at], targets.flatten()[at]
        weight = self.gpt.lm_head.weight
        total = states.float().sum() * 0.0  # a graph even where nothing is supervised
        for start in range(0, at.numel(), HEAD_CHUNK):
            piece = slice(start, start + HEAD_CHUNK)
            total = total + checkpoint(
                _chunk_loss,
                states[piece],
                wanted[piece],
                weight,
                use_reentrant=False,
                preserve_rng_state=False,
            )
        return LossSum(total, at.numel())

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, targets: Tensor, images: Sequence[Tensor]
    ) -> LossSum:
        """Summed loss of B rows of T positions on the model's device.

        `input_ids`, `position_ids` and `targets` (IGNORE: no loss) are int64 [B, T]; `images` are
        uint8 [H, W, 3], in the order of their places, row by row.
        """
        embeds = self.embed(input_ids, self.pixels(images))
        return self.head_loss(self.hidden(embeds, position_ids), targets)

    @torch.no_grad()
    def token_losses(
        self, input_ids: Tensor, position_ids: Tensor, targets: Tensor, images: Sequence[Tensor]
    ) -> TokenLosses:
        """The loss of each supervised position by itself, for evaluation. Takes what `forward`
        takes."""
        embeds = self.embed(input_ids, self.pixels(images))
        hidden = self.hidden(embeds, position_ids)
        rows, columns = (targets != IGNORE).nonzero(as_tuple=True)
        states, wanted = hidden[rows, columns], targets[rows, columns]
        losses = [torch.zeros(0, device=states.device)]
        for start in range(0, len(rows), HEAD_CHUNK):
            piece = slice(start, start + HEAD_CHUNK)
            logits = self.logits(states[piece])
            losses.append(F.cross_entropy(logits, wanted[piece], reduction="none"))
        return TokenLosses(torch.cat(losses), rows)

    def new_cache(self) -> Any:
        """An empty cache of keys and values for `step`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.gpt.config)

    @torch.no_grad()
    def step(self, inputs_embeds: Tensor, cache: Any, position_ids: Tensor) -> Tensor:
        """Append [B, T, D] at positions [B, T] to `cache`; fp32 logits [B, V] of the last one.

        The image token's logit is -inf: it is never generated. Raises RuntimeError where block
        checkpointing would drop the cache (call `eval()` first).
        """
        if self.training:
            raise RuntimeError("generation needs eval(): in training mode blocks drop their cache")
        output = self.gpt.model(
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            use_cache=True,
            **{self._cache_argument: cache},
        )
        logits = self.logits(output.last_hidden_state[:, -1])
        logits[:, self.image_token] = -torch.inf
        return logits


def _chunk_loss(states: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Summed fp32 cross-entropy of states [K, D] against targets [K]."""
    return F.cross_entropy(soft_cap(F.linear(states, weight)), targets, reduction="sum")


def part_of(name: str) -> str:
    """The part (`PARTS`) a parameter of `OcrModel` belongs to, by its name."""
    if name.startswith("gpt."):
        return "gpt"
    part = name.split(".")[1]
    return part if part in PARTS else "projector"


def build_decoder(config: ModelConfig) -> Any:
    """nanochat's GPT from `transformers`, its head count and sizes from `config`."""
    from transformers import NanoChatConfig, NanoChatForCausalLM

    return NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.gpt_width,
            intermediate_size=config.gpt_mlp,
            num_hidden_layers=config.gpt_layers,
            num_attention_heads=config.gpt_heads,
            num_key_value_heads=config.gpt_heads,
            max_position_embeddings=MAX_POSITIONS,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            final_logit_softcapping=SOFTCAP,
            tie_word_embeddings=False,
            use_cache=False,
            # The default, 1, is a real token here: as padding its embedding would be zeroed and
            # would silently get no gradient.
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="sdpa",
        )
    )


def build_model(config: ModelConfig, *, image_size: int, image_token: int, seed: int) -> OcrModel:
    """A model with random weights that trains well from scratch: a function of the arguments.

    The global random state is left as it was.
    """
    from transformers.initialization import no_init_weights

    # Every parameter is overwritten below: at full size the default start would take a minute.
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model = OcrModel(config, image_size=image_size, image_token=image_token)
    initialise(model, config, seed=seed)
    return model
