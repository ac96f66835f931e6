"""Runs of several named sources: drawn, weighed, validated, resumed, shown."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from ocrdata.errors import TrainError, UsageError
from ocrdata.reading.view import open_shards
from ocrtrain.commands import plan, show_batch
from ocrtrain.data.sources import GRID, open_sources, open_training
from ocrtrain.inspection.rebuild import RebuildRequest, rebuild
from ocrtrain.run import batch_log, run_log
from ocrtrain.run.launch import train
from ocrtrain.settings.config import Config
from ocrtrain.state.run_files import read_sealed
from tests.support.data import colour_sample, flags, small_config, text_sample, write_set
from tests.support.streams import make_stream, positions

STEPS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares, sums, and 30 samples of which every third is a sum."""
    found = tmp_path_factory.mktemp("named")
    both = [text_sample(100 + at) if at % 3 == 0 else colour_sample(100 + at) for at in range(30)]
    write_set(found, "both", both, per_shard=20)
    return found


def named(inputs: dict[str, str], folder: Path, out: Path, **values: object) -> Config:
    """Charts, chats and a source of both, in the weights 3 : 1 : 2."""
    base: dict[str, object] = {
        "source": (f"charts={inputs['shards']}[:40]:3", f"chats={inputs['text']}[:30]:1",
                   f"both={folder}/both-*.tar:2"),
        "val_source": (f"chats={inputs['text']}[30:36]",),
        "shards": (), "val": (), "steps": STEPS, "save_every": 5, "eval_every": 0,
        "log_samples": True,
    }  # fmt: skip
    return small_config(inputs, out, **{**base, **values})


def test_each_source_keeps_its_samples_weight_and_validation(
    inputs: dict[str, str], folder: Path
) -> None:
    """A source of both kinds is two; it shares its weight by its numbers of samples."""
    config = named(inputs, folder, Path("unused"), source_at=("6:charts=0,both=1",))
    sources = open_sources(config)
    pictures, texts = ([at for at in range(30) if (at % 3 == 0) == text] for text in (False, True))
    assert {name: positions(shards) for name, shards in sources.train.items()} == {
        "charts": list(range(39)), "chats": list(range(30)),
        "both/image": pictures[:-1], "both/text": texts[:-1],
    }  # fmt: skip
    assert {name: positions(shards) for name, shards in sources.validation.items()} == {
        "charts": [39], "chats": list(range(30, 36)),
        "both/image": pictures[-1:], "both/text": texts[-1:],
    }  # fmt: skip
    third = Fraction(GRID // 3, GRID)
    assert sources.weights == {
        "charts": ((0, 3), (6, 0)), "chats": 1,
        "both/image": ((0, 2 * (1 - third)), (6, 1 - third)),
        "both/text": ((0, 2 * third), (6, third)),
    }  # fmt: skip
    assert sources.held_out == {"charts", "both/image", "both/text"} and sources.notes == ()
    training = open_training(config)
    assert training.weights == sources.weights
    assert [one.digest for one in training.train.values()] == [
        one.digest for one in sources.train.values()
    ]


def test_validation_sets_are_divided_as_their_source_is(
    inputs: dict[str, str], folder: Path
) -> None:
    both = f"{folder}/both-*.tar"
    wanted = {
        (f"x={both}[:20]:1", f"x={both}[20:]"): ["x/image", "x/text"],
        (f"x={both}[:20]:1", f"x={inputs['text']}"): ["x/text"],
        (f"x={inputs['text']}:1", f"x={both}[20:]"): ["x/image", "x/text"],
        (f"x={inputs['text']}[:9]:1", f"x={inputs['text']}[9:]"): ["x"],
    }
    for (source, validation), names in wanted.items():
        config = named(inputs, folder, Path("unused"), source=(source,), val_source=(validation,))
        sources = open_sources(config)
        assert list(sources.validation) == names
        missing = [n for n in sources.train if n not in names and names != ["x/image", "x/text"]]
        assert [note.split()[0] for note in sources.notes] == missing


def test_mistakes_in_what_a_source_holds(inputs: dict[str, str], folder: Path) -> None:
    for values, message in (
        ({"source": (f"x={inputs['text']}[9:9]:1",), "val_source": ()},
         r"^--source x=.*\[9:9\] holds no samples"),
        ({"val_source": (f"chats={inputs['text']}[90:]",)}, "^--val-source chats=.* no samples"),
        ({"source": (f"chats={inputs['text']}[3:4]:1",), "val_source": ()},
         r"^chats .*1 sample.*--val-source chats=SPEC"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            open_sources(named(inputs, folder, Path("unused"), **values))


def test_three_weighted_sources_plan_train_validate_resume_and_show(
    inputs: dict[str, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert plan.main(flags(named(inputs, folder, whole))) == 0
    planned = capsys.readouterr().out.splitlines()
    names = ["charts", "chats", "both/image", "both/text"]
    for name in names:
        rows = [line.split() for line in planned if line.startswith(f"{name} ")]
        assert sum(row[1].isdigit() for row in rows) == 1
        assert any(line.startswith("validate on ") and f" of {name} (" in line for line in planned)

    assert train(named(inputs, folder, whole)) == 0
    train(named(inputs, folder, parts, stop_at=6))
    assert train(named(inputs, folder, parts), resume=True) == 0
    logs = [run_log.read(run) for run in (whole, parts)]
    for key in ("train/loss", "val/loss", *(f"val/{name}_loss" for name in names)):
        found = [[(line["step"], line[key]) for line in log if key in line] for log in logs]
        assert found[0] == found[1] and found[0], key
    assert (whole / batch_log.FILE).read_bytes() == (parts / batch_log.FILE).read_bytes()

    figures = read_sealed(whole / "plan.json")["figures"]["sources"]
    assert [source["name"] for source in figures] == names
    lines = [line for line in logs[0] if "train/loss" in line]
    for source, share in zip(figures, (4.5, 1.5, 2, 1), strict=True):  # 3 : 1 : 2 of 9 batches
        drawn = sum(line[f"mix/{source['name']}_share"] for line in lines)
        assert drawn * 4 == source["rows"] and abs(drawn - share) <= 1

    for step in range(STEPS):
        batch = rebuild(RebuildRequest(whole, step)).batch
        (name,) = set(batch.sources)
        assert bool(len(batch.images)) == (name in ("charts", "both/image"))
    capsys.readouterr()
    show_batch.main(["--run", str(whole), "--step", "5", "--out", str(tmp_path / "shown")])
    shown = capsys.readouterr().out
    batch = rebuild(RebuildRequest(whole, 5)).batch
    assert all(
        any(one.source in line and f"{one.ref.shard}:{one.ref.key}" in line
            for line in shown.splitlines())
        for one in batch.segments
    )  # fmt: skip

    moved = write_set(tmp_path, "squares", [colour_sample(at) for at in range(60)])
    assert rebuild(RebuildRequest(whole, 5, source=(f"charts={moved}",))).problem is None
    with pytest.raises(TrainError, match=r"charts: .*--source NAME=SPEC"):
        rebuild(RebuildRequest(whole, 5, source=(f"charts={moved}[:41]",)))
    with pytest.raises(UsageError, match="--text: "):
        rebuild(RebuildRequest(whole, 5, text=(moved,)))


def test_batches_depend_on_the_seed_and_the_names_alone(
    inputs: dict[str, str], folder: Path
) -> None:
    """The sources of the short form, named, give the batches of the short form."""
    short = small_config(
        inputs, Path("unused"), text=(inputs["text"] + "[:30]",), text_ratio=Fraction(1, 3),
        val_text=(inputs["text"] + "[30:]",), steps=STEPS,
    )  # fmt: skip
    long = named(
        inputs, folder, Path("unused"),
        source=(f"squares={inputs['shards']}[:48]:2", f"sums={inputs['text']}[:30]:1"),
        val_source=(f"squares={inputs['shards']}[48:]", f"sums={inputs['text']}[30:]"),
    )  # fmt: skip
    streams = make_stream(short), make_stream(long)
    for step in range(STEPS):
        assert len({stream.batch(step).identity for stream in streams}) == 1
    assert len(open_shards(inputs["text"])) == 40
