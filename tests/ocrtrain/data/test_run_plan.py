"""Plans of runs: their figures against the logs and batches of whole runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import ShardError, TrainError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, from_turns, text_part
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.cost.forecast import describe_fetching, figures, forecast
from ocrtrain.data.run_plan import RunPlan, check_same, plan_rows, plan_run, plan_with_lengths
from ocrtrain.data.sources import open_sources, open_training
from ocrtrain.run import loop as training
from ocrtrain.run import run_log
from ocrtrain.run.launch import train
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.state.run_files import read_sealed, write_sealed
from tests.support.data import make_inputs, small_config, write_set
from tests.support.far import FarFolder
from tests.support.measured import made_up
from tests.support.rows import flip
from tests.support.rows import write_set as write_rows
from tests.support.streams import damaged

WAYS: dict[str, dict[str, Any]] = {
    "stage 1": {"text": (), "val_text": ()},
    "mix": {},
    "rows mixed": {"mix": "sample", "batch": 6, "micro_batch": 2},
    "packed": {"pack": True, "pack_window": 16, "row_images": 5, "seq_len": 90, "micro_batch": 2},
    "by tokens, changing": {"weigh_by": "tokens", "text_ratio": Fraction(1, 2),
                            "text_ratio_at": ("6:1/10",)},
    "cut": {"seq_len": 20},
    "dropped": {"seq_len": 24, "too_long": "drop"},
    "all shuffled": {"shuffle": "full"},
    "in order": {"shuffle": "none", "mix": "sample"},
    "one epoch": {"at_end": "stop", "steps": 40, "pack": True, "pack_window": 8, "seq_len": 60},
}  # fmt: skip


def mixed(inputs: dict[str, str], out: Path, **values: Any) -> Config:
    text = {"text": (inputs["text"] + "[:30]",), "val_text": (inputs["text"] + "[30:]",)}
    base = {"steps": 14, "save_every": 0, "eval_every": 0, **text}
    return small_config(inputs, out, **{**base, **values})


def planned(config: Config) -> RunPlan:
    return plan_run(config, open_sources(config), load_tokenizer(config.tokenizer))


@pytest.mark.parametrize("way", WAYS)
def test_the_logs_of_a_run_add_up_to_the_figures_of_its_plan(
    inputs: dict[str, str], tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    config = mixed(inputs, tmp_path / "run", **WAYS[way])
    totals = planned(config).totals
    assert train(config) == 0
    said = read_sealed(tmp_path / "run" / "plan.json")["figures"]
    lines = [line for line in run_log.read(tmp_path / "run") if "train/loss" in line]
    assert len(lines) == said["steps"] == totals.steps

    def logged(name: str) -> int:
        return int(sum(line[f"train/{name}"] for line in lines))

    for name in ("tokens", "supervised", "images", "cut_tokens", "cut_turns", "positions"):
        assert logged(name) == said[name], name
    assert said["image_tokens"] == said["images"] * image_slots(config.image_size)
    assert said["padding"] == pytest.approx(1 - logged("tokens") / logged("positions"))
    assert lines[-1]["train/total_flops"] == pytest.approx(
        said["vision_flops"] + said["text_flops"], rel=1e-9
    )
    for source in said["sources"]:
        share = sum(line[f"mix/{source['name']}_share"] for line in lines) * config.batch
        assert share == pytest.approx(source["rows"])
    printed = capsys.readouterr().out
    assert f"{said['tokens']:,} tokens in {said['positions']:,} positions" in printed
    if way == "one epoch":
        assert totals.steps < 40
        assert f"{totals.steps} of 40 steps" in printed
        assert lines[-1]["train/lr"] < 0.2 * config.lr  # the schedule ends with the run


def test_answers_of_weight_0_are_supervised_neither_in_a_plan_nor_in_its_run(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    totals = {}
    for name, weight in (("none", {}), ("some", {"weight": 0})):
        chats = [from_turns([("1+1=", "3"), (f"{n}+1=", "2")], [], source="", meta={})
                 for n in range(20)]  # fmt: skip
        for chat in chats:
            chat.messages[1].update(weight)
        (tmp_path / name).mkdir()
        spec = write_set(tmp_path / name, "chats", chats) + "[:]"
        config = mixed(inputs, tmp_path / name / "run", text=(spec,), steps=4)
        totals[name] = planned(config).totals
    assert train(config) == 0
    lines = [line for line in run_log.read(Path(config.out)) if "train/loss" in line]
    some, none = totals["some"].sums, totals["none"].sums
    assert sum(line["train/supervised"] for line in lines) == some.supervised
    assert sum(line["train/tokens"] for line in lines) == some.tokens == none.tokens
    # "3" and its end token, in every chat that is drawn.
    chats_drawn = totals["some"].sources[1].sums.samples
    assert none.supervised - some.supervised == 2 * chats_drawn > 0


def test_bytes_are_the_sizes_of_all_members(inputs: dict[str, str], tmp_path: Path) -> None:
    config = mixed(inputs, tmp_path, text=(), val_text=(), steps=12)
    (shards,) = open_sources(config).train.values()
    found = planned(config).totals
    assert found.sources[0].epochs == 1
    assert found.sums.bytes == sum(
        len(data) for members in shards.iter_members() for data in members.values()
    )


def test_the_longest_samples_are_listed(inputs: dict[str, str], tmp_path: Path) -> None:
    config = mixed(inputs, tmp_path)
    longest = planned(config).longest
    assert len(longest) == 5 and longest[0].shard.startswith("squares-00")
    assert [one.tokens for one in longest] == sorted((o.tokens for o in longest), reverse=True)
    slots, found = image_slots(config.image_size), planned(config)
    wanted = max(int(own.untruncated.max()) for own in found.plan.lengths)
    assert longest[0].tokens == wanted > slots


def test_too_long_samples_are_an_error_on_request(inputs: dict[str, str], tmp_path: Path) -> None:
    wanted = (
        r"^squares: \d+ samples .*--seq-len 20; .*squares-00\d\.tar: sample \d{9}\b.* \d+ tokens.*"
        "--too-long"
    )
    with pytest.raises(UsageError, match=wanted):
        planned(mixed(inputs, tmp_path, seq_len=20, too_long="error"))


def test_samples_without_an_answer_are_refused_or_masked(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    odd = [Sample([{"role": "user", "content": [text_part("?")]}], [], "odd", {})]
    spec = write_set(tmp_path, "odd", odd * 3)
    config = mixed(inputs, tmp_path, text=(spec + "[:]",), val_text=(inputs["text"] + "[30:]",))
    wanted = r"^odd: 3 samples .*odd-000\.tar: sample 000000000: roles .*--bad-samples skip"
    with pytest.raises(UsageError, match=wanted):
        planned(config)
    good = [from_turns([("q", "a")], [], source="odd", meta={})]
    spec = write_set(tmp_path, "half", odd * 3 + good * 3)
    skipping = mixed(
        inputs, tmp_path, text=(spec + "[:]",), val_text=(inputs["text"] + "[30:]",),
        bad_samples="skip", steps=28, batch=3,
    )  # fmt: skip
    sums = planned(skipping).totals.sources[1].sums
    assert (sums.samples, sums.empty) == (30, 15)
    assert sums.supervised > 0


def test_a_source_without_a_supervised_token_is_refused(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    wanted = r"^squares: .*\b\d+ samples .*--seq-len 4 .*\b3 positions"
    with pytest.raises(UsageError, match=wanted):
        planned(mixed(inputs, tmp_path, seq_len=4))


def test_validation_samples_are_read_before_training_starts(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    spec = damaged(inputs, tmp_path, 50)
    config = mixed(inputs, tmp_path / "run", val=(spec + "[48:]",), bad_samples="skip")
    with pytest.raises(ShardError, match=r"sample 000000050: member 000000050\.png: "):
        train(config)
    assert not (tmp_path / "run" / "config.json").exists()
    long = [from_turns([("Which? " * 99, "a")], [], source="long", meta={})] * 2
    spec = write_set(tmp_path, "long", long)
    with pytest.raises(UsageError, match=r"^validation on long .*\b2 samples.*--seq-len 128\b"):
        train(mixed(inputs, tmp_path / "run", val=(spec + "[:]",)))


def test_a_validation_that_fails_later_loses_no_training(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    spec = damaged_copy(inputs, tmp_path)
    run, whole = tmp_path / "run", tmp_path / "whole"
    values: dict[str, Any] = {"val": (spec + "[48:]",), "steps": 6, "text": (), "val_text": ()}
    assert train(mixed(inputs, whole, **values)) == 0
    original = training._validate

    def breaking(job: training.Job, *, before_batch: Callable[[], None]) -> None:
        path = tmp_path / "squares-002.tar"
        sound = path.read_bytes()
        flip(path, open_shards(spec).row(55).members[1].offset + 9)
        try:
            original(job, before_batch=before_batch)
        finally:
            path.write_bytes(sound)

    monkeypatch.setattr(training, "_validate", breaking)
    with pytest.raises(ShardError, match="sample 000000055"):
        train(mixed(inputs, run, **values))
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000006"]
    monkeypatch.undo()
    assert train(mixed(inputs, run, **values), resume=True) == 0
    assert last_validation(run) == last_validation(whole)  # the resumed run validates first


def last_validation(run: Path) -> dict[str, Any]:
    """The numbers of the last validation, without its time."""
    line = [line for line in run_log.read(run) if "val/loss" in line][-1]
    return {name: value for name, value in line.items() if not name.startswith("time/")}


def damaged_copy(inputs: dict[str, str], folder: Path) -> str:
    """A copy of the squares, to be damaged."""
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return str(folder / "squares-*.tar")


def test_a_run_records_what_it_skips(inputs: dict[str, str], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = damaged(inputs, tmp_path, 17)
    values: dict[str, Any] = {"shards": (spec + "[:48]",), "text": (), "val_text": (), "steps": 12}
    raising = mixed(inputs, tmp_path / "raising", **values)
    with pytest.raises(ShardError, match=r"sample 000000017: member 000000017\.png: "):
        train(raising)
    run = tmp_path / "run"
    config = mixed(inputs, run, bad_samples="skip", save_every=4, **values)
    assert train(config) == 0
    (line,) = (run / "bad.jsonl").read_text().splitlines()
    assert '"key": "000000017"' in line and json.loads(line)["reason"]
    assert sum(line.get("train/bad", 0) for line in run_log.read(run)) == 1
    none = mixed(inputs, tmp_path / "none", bad_samples="skip", max_bad=0, **values)
    with pytest.raises(TrainError, match=r"\b1 times.*--max-bad is 0"):
        train(none)
    # The shard is repaired: the run, resumed from a checkpoint, still masks the same sample.
    again = tmp_path / "again"
    stopped = mixed(inputs, again, bad_samples="skip", save_every=4, stop_at=8, **values)
    assert train(stopped) == 0
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert train(mixed(inputs, again, save_every=4, **values), resume=True) == 0
    batches = [(folder / "batches.jsonl").read_text() for folder in (run, again)]
    step = int(line.split('"step": ')[1].split("}")[0].split(",")[0])
    if step < 8:
        assert batches[0] == batches[1]
    losses = [
        [entry["train/loss"] for entry in run_log.read(folder) if "train/loss" in entry][:8]
        for folder in (run, again)
    ]
    assert losses[0] == losses[1]


def test_a_damaged_text_is_skipped_on_request(inputs: dict[str, str], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = damaged_copy(inputs, tmp_path)
    for counts in tmp_path.glob("*.tokens-*"):
        counts.unlink()
    flip(tmp_path / "squares-000.tar", open_shards(spec).row(17).members[0].offset + 20)
    values: dict[str, Any] = {"shards": (spec + "[:48]",), "text": (), "val_text": (), "pack": True,
                              "pack_window": 16, "steps": 8, "seq_len": 90}  # fmt: skip
    with pytest.raises(ShardError, match=r"sample 000000017: member 000000017\.json: checksum"):
        train(mixed(inputs, tmp_path / "raising", **values))
    config = mixed(inputs, tmp_path / "run", bad_samples="skip", save_every=4, **values)
    sums = planned(config).totals.sources[0].sums
    assert train(config) == 0
    skipped = [
        json.loads(line) for line in (tmp_path / "run" / "bad.jsonl").read_text().split("\n")[:-1]
    ]
    assert {line["key"] for line in skipped} == {"000000017"} and len(skipped) == sums.empty > 0
    assert all("checksum" in line["reason"] for line in skipped)
    with pytest.raises(ShardError, match="sample 000000017"):  # counted by now, but as damaged
        train(mixed(inputs, tmp_path / "raising", **values))


def test_a_spike_is_reported_with_its_samples(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    config = mixed(inputs, tmp_path / "run", text=(), val_text=(), steps=40, lr=1e-6,
                   schedule="constant", log_samples=True)  # fmt: skip
    from ocrtrain.run import spikes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spikes, "DEVIATIONS", 0.5)
        patch.setattr(spikes, "LEAST", 0.001)
        assert train(config) == 0
    printed = capsys.readouterr().out
    warned = printed[re.search(r"WARNING at step \d+: the loss is", printed).start() :]  # type: ignore[union-attr]
    step = int(warned.split("step ")[1].split(":")[0])
    command = f"python tools/show_batch.py --run {tmp_path / 'run'} --step {step}"
    assert [line.strip() for line in warned.splitlines()][1] == command
    lines = (tmp_path / "run" / "batches.jsonl").read_text().splitlines()
    named = warned.split("samples: ")[1].splitlines()[0]
    rows = json.loads(lines[step])["rows"]
    assert named == ", ".join(f"{shard}:{key}" for row in rows for _, shard, key in row)


def test_the_forecast_is_the_sum_over_its_sources(inputs: dict[str, str], tmp_path: Path) -> None:
    from ocrtrain.model.factory import with_vocabulary

    config = mixed(inputs, tmp_path)
    config = with_vocabulary(config, load_tokenizer(config.tokenizer))
    found = figures(forecast(config, planned(config)))
    for name in ("tokens", "images", "supervised", "bytes", "samples", "rows", "text_flops",
                 "vision_flops"):  # fmt: skip
        assert found[name] == pytest.approx(sum(source[name] for source in found["sources"]))
    assert found["sources"][1]["vision_flops"] == 0  # sums have no images


@pytest.mark.parametrize("way", WAYS)
def test_the_rows_of_a_started_run_are_those_planned(
    inputs: dict[str, str], tmp_path: Path, way: str
) -> None:
    config = mixed(inputs, tmp_path, **WAYS[way])
    tokenizer = load_tokenizer(config.tokenizer)
    whole = planned(config).plan
    again = plan_rows(config, open_training(config), tokenizer)
    assert again.to_json() == whole.to_json() and again.steps == whole.steps
    for step in range(whole.steps):
        assert again.rows(step) == whole.rows(step)


def test_rows_that_do_not_depend_on_lengths_need_no_counts(tmp_path: Path) -> None:
    own = make_inputs(tmp_path)
    config = mixed(own, tmp_path / "run")
    plan_rows(config, open_training(config), load_tokenizer(config.tokenizer))
    assert not list(tmp_path.glob("*tokens-*"))


@pytest.mark.parametrize("shuffle", ["full", "blocks"])
def test_a_full_permutation_of_remote_shards_takes_a_request_a_sample(
    tmp_path: Path, shuffle: str
) -> None:
    near = write_rows(tmp_path, "charts", (30, 12))
    with FarFolder(tmp_path) as far:
        config = Config(source=(f"far={far.url}/charts.json:1",), shuffle=shuffle, init="random")
        sources = open_sources(config)
        lengths = [made_up(len(shards), longest=20) for shards in sources.train.values()]
        (order,) = plan_with_lengths(config, sources, lengths).orders
    assert (order.source, order.drawn) == ("far", 41) and order.fetch is not None
    assert order.bytes_per_sample == pytest.approx(near.bytes / near.samples)
    assert (order.block, order.window) == ((16, 41) if shuffle == "blocks" else (0, 0))
    line = describe_fetching(order, 0)
    assert ("one request a sample, 41 an epoch" in line) == (shuffle == "full")


def test_a_recipe_is_compared_key_by_key(inputs: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    recipe = planned(mixed(inputs, tmp_path)).recipe()
    write_sealed(path, {**recipe, "figures": {"tokens": 3}})
    moved = [{**source, "spec": "elsewhere"} for source in recipe["sources"]]
    check_same(path, read_sealed(path), {**recipe, "sources": moved}, remedy="")
    without = {key: value for key, value in recipe.items() if key != "validation"}
    check_same(path, read_sealed(path), without, remedy="")
    other = [{**recipe["sources"][0], "digest": "0" * 32}, recipe["sources"][1]]
    was = recipe["sources"][0]["digest"]
    for changed, message in (
        ({"sources": other}, rf"\(squares: .*digest was {was}\b.*\b0{{32}}\); THE REMEDY$"),
        ({"sources": other[:1]}, rf"\(squares: .*digest was {was}\b"),
        ({"sources": moved[:1]}, r"\(.*\b2 sets.*\b1\b.*\); THE REMEDY$"),
        ({"validation": []}, r"\(.*\b2 sets.*\b0\b.*\); THE REMEDY$"),
        ({"order": "x", "sources": other}, r"order: .* then, x now"),
        ({"brand_new": 1}, r"brand_new: None then, 1 now\n.*another version.*config\.json"),
    ):
        with pytest.raises(TrainError, match=message) as caught:
            check_same(path, read_sealed(path), {**recipe, **changed}, remedy="THE REMEDY")
        assert str(caught.value).startswith(f"{path}: ")
