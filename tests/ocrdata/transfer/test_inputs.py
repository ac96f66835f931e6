"""The sets that are read: how they are named, when two of them cannot be told apart, and what of
them is recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ocrdata.errors import ShardError, SpecError, UsageError
from ocrdata.shards.manifest import read_manifest
from ocrdata.storage import hub_urls
from ocrdata.storage.location import Location
from ocrdata.transfer.inputs import open_inputs, refuse_as_output
from tests.support.hub import Hub
from tests.support.sets import varied, write_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_samples(folder, "one", [varied(number) for number in range(20)])
    write_samples(folder, "two", [varied(number) for number in range(100, 110)])
    write_samples(folder / "other", "one", [varied(number) for number in range(50, 70)])
    return folder


def test_positions_are_numbered_through_all_sets(folder: Path) -> None:
    inputs, views = open_inputs([f"{folder}/one.json[5:15:2]", f"{folder}/two.json"])
    assert [one.name for one in inputs.sets] == ["one", "two"]
    assert inputs.samples == sum(map(len, views)) == 15
    located = [inputs.locate(at) for at in range(15)]
    assert [(one.name, at) for one, at in located] == [
        *(("one", at) for at in range(5)), *(("two", at) for at in range(10))
    ]  # fmt: skip
    found = [one.open()[at].meta["number"] for one, at in located]
    assert found == [5, 7, 9, 11, 13, *range(100, 110)]


def test_what_is_recorded_has_the_manifests_digest_and_no_folder(folder: Path) -> None:
    inputs, views = open_inputs([f"{folder}/one.json[:7]", f"b={folder}/two-<000..000>.tar"])
    one, two = (dict(found.provenance) for found in inputs.sets)
    assert one == {
        "name": "one", "samples": 7, "digest": views[0].digest,
        "manifest": read_manifest(folder / "one.json").digest, "licence": "licence of one",
    }  # fmt: skip
    assert two["name"] == "b"
    assert [found.argument for found in inputs.sets] == ["one.json[0:7]", "b=two-<000..000>.tar"]
    assert inputs.licence == "licence of one, licence of two"


def test_shards_given_one_by_one_are_one_set(folder: Path) -> None:
    texts = [f"{folder}/one-00{n}.tar" for n in range(3)]
    inputs, _ = open_inputs([*texts, f"{folder}/two.json"])
    assert [one.samples for one in inputs.sets] == [20, 10]
    assert inputs.sets[0].specs == tuple(texts)


def test_two_slices_of_one_set_are_two_inputs_unless_they_overlap(folder: Path) -> None:
    texts = [f"{folder}/one.json[10:]", f"{folder}/one.json[:10]"]
    assert open_inputs(texts)[0].samples == 20
    assert open_inputs([f"{folder}/one.json[::2]", f"{folder}/one.json[1::2]"])[0].samples == 20
    with pytest.raises(UsageError, match=r"1 samples of one-001\.tar are given twice"):
        open_inputs([f"{folder}/one.json[9:]", f"{folder}/one.json[:10]"])


def test_every_text_that_is_given_counts_once(folder: Path) -> None:
    one, two = f"{folder}/one.json", f"{folder}/two.json"
    with pytest.raises(UsageError, match="given twice"):
        open_inputs([one, one])
    texts = [f"{folder}/one-000.tar[:5]", two, f"{folder}/one-001.tar[:7]"]
    assert [one.samples for one in open_inputs(texts)[0].sets] == [5, 10, 7]


def test_a_copy_of_a_set_is_the_same_set(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("one*"):
        if file.is_file():
            shutil.copy(file, tmp_path)
    with pytest.raises(UsageError, match="given twice"):
        open_inputs([f"{folder}/one.json", f"{tmp_path}/one.json"])


def test_other_samples_under_the_same_names_need_another_name(folder: Path) -> None:
    first, second = f"{folder}/one.json", f"{folder}/other/one.json"
    with pytest.raises(UsageError) as caught:
        open_inputs([first, second])
    assert f"one-2={second}" in str(caught.value)
    inputs, _ = open_inputs([first, f"one-2={second}"])
    assert [(one.name, one.renamed) for one in inputs.sets] == [("one", False), ("one-2", True)]


def test_a_path_with_an_equals_sign_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(tmp_path / "a=b", "one", [varied(1), varied(2)])
    monkeypatch.chdir(tmp_path)
    assert open_inputs(["a=b/one.json[:1]"])[0].sets[0].name == "one"
    assert open_inputs(["c=a=b/one.json"])[0].sets[0].name == "c"
    with pytest.raises(SpecError, match="missing"):
        open_inputs(["a=missing/one.json"])


def test_a_set_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    spec = write_samples(tmp_path, "one", [varied(number) for number in range(5)])
    inputs, _ = open_inputs([spec])
    write_samples(tmp_path, "one", [varied(number) for number in range(1, 6)])
    with pytest.raises(ShardError, match="one"):
        inputs.sets[0].open()


def test_a_set_at_the_hub_is_read_at_the_commit_at_which_it_was_opened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    hub_urls.forget_all()
    files = {path.name: path.read_bytes() for path in folder.glob("one*") if path.is_file()}
    with Hub({"a/b": files}) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        inputs, views = open_inputs(["hf://datasets/a/b/one.json[3:9]"])
        (one,) = inputs.sets
        refuse_as_output(Location("hf://datasets/a/b/two"), views)
        for same in ("hf://datasets/a/b/one", "hf://datasets/a/b@main/one"):
            with pytest.raises(UsageError, match="cannot be written"):
                refuse_as_output(Location(same), views)
        assert one.specs == (f"hf://datasets/a/b@{hub.commits['a/b']}/one.json[3:9]",)
        assert one.argument == "one.json[3:9]"
        assert [sample.meta["number"] for sample in one.open()] == list(range(3, 9))
    hub_urls.forget_all()


def test_a_set_that_is_read_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, views = open_inputs([f"{folder}/one.json"])
    monkeypatch.chdir(folder / "other")
    for same in (f"{folder}/one", "../one", f"{folder}/other/../one"):
        with pytest.raises(UsageError, match="cannot be written"):
            refuse_as_output(Location(same), views)
    for other in (f"{folder}/one-train", f"{folder}/two", f"{folder}/other/one"):
        refuse_as_output(Location(other), views)
