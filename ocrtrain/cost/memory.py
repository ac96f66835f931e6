"""Estimate of a run's peak memory, and the check whether this machine can do the run.

The bytes saved for the backward pass were measured with torch's saved-tensor hooks (sdpa attention,
fp32 parameters, with and without bf16 autocast) and are linear in the widths;
`tests/ocrtrain/cost/test_memory.py` compares them with torch, for CUDA's attention on tensors
without data. On a CPU the peak of the process was measured (`benchmarks/full.py`). The overhead of
allocator and libraries is a constant.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from ocrdata.errors import TrainError
from ocrtrain.cost.flops import embedding, matrix_elements, parameters, step_flops
from ocrtrain.model.device import autocast_type
from ocrtrain.model.head import HEAD_CHUNK
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import PATCH, SHRINK, image_slots
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.presets import STAGES, stage1

SHORT_TEXT = 128  # tokens of text with an image in a short row
OVERHEAD = 1.5e9  # bytes: CUDA context, libraries, fragmentation
CPU_OVERHEAD = 0.6e9  # the same without CUDA: Python, torch, transformers
GPU_SIZES = (16, 24, 32, 40, 48, 80, 94, 141, 192)  # memory of GPUs on the market, in GB
USABLE = 0.94  # fraction of a GPU's memory
CORE_FLOPS = 50e9  # fp32 FLOP/s of a fast CPU core: optimistic: see `refusal`
MAX_CPU_HOURS = 6.0  # a CPU run estimated to take longer is refused: it would take days


@dataclass(frozen=True)
class MicroBatch:
    """The size of one forward pass, as far as memory depends on it."""

    rows: int
    row_length: int  # positions, padding included
    images: Mapping[int, int]  # numbers of images by the side of their view in px
    bf16: bool = False
    checkpointing: bool = False
    cuda: bool = True  # attention by CUDA's fused kernels
    packed: bool = False  # several samples a row


@dataclass(frozen=True)
class Memory:
    """Peak memory of training in bytes, by use."""

    weights: float
    gradients: float
    moments: float  # of the optimizer
    copies: float  # bf16 copies of the weights that autocast saves for the backward pass
    activations: float  # saved for the backward pass
    working: float  # temporaries: the largest block, or the logits of one chunk

    @property
    def total(self) -> float:
        """The sum, without the overhead of CUDA and libraries."""
        states = self.weights + self.gradients + self.moments
        return states + self.copies + self.activations + self.working


def overhead(*, cuda: bool) -> float:
    """Bytes of allocator and libraries."""
    return OVERHEAD if cuda else CPU_OVERHEAD


def estimate_memory(
    config: ModelConfig,
    batch: MicroBatch,
    *,
    optimizer: str = "adamw",
    frozen: Collection[str] = (),
) -> Memory:
    """Peak memory of a training step whose largest micro-batch is `batch`. Muon keeps one moment of
    its matrices, where AdamW keeps two; what its update takes beside that is less than the
    activations that are free by then."""
    counts = parameters(config)
    total = sum(counts.values())
    trained = sum(count for part, count in counts.items() if part not in frozen)
    of_muon = matrix_elements(config, frozen=frozen) if optimizer == "muon" else 0
    saved, block, in_graph = _activations(config, batch, frozen)
    logits = min(HEAD_CHUNK, batch.rows * batch.row_length) * config.vocab_size
    # tanh and softmax in fp32, beside the bf16 logits; the head's gradient, its bf16 weight and the
    # bf16 gradient of one chunk.
    head = logits * (10.0 if batch.bf16 else 8.0)
    head += embedding(config) * (8.0 if batch.bf16 else 4.0)
    return Memory(
        weights=4.0 * total,
        gradients=4.0 * trained,
        moments=8.0 * trained - 4.0 * of_muon,
        copies=2.0 * in_graph if batch.bf16 else 0.0,
        activations=saved,
        working=max(block, head),
    )


def _activations(
    config: ModelConfig, batch: MicroBatch, frozen: Collection[str]
) -> tuple[float, float, int]:
    """Bytes saved for the backward pass, bytes of the largest block while it runs, and parameters
    that autocast copies for the backward pass."""
    saved, largest, copied = 0.0, 0.0, 0
    images = any(batch.images.values())
    counts = parameters(config)
    counts["clip"] += counts["projector"]
    counts["gpt"] -= 2 * embedding(config)  # a lookup, and the head, whose copy is not kept
    upstream = False  # whether this part or one before it is trained
    for part, layers in (("sam", _sam_layers), ("clip", _clip_layers), ("gpt", _gpt_layers)):
        if part == "gpt" and images:
            upstream = upstream or "projector" not in frozen
        upstream = upstream or part not in frozen
        copied += counts[part] if upstream else 0
        found = layers(config, batch)
        if part == "sam":
            largest = _sam_bias(config, batch, found, trained=upstream)
        for blocks, block_input, outside in found:
            largest = max(largest, *blocks)
            if upstream:
                kept = len(blocks) * block_input if batch.checkpointing else sum(blocks)
                saved += outside + kept
        upstream = upstream and images
    return saved, largest, copied


class _SavedBytes(NamedTuple):
    """Bytes that a part of the model saves for the backward pass."""

    blocks: list[float]  # in each block
    block_input: float  # the input of one block: all that is saved of it with checkpointing
    outside: float  # outside the blocks


def _sam_bias(
    config: ModelConfig, batch: MicroBatch, saved: list[_SavedBytes], *, trained: bool
) -> float:
    """Bytes of what a global layer of SAM needs while it runs, of the size of its bias: frozen, the
    bias; trained, on CUDA the bias, made again in the backward pass, its gradient and a sum. Of
    images of one size, which are encoded together; `saved` is that of each size."""
    number, largest = 2.0 if batch.bf16 else 4.0, 0.0
    for (size, count), layers in zip(batch.images.items(), saved, strict=True):
        bias = number * count * config.sam_heads * ((size // PATCH) ** 2) ** 2
        if not trained:
            needed = bias
        elif batch.cuda:
            needed = 3 * bias
        else:  # torch's plain kernel: scores and a gradient, beside a block that is made again
            needed = 2 * bias + (max(layers.blocks) if batch.checkpointing else 0.0)
        largest = max(largest, needed)
    return largest


def _sam_layers(config: ModelConfig, batch: MicroBatch) -> list[_SavedBytes]:
    """Of the images of each size."""
    return [_sam_of_size(config, batch, *one) for one in batch.images.items()]


def _sam_of_size(config: ModelConfig, batch: MicroBatch, size: int, images: int) -> _SavedBytes:
    number = 2 if batch.bf16 else 4
    side, window, width, heads = (
        size // PATCH, config.sam_window, config.sam_width, config.sam_heads,
    )  # fmt: skip
    patches, padded = side * side, (-(-side // window) * window) ** 2
    # In windows: input, qkv, a copy of the queries, output twice. Outside: the inputs of both norms
    # and of the MLP, and the MLP's two.
    inside, outer = 7 * number * width, (8 + number) * width + 2 * number * config.sam_mlp + 16
    layers = []
    for layer in range(config.sam_layers):
        full = layer in config.sam_global_layers
        queries, reach = (patches, side) if full else (padded, window)
        keys = reach * reach
        # The bias: its two terms in a global layer, itself in windows, padded to 16 keys; the sum
        # of exponentials.
        pairs = 2 * number * reach if full else number * -(-keys // 16) * 16
        if not batch.cuda:  # torch's plain kernel saves the weights, queries, keys, values in fp32
            pairs = 4 * keys + 12 * width // heads + (2 * number * reach if full else 0)
        tables = 2 * number * keys * width // heads  # relative positions
        layers.append(
            float(images * (queries * (inside + heads * (pairs + 4)) + patches * outer))
            + bool(images) * tables
        )
    outside = float(number * patches * (3 * PATCH * PATCH + width + 5 * config.sam_neck))
    return _SavedBytes(layers, 4.0 * images * patches * width, images * outside)


def _clip_layers(config: ModelConfig, batch: MicroBatch) -> list[_SavedBytes]:
    """Of the images of each size."""
    return [_clip_of_size(config, batch, *one) for one in batch.images.items()]


def _clip_of_size(config: ModelConfig, batch: MicroBatch, size: int, images: int) -> _SavedBytes:
    positions = images * ((size // PATCH // SHRINK) ** 2 + 1)
    each = (24 if batch.bf16 else 32) * config.clip_width + 4 * config.clip_heads + 16
    each += (6 if batch.bf16 else 12) * config.clip_mlp
    block_input = 4.0 * positions * config.clip_width
    blocks = [float(positions * each)] * config.clip_layers
    return _SavedBytes(blocks, block_input, 3 * block_input)


def _gpt_layers(config: ModelConfig, batch: MicroBatch) -> list[_SavedBytes]:
    positions = batch.rows * batch.row_length
    # Per head: the sum of exponentials, and the norms of query and key.
    each = (32 if batch.bf16 else 40) * config.gpt_width + 12 * config.gpt_heads + 8
    each += (4 if batch.bf16 else 8) * config.gpt_mlp
    if batch.packed:  # the outputs of the samples, and joined
        each += (2 if batch.bf16 else 4) * config.gpt_width
    block_input = 4.0 * positions * config.gpt_width
    blocks = [float(positions * each)] * config.gpt_layers
    return [_SavedBytes(blocks, block_input, 2 * block_input)]


def run_memory(config: Config, *, short: bool, cuda: bool = True) -> Memory:
    """Peak memory of a run before its plan is known, each row with one image, of the smallest size.

    `short`: rows have `SHORT_TEXT` tokens of text; otherwise they fill --seq-len. `cuda`: on a GPU.
    """
    size = min(mode.size for mode in config.image_modes)
    slots = image_slots(size)
    length = min(config.seq_len, slots + SHORT_TEXT) if short else config.seq_len
    images = {size: config.rows_per_pass}
    batch = pass_of(config, row_length=length, images=images, cuda=cuda)
    model = config.model
    if not model.vocab_size:  # the tokenizer is not loaded yet; assume nanochat's, the largest
        model = replace(model, vocab_size=65_537)
    return estimate_memory(model, batch, optimizer=config.optimizer, frozen=config.freeze)


def pass_of(
    config: Config, *, row_length: int, images: Mapping[int, int], cuda: bool
) -> MicroBatch:
    """A forward pass of a run, in rows padded to `row_length`; `images` as in `MicroBatch`."""
    return MicroBatch(
        rows=config.rows_per_pass,
        row_length=row_length,
        images=images,
        bf16=autocast_type(config.precision, torch.device("cuda" if cuda else "cpu")) is not None,
        checkpointing=config.checkpointing,
        cuda=cuda,
        packed=config.pack,
    )


@dataclass(frozen=True)
class Machine:
    """The device a run would train on."""

    kind: str  # "cpu" or "cuda"
    name: str
    memory: float  # free bytes
    cores: int  # of the CPU


def this_machine(device: torch.device) -> Machine:
    """Free memory of `device`, and the CPU cores of this process."""
    cores = torch.get_num_threads()  # respects limits of the container and the environment
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return Machine("cuda", torch.cuda.get_device_name(device), float(free), cores)
    return Machine("cpu", "machine", _available_memory(), cores)


def _available_memory() -> float:
    """Available RAM in bytes, or the container's limit (cgroup v2) if that is smaller."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _read_text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit = _read_text("/sys/fs/cgroup/memory.max").strip()
    return float(min(available, int(limit))) if limit.isdecimal() else float(available)


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def preflight(config: Config, device: torch.device, *, done: int = 0) -> None:
    """Check, before anything is loaded, that this machine can do the run, of which `done` steps
    are done.

    Raises TrainError with one line: what the run needs by an optimistic estimate, what is there,
    and two remedies.
    """
    reason = refusal(config, this_machine(device), done=done)
    if reason:
        raise TrainError(reason)


def refusal(config: Config, machine: Machine, *, done: int = 0) -> str:
    """Why `machine` cannot do the run, of which `done` steps are done; "" if it can.

    Both estimates are optimistic (a fast CPU, short rows, one image a row), so that hardly a
    feasible run is refused. They are not lower bounds.
    """
    needs, hours = _memory_needed(config, machine), _cpu_hours(config, machine, done)
    if _can_do(needs, hours, machine):
        return ""
    elsewhere = run_memory(config, short=True).total + OVERHEAD
    gpu = next((size for size in GPU_SIZES if elsewhere <= size * 1e9 * USABLE), None)
    rent = f"a GPU with {gpu} GB" if gpu else "a smaller --micro-batch on a GPU with 192 GB"
    free = f"this {machine.name} has {machine.memory / 1e9:.1f} GB free"
    need = f"this run needs about {needs / 1e9:.0f} GB of memory"
    if hours > MAX_CPU_HOURS:
        cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
        need += f" and about {hours:,.0f} hours on {cores}"
    return f"{need}; {free}; use {_local_remedy(config, machine, done)} here, or {rent}"


def _memory_needed(config: Config, machine: Machine) -> float:
    """Bytes, by an optimistic estimate."""
    cuda = machine.kind == "cuda"
    return run_memory(config, short=True, cuda=cuda).total + overhead(cuda=cuda)


def _cpu_hours(config: Config, machine: Machine, done: int) -> float:
    """Hours of what is left of a run on a CPU, by an optimistic estimate; 0 on a GPU."""
    if machine.kind == "cuda":
        return 0.0
    steps = max(0, min(config.steps, config.stop_at or config.steps) - done)
    return steps * _cpu_seconds(config, machine.cores) / 3600


def _can_do(needs: float, hours: float, machine: Machine) -> bool:
    usable = USABLE if machine.kind == "cuda" else 1.0
    return needs <= machine.memory * usable and hours <= MAX_CPU_HOURS


def _local_remedy(config: Config, machine: Machine, done: int) -> str:
    """Flags that work on `machine`: smaller forward passes if they do, else a smaller model (on a
    GPU the largest, on a CPU the tiny one, which takes minutes), else less of what is asked for."""
    small = replace(config, micro_batch=1, checkpointing=True)
    hours = _cpu_hours(small, machine, done)
    if _can_do(_memory_needed(small, machine), hours, machine):
        return "--micro-batch 1 --checkpointing"
    for name in ("base", "small", "tiny") if machine.kind == "cuda" else ("tiny",):
        other = STAGES.get(config.name, stage1)(name)
        fits = _can_do(_memory_needed(other, machine), 0.0, machine)
        if fits and _size(other.model) < _size(config.model):
            return f"--preset {name} --init {other.init}"
    return "fewer --steps" if hours > MAX_CPU_HOURS else "a smaller --batch"


def _size(model: ModelConfig) -> int:
    """Parameters but for the vocabulary, which the tokenizer decides."""
    return sum(parameters(replace(model, vocab_size=0)).values())


def _cpu_seconds(config: Config, cores: int) -> float:
    """The time of a step on a CPU in seconds, estimated optimistically: fast cores, one image a
    row without its text. Not a lower bound: rows may have fewer images."""
    model, size = config.model, min(mode.size for mode in config.image_modes)
    flops = step_flops(
        model,
        images={size: config.batch},
        row_lengths=[image_slots(size)] * config.batch,
        supervised=0,
        frozen=config.freeze,
    )
    return flops / (cores * CORE_FLOPS)
