"""A second conversion of a name: after a failure, with a mended input, or with other options."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ocrdata.commands.make_shards import summary
from ocrdata.conversion.convert import convert, convert_one
from ocrdata.conversion.options import ConversionOptions
from ocrdata.errors import DiskError, OcrError, RejectedRow, SourceError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.runtime.progress import Progress
from ocrdata.sample import Sample, from_turns
from ocrdata.shards import writer
from ocrdata.sources.jsonl import JsonlSource
from tests.support.numbered import Numbered
from tests.support.shardcommand import made


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """Hundreds of files are written here, and no power fails."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def options(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(tmp_path / "out", "set", shard_samples=10, max_reject_fraction=0.9)


@dataclass
class Texts:
    """A row for each text; "" is rejected, and reading None raises SourceError."""

    texts: tuple[str | None, ...]
    name: str = "texts"
    content: tuple[str, ...] = ("texts",)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"format": "texts", "texts": list(self.texts)}

    def count(self) -> int:
        return len(self.texts)

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        for row, text in enumerate(self.texts[start:stop], start):
            if text is None:
                raise SourceError(f"row {row} cannot be read")
            yield row, from_turns([("q", text)], [], source="", meta={})


def fresh(source: Any, options: ConversionOptions) -> dict[str, bytes]:
    """The files of a conversion in an empty folder."""
    out = options.out.with_name("fresh")
    shutil.rmtree(out, ignore_errors=True)
    convert(source, replace(options, out=out))
    return made(out)


def broken_at(options: ConversionOptions, row: int) -> dict[str, bytes]:
    """What a conversion of 45 numbered rows leaves that fails at `row`."""
    with pytest.raises(SourceError):
        convert(Numbered(45, breaks_at=row), options)
    return made(options.out)


TEXTS = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=12)


@settings(max_examples=15)
@given(TEXTS, TEXTS, st.integers(0, 12), st.booleans())
def test_an_edited_input_gives_what_it_alone_gives_or_nothing_is_touched(
    before: list[str], after: list[str], breaks_at: int, discard: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        options = ConversionOptions(out, "set", shard_samples=3, max_reject_fraction=1)
        torn = Texts((*before[:breaks_at], None, *before[breaks_at:]))
        with pytest.raises(SourceError):
            convert(torn, options)
        files = made(out)
        done = {int(name[4:7]) for name in files if name.endswith(".tar")}
        assert len(done) == min(breaks_at, len(before)) // 3
        lost = [
            shard
            for shard in done
            for row in range(3 * shard, 3 * shard + 3)
            if before[row] and after[row : row + 1] != [before[row]]
        ]
        mended = Texts(tuple(after))
        if lost and not discard:
            with pytest.raises(UsageError) as caught:
                convert(mended, options)
            assert f"{len(set(lost))} of them, first of shard {min(lost)}," in str(caught.value)
            assert "--discard" in str(caught.value) and "\n" not in str(caught.value)
            assert made(out) == files
        else:
            convert(mended, replace(options, discard=discard))
            assert made(out) == fresh(mended, options)


def test_shards_whose_rows_have_not_changed_are_kept(options: ConversionOptions) -> None:
    texts = [f"answer {row}" for row in range(45)]
    with pytest.raises(SourceError):
        convert(Texts((*texts[:35], None, *texts[36:])), options)
    before = {path: path.stat().st_mtime_ns for path in options.out.glob("*.tar")}
    assert len(before) == 3
    shown, mended = io.StringIO(), Texts((*texts, "more"))
    convert(mended, options, Progress(shown))
    assert "3 are kept, 0 made again, 0 discarded" in shown.getvalue()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert made(options.out) == fresh(mended, options)


def lines(count: int, bad: dict[int, str]) -> str:
    rows = [json.dumps({"prompt": f"q{n}", "answer": f"a{n}"}) for n in range(count)]
    return "".join(bad.get(number, row) + "\n" for number, row in enumerate(rows))


def test_too_many_rejected_rows_are_mended_in_place(
    options: ConversionOptions, tmp_path: Path
) -> None:
    """Nothing that was finished is lost, so that no flag is needed."""
    path, strict = tmp_path / "rows.jsonl", replace(options, max_reject_fraction=0)
    path.write_text(lines(30, {14: "{torn"}))
    with pytest.raises(OcrError, match="1 of 30 rows"):
        convert(JsonlSource(path, None), strict)
    assert len(list(options.out.glob("*.tar"))) == 2
    path.write_text(lines(30, {}))
    shown = io.StringIO()
    convert(JsonlSource(path, None), strict, Progress(shown))
    assert "1 are kept, 1 made again, 0 discarded" in shown.getvalue()
    assert len(open_shards(str(options.out / "set.json"))) == 30
    assert made(options.out) == fresh(JsonlSource(path, None), strict)


def test_an_array_broken_at_its_first_or_a_later_row_is_mended(
    options: ConversionOptions, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    for bad in (0, 25):
        path.write_text(lines(40, {bad: '{"prompt": "q", "answer": 5}'}))
        with pytest.raises(OcrError, match=f"first is row {bad}"):
            convert(JsonlSource(path, None), replace(options, max_reject_fraction=0))
        path.write_text(lines(40, {}))
        convert(JsonlSource(path, None), options)
        assert made(options.out) == fresh(JsonlSource(path, None), options)
        shutil.rmtree(options.out)


@pytest.mark.parametrize(
    "other",
    [{"shard_samples": 7}, {"limit": 12}, {"start": 20}, {"compress": "zstd"}],
    ids=lambda other: next(iter(other)),
)
def test_other_options_after_a_failure_need_the_flag(
    options: ConversionOptions, other: dict[str, Any]
) -> None:
    before, source = broken_at(options, 35), Numbered(45)
    with pytest.raises(UsageError) as caught:
        convert(source, replace(options, **other))
    message = str(caught.value)
    assert f"{next(iter(other)).replace('limit', 'stop')} was " in message
    assert "3 finished shards" in message and "--discard" in message and "\n" not in message
    assert made(options.out) == before
    shown = io.StringIO()
    convert(source, replace(options, **other, discard=True), Progress(shown))
    assert "3 discarded" in shown.getvalue()
    assert made(options.out) == fresh(source, replace(options, **other))


def test_shards_without_a_sample_do_not_block_other_options(options: ConversionOptions) -> None:
    """As after a conversion in which every row was rejected, for a wrong option."""
    other = replace(options, shard_samples=7)
    with pytest.raises(OcrError, match="20 of 20 rows"):
        convert(Texts(("",) * 20), replace(options, max_reject_fraction=0.95))
    assert sum(name.endswith(".tar") for name in made(options.out)) == 2
    right = Texts(("a",) * 20)
    convert(right, other)
    assert made(options.out) == fresh(right, other)
    shutil.rmtree(options.out)
    some = Texts(("",) * 10 + ("a",) + ("",) * 9)
    with pytest.raises(OcrError):
        convert(some, options)
    before = made(options.out)
    with pytest.raises(UsageError, match=r"2 finished shards.*--discard"):
        convert(right, other)
    assert made(options.out) == before


def test_the_flag_alone_discards_nothing(options: ConversionOptions) -> None:
    before = broken_at(options, 35)
    times = {name: (options.out / name).stat().st_mtime_ns for name in before}
    convert(Numbered(45), replace(options, discard=True))
    kept = [name for name in before if not name.startswith(".")]
    assert len(kept) == 6
    assert all((options.out / name).stat().st_mtime_ns == times[name] for name in kept)


@pytest.mark.parametrize("discard", [False, True])
def test_a_complete_set_is_never_replaced(options: ConversionOptions, discard: bool) -> None:
    convert(Texts(("a",) * 20), options)
    before = made(options.out)
    for text, more, message in (
        ("b", {}, "input that has changed"),
        ("a", {"shard_samples": 5}, "shard_samples was 10, now 5"),
    ):
        with pytest.raises(UsageError, match=f"complete .*{message}.*--name"):
            convert(Texts((text,) * 20), replace(options, **more, discard=discard))
        assert made(options.out) == before


@dataclass
class Interrupted(Numbered):
    """Ctrl-C at row `breaks_at`."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        try:
            yield from super().rows(start, stop)
        except SourceError as exc:
            raise KeyboardInterrupt from exc


@pytest.mark.parametrize(("row", "finished"), [(0, 0), (9, 0), (27, 2)])
def test_ctrl_c_then_other_options(options: ConversionOptions, row: int, finished: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(Interrupted(45, breaks_at=row), options)
    before = made(options.out)
    assert len([name for name in before if name.endswith(".tar")]) == finished
    other = replace(options, shard_samples=20)
    if finished:
        with pytest.raises(UsageError, match=r"2 finished shards.*--discard"):
            convert(Numbered(45), other)
        assert made(options.out) == before
        other = replace(other, discard=True)
    else:
        assert before == {}
    convert(Numbered(45), other)
    assert made(options.out) == fresh(Numbered(45), other)


@pytest.mark.parametrize("shards", [0, 1])
def test_a_disk_that_fills_up_between_a_tar_and_its_index(
    options: ConversionOptions, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """A tar without a record would count as one of unknown origin."""
    written = []
    write_index = writer.write_index

    def full(path: Any, index: Any) -> None:
        if len(written) == shards:
            raise DiskError("no space left")
        written.append(path)
        write_index(path, index)

    with monkeypatch.context() as patched:
        patched.setattr(writer, "write_index", full)
        with pytest.raises(DiskError):
            convert(Numbered(45), options)
    assert len(list(options.out.glob("*.tar"))) == shards
    other = replace(options, shard_samples=20, discard=bool(shards))
    convert(Numbered(45), other)
    assert made(options.out) == fresh(Numbered(45), other)


def test_an_input_that_got_shorter_leaves_no_shard_behind(options: ConversionOptions) -> None:
    texts = [f"answer {row}" for row in range(45)]
    with pytest.raises(SourceError):
        convert(Texts((*texts[:35], None)), options)
    short = Texts(tuple(texts[:15]))
    with pytest.raises(UsageError, match=r"2 of them, first of shard 1"):
        convert(short, options)
    convert(short, replace(options, discard=True))
    assert made(options.out) == fresh(short, options)


def bitmap(colour: str) -> bytes:
    """Of one size, whatever the colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "BMP")
    return buffer.getvalue()


def with_images(folder: Path, colours: list[str]) -> JsonlSource:
    """A row for each colour, each with an image of its own."""
    records = []
    for number, colour in enumerate(colours):
        (folder / f"{number}.bmp").write_bytes(bitmap(colour))
        records.append({"prompt": "q", "answer": colour, "image": f"{number}.bmp"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return JsonlSource(folder / "rows.jsonl", None)


def test_an_image_that_became_another_of_the_same_size_is_noticed(
    options: ConversionOptions, tmp_path: Path
) -> None:
    two = replace(options, shard_samples=2)
    source = with_images(tmp_path, ["red", "blue", "red", "blue"])
    before = source.provenance
    for shard in (0, 1):
        convert_one(source, two, shard)
    # Only the time of one image changes: both shards are kept, at the price of a comparison.
    (tmp_path / "0.bmp").touch()
    (options.out / "set-001.tar").unlink()
    shown = io.StringIO()
    convert_one(JsonlSource(source._file.path, None), two, 1, Progress(shown))
    assert "of 1 finished shards 1 are kept" in shown.getvalue()
    # Another image of the same size and time of modification.
    times = (tmp_path / "3.bmp").stat()
    (tmp_path / "3.bmp").write_bytes(bitmap("red"))
    os.utime(tmp_path / "3.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    again = JsonlSource(source._file.path, None)
    assert again.provenance == before
    with pytest.raises(
        UsageError, match=r"2 finished shards.* 1 of them, first of shard 1.*--disc"
    ):
        convert(again, two)
    convert(again, replace(two, discard=True))
    assert made(options.out) == fresh(again, two)
    assert open_shards(options.out / "set.json")[3].images == [bitmap("red")]


def test_the_manifest_counts_answers_of_weight_0_and_fields_that_are_in_the_meta_only(
    options: ConversionOptions, tmp_path: Path
) -> None:
    texts = [{"user": "q", "assistant": "wrong", "weight": 0, "id": n} for n in range(12)]
    rows = [{"texts": [text, {"user": "q", "assistant": "a", "id": 1}]} for text in texts]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = convert(JsonlSource(tmp_path / "rows.jsonl", None), options)
    assert len(manifest.shards) == 2
    assert manifest.totals["untrained_turns"] == 12
    assert manifest.totals["message_fields.id"] == 24
    said = summary(manifest, options, Progress(io.StringIO()), None, complete=True)
    assert "12 answers are not trained on" in said and "id (24)" in said


@pytest.mark.parametrize("at", [0, 1, 2, 4, 7, 8])
def test_stopped_while_old_shards_are_removed(
    options: ConversionOptions, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Whatever is left, the next attempt with the new input gives what it alone gives."""
    texts = [f"answer {row}" for row in range(45)]
    with pytest.raises(SourceError):
        convert(Texts((*texts[:35], None)), options)
    mended = Texts((*texts[:12], "other", *texts[13:]))
    again = replace(options, discard=True)
    removed, unlink = [], Path.unlink

    def stop(path: Path, missing_ok: bool = False) -> None:
        if path.suffix != ".lock":
            if len(removed) == at:
                raise KeyboardInterrupt
            removed.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(mended, again)
    assert len(removed) == at
    convert(mended, again)
    assert made(options.out) == fresh(mended, options)
