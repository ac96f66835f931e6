"""`tools/make_shards.py` as users run it, against a hub on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocrdata.reading.view import open_shards
from ocrdata.sample import text_of
from ocrdata.shards.manifest import read_manifest
from tests.support.hub import Hub, Served
from tests.support.hubdata import (
    FINEVISION,
    SHARED,
    SMOLTALK,
    chart_rows,
    chats,
    finevision_repository,
    made_up_rows,
    noise,
    smoltalk_repository,
)
from tests.support.shardcommand import TOOL, environment, made, make_shards, one_line

ROWS = 120
Whole = tuple[dict[str, bytes], Served]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Real charts, or made-up rows with images of their size where they are absent."""
    if SHARED.is_dir():
        return chart_rows(ROWS)
    return [
        {**row, "images": [{"bytes": noise(number), "path": None}]}
        for number, row in enumerate(made_up_rows(ROWS))
    ]


@pytest.fixture(scope="module")
def repository(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    return finevision_repository({"chartqa": rows, "chart2text(cauldron)": made_up_rows(20)})


@pytest.fixture(scope="module")
def whole(repository: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The files of an uninterrupted conversion, and what the hub served for it."""
    home = tmp_path_factory.mktemp("whole")
    with Hub({FINEVISION: repository}) as hub:
        done = chartqa(home, hub.url)
    assert done.returncode == 0, done.stderr
    assert "chartqa-000.tar to chartqa-003.tar" in done.stdout
    assert f"{FINEVISION} at commit {hub.commits[FINEVISION]}" in done.stdout
    assert done.stderr.count("rows/s, ") == 4
    return made(home / "out"), hub.served


def chartqa(
    home: Path, endpoint: str, *more: object, **env: str
) -> subprocess.CompletedProcess[str]:
    words = ["chartqa", "--out", home / "out", "--shard-samples", 32, "--workers", 1, *more]
    return make_shards(*words, env=environment(home, endpoint, **env))


def test_images_turns_and_ratings_are_kept(
    whole: Whole, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    for name, data in whole[0].items():
        (tmp_path / name).write_bytes(data)
    shards = open_shards(str(tmp_path / "chartqa.json"))
    assert len(shards) == ROWS
    for number, row in enumerate(rows):
        sample = shards[number]
        assert sample.images == [image["bytes"] for image in row["images"] or []]
        texts = [text_of(message) for message in sample.messages]
        assert texts == [text for turn in row["texts"] for text in turn.values()]
        for name in row.keys() - {"images", "texts", "source"}:
            assert sample.meta.get(name) == row[name]
        assert sample.source == row["source"]


def test_two_workers_and_a_hub_that_fails_every_third_request(
    whole: Whole, repository: dict[str, bytes], tmp_path: Path
) -> None:
    with Hub({FINEVISION: repository}, fail_every=3) as hub:
        done = chartqa(tmp_path, hub.url, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert hub.served.failed >= 4
    assert made(tmp_path / "out") == whole[0]


def test_a_hub_that_goes_down_and_returns_with_a_newer_commit(
    whole: Whole, repository: dict[str, bytes], tmp_path: Path
) -> None:
    with Hub({FINEVISION: repository}, die_after=whole[1].range_requests * 3 // 4) as hub:
        began = time.monotonic()
        done = chartqa(tmp_path, hub.url)
        assert time.monotonic() - began < 60
    assert done.returncode == 1
    assert re.search(r"http://\S+ .*\(.+\).* again", one_line(done))
    files = made(tmp_path / "out")
    tars = [name for name in files if name.endswith(".tar")]
    assert tars and len(tars) < 4 and "chartqa.json" not in files
    assert all(files[name] == whole[0][name] for name in tars)
    newer = {**repository, "README.md": repository["README.md"] + b"news\n"}
    with Hub({FINEVISION: newer}, older={FINEVISION: repository}) as hub:
        done = chartqa(tmp_path, hub.url)
    assert done.returncode == 0, done.stderr
    assert made(tmp_path / "out") == whole[0]
    kept = sum(len(files[name]) for name in tars)
    assert hub.served.bytes < whole[1].bytes - kept // 2
    assert re.search(r"\d+ of \d+ rows", done.stderr)


@pytest.mark.parametrize("whom", ["parent", "group"])
def test_killed_in_the_middle_of_a_download(
    whole: Whole, repository: dict[str, bytes], tmp_path: Path, whom: str
) -> None:
    process: list[subprocess.Popen[bytes]] = []
    words = ["chartqa", "--out", tmp_path / "out", "--shard-samples", 32, "--workers", 2]
    with Hub({FINEVISION: repository}, on_range=_killer(process, at=9, whom=whom)) as hub:
        env = environment(tmp_path, hub.url)
        with hub.lock:
            process.append(
                subprocess.Popen(
                    [sys.executable, TOOL, *map(str, words)],
                    env=env,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        assert process[0].wait(timeout=60) == -9
        hub.on_range = None
        done = chartqa(tmp_path, hub.url, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert made(tmp_path / "out") == whole[0]


def _killer(process: list[subprocess.Popen[bytes]], at: int, whom: str) -> Callable[[int], None]:
    def kill(number: int) -> None:
        if number == at:
            (os.kill if whom == "parent" else os.killpg)(process[0].pid, 9)

    return kill


@pytest.fixture
def ctrl_c_enabled() -> Iterator[None]:
    """Restore the default SIGINT handler: a shell's background jobs, and their children, ignore
    SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_enabled")
def test_ctrl_c_leaves_no_incomplete_files(
    whole: Whole, repository: dict[str, bytes], tmp_path: Path
) -> None:
    process: list[subprocess.Popen[str]] = []

    def interrupt(number: int) -> None:
        if number == 9:
            os.killpg(process[0].pid, 2)

    words = ["chartqa", "--out", tmp_path / "out", "--shard-samples", 32, "--workers", 2]
    with Hub({FINEVISION: repository}, on_range=interrupt) as hub:
        process.append(
            subprocess.Popen(
                [sys.executable, TOOL, *map(str, words)],
                env=environment(tmp_path, hub.url),
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        _, errors = process[0].communicate(timeout=60)
    assert process[0].returncode == 130, errors
    assert "Ctrl-C" in errors.splitlines()[-1]
    assert not [name for name in made(tmp_path / "out") if name.endswith((".tmp", ".lock"))]


def test_a_complete_set_needs_no_hub(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name, data in whole[0].items():
        (tmp_path / "out" / name).write_bytes(data)
    done = chartqa(tmp_path, "http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "already complete" in done.stdout
    other = chartqa(tmp_path, "http://127.0.0.1:9", "--shard-samples", 64)
    assert other.returncode == 2 and "shard_samples was 32, now 64" in one_line(other)
    assert made(tmp_path / "out") == whole[0]


def test_one_shard_alone_needs_only_its_rows(
    whole: Whole, repository: dict[str, bytes], tmp_path: Path
) -> None:
    with Hub({FINEVISION: repository}) as hub:
        done = chartqa(tmp_path, hub.url, "--only", 3)
        # Rows 96 to 119 are in the second file, from its second row group on.
        assert all(start > 0 for path, start, _ in hub.served.ranges)
        data = [path for path, start, stop in hub.served.ranges if stop - start > 1_000_000]
    assert done.returncode == 0, done.stderr
    assert "chartqa-003.tar: 24 samples" in done.stdout
    assert not any("00000-of" in path for path in data)
    files = made(tmp_path / "out")
    assert files["chartqa-003.tar"] == whole[0]["chartqa-003.tar"]
    assert "chartqa.json" not in files


def test_an_unreachable_hub(tmp_path: Path) -> None:
    began = time.monotonic()
    done = chartqa(tmp_path, "http://127.0.0.1:9", HF_TOKEN="hf_secret")
    assert time.monotonic() - began < 60
    assert done.returncode == 1
    assert "Connection refused" in one_line(done)
    assert "hf_secret" not in done.stderr + done.stdout
    assert not (tmp_path / "out").exists()


def test_other_subsets_and_a_misspelled_one(repository: dict[str, bytes], tmp_path: Path) -> None:
    with Hub({FINEVISION: repository}) as hub:
        env = environment(tmp_path, hub.url)
        out = ["--out", tmp_path / "out"]
        wrong = make_shards("finevision", "--subset", "chart2txt", *out, env=env)
        right = make_shards("finevision", "--subset", "chart2text(cauldron)", *out, env=env)
    assert wrong.returncode == 2
    assert "'chart2txt'" in one_line(wrong) and "chart2text(cauldron)" in one_line(wrong)
    assert right.returncode == 0, right.stderr
    manifest = read_manifest(tmp_path / "out" / "chart2text-cauldron.json")
    assert manifest.provenance["config"] == "chart2text(cauldron)"
    assert manifest.totals["samples"] == 20 and manifest.licence == "cc-by-4.0"


def test_both_splits_of_the_chats(tmp_path: Path) -> None:
    with Hub({SMOLTALK: smoltalk_repository(300, 40)}) as hub:
        env = environment(tmp_path, hub.url)
        out = ["--out", tmp_path / "out"]
        train = make_shards("smoltalk", *out, "--limit", 250, "--workers", 1, env=env)
        test = make_shards("smoltalk", "--split", "test", *out, env=env)
    assert (train.returncode, test.returncode) == (0, 0), train.stderr + test.stderr
    texts = chats(340)
    for name, first, count in (("smoltalk-train", 0, 250), ("smoltalk-test", 300, 40)):
        shards = open_shards(str(tmp_path / "out" / f"{name}.json"))
        assert len(shards) == count
        for number in range(0, count, 7):
            got = [(m["role"], text_of(m)) for m in shards[number].messages]
            wanted = texts[first + number]["messages"]
            assert got == [(m["role"], m["content"]) for m in wanted]
