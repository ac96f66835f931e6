"""Token counts of shards, compared with counting and rendering the samples read from them."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import (
    DigestError,
    DiskError,
    RejectedRow,
    ShardError,
    TransportError,
    TruncatedError,
    UsageError,
)
from ocrdata.planning import counting
from ocrdata.planning.counting import (
    ShardToCount,
    count_anew,
    count_shard_files,
    count_shards,
    why_unfit,
)
from ocrdata.reading.view import open_shards
from ocrdata.runtime.progress import Progress
from ocrdata.shards.index import index_path, read_header
from ocrdata.storage.cache import CACHE_VARIABLE
from ocrdata.storage.location import Location
from ocrdata.tokens.counts import (
    CountsBuilder,
    cached_counts_path,
    check_counts,
    counts_path,
    read_counts,
    write_counts,
)
from ocrdata.tokens.rendering import TurnCount, count, render, specials
from ocrdata.tokens.tokenizer import Tokenizer
from tests.support.countkill import killed_and_made_again, tokenizer, turns_of
from tests.support.far import FarFolder, Reply
from tests.support.rows import flip, image, sample, write_set, write_shard, write_tar
from tests.support.shardcommand import made

__all__ = ["tokenizer"]  # the fixture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven shards, three of them empty."""
    out = tmp_path_factory.mktemp("set")
    write_set(out, "x", [0, 5, 1, 0, 7, 3, 0], ("PNG", "JPEG"))
    return out


def files_of(out: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in out.glob("*.tokens-*"))


bounds = st.none() | st.integers(-18, 18)


@given(part=st.builds(slice, bounds, bounds, st.sampled_from([None, 1, 2, 5, 40, -1, -3])))
def test_a_view_has_the_counts_of_its_samples(
    folder: Path, tokenizer: Tokenizer, part: slice
) -> None:
    shards = open_shards(str(folder / "x.json"))[part]
    counted = count_shards(shards, tokenizer)
    assert len(counted) == len(shards)
    assert turns_of(counted) == [count(one.messages, tokenizer) for one in shards]
    for first, number, locals_ in shards.stretches():
        for at, local in enumerate(locals_, start=first):
            assert counted.shard(number).turns(local) == count(shards[at].messages, tokenizer)


def test_only_the_shards_of_the_view_are_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_set(tmp_path, "x", [4, 4, 4, 4])
    before = made(tmp_path)
    shards = open_shards(str(tmp_path / "x.json"))
    count_shards(shards[:0], tokenizer)
    assert made(tmp_path) == before
    count_shards(shards[7:3:-1], tokenizer)
    assert files_of(tmp_path) == ["x-001"]
    count_shards(shards[::9], tokenizer)
    assert files_of(tmp_path) == ["x-000", "x-001", "x-002"]
    after = made(tmp_path)
    assert {name: after[name] for name in before} == before
    count_shards(shards[:12], tokenizer)
    assert made(tmp_path) == after


def conversation(*roles: str, **more: object) -> bytes:
    messages = [{"role": role, "content": [{"type": "text", "text": role}]} for role in roles]
    return json.dumps({"messages": messages, **more}).encode()


def test_samples_of_other_tools_are_counted_as_they_are_read(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    strange = {"role": "user", "content": [{"type": "text", "text": "ab" + " " * 250_000}]}
    half = {"role": "user", "content": [{"type": "text", "text": "a\ud800b"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "<|bos|>"}]}
    files = [
        ("captioned.png", image("PNG")),
        ("captioned.1.jpg", image("JPEG")),
        ("captioned.txt", b"It is 12 percent."),
        ("opaque.bin", b"\0" * 99),
        ("roles.json", conversation("user", "user")),
        ("question.json", conversation("system", "user")),
        # Has an image, but no place for it in the messages.
        ("mixed.json", conversation("user", "assistant")),
        ("mixed.png", image("PNG")),
        ("other.json", b'{"messages": [{"role": "user", "content": "a string"}]}'),
        ("system.json", conversation("system", "user", "assistant")),
        ("strange.json", json.dumps({"messages": [strange, answer]}).encode()),
        ("surrogate.json", json.dumps({"messages": [half, answer]}).encode()),
    ]
    shards = open_shards(str(write_tar(tmp_path / "web.tar", files)))
    found = dict(
        zip(
            [shards.row(at).key for at in range(len(shards))],
            turns_of(count_shards(shards, tokenizer)),
            strict=True,
        )
    )
    for key in ("opaque", "roles", "question", "mixed", "other", "surrogate"):
        assert found.pop(key) == []
        with pytest.raises((ShardError, RejectedRow)) as caught:
            count(shards.by_key(key).messages, tokenizer)
        (position,) = (at for at in range(len(shards)) if shards.row(at).key == key)
        assert why_unfit(shards, position, tokenizer) in str(caught.value)
    assert "outdated" in why_unfit(shards, 0, tokenizer)
    text = len(tokenizer.encode("It is 12 percent."))
    assert found["captioned"] == [TurnCount(0, text, 2)]
    for key, turns in found.items():
        assert turns == count(shards.by_key(key).messages, tokenizer)
    rendered = render(shards.by_key("strange").messages, tokenizer)
    assert len(rendered) == specials(1) + found["strange"][0].tokens


def test_images_are_not_read_and_texts_are_verified(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tar = tmp_path / "x-000.tar"
    write_shard(tar, [sample(0), sample(1)])
    shards = open_shards(str(tar))
    text, picture = shards.row(1).members
    flip(tar, picture.offset + 20)
    assert len(turns_of(count_shards(shards, tokenizer))) == 2
    counts_path(tar, tokenizer.fingerprint).path.unlink()
    flip(tar, text.offset + 20)
    with pytest.raises(DigestError, match=r"at byte") as caught:
        count_shards(shards, tokenizer)
    error = caught.value
    assert (error.shard, error.key, error.member) == (str(tar), "000000001", "000000001.json")
    assert sorted(made(tmp_path)) == ["x-000.index.parquet", "x-000.tar"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.zst"])
def test_damaged_texts_are_named_and_counted_as_holes_until_they_are_repaired(
    tmp_path: Path, tokenizer: Tokenizer, suffix: str
) -> None:
    tar = tmp_path / f"x-000{suffix}"
    write_shard(tar, [sample(number) for number in range(5)])
    shards = open_shards(str(tar))
    right = turns_of(count_shards(shards, tokenizer))
    counts = counts_path(tar, tokenizer.fingerprint).path
    whole, sound = counts.read_bytes(), tar.read_bytes()
    counts.unlink()
    # In a compressed shard, all samples of a frame are damaged together.
    flip(tar, shards.row(2).members[0].offset + 20 if suffix == ".tar" else 40)
    holes = [2] if suffix == ".tar" else list(range(5))
    for _ in range(2):
        with pytest.raises(DigestError) as caught:
            count_shards(shards, tokenizer)
        assert (caught.value.shard, caught.value.key) == (str(tar), f"{holes[0]:09d}")
        assert not counts.exists()
    said = io.StringIO()
    counted = count_shards(shards, tokenizer, progress=Progress(said), skip_damaged=True)
    expected = [[] if n in holes else turns for n, turns in enumerate(right)]
    assert turns_of(counted) == expected and counted.shard(0).damaged == tuple(holes)
    for number in range(5):
        assert (f"sample {number:09d}" in said.getvalue()) == (number in holes)
    header = check_counts(
        counts,
        rows_digest=read_header(index_path(tar)).rows_digest,
        fingerprint=tokenizer.fingerprint,
    )
    assert header.version == "1.1" and header.damaged == tuple(holes)
    stored = counts.read_bytes()
    assert turns_of(count_shards(shards, tokenizer, skip_damaged=True)) == expected
    assert counts.read_bytes() == stored
    again = count_shards(shards, tokenizer)  # counted, but not skipped: the damage is an error
    with pytest.raises(DigestError, match=f"sample {holes[0]:09d}"):
        again.shard(0)
    tar.write_bytes(sound)
    assert turns_of(count_shards(open_shards(str(tar)), tokenizer)) == right
    assert counts.read_bytes() == whole


def repaired_after_counting(folder: Path, tokenizer: Tokenizer) -> Path:
    """A tar whose text was damaged while its tokens were counted, and is sound again."""
    tar = folder / "x-000.tar"
    write_shard(tar, [sample(0), sample(1)])
    sound = tar.read_bytes()
    flip(tar, open_shards(str(tar)).row(1).members[0].offset + 20)
    count_shards(open_shards(str(tar)), tokenizer, skip_damaged=True)
    tar.write_bytes(sound)
    return tar


def test_a_conversion_counts_repaired_shards_anew(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tar = repaired_after_counting(tmp_path, tokenizer)
    count_anew([tar], tokenizer, workers=1)
    assert not count_shards(open_shards(str(tar)), tokenizer).shard(0).damaged


def test_counts_with_holes_that_cannot_be_replaced(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = repaired_after_counting(tmp_path, tokenizer)
    monkeypatch.setattr(counting, "write_counts", lambda *_, **__: None)
    with pytest.raises(ShardError, match=rf"x-000\.tar: .*{tokenizer.fingerprint}.*\n.*delete"):
        turns_of(count_shards(open_shards(str(tar)), tokenizer))


def test_a_shard_that_cannot_be_read_is_never_a_hole(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = tmp_path / "x-000.tar"
    write_shard(tar, [sample(0), sample(1)])
    shards = open_shards(str(tar))

    def fails(*_: object) -> object:
        raise TransportError(str(tar), "the disk fails", key="000000000")

    with monkeypatch.context() as patch:
        patch.setattr(counting.ShardSet, "text_members", fails)
        with pytest.raises(TransportError, match="the disk fails"):
            count_shards(shards, tokenizer, skip_damaged=True)
    tar.write_bytes(tar.read_bytes()[:-1])
    with pytest.raises(TruncatedError, match=r"x-000\.tar"):
        count_shards(shards, tokenizer, skip_damaged=True)
    assert not list(tmp_path.glob("*.tokens-*"))


def test_counts_are_cached_if_they_cannot_be_stored_beside_the_shard(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    tars = []
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        # Long enough that the name of the index is possible, but not that of the counts.
        tars.append(tmp_path / name / f"{'x' * 230}.tar")
        write_shard(tars[-1], [sample(number), sample(7)][: number + 1])
    for number, tar in enumerate(tars):
        shards = open_shards(str(tar))
        assert len(turns_of(count_shards(shards, tokenizer))) == number + 1
        assert cached_counts_path(tar, tokenizer.fingerprint).path.exists()
    assert sum(path.is_file() for path in (tmp_path / "cache").iterdir()) == 2


def test_counts_that_can_be_stored_nowhere_are_an_error(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    tar = tmp_path / f"{'x' * 230}.tar"
    write_shard(tar, [sample(0)])
    with pytest.raises(DiskError, match="not a folder"):
        count_shards(open_shards(str(tar)), tokenizer)


def test_threads_that_need_the_same_counts_count_once(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "x-000.tar", map(sample, range(50)))
    shards, writes, found = open_shards(str(tmp_path / "x-000.tar")), [], list[int]()
    write = counting.write_counts

    def counted_write(path: Path, *rest: object, **named: str) -> None:
        writes.append(path)
        write(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(counting, "write_counts", counted_write)
    threads = [
        threading.Thread(
            target=lambda: found.append(len(turns_of(count_shards(shards, tokenizer))))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [50] * 8
    assert writes == [counts_path(tmp_path / "x-000.tar", tokenizer.fingerprint)]
    assert not [name for name in made(tmp_path) if name.startswith(".")]


def test_the_number_of_processes_does_not_change_the_files(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "SAMPLES_A_PROCESS", 1)
    write_set(tmp_path, "x", [70, 5, 70])
    shards = open_shards(str(tmp_path / "x.json"))
    progress = Progress()
    count_shards(shards, tokenizer, workers=2, progress=progress)
    assert progress.rows == 145 and progress.bytes > 0
    files = made(tmp_path)
    for path in tmp_path.glob("*.tokens-*"):
        path.unlink()
    count_shards(shards, tokenizer, workers=1)
    assert made(tmp_path) == files
    with pytest.raises(UsageError, match="0 workers"):
        count_shards(shards, tokenizer, workers=0)


class Interrupting(Progress):
    """Raises KeyboardInterrupt, as Ctrl-C does, at the first report."""

    def advance(self, rows: int, size: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_no_incomplete_files(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(counting, "SAMPLES_A_PROCESS", 1)
    write_set(tmp_path, "x", [200, 200])
    shards = open_shards(str(tmp_path / "x.json"))
    with pytest.raises(KeyboardInterrupt):
        count_shards(shards, tokenizer, workers=workers, progress=Interrupting())
    assert not [name for name in made(tmp_path) if name.startswith(".")]
    for path in tmp_path.glob("*.tokens-*"):
        header = read_header(index_path(tmp_path / f"{path.name.split('.')[0]}.tar"))
        read_counts(path, rows_digest=header.rows_digest, fingerprint=tokenizer.fingerprint)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_set(tmp_path, "x", [3, 4])
    shards, terminal, file = open_shards(str(tmp_path / "x.json")), Terminal(), io.StringIO()
    count_shards(shards[:3], tokenizer, progress=Progress(terminal))
    assert "x: counting tokens:   0%" in terminal.getvalue() and " 0/3 " in terminal.getvalue()
    assert "\n" not in terminal.getvalue()
    count_shards(shards, tokenizer, progress=Progress(file))
    first, last = file.getvalue().splitlines()
    assert first.startswith("x: ") and "4 samples" in first and tokenizer.fingerprint in first
    assert last.startswith("x: ") and last.endswith("B/s)")
    count_shards(shards, tokenizer, progress=Progress(file))
    assert len(file.getvalue().splitlines()) == 2


def test_counts_of_an_earlier_shard_are_refused_and_replaced(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    tar = tmp_path / "x-000.tar"
    write_shard(tar, [sample(0), sample(1)])
    path = counts_path(tar, tokenizer.fingerprint).path
    count_shards(open_shards(str(tar)), tokenizer)
    write_shard(tar, [sample(0), sample(2)])
    counted = count_shards(open_shards(str(tar)), tokenizer)
    with pytest.raises(ShardError, match="other samples") as caught:
        turns_of(counted)
    assert caught.value.shard == str(path)
    count_anew([tar], tokenizer, workers=1)
    assert turns_of(counted) == [count(one.messages, tokenizer) for one in open_shards(str(tar))]
    inode = path.stat().st_ino
    count_anew([tar], tokenizer, workers=1)
    assert path.stat().st_ino == inode
    path.write_bytes(path.read_bytes()[:-9])
    count_anew([tar], tokenizer, workers=1)
    assert len(turns_of(counted)) == 2
    path.unlink()
    with pytest.raises(ShardError, match=rf"{tokenizer.fingerprint} are missing\n.*rerun"):
        turns_of(counted)


def test_an_index_replaced_after_opening_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tar = tmp_path / "x-000.tar"
    write_shard(tar, [sample(0)])
    with pytest.raises(ShardError, match=rf"^{re.escape(str(tar))}: its index"):
        count_shard_files([ShardToCount(Location.of(tar), 1, "0" * 32)], tokenizer, workers=1)


def test_counting_killed_at_three_points_is_repeated(tmp_path: Path, tokenizer: Tokenizer) -> None:
    killed_and_made_again(tmp_path, tokenizer, workers=1, wanted=3)


def test_counts_of_the_wrong_number_of_samples_are_refused(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """Although they name the digest of this very index."""
    info = write_shard(tmp_path / "x-000.tar", map(sample, range(3)))
    path, builder = counts_path(tmp_path / "x-000.tar", tokenizer.fingerprint).path, CountsBuilder()
    for listed in range(1, 6):
        builder.add([TurnCount(listed, 1)])
        digests = {"rows_digest": info.rows_digest, "fingerprint": tokenizer.fingerprint}
        write_counts(path, builder.finish(), **digests)
        counted = count_shards(open_shards(str(tmp_path / "x-000.tar")), tokenizer)
        if listed != 3:
            with pytest.raises(ShardError, match=f"{listed} counts .* 3 samples"):
                counted.shard(0)
    assert len(read_counts(path, **digests)) == 5


def test_shards_at_a_url_are_counted_into_the_cache(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path))
    near = turns_of(count_shards(open_shards(str(folder / "x.json")), tokenizer))
    said: list[str] = []
    progress = Progress()
    monkeypatch.setattr(progress, "say", said.append)
    with FarFolder(folder, lambda asked: Reply(404) if "tokens" in asked.path else None) as far:
        there = open_shards(f"{far.url}/x.json")
        assert turns_of(count_shards(there, tokenizer, progress=progress)) == near
        # Before the first text was read, it was said what that takes.
        assert re.search(rf"{far.url}/.* \b4 requests", said[1])
        asked = len(far.asked)
        assert turns_of(count_shards(open_shards(f"{far.url}/x.json"), tokenizer)) == near
        assert sum(".tar" in path for path in far.paths[asked:]) == 0
