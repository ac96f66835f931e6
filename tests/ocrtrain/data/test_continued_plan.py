"""What a resumed run trains on; whole runs are in tests/ocrtrain/run/test_changes.py."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import TrainError, UsageError
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.data.continued_plan import ContinuedPlan, continue_plan, new_plan
from ocrtrain.data.plan_file import write_parts
from ocrtrain.data.run_plan import plan_run
from ocrtrain.data.sources import open_sources
from ocrtrain.settings.config import Config
from ocrtrain.settings.saved_config import from_json
from tests.support.data import small_config
from tests.support.sizes import two_sizes

SQUARES, SUMS = "squares", "sums"


class Going:
    """A run as far as its plan goes: `on` goes on with other settings from a step."""

    def __init__(self, inputs: dict[str, str], folder: Path, **values: Any) -> None:
        self.inputs, self.path, self.values = inputs, folder / "plan.json", values
        self.config = self.with_settings(values)
        self.tokenizer = load_tokenizer(inputs["tokenizer"])
        sources = open_sources(self.config)
        self.write(new_plan(plan_run(self.config, sources, self.tokenizer)))

    def with_settings(self, values: dict[str, Any]) -> Config:
        return small_config(self.inputs, self.path.parent, **values)

    def write(self, plan: ContinuedPlan) -> None:
        self.plan = plan
        write_parts(self.path, plan.parts, {})

    def on(self, step: int, *, new_data: bool = False, **values: Any) -> ContinuedPlan:
        values = {**self.values, **values}
        config = self.with_settings(values)
        found = continue_plan(
            config,
            open_sources(config),
            self.tokenizer,
            path=self.path,
            before=(step, self.config),
            new_data=new_data,
        )
        self.config, self.values = config, values
        self.write(found)
        return found


def numbers(plan: ContinuedPlan, steps: range) -> list[tuple[int, int]]:
    """Source and number of each row in some steps of the last part, counted from its first."""
    return [one for step in steps for one in plan.planned.plan.row_numbers(step)]


@pytest.fixture
def mixed(inputs: dict[str, str], tmp_path: Path) -> Going:
    values = {"text": (inputs["text"] + "[:30]",), "val_text": (inputs["text"] + "[30:]",)}
    return Going(inputs, tmp_path, text_ratio=Fraction(1, 2), **values)


def test_nothing_changed_is_the_same_plan(mixed: Going) -> None:
    before = mixed.path.read_bytes()
    assert mixed.on(6).parts[0].recipe == mixed.plan.planned.recipe()
    assert mixed.path.read_bytes() == before


def test_more_steps_keep_the_earlier_ones(mixed: Going) -> None:
    before = numbers(mixed.plan, range(12))
    longer = mixed.on(12, steps=30)
    assert len(longer.parts) == 1 and longer.planned.plan.steps == 30
    assert numbers(longer, range(12)) == before


def test_weights_are_those_asked_for_from_the_change_on(mixed: Going) -> None:
    """Rows of a source go on by number; a change that lies ahead stays at its step of the run."""
    drawn = mixed.plan.planned.plan.rows_per_source(6)
    found = mixed.on(6, text_ratio=Fraction(1, 3), text_ratio_at=("9:0",))
    assert found.start == 6 and found.planned.plan.steps == 6
    rows = numbers(found, range(6))
    assert {source for source, _ in rows[12:]} == {0}
    for source in (0, 1):
        own = [number for one, number in rows if one == source]
        assert own == list(range(drawn[source], drawn[source] + len(own)))
    assert found.planned.totals.rows == 24
    fractions = [one.sums.samples for one in found.planned.totals.sources]
    assert fractions == [20, 4]


def test_a_source_that_comes_back_goes_on_where_it_was(mixed: Going) -> None:
    drawn = mixed.plan.planned.plan.rows_per_source(6)
    alone = mixed.on(6, new_data=True, text=(), val_text=(), text_ratio=Config.text_ratio)
    assert [one.name for one in alone.planned.plan.sources] == [SQUARES]
    texts = {"text": (mixed.inputs["text"] + "[:30]",)}
    texts["val_text"] = (mixed.inputs["text"] + "[30:]",)
    back = mixed.on(9, new_data=True, text_ratio=Fraction(1, 2), **texts)
    first = {one.name: one.first_row for one in back.planned.plan.sources}
    assert first == {SQUARES: drawn[0] + 12, SUMS: drawn[1]}
    assert [part.start for part in back.parts] == [0, 6, 9]


def test_other_sizes_of_images_begin_a_part(inputs: dict[str, str], tmp_path: Path) -> None:
    """Every source goes on with its next row, in the size that is in force: 7 positions at 128 px,
    3 at 64."""
    values = two_sizes(inputs)
    going = Going(inputs, tmp_path, **values)
    before = going.plan.planned.plan
    found = going.on(6, image_size_of=("small=128",))
    assert [part.start for part in found.parts] == [0, 6]
    after = found.planned.plan
    assert [one.first_row for one in after.sources] == before.rows_per_source(6)
    then = from_json(dict(found.parts[0].config or {}))
    assert then.image_size_of == values["image_size_of"]
    for own, earlier, more in zip(after.lengths, before.lengths, (4, -4, 0), strict=True):
        assert (own.lengths - earlier.lengths).tolist() == [more] * len(own)


@pytest.mark.parametrize("rows", [{"pack": True, "pack_window": 8}, {"too_long": "drop"}])
def test_sizes_that_change_which_samples_are_in_a_row_stay(
    inputs: dict[str, str], tmp_path: Path, rows: dict[str, Any]
) -> None:
    going = Going(inputs, tmp_path, **two_sizes(inputs), **rows)
    with pytest.raises(UsageError, match=r"large was shown at 128 px .* 64; .*--(pack|too-long)"):
        going.on(6, image_size_of=())


def test_packed_rows_go_on_too(inputs: dict[str, str], tmp_path: Path) -> None:
    """Over two epochs every sample is drawn twice, whatever the batches are."""
    going = Going(inputs, tmp_path, pack=True, pack_window=10, seq_len=64, batch=2)
    plan = going.plan.planned.plan
    seen = [sample for step in range(5) for row in plan.rows(step) for sample in row]
    later = going.on(5, batch=3, steps=40).planned.plan
    seen += [sample for step in range(later.steps) for row in later.rows(step) for sample in row]
    epochs = [[one.position for one in seen if one.epoch == epoch] for epoch in (0, 1)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(48))] * 2


def test_other_data_are_refused_unless_asked_for(mixed: Going) -> None:
    shards = (mixed.inputs["shards"] + "[:40]",)
    with pytest.raises(TrainError, match=r"plan\.json: .*squares: 48 .*, 40 .*--new-data"):
        mixed.on(6, shards=shards)
    [change] = mixed.on(6, shards=shards, new_data=True).data_changes
    assert (change.role, change.name) == ("train", SQUARES)
    assert change.old is not None and change.new is not None
    assert (change.old["size"], change.new["size"]) == (48, 40)
    assert mixed.plan.planned.plan.sources[0].first_row == 0  # another set begins


def test_other_validation_sets_make_no_new_part(mixed: Going) -> None:
    val = (mixed.inputs["shards"] + "[50:]",)
    found = mixed.on(6, val=val, new_data=True)
    assert [one.role for one in found.data_changes] == ["val"] and len(found.parts) == 1
    assert {one["size"] for one in found.parts[0].recipe["validation"]} == {10}


def test_sets_that_are_gone_cannot_be_counted(mixed: Going, tmp_path: Path) -> None:
    """Of two sources one goes on: how many of its rows were drawn depends on the other, too."""
    for path in Path(mixed.inputs["text"]).parent.glob("sums-*"):
        (tmp_path / path.name.replace("sums", "gone")).write_bytes(path.read_bytes())
    spec = f"{tmp_path}/gone-*.tar"
    mixed.on(3, new_data=True, text=(spec + "[:30]",), val_text=(spec + "[30:]",))
    for path in tmp_path.glob("gone-*"):
        path.unlink()
    alone: dict[str, Any] = {"text": (), "val_text": (), "text_ratio": Config.text_ratio}
    with pytest.raises(UsageError, match=r"sets trained on so far .*gone-"):
        mixed.on(6, new_data=True, **alone)
