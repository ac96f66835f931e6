"""Our training against the original experiment's way, in turns, on the same charts and chats.

    python -m benchmarks.original [--sizes tiny quarter layers] [--rounds 5]

Takes about 20 minutes and at most 16 GB of memory; each process uses one thread, one trains at a
time. Three fixed sizes (`SIZES`): `tiny`, the preset; `quarter`, with GPT width 256 and 4 layers,
SAM 4 x 192 at 512 px, CLIP 4 layers with MLP 1,024 and a vocabulary of 65,537; `layers`, the full
model with a quarter of its layers and of its vocabulary, at 1,024 px, so that its matrices are the
full model's and the shares of vision, decoder and head are too.

The ways, each with its own recipe (`benchmarks/original_way.py` describes the other two):

    original         batch of the recipe (10, in stage 2 2), padded to the longest
    ours             the same batches, all turns, loss on answers; two rows a pass
                     (--micro-batch 2): less padding and less memory
    ours, packed     rows of up to 4,096 tokens (`layers`: 1,280), one an optimizer step
    nanoVLM, packed  rows of exactly as many, one an optimizer step

Ours is the product's own training with all it does in a step; no way uses other threads to load.
Every round of a way trains on the same samples once: in stage 1 charts, in stage 2 (SAM frozen)
charts and chats, about 18 to 10. The numbers are medians of the rounds.

Columns: real tokens a second (no padding), supervised answer tokens a second (the user's text does
not count, even where it carries loss), samples a second, and the peak memory of the process.
`times` is how many times the original's real tokens a second a way reaches, `bound` how many its
FLOPs would allow if every FLOP took the same time: the FLOPs that ours needs (no padding, the head
at supervised positions alone), or that the others spend (padding, the head everywhere), a real
token. `share` is times / bound, `answer times` and `answer bound` the same for supervised answer
tokens. The FLOPs of the optimizer are left out, and so is everything that is no matrix product.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.common import DATA, ROOT, machine, table, write_result
from benchmarks.steps import peak_rss, tool

if TYPE_CHECKING:
    from benchmarks.original_way import PaddedBatch
    from ocrdata.planning.rows import Rows
    from ocrdata.reading.view import Shards
    from ocrdata.tokens.tokenizer import Tokenizer
    from ocrtrain.run.job import Job
    from ocrtrain.settings.config import Config
    from ocrtrain.settings.model_config import ModelConfig

SPECIAL = 10
"""Ids that the special tokens take of a vocabulary."""


@dataclass(frozen=True)
class Size:
    """What is trained on at one size: the charts of a round of stage 1, the charts and chats of one
    of stage 2, the batch of each stage, and the tokens of a packed row. Without `warm_up` the first
    of the `rounds` is not left out: a round takes minutes."""

    vocabulary: int
    image_size: int
    stage1: tuple[int]
    stage2: tuple[int, int]
    batch: dict[str, int]
    row: int
    rounds: int
    warm_up: bool = True


SIZES = {
    "tiny": Size(2048, 256, (20,), (18, 10), {"stage1": 10, "stage2": 2}, 4096, 5),
    "quarter": Size(65_537, 512, (10,), (10, 6), {"stage1": 10, "stage2": 2}, 4096, 5),
    "layers": Size(16_385, 1024, (2,), (2, 1), {"stage1": 2, "stage2": 2}, 1280, 3, warm_up=False),
}

WAYS = ("original", "ours", "ours, packed", "nanoVLM, packed")


def ways_of(size: Size, stage: str) -> tuple[str, ...]:
    """The ways that are compared at a stage."""
    if stage == "stage2":
        return ("original", "ours, packed", "nanoVLM, packed")
    # Two charts have nothing to pack.
    return ("original", "ours", "ours, packed")[: 2 if sum(size.stage1) < 3 else 3]


def model_of(name: str) -> ModelConfig:
    """The sizes of the model. What a size does not name is as in the full model."""
    from ocrtrain.settings.model_config import ModelConfig
    from ocrtrain.settings.presets import TINY

    vocabulary = SIZES[name].vocabulary
    if name == "tiny":
        return replace(TINY, vocab_size=vocabulary)
    if name == "quarter":
        return ModelConfig(
            sam_width=192, sam_layers=4, sam_heads=3, sam_mlp=768, sam_global_layers=(1, 3),
            clip_layers=4, clip_mlp=1024,
            gpt_width=256, gpt_layers=4, gpt_heads=2, gpt_mlp=1024, vocab_size=vocabulary,
        )  # fmt: skip
    return ModelConfig(
        sam_layers=3, sam_global_layers=(2,), clip_layers=6, gpt_layers=5, vocab_size=vocabulary
    )


def config_of(name: str, stage: str, inputs: dict[str, str], folder: Path) -> Config:
    """The config of ours, unpacked. The samples of a round are an epoch, in their order."""
    from ocrtrain.settings import presets

    size = SIZES[name]
    charts, *chats = getattr(size, stage)
    config = presets.STAGES[stage]("full")
    config = replace(
        config, init="random", model=model_of(name), image_size=size.image_size,
        shards=(spread(inputs["charts"], 700, charts),), val=(f"{inputs['charts']}[-1:]",),
        tokenizer=inputs[f"tokenizer-{name}"], shuffle="none", seq_len=size.row, warmup=0,
        schedule="constant", lr=5e-5, batch=size.batch[stage], steps=500,
        eval_every=0, save_every=0, workers=0, device="cpu", precision="fp32", wandb="off",
        out=str(folder / "run"),
    )  # fmt: skip
    if chats:
        config = replace(
            config, text=(spread(inputs["chat"], 10_000, chats[0]),),
            val_text=(f"{inputs['chat']}[-1:]",), fresh_gpt=False,
        )  # fmt: skip
    return config


def spread(spec: str, of: int, count: int) -> str:
    """A slice of `count` samples, spread evenly over the first `of`."""
    every = of // count
    return f"{spec}[0:{every * count}:{every}]"


def main() -> None:
    """Measure, print the tables, write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--stages", nargs="+", choices=("stage1", "stage2"),
                        default=["stage1", "stage2"])  # fmt: skip
    parser.add_argument("--rounds", type=int, default=0, help="instead of those of each size")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        _serve(*asked.worker)
        return
    began = time.perf_counter()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder), asked.sizes)
        for name in asked.sizes:
            for stage in asked.stages:
                found.append(compare(name, stage, inputs, rounds=asked.rounds))
                rows = found[-1]["ways"]
                print(f"\n{name}, {stage}, {found[-1]['rounds']} rounds\n{table(rows)}", flush=True)
    minutes = (time.perf_counter() - began) / 60
    print(f"\n{minutes:.1f} minutes")
    sizes = {name: asdict(SIZES[name]) | {"model": asdict(model_of(name))} for name in asked.sizes}
    about = machine(("torch", "transformers", "numpy", "pillow"))
    result = {**about, "minutes": minutes, "sizes": sizes, "measured": found}
    print(f"written to {write_result('original', result)}")


def make_inputs(folder: Path, sizes: list[str]) -> dict[str, str]:
    """Make shards of the real charts and chats, and a tokenizer for each size."""
    for name in ("charts", "chat"):
        images = ("--images", DATA / "charts") if name == "charts" else ()
        tool("make_shards", "jsonl", "--path", DATA / name / f"{name}.jsonl", *images,
             "--name", name, "--out", folder / "shards")  # fmt: skip
    inputs = {name: str(folder / "shards" / f"{name}.json") for name in ("charts", "chat")}
    lines = (DATA / "tokenizer" / "gpt2.tiktoken").read_text("ascii").splitlines()
    for name in sizes:
        path = folder / f"{name}.tiktoken"
        path.write_text("\n".join(ranks(lines, SIZES[name].vocabulary - SPECIAL)), "ascii")
        inputs[f"tokenizer-{name}"] = str(path)
    return inputs


def ranks(lines: list[str], count: int) -> list[str]:
    """The first `count` ranks of a rank file, filled up with byte strings that no text holds: a
    byte 0xFF is no UTF-8. So ids and their number are right, whatever the vocabulary."""
    filled = (
        f"{base64.b64encode(bytes([255, number >> 8, number & 255])).decode()} {rank}"
        for number, rank in enumerate(range(len(lines), count))
    )
    return [*lines[:count], *filled]


def compare(name: str, stage: str, inputs: dict[str, str], *, rounds: int = 0) -> dict[str, Any]:
    """Train in turns, each way in a process of its own; the rows of one table."""
    rounds = rounds or SIZES[name].rounds
    ways = ways_of(SIZES[name], stage)
    workers = {way: _Worker(name, stage, way, inputs) for way in ways}
    try:
        for worker in workers.values() if SIZES[name].warm_up else ():
            worker.round()  # caches and allocators warm up
        measured: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, worker in workers.items():
                measured[way].append(worker.round())
                seconds = measured[way][-1]["seconds"]
                print(f"{name}, {stage}, {way}: {seconds:.1f} s", file=sys.stderr, flush=True)
    finally:
        ends = {way: worker.close() for way, worker in workers.items()}
    return {
        "size": name, "stage": stage, "rounds": rounds,
        "ways": rows_of(measured, {way: end["peak"] for way, end in ends.items()}),
        "each round": measured,
    }  # fmt: skip


def rows_of(
    measured: dict[str, list[dict[str, float]]], peaks: dict[str, float]
) -> list[dict[str, Any]]:
    """The rows of a table: medians of the rounds, and what FLOPs and padding allow."""

    def rate(way: str, what: str) -> float:
        return statistics.median(one[what] / one["seconds"] for one in measured[way])

    def per_flop(way: str, what: str) -> float:
        return measured[way][0][what] / measured[way][0]["flops"]

    rows = []
    for way, rounds in measured.items():
        times = {what: rate(way, what) / rate("original", what) for what in ("tokens", "answers")}
        bound = {
            what: per_flop(way, what) / per_flop("original", what) for what in ("tokens", "answers")
        }
        rows.append(
            {
                "way": way,
                "tokens/s": rate(way, "tokens"),
                "answer tokens/s": rate(way, "answers"),
                "samples/s": rate(way, "samples"),
                "padding": f"{1 - rounds[0]['tokens'] / rounds[0]['positions']:.1%}",
                "peak MB": peaks[way] / 1e6,
                "times": times["tokens"],
                "bound": bound["tokens"],
                "share": times["tokens"] / bound["tokens"],
                "answer times": times["answers"],
                "answer bound": bound["answers"],
                "memory": peaks[way] / peaks["original"],
                "GFLOP/s": rate(way, "flops") / 1e9,
            }
        )
    return rows


class _Worker:
    """A process that trains one way, a round whenever it is asked to."""

    def __init__(self, name: str, stage: str, way: str, inputs: dict[str, str]) -> None:
        words = [sys.executable, "-m", "benchmarks.original", "--worker", name, stage, way,
                 json.dumps(inputs)]  # fmt: skip
        self._process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self._way = way
        self._answer()  # it is ready

    def round(self) -> dict[str, float]:
        """What a round took and did."""
        assert self._process.stdin is not None
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._way}: ended with status {self._process.wait()}")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> dict[str, float]:
        """End the process; its peak memory in bytes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.poll() is not None:
            return {"peak": float("nan")}
        found = self._answer()
        self._process.wait()
        return found


def _serve(name: str, stage: str, way: str, inputs: str) -> None:
    """A worker: a line on standard output when it is ready, after every round, and at its end."""
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what training prints is no answer
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(name, stage, json.loads(inputs), Path(folder))
        rounds = Rounds(sys.stdin, answers)
        (train_ours if way.startswith("ours") else train_other)(way, config, rounds)
    rounds.answer({"peak": peak_rss()})


class Rounds:
    """The rounds that are asked for, and what is answered about each."""

    def __init__(self, asked: Iterable[str], answers: TextIO) -> None:
        self._asked, self._answers = iter(asked), answers
        self._began = 0.0, 0.0

    def answer(self, value: Mapping[str, Any]) -> None:
        print(json.dumps(value), file=self._answers, flush=True)

    def begin(self) -> bool:
        """Wait for a round; whether there is one. Its time starts."""
        asked = next(self._asked, None) is not None
        self._began = time.perf_counter(), time.process_time()
        return asked

    def end(self, done: Done) -> None:
        """The round is over."""
        wall, cpu = self._began
        times = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        self.answer(times | asdict(done))


@dataclass
class Done:
    """What a round trained on. `flops` are needed by ours, spent by the others."""

    samples: int = 0
    tokens: int = 0
    answers: int = 0
    positions: int = 0
    flops: float = 0.0


def train_ours(way: str, config: Config, rounds: Rounds) -> None:
    """Train with the product, as many rounds as are asked for. A round is an epoch of each source;
    fails if its tokens are not those of the samples."""
    from benchmarks.stepwise import train_while
    from ocrtrain.data.run_plan import plan_run
    from ocrtrain.data.sources import open_training
    from ocrtrain.model.encoder_file import save_deepencoder
    from ocrtrain.model.factory import find_tokenizer, new_model
    from ocrtrain.run import run_log

    packed = way == "ours, packed"
    config = replace(config, batch=1, pack=True) if packed else replace(config, micro_batch=2)
    tokenizer, sources = find_tokenizer(config), open_training(config)
    if config.freeze:  # stage 2 refuses to freeze a SAM that nobody trained
        encoder = Path(config.out).with_name("encoder.safetensors")
        save_deepencoder(new_model(config, tokenizer), encoder, {"step": 0, "run": "stage1"})
        config = replace(config, deepencoder=str(encoder))
    expected = Done()
    for shards in sources.train.values():
        _add_needed(expected, config, shards, tokenizer)
    plan = plan_run(config, sources, tokenizer).plan
    steps = [rows_of_epoch(rows) // config.batch for rows in plan.row_sequences]
    if config.text:
        config = replace(config, text_ratio=Fraction(steps[-1], sum(steps)))
    state = {"step": 0, "tokens": 0}

    def wanted(job: Job) -> bool:
        if job.state.step == 0:
            rounds.answer({})  # ready
        elif job.state.step % sum(steps):
            return True
        else:
            trained = job.state.total_tokens - state["tokens"]
            if trained != expected.tokens:
                raise SystemExit(f"{way}: {trained} tokens in a round of {expected.tokens}")
            state["tokens"] = job.state.total_tokens
            positions = sum(
                line["train/positions"] for line in run_log.read(job.run)[-sum(steps) :]
            )
            rounds.end(replace(expected, positions=positions))
        return rounds.begin()

    train_while(config, wanted)


def rows_of_epoch(rows: Rows) -> int:
    """How many rows an epoch of a source has."""
    size = rows.order.size
    return sum(int(draws[0]) < size for draws, _ in rows.members(0, size))


def _add_needed(done: Done, config: Config, shards: Shards, tokenizer: Tokenizer) -> None:
    """Add what an epoch of a source needs, padding left out."""
    from ocrdata.tokens.rendering import render
    from ocrtrain.cost.flops import Workload, training_flops
    from ocrtrain.settings.image_slots import image_slots

    for position in range(len(shards)):
        sample = shards[position]
        slots = [image_slots(config.image_size)] * len(sample.images)
        rendered = render(sample.messages, tokenizer, slots)
        tokens, answers = len(rendered), int(rendered.loss_mask.sum())
        workload = Workload({config.image_size: len(sample.images)}, tokens, tokens**2, answers)
        done.samples += 1
        done.tokens += tokens
        done.answers += answers
        done.flops += training_flops(config.model, workload, frozen=config.freeze).total


def train_other(way: str, config: Config, rounds: Rounds) -> None:
    """Train the original's way or nanoVLM's, as many rounds as are asked for."""
    from benchmarks.original_way import optimizer_of, train_on
    from ocrtrain.cost.flops import Workload, training_flops
    from ocrtrain.data.sources import open_training
    from ocrtrain.model.factory import find_tokenizer, new_model

    tokenizer, sources = find_tokenizer(config), list(open_training(config).train.values())
    model = new_model(config, tokenizer).train()
    optimizer = optimizer_of(model)
    batches = _original_batches if way == "original" else _nanovlm_batches
    rounds.answer({})  # ready
    while rounds.begin():
        done = Done(samples=sum(map(len, sources)))
        for batch in batches(config, sources, tokenizer):
            train_on(model, optimizer, batch)
            done.tokens += batch.tokens
            done.answers += batch.answers
            done.positions += batch.positions
            images = 0 if batch.pixels is None else len(batch.pixels)
            workload = Workload(
                {config.image_size: images}, batch.positions, batch.squares, batch.positions
            )
            done.flops += training_flops(config.model, workload, frozen=config.freeze).total
        rounds.end(done)


def _original_batches(
    config: Config, sources: Sequence[Shards], tokenizer: Tokenizer
) -> Iterator[PaddedBatch]:
    """Batches of one kind each, made when they are asked for."""
    from benchmarks.original_way import original_example, pad_right

    for shards in sources:
        for start in range(0, len(shards), config.batch):
            chosen = range(start, min(start + config.batch, len(shards)))
            examples = [original_example(shards[n], tokenizer, config.image_size) for n in chosen]
            yield pad_right(examples, tokenizer.bos)


def _nanovlm_batches(
    config: Config, sources: Sequence[Shards], tokenizer: Tokenizer
) -> Iterator[PaddedBatch]:
    """Batches of one row. All samples of the round are one buffer, in which no spare rows are
    needed: with nanoVLM's five beside the two that fit, three quarters would be padding."""
    from benchmarks.original_way import nanovlm_example, pack_constant

    examples = [
        nanovlm_example(shards[position], tokenizer, config.image_size)
        for shards in sources
        for position in range(len(shards))
    ]
    yield from pack_constant(examples, config.seq_len, tokenizer.bos, rows=1, spare=0)


if __name__ == "__main__":
    main()
