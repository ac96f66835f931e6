"""Whole runs: the rebuilt batch is the one trained on, or one line says why it is not."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ocrdata.errors import OcrError, ShardError, TrainError, UsageError
from ocrdata.planning.ranks import rank_rows
from ocrdata.storage.locks import Lock
from ocrdata.tokens.tokenizer import load_tokenizer, train_tokenizer
from ocrtrain.data.batch_rows import identity_of
from ocrtrain.data.sources import open_training
from ocrtrain.data.stream import Stream
from ocrtrain.inspection.rebuild import RebuildRequest, RebuiltBatch, rebuild
from ocrtrain.run.launch import train
from ocrtrain.settings.saved_config import from_json, to_json
from ocrtrain.state import checkpoint
from ocrtrain.state.run_files import read_sealed, write_sealed
from tests.support.showing import KINDS, break_images, config_of, trained_run

STEPS = 10


@pytest.fixture(scope="module")
def trained(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped halfway; tests that change it use copies."""
    return trained_run(inputs, tmp_path_factory.mktemp("trained") / "run", mix="sample", stop_at=6)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def recorded(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "batches.jsonl").read_text().splitlines()]


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def rebuild_and_compare(run: Path) -> list[RebuiltBatch]:
    """Rebuilds every recorded step and asserts that all of its record matches."""
    found = []
    for line in recorded(run):
        rebuilt = rebuild(RebuildRequest(run, int(str(line["step"]))))
        assert (rebuilt.identity, rebuilt.problem) == (line["identity"], None)
        assert rebuilt.verdict == f"identity {line['identity']} matches the recorded one"
        names = [
            [[part.source, part.ref.shard, part.ref.key] for part in row.segments]
            for row in rebuilt.batch.rows
        ]
        assert names == line["rows"]
        assert [sample.segment for sample in rebuilt.samples] == list(rebuilt.batch.segments)
        found.append(rebuilt)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_of_a_run_is_the_one_trained_on(
    inputs: dict[str, str], tmp_path: Path, kind: str
) -> None:
    run = trained_run(inputs, tmp_path / "run", **KINDS[kind])
    before = contents(run)
    found = rebuild_and_compare(run)
    assert len(found) == STEPS
    assert contents(run) == before, "rebuilding changes nothing in the run"
    assert len({rebuilt.identity for rebuilt in found}) == STEPS
    seen: dict[tuple[str, int], set[int]] = {}
    for rebuilt in found:
        for sample in rebuilt.samples:
            at = sample.segment.source, sample.segment.ref.position
            assert sample.epoch not in seen.setdefault(at, set()), "drawn once per epoch"
            seen[at].add(sample.epoch)
            assert len(sample.sizes) == sample.segment.images
    if kind == "packed mix":
        assert max(len(row.segments) for rebuilt in found for row in rebuilt.batch.rows) > 2
    if kind == "rows mixed":
        assert any(len(set(rebuilt.batch.sources)) == 2 for rebuilt in found)
        assert any(rebuilt.batch.truncated_tokens for rebuilt in found)


def test_a_run_with_a_cache_is_rebuilt_on_another_machine(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = replace(
        from_json(read_sealed(run / "config.json")),
        cache=str(tmp_path / "file" / "cache"),
        cache_limit="1GB",
    )
    write_sealed(run / "config.json", to_json(config))
    assert rebuild(RebuildRequest(run, 3)).problem is None


def test_a_resumed_run(inputs: dict[str, str], tmp_path: Path) -> None:
    run = trained_run(inputs, tmp_path / "run", pack=True, pack_window=16, stop_at=5, workers=0)
    train(config_of(inputs, run, pack=True, pack_window=16, workers=2), resume=True)
    assert len(rebuild_and_compare(run)) == STEPS


@pytest.mark.parametrize("pack", [False, True])
def test_skipped_samples_stay_masked_once_they_are_readable(
    inputs: dict[str, str], tmp_path: Path, pack: bool
) -> None:
    moved = {**inputs, "shards": str(tmp_path / "squares-*.tar")}
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        shutil.copy(path, tmp_path)
    break_images(moved["shards"], range(0, 48, 5))
    values = {"pack": pack, "pack_window": 16, "bad_samples": "skip", "max_bad": 99}
    run = trained_run(moved, tmp_path / "run", stop_at=6, **values)
    masked = {
        rebuilt.request.step: len(rebuilt.batch.skipped) for rebuilt in rebuild_and_compare(run)
    }
    assert sum(masked.values()) == len((run / "bad.jsonl").read_text().splitlines()) > 0
    ahead = [rebuild(RebuildRequest(run, step)) for step in range(6, STEPS)]
    assert any(rebuilt.batch.skipped for rebuilt in ahead), (
        "steps to come mask what training will skip"
    )
    break_images(moved["shards"], range(0, 48, 5))
    assert {
        rebuilt.request.step: len(rebuilt.batch.skipped) for rebuilt in rebuild_and_compare(run)
    } == masked
    assert not any(rebuild(RebuildRequest(run, step)).batch.skipped for step in range(6, STEPS))


def test_an_unreadable_sample_of_a_recorded_step_raises(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """Even if the run skips bad samples: with it masked, the batch would be another."""
    moved = {**inputs, "shards": str(tmp_path / "squares-*.tar")}
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        shutil.copy(path, tmp_path)
    run = trained_run(moved, tmp_path / "run", text=(), val_text=(), bad_samples="skip", stop_at=5)
    ref = rebuild(RebuildRequest(run, 2)).batch.refs[1]
    break_images(moved["shards"], [ref.position])
    with pytest.raises(ShardError, match=rf"{ref.shard}: sample {ref.key}: .*(digest|checksum)"):
        rebuild(RebuildRequest(run, 2))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_have_slices_of_the_global_batch(
    trained: Path, inputs: dict[str, str], world: int
) -> None:
    config = from_json(read_sealed(trained / "config.json"))
    for step in (0, 3):
        whole = rebuild(RebuildRequest(trained, step))
        parts = [rebuild(RebuildRequest(trained, step, rank=r, world=world)) for r in range(world)]
        assert sum((part.samples for part in parts), ()) == whole.samples
        assert sum((part.batch.rows for part in parts), ()) == whole.batch.rows
        identities = [row for part in parts for row in part.batch.row_identities]
        assert identity_of(identities) == whole.identity
        for rank, part in enumerate(parts):
            assert (part.identity, part.recorded) == (whole.identity, whole.recorded)
            assert part.rows == rank_rows(config.batch, rank, world)
            assert {sample.row for sample in part.samples} == set(part.rows)
            assert "of the global batch matches the recorded one" in part.verdict
            assert part.title == f"step {step} of 10, rank {rank} of {world}"


def test_a_rank_has_the_rows_of_its_stream(trained: Path) -> None:
    config = from_json(read_sealed(trained / "config.json"))
    sources, tokenizer = open_training(config), load_tokenizer(trained / "tokenizer.json")
    from ocrtrain.data.run_plan import plan_rows

    stream = Stream(plan_rows(config, sources, tokenizer), sources, config, tokenizer=tokenizer)
    wanted = stream.part(3, rank_rows(config.batch, 1, 2))
    found = rebuild(RebuildRequest(trained, 3, rank=1, world=2)).batch
    assert (found.rows, found.identity) == (wanted.rows, wanted.identity)
    for name in ("input_ids", "targets", "position_ids"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    assert all(map(torch.equal, found.images, wanted.images))


def test_steps_that_training_has_not_reached(
    trained: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    whole = trained_run(inputs, tmp_path / "whole", mix="sample")
    for step, line in enumerate(recorded(whole)):
        rebuilt = rebuild(RebuildRequest(trained, step))
        assert (rebuilt.identity, rebuilt.problem) == (line["identity"], None)
        assert bool(rebuilt.recorded) == (step < 6)
    assert rebuilt.verdict.startswith(f"identity {rebuilt.identity}: ")
    assert "not finished step 9" in rebuilt.verdict and "step 5" in rebuilt.verdict


def test_a_run_that_is_still_training(run: Path) -> None:
    """Its lock is held and its last lines are incomplete: nothing waits or is repaired."""
    for name in ("batches.jsonl", "bad.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 6, "ident')
    with Lock(run / ".lock", "training"):
        before = contents(run)
        assert rebuild(RebuildRequest(run, 5)).problem is None
        assert rebuild(RebuildRequest(run, 6)).recorded == ""
        assert contents(run) == before


def moved_inputs(inputs: dict[str, str], folder: Path) -> dict[str, str]:
    folder.mkdir()
    for path in Path(inputs["shards"]).parent.glob("s*"):
        shutil.copy(path, folder)
    return {name: str(folder / Path(inputs[name]).name) for name in ("shards", "text")}


@pytest.mark.parametrize("written", ["", "[:48]"])
def test_moved_shards(run: Path, inputs: dict[str, str], tmp_path: Path, written: str) -> None:
    """Given with their slice, or taking over the run's."""
    now = moved_inputs(inputs, tmp_path / "now")
    path = run / "config.json"
    config = replace(
        from_json(read_sealed(path)), shards=("gone/squares-*.tar[:48]",),
        text=("gone/sums-*.tar[:30]",), val=("gone/squares-*.tar[48:50]",),
    )  # fmt: skip
    write_sealed(path, to_json(config))
    with pytest.raises(UsageError, match=r"gone.*--shards and --text"):
        rebuild(RebuildRequest(run, 1))
    with pytest.raises(UsageError, match=r"^nowhere.*started with .*gone/squares-\*\.tar\[:48\]"):
        rebuild(RebuildRequest(run, 1, shards=("nowhere.json",)))
    text = now["text"] + written.replace("48", "30")
    found = rebuild(RebuildRequest(run, 1, shards=(now["shards"] + written,), text=(text,)))
    assert found.problem is None and found.recorded


def test_other_shards_are_refused(run: Path, inputs: dict[str, str]) -> None:
    for asked, change in (
        (RebuildRequest(run, 1, shards=(inputs["shards"] + "[:47]",)),
         "squares: .*size.* 48"),
        (RebuildRequest(run, 1, shards=(inputs["shards"] + "[1:49]",)), "squares: .*digest"),
        (RebuildRequest(run, 1, text=(inputs["shards"],)),
         "sums: .*name.* squares-2"),
    ):  # fmt: skip
        with pytest.raises(TrainError, match=change) as caught:
            rebuild(asked)
        assert "--shards and --text" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=rf"--text: .*{run.name}"):
        path = run / "config.json"
        write_sealed(path, to_json(replace(from_json(read_sealed(path)), text=(), val_text=())))
        rebuild(RebuildRequest(run, 1, text=(inputs["text"],)))


@pytest.mark.parametrize("step", [-1, STEPS, 10**9])
def test_steps_outside_the_plan(trained: Path, step: int) -> None:
    with pytest.raises(UsageError, match=rf"--step {step} .*steps 0 to 9"):
        rebuild(RebuildRequest(trained, step))


def test_a_folder_that_is_not_a_run_and_missing_files(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--run .*nowhere.*config\.json"):
        rebuild(RebuildRequest(tmp_path / "nowhere", 0))
    for name in ("plan.json", "tokenizer.json"):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        with pytest.raises(TrainError, match=rf"{name}.* missing"):
            rebuild(RebuildRequest(run, 0))
        (run / name).write_bytes(kept)


def value_of(data: bytes) -> object:
    """The value of JSON bytes; None if they are not valid JSON."""
    try:
        return json.loads(data)
    except ValueError:
        return None


@pytest.mark.parametrize("name", ["config.json", "plan.json", "tokenizer.json"])
def test_a_flipped_bit_in_a_file_of_the_run(run: Path, name: str) -> None:
    data = (run / name).read_bytes()
    for at in range(len(data) // 7, len(data), len(data) // 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if value_of(changed) == value_of(data):
            continue  # a change in the last of 17 digits: the same number
        (run / name).write_bytes(changed)
        with pytest.raises(OcrError, match=name) as caught:
            rebuild(RebuildRequest(run, 0))
        assert caught.value.exit_status == 1
    (run / name).write_bytes(data)
    assert rebuild(RebuildRequest(run, 0)).problem is None


def problem(run: Path, step: int = 1) -> str:
    found = rebuild(RebuildRequest(run, step))
    assert found.problem is not None and "NOT VERIFIED" in found.verdict
    text = str(found.problem)
    assert "\n" not in text
    return text


def test_a_changed_setting_is_named_as_the_cause(run: Path) -> None:
    path = run / "config.json"
    write_sealed(path, to_json(replace(from_json(read_sealed(path)), image_size=128)))
    text = problem(run)
    assert recorded(run)[1]["identity"] in text
    assert re.search(r"--image-size: 64 .*128", text)
    assert "threads" not in text and "pillow" not in text


def test_a_changed_plan_setting_is_rejected(run: Path) -> None:
    path = run / "config.json"
    write_sealed(path, to_json(replace(from_json(read_sealed(path)), seed=9)))
    with pytest.raises(TrainError, match=r"plan\.json: .*seed: 0 .*9"):
        rebuild(RebuildRequest(run, 0))


def test_a_changed_tokenizer_is_named_as_the_cause(run: Path) -> None:
    train_tokenizer(["What colour is it? Sure? Yes, black."] * 9, 300).save(run / "tokenizer.json")
    assert "tokenizer differs" in problem(run)


def test_a_changed_tokenizer_is_noticed_in_a_step_to_come(run: Path) -> None:
    """By comparing the last recorded step."""
    train_tokenizer(["What colour is it? Sure? Yes, black."] * 9, 300).save(run / "tokenizer.json")
    text = problem(run, 8)
    assert "step 5 " in text and "tokenizer differs" in text


def test_a_run_without_recorded_steps(run: Path) -> None:
    (run / "batches.jsonl").write_text("")
    shutil.rmtree(run / "checkpoints")
    found = rebuild(RebuildRequest(run, 3))
    assert (found.problem, found.recorded, found.compared) == (None, "", -1)
    assert "not finished step 3" in found.verdict


def test_changed_library_versions_are_named_as_the_cause(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = recorded(run)
    lines[1]["identity"] = "0" * 32
    (run / "batches.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    newest = checkpoint.complete_checkpoints(run)[-1]
    assert problem(run).endswith(f"library versions match {newest}")
    now = checkpoint.versions()
    monkeypatch.setattr(checkpoint, "versions", lambda: {**now, "pillow": "99", "threads": 77})
    text = problem(run)
    assert re.search(rf"{re.escape(str(newest))}: pillow: {re.escape(now['pillow'])} .*99", text)
    assert "threads" not in text
    (newest / "tokenizer.json").write_text("{}")
    assert f"{newest} cannot be read" in problem(run)
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint" in problem(run)


def test_a_missing_or_truncated_batch_log(run: Path) -> None:
    path = run / "batches.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    assert re.search(r"batches\.jsonl ends before step 4, .*step_000", problem(run, 4))
    assert rebuild(RebuildRequest(run, 2)).problem is None
    assert rebuild(RebuildRequest(run, 7)).problem is None
    path.write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(TrainError, match=r"line 4 .*step 4\b.*step 3\b"):
        rebuild(RebuildRequest(run, 3))
    path.unlink()
    text = problem(run)
    assert re.search(r"batches\.jsonl is missing.* step 1 ", text) and "--anyway" in text
