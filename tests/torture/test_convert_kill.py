"""Conversions killed at every point, and whole real data sets from an unreliable hub."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ocrdata.reading.view import open_shards
from tests.support.convertkill import ZSTD, command, kill_and_go_on, uninterrupted, whole
from tests.support.hub import Hub
from tests.support.hubdata import FINEVISION, SMOLTALK, chart_rows, finevision_repository, shared
from tests.support.hubdata import smoltalk_repository as chat_repository
from tests.support.kill import points, spread
from tests.support.shardcommand import TOOL, environment, made, make_shards

pytestmark = pytest.mark.torture
__all__ = ["whole"]  # the fixture


def test_killed_at_every_point(whole: tuple[dict[str, bytes], int], tmp_path: Path) -> None:
    files, count = whole
    for at in range(1, count + 1):
        kill_and_go_on(files, at, tmp_path)


def test_a_compressed_conversion_killed_at_every_point(tmp_path: Path) -> None:
    files, count = uninterrupted(tmp_path, ZSTD)
    for at in range(1, count + 1):
        kill_and_go_on(files, at, tmp_path, more=ZSTD)


def test_two_workers_killed_at_forty_points(
    whole: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    """Each process counts its own points: the first to reach the point kills the group."""
    files, _ = whole
    words = command(tmp_path / "rows.jsonl", tmp_path / "out", 2)
    env = environment(tmp_path)
    points(words, tmp_path / "out", scratch=tmp_path / "hook", env=env)
    assert made(tmp_path / "out") == files
    subprocess.run(["rm", "-r", str(tmp_path / "out")], check=True)
    # The busier worker makes two of the three shards, with 16 points each; the parent has more.
    for at in spread(32, 32):
        kill_and_go_on(files, at, tmp_path, workers=2)


def test_all_charts_from_an_unreliable_hub_and_killed_ten_times(tmp_path: Path) -> None:
    shared("charts")
    rows = chart_rows()
    repository = finevision_repository({"chartqa": rows}, group=50)
    words = ["chartqa", "--shard-samples", 100, "--out"]
    with Hub({FINEVISION: repository}) as hub:
        env = environment(tmp_path / "a", hub.url)
        done = make_shards(*words, tmp_path / "plain", "--workers", 1, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    plain = made(tmp_path / "plain")
    requests = hub.served.range_requests
    with Hub({FINEVISION: repository}, fail_every=3) as hub:
        env = environment(tmp_path / "b", hub.url)
        done = make_shards(*words, tmp_path / "third", "--workers", 2, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    assert made(tmp_path / "third") == plain and hub.served.failed > 10
    pick, out = random.Random(7), tmp_path / "killed"
    for _ in range(10):
        process: list[subprocess.Popen[bytes]] = []
        at = pick.randrange(10, requests)

        def kill(
            number: int, at: int = at, process: list[subprocess.Popen[bytes]] = process
        ) -> None:
            if number == at:
                os.killpg(process[0].pid, 9)

        with Hub({FINEVISION: repository}, on_range=kill) as hub:
            env = environment(tmp_path / "c", hub.url)
            command_line = [sys.executable, str(TOOL), *map(str, words), str(out), "--workers", "2"]
            process.append(
                subprocess.Popen(
                    command_line, env=env, stderr=subprocess.DEVNULL, start_new_session=True
                )
            )
            process[0].wait(timeout=600)
    with Hub({FINEVISION: repository}) as hub:
        env = environment(tmp_path / "d", hub.url)
        done = make_shards(*words, out, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    assert made(out) == plain
    shards = open_shards(str(out / "chartqa.json"))
    for number, row in enumerate(rows):
        assert shards[number].images == [row["images"][0]["bytes"]]


def test_all_chats_from_an_unreliable_hub(tmp_path: Path) -> None:
    shared("chat")
    repository = chat_repository(11_900, 100, group=1_000)
    with Hub({SMOLTALK: repository}, fail_every=3) as hub:
        for split, count in (("train", 11_900), ("test", 100)):
            env = environment(tmp_path, hub.url)
            words = ["smoltalk", "--split", split, "--out", tmp_path / "out", "--workers", 2]
            done = make_shards(*words, env=env, timeout=600)
            assert done.returncode == 0, done.stderr
            assert len(open_shards(str(tmp_path / "out" / f"smoltalk-{split}.json"))) == count
