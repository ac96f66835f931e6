"""How much memory a run takes at its peak, and whether the machine at hand can do it.

Owner of the estimate and of the one line that says no before anything is loaded. Bytes kept for the
backward pass were measured with torch's saved-tensor hooks (sdpa attention, fp32 parameters, with
and without bf16 autocast) and are linear in the widths; `tests/ocrtrain/cost/test_memory.py`
compares them with what torch keeps. Allocator and library overhead are a flat addition.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from ocrdata.errors import TrainError
from ocrtrain.cost.flops import embedding, parameters, step_flops
from ocrtrain.model.ocr_model import HEAD_CHUNK
from ocrtrain.settings.config import Config, ModelConfig
from ocrtrain.settings.image_slots import PATCH, SHRINK, image_slots

SHORT_TEXT = 128  # tokens of text beside an image in the shortest row worth planning for
OVERHEAD = 1.5e9  # bytes: CUDA context, libraries, fragments
CPU_OVERHEAD = 0.6e9  # the same without CUDA: Python, torch, transformers
GPU_SIZES = (16, 24, 32, 40, 48, 80, 94, 141, 192)  # GB that GPUs are sold with
USABLE = 0.94  # of a device's memory
CORE_FLOPS = 50e9  # fp32 FLOP/s of a fast CPU core: optimistic, so that a refusal is safe
PATIENCE = 6 * 3600.0  # seconds, at best, above which a CPU run is refused: it would take days


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass, as memory sees it."""

    rows: int
    row_length: int
    images: int
    image_size: int
    bf16: bool = False
    checkpointing: bool = False


@dataclass(frozen=True)
class Memory:
    """Peak bytes of training, by what holds them."""

    weights: float
    gradients: float
    adam: float
    copies: float  # bf16 copies of the weights, which autocast keeps for the backward pass
    activations: float  # kept for the backward pass
    working: float  # of the block and of the logits at work

    @property
    def total(self) -> float:
        """Everything together, without the device's own overhead."""
        states = self.weights + self.gradients + self.adam
        return states + self.copies + self.activations + self.working


def estimate_memory(
    config: ModelConfig, batch: MicroBatch, *, frozen: Collection[str] = ()
) -> Memory:
    """Peak memory of a training step in bytes, all micro-batches being like `batch`."""
    counts = parameters(config)
    total = sum(counts.values())
    trained = sum(count for part, count in counts.items() if part not in frozen)
    kept, block = _activations(config, batch, frozen)
    logits = min(HEAD_CHUNK, batch.rows * batch.row_length) * config.vocab_size
    # The cap's two steps, the softmax and their gradients; then the gradient of the head.
    head = logits * (16.0 + 2 * (2 if batch.bf16 else 4)) + embedding(config) * 4.0
    return Memory(
        weights=4.0 * total,
        gradients=4.0 * trained,
        adam=8.0 * trained,
        copies=2.0 * (total - embedding(config)) if batch.bf16 else 0.0,
        activations=kept,
        working=max(block, head),
    )


def _activations(
    config: ModelConfig, batch: MicroBatch, frozen: Collection[str]
) -> tuple[float, float]:
    """Bytes kept for the backward pass, and those of the largest block at work."""
    kept, largest = 0.0, 0.0
    upstream = False  # whether something trained comes before the part
    for part, layers in (("sam", _sam_layers), ("clip", _clip_layers), ("gpt", _gpt_layers)):
        if part == "gpt" and batch.images:
            upstream = upstream or "projector" not in frozen
        upstream = upstream or part not in frozen
        blocks, inputs, beside = layers(config, batch)
        largest = max(largest, *blocks, 0.0)
        if upstream:
            kept += beside + (len(blocks) * inputs if batch.checkpointing else sum(blocks))
        upstream = upstream and batch.images > 0
    return kept, largest


class _Kept(NamedTuple):
    """Bytes a part keeps: in each block, as a block's input, and beside its blocks."""

    blocks: list[float]
    inputs: float
    beside: float


def _sam_layers(config: ModelConfig, batch: MicroBatch) -> _Kept:
    side, window, width = batch.image_size // PATCH, config.sam_window, config.sam_width
    padded = (-(-side // window) * window) ** 2
    plain = (34 if batch.bf16 else 44) * width + (4 if batch.bf16 else 8) * config.sam_mlp
    mask = (2 if batch.bf16 else 4) * config.sam_heads  # the relative positions, written out
    layers = []
    for layer in range(config.sam_layers):
        full = layer in config.sam_global_layers
        positions, keys = (side * side, side * side) if full else (padded, window * window)
        layers.append(float(batch.images * positions * (plain + mask * keys)))
    patches = batch.images * side * side
    beside = 4.0 * patches * (3 * PATCH * PATCH + width + 5 * config.sam_neck)
    return _Kept(layers, 4.0 * patches * width, beside)


def _clip_layers(config: ModelConfig, batch: MicroBatch) -> _Kept:
    positions = batch.images * ((batch.image_size // PATCH // SHRINK) ** 2 + 1)
    each = (24 if batch.bf16 else 32) * config.clip_width
    each += (6 if batch.bf16 else 12) * config.clip_mlp
    inputs = 4.0 * positions * config.clip_width
    return _Kept([float(positions * each)] * config.clip_layers, inputs, 3 * inputs)


def _gpt_layers(config: ModelConfig, batch: MicroBatch) -> _Kept:
    positions = batch.rows * batch.row_length
    each = (32 if batch.bf16 else 40) * config.gpt_width
    each += (4 if batch.bf16 else 8) * config.gpt_mlp
    inputs = 4.0 * positions * config.gpt_width
    return _Kept([float(positions * each)] * config.gpt_layers, inputs, 2 * inputs)


def run_memory(config: Config, *, short: bool, bf16: bool | None = None) -> Memory:
    """The memory of a run with rows of an image and a little text (`short`), or rows that fill
    --seq-len. `bf16` None: as on CUDA."""
    slots = image_slots(config.image_size)
    length = min(config.seq_len, slots + SHORT_TEXT) if short else config.seq_len
    batch = MicroBatch(
        rows=config.rows_per_pass,
        row_length=length,
        images=config.rows_per_pass,
        image_size=config.image_size,
        bf16=config.precision != "fp32" if bf16 is None else bf16,
        checkpointing=config.checkpointing,
    )
    model = config.model
    if not model.vocab_size:  # the tokenizer's, which is not open yet: nanochat's is the largest
        model = replace(model, vocab_size=65_537)
    return estimate_memory(model, batch, frozen=config.freeze)


@dataclass(frozen=True)
class Machine:
    """What a run would have: "cpu" or "cuda", its name, free bytes, CPU cores."""

    kind: str
    name: str
    memory: float
    cores: int


def this_machine(device: torch.device) -> Machine:
    """The machine at hand, as far as `device` reaches."""
    cores = torch.get_num_threads()  # those torch will use: containers and settings included
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return Machine("cuda", torch.cuda.get_device_name(device), float(free), cores)
    return Machine("cpu", "CPU", _available_memory(), cores)


def _available_memory() -> float:
    """Bytes of RAM a new process can have: what the system has left, or the container's limit
    (cgroup v2) if that is less."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return float(min(available, int(limit))) if limit.isdecimal() else float(available)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def preflight(config: Config, device: torch.device) -> None:
    """Raise TrainError, before anything is loaded, where this machine cannot do the run: one line
    that says what it would take, and the two ways on."""
    refused = refusal(config, this_machine(device))
    if refused:
        raise TrainError(refused)


def refusal(config: Config, machine: Machine) -> str:
    """Why `machine` cannot do the run, or ""; only what is certain is refused: rows are taken to
    be short, a CPU to be fast."""
    cuda = machine.kind == "cuda"
    bf16 = config.precision == "bf16" or (config.precision == "auto" and cuda)
    needs = run_memory(config, short=True, bf16=bf16).total + (OVERHEAD if cuda else CPU_OVERHEAD)
    fits = needs <= machine.memory * (USABLE if cuda else 1.0)
    hours = 0.0 if cuda else _cpu_seconds(config, machine.cores) / 3600
    if fits and hours * 3600 <= PATIENCE:
        return ""
    elsewhere = run_memory(config, short=True, bf16=config.precision != "fp32").total + OVERHEAD
    gpu = next((size for size in GPU_SIZES if elsewhere <= size * 1e9 * USABLE), None)
    rent = f"a GPU of {gpu} GB" if gpu else "a smaller --micro-batch on a GPU of 192 GB"
    have = f"this {machine.name} has {machine.memory / 1e9:.1f} GB free"
    takes = f"this run takes about {needs / 1e9:.0f} GB of memory"
    if not cuda:
        takes += f" and at best {hours:,.0f} hours on {machine.cores} cores"
    return f"{takes}, {have}; go on with {_here(config, machine, cuda=cuda)}, or with {rent}"


def _here(config: Config, machine: Machine, *, cuda: bool) -> str:
    """What would work on this machine: the same run in smaller pieces, else the tiny model."""
    small = replace(config, micro_batch=1, checkpointing=True)
    least = run_memory(small, short=True).total + OVERHEAD
    if cuda and least <= machine.memory * USABLE:
        return "--micro-batch 1 --checkpointing here"
    return "--preset tiny --init random here"


def _cpu_seconds(config: Config, cores: int) -> float:
    """The run's time on a CPU, if every core were fast: images alone, without their text."""
    model = config.model
    flops = step_flops(
        model,
        images=config.batch,
        image_size=config.image_size,
        row_lengths=[image_slots(config.image_size)] * config.batch,
        supervised=0,
        frozen=config.freeze,
    )
    return config.steps * flops / (cores * CORE_FLOPS)
