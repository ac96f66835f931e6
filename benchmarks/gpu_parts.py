"""What `benchmarks/gpu.py` measures: each part is a function that returns its numbers.

Training is the product's own, on synthetic charts and sums, with random weights. At toy size
everything runs on a CPU in seconds.
"""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.stepwise import train_while
from ocrdata.reading.prefetch import Prefetcher
from ocrtrain.cost.flops import decoder_flops
from ocrtrain.cost.gpus import peak_flops
from ocrtrain.data.run_plan import plan_run
from ocrtrain.data.sources import open_training
from ocrtrain.data.stream import Stream
from ocrtrain.model import ocr_model
from ocrtrain.model.attention import WAYS, PackedRows, starts_of
from ocrtrain.model.encoder_file import save_deepencoder
from ocrtrain.model.factory import bare_model, find_tokenizer
from ocrtrain.model.init import initialise, mean_and_std
from ocrtrain.run import attention_choice, run_log
from ocrtrain.run.attention_choice import read_choice
from ocrtrain.run.job import Job
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.presets import STAGES

Numbers = dict[str, Any]

TOY_MODEL = ModelConfig(
    sam_width=32, sam_layers=2, sam_heads=2, sam_mlp=64, sam_window=2, sam_global_layers=(1,),
    sam_neck=32, sam_mid=32, sam_out=32, sam_grid=4, clip_width=32, clip_layers=1, clip_heads=2,
    clip_mlp=64, clip_grid=1, gpt_width=64, gpt_layers=2, gpt_heads=2, gpt_mlp=128, vocab_size=0,
)  # fmt: skip

BLOCK = 1 << 20
"""Random weights are blocks of this many normal values, repeated: a billion take ten seconds."""


@dataclass(frozen=True)
class Setting:
    """Where the inputs of all parts are, and whether they are of toy size."""

    folder: Path
    toy: bool

    @property
    def device(self) -> torch.device:
        """The GPU, or else the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def encoder(self) -> Path:
        """Stage 2 starts from this encoder."""
        return self.folder / "encoder.safetensors"

    def config(self, stage: str, name: str) -> Config:
        """The recipe of a stage, with random weights, on the synthetic data."""
        config = replace(
            STAGES[stage]("full"), init="random", wandb="off", eval_every=0, save_every=0,
            steps=100, warmup=0, shards=(f"{self.folder}/shards/charts.json[:-8]",),
            val=(f"{self.folder}/shards/charts.json[-1:]",), workers=2 if self.toy else 8,
            tokenizer=f"{self.folder}/ranks.tiktoken", out=f"{self.folder}/run-{name}",
            log_every=100,
        )  # fmt: skip
        if self.toy:
            config = replace(config, model=TOY_MODEL, image_size=64, seq_len=256, batch=2)
        if stage == "stage2":
            sums = f"{self.folder}/shards/sums.json"
            config = replace(
                config, deepencoder=str(self.encoder), text=(f"{sums}[:-8]",),
                val_text=(f"{sums}[-1:]",),
            )  # fmt: skip
        return config


def quick_weights(model: torch.nn.Module, config: ModelConfig, *, seed: int) -> None:
    """In place of `ocrtrain.model.init.initialise`: the same means and deviations, in a tenth of
    the time. No number of a speed depends on the values."""
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(seed)).clamp_(-3, 3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean, std = mean_and_std(name, parameter, config)
            for part in parameter.flatten().split(BLOCK):
                part.copy_(block[: part.numel()] * std + mean)


@contextmanager
def quick_start() -> Iterator[None]:
    """Models made in this context have `quick_weights`."""
    ocr_model.initialise = quick_weights
    try:
        yield
    finally:
        ocr_model.initialise = initialise


def weights(setting: Setting) -> Numbers:
    """An encoder for stage 2."""
    config = setting.config("stage1", "weights")
    tokenizer = find_tokenizer(config)
    config = replace(config, model=replace(config.model, vocab_size=tokenizer.vocab_size))
    with quick_start():
        model = bare_model(config, tokenizer)
    save_deepencoder(model, setting.encoder, {"step": 0, "run": "stage1"})
    return {"encoder_MB": setting.encoder.stat().st_size / 1e6}


def peaks(setting: Setting) -> Numbers:
    """What the device can do: bf16 products, copies on it and to it."""
    side, megabytes = (256, 1) if setting.toy else (8192, 1024)
    device = setting.device
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = _seconds(device, lambda: a @ b)
    source = torch.zeros(megabytes << 20, dtype=torch.uint8)
    source = source.pin_memory() if device.type == "cuda" else source
    moved = source.to(device)
    upload = _seconds(device, lambda: moved.copy_(source, non_blocking=True))
    other = moved.clone()
    copy = _seconds(device, lambda: other.copy_(moved))
    return {
        "bf16_TFLOPs": 2 * side**3 / product / 1e12,
        "data_sheet_TFLOPs": (peak_flops(device) or 0.0) / 1e12,
        "upload_GB_per_s": len(source) / upload / 1e9,
        "copy_GB_per_s": 2 * len(source) / copy / 1e9,
    }


def train(
    setting: Setting, stage: str, *, steps: int = 20, warm: int = 5, **changes: Any
) -> Numbers:
    """Some steps of a stage: medians of those after the warm-up."""
    if setting.toy:
        steps, warm = 3, 1
        changes = {key: value for key, value in changes.items() if key not in _FULL_SIZE}
    name = f"{stage}-{time.time_ns()}"
    config = replace(setting.config(stage, name), **changes)
    began, started = time.perf_counter(), {"at": 0.0}
    usage = _Usage()

    def wanted(job: Job) -> bool:
        if job.state.step == 0:
            started["at"] = time.perf_counter()
        if job.state.step == warm:
            usage.start()
        return job.state.step < steps

    with quick_start(), usage:
        train_while(config, wanted)
    lines = [line for line in run_log.read(Path(config.run_folder)) if "train/dt" in line]
    run = Path(config.run_folder)
    return {
        **_figures(config, lines[warm:], setting.device),
        **({"attention": read_choice(run)} if (run / attention_choice.FILE).exists() else {}),
        "first_step_s": lines[0]["train/dt"],
        "start_s": started["at"] - began,
        **usage.figures(),
        **_peak_memory(setting.device),
    }


_FULL_SIZE = ("batch", "micro_batch")
"""Changes that are left out at toy size."""


def _figures(config: Config, lines: Sequence[dict[str, Any]], device: torch.device) -> Numbers:
    """Medians and sums of the measured steps."""
    seconds = sum(line["train/dt"] for line in lines)
    sums = {
        name: sum(line[f"train/{name}"] for line in lines)
        for name in ("tokens", "positions", "supervised", "images")
    }
    useful = lines[-1]["train/total_flops"] - lines[0]["train/total_flops"]
    spent = useful + 3 * decoder_flops(config.model, sums["positions"] - sums["tokens"], 0)
    if config.checkpointing:
        spent *= 4 / 3
    # Total FLOPs are those up to a step: the first of the lines is left out of their time.
    rate = sum(line["train/dt"] for line in lines[1:])
    numbers = {
        "steps": len(lines),
        "step_s": statistics.median(line["train/dt"] for line in lines),
        "optimizer_s": statistics.median(line["train/time_optimizer"] for line in lines),
        "slowest_step_s": max(line["train/dt"] for line in lines),
        "tokens_per_s": sums["tokens"] / seconds,
        "answer_tokens_per_s": sums["supervised"] / seconds,
        "images_per_s": sums["images"] / seconds,
        "padding": 1 - sums["tokens"] / sums["positions"],
        "wait": sum(line["train/wait"] for line in lines) / seconds,
        "useful_TFLOPs": useful / rate / 1e12,
        "spent_TFLOPs": spent / rate / 1e12,
        "last_loss": lines[-1]["train/loss"],
    }
    if peak := peak_flops(device):
        numbers |= {"mfu": useful / rate / peak, "hardware_use": spent / rate / peak}
    return numbers


def _peak_memory(device: torch.device) -> Numbers:
    if device.type != "cuda":
        return {}
    return {
        "peak_GB": torch.cuda.max_memory_allocated() / 1e9,
        "reserved_GB": torch.cuda.max_memory_reserved() / 1e9,
    }


class _Usage:
    """What nvidia-smi says of the GPU while steps are measured: its use in percent, and watts."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []

    def start(self) -> None:
        words = ["nvidia-smi", "--query-gpu=utilization.gpu,power.draw",
                 "--format=csv,noheader,nounits", "-lms", "200"]  # fmt: skip
        try:
            self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        except OSError:  # no GPU here
            return
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._lines.extend(self._process.stdout)

    def __enter__(self) -> _Usage:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def figures(self) -> Numbers:
        """Means over the samples; nothing without a GPU."""
        found = [line.split(",") for line in self._lines if line.count(",") == 1]
        samples = [(float(use), float(watts)) for use, watts in found if "N/A" not in use + watts]
        if not samples:
            return {}
        use, watts = (statistics.fmean(column) for column in zip(*samples, strict=True))
        return {"gpu_busy": use / 100, "watts": watts}


def loader(setting: Setting) -> Numbers:
    """The loader alone, packed as in stage 2: samples a second by its number of threads."""
    config = replace(setting.config("stage2", "loader"), pack=True)
    tokenizer, sources = find_tokenizer(config), open_training(config)
    plan = plan_run(config, sources, tokenizer).plan
    numbers: Numbers = {}
    for workers in (1, 2) if setting.toy else (1, 2, 4, 8, 16):
        stream = Stream(plan, sources, config, tokenizer=tokenizer)
        steps = 4 if setting.toy else 12
        with Prefetcher(stream.assembly, 0, stop=steps, workers=workers) as batches:
            began = time.perf_counter()
            made = list(batches)
            seconds = time.perf_counter() - began
        samples = sum(len(list(batch.segments)) for batch in made)
        numbers[f"samples_per_s_{workers}_threads"] = samples / seconds
        numbers[f"tokens_per_s_{workers}_threads"] = sum(b.tokens for b in made) / seconds
    return numbers


def attention(setting: Setting) -> Numbers:
    """Attention of a packed row at the decoder's size, forward and backward: by a mask, without
    samples, and by each of --attention. Seconds, and the largest difference of its output from that
    with a mask."""
    device = setting.device
    length, heads, width, sample = (64, 2, 32, 20) if setting.toy else (8192, 10, 128, 330)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    lengths = [sample] * (length // sample)
    lengths += [length - sum(lengths)] if length % sample else []
    torch.manual_seed(0)
    tensors = [
        torch.randn(1, heads, length, width, device=device, dtype=kind, requires_grad=True)
        for _ in range(3)
    ]
    expected: Tensor | None = None
    numbers: Numbers = {"lengths": [lengths[0], len(lengths)]}
    for name, make in ATTENTION.items():
        try:
            function = make(lengths, device)
            output = function(*tensors)
            expected = output.detach() if name == "mask" else expected

            def both(function: Callable[..., Tensor] = function) -> None:
                function(*tensors).sum().backward()

            numbers[name] = {"seconds": _seconds(device, both)}
            if expected is not None and name != "whole row":
                numbers[name]["difference"] = (output - expected).abs().max().item()
        except Exception as exc:  # what this version of torch or this device lacks
            numbers[name] = {"error": f"{type(exc).__name__}: {exc}"[:500]}
    return numbers


Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [1, heads, T, D] -> outputs [1, T, heads, D]."""


def _masked(lengths: Sequence[int], device: torch.device) -> Attention:
    counts = torch.tensor(lengths, device=device)
    number = torch.arange(len(lengths), device=device).repeat_interleave(counts)
    mask = (number[:, None] == number[None]).tril()
    return lambda *tensors: F.scaled_dot_product_attention(*tensors, attn_mask=mask).transpose(1, 2)


def _whole_row(_: Sequence[int], __: torch.device) -> Attention:
    """No samples: what a row of one sample costs."""
    return lambda *tensors: F.scaled_dot_product_attention(*tensors, is_causal=True).transpose(1, 2)


def _way(way: str, lengths: Sequence[int], device: torch.device) -> Attention:
    """One of --attention: what is made for all layers of a pass is made once."""
    samples = (tuple(lengths),)
    packed = PackedRows(way, samples, starts_of(samples).to(device))
    return lambda query, key, value: packed.attend(
        query, key, value, query.shape[-1] ** -0.5, packed
    )


ATTENTION: dict[str, Callable[[Sequence[int], torch.device], Attention]] = {
    "mask": _masked,
    "whole row": _whole_row,
    **{way: partial(_way, way) for way in WAYS},
}


def _seconds(device: torch.device, work: Callable[[], object], *, repeats: int = 5) -> float:
    """The median time of `work`, after once to warm up."""
    times = []
    for _ in range(repeats + 1):
        _wait_for(device)
        began = time.perf_counter()
        work()
        _wait_for(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
