"""The bounded cache: its processes killed at a hundred points, and watched for ten minutes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocrdata.storage.block_cache import BlockCache
from tests.support.cachefiles import content, disk_bytes, entry_files, leftovers, put_in_steps
from tests.support.kill import points, run_killed, spread
from tests.support.results import record
from tests.support.shardcommand import ROOT, environment

pytestmark = pytest.mark.torture

KILLED = """
import sys
from pathlib import Path
from ocrdata.storage.block_cache import BlockCache
from tests.support.cachefiles import put_in_steps

put_in_steps(BlockCache(Path(sys.argv[1]), int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]))
"""


def test_killed_at_a_hundred_points(tmp_path: Path) -> None:
    folder, limit = tmp_path / "cache", 200_000
    env = environment(tmp_path)
    words = [sys.executable, "-c", KILLED, str(folder), str(limit), "1", "60"]
    BlockCache(folder, limit)
    count = len(points(words, folder, scratch=tmp_path / "hook", env=env))
    # What is evicted depends on times: another run may take a few points less.
    chosen, most, entries = spread(count * 19 // 20, 100), 0, 0
    for at in chosen:
        shutil.rmtree(folder)
        BlockCache(folder, limit)
        run_killed(words, folder, at=at, scratch=tmp_path / "hook", env=env)
        most = max(most, disk_bytes(folder))
        cache = BlockCache(folder, limit)
        assert not leftovers(folder), at
        kept = entry_files(folder)
        for key, start, stop in kept:
            assert cache.get(key, start, stop) == content(key, start, stop - start), (at, key)
        put_in_steps(cache, at, 5)
        assert not cache.stats.damaged, at
        entries += len(kept)
    assert len(chosen) == 100 and most <= limit
    record(
        "cache",
        f"cache killed at {len(chosen)} of {count} points: {entries:,} entries read afterwards, "
        f"all exact; no file of a dead writer left after the next opening; at most {most:,} bytes "
        f"on the disk, limit {limit:,}",
    )


WATCHED = """
import sys, time
from pathlib import Path
from ocrdata.storage.block_cache import BlockCache
from tests.support.cachefiles import put_in_steps

cache, seed, end = BlockCache(Path(sys.argv[1]), int(sys.argv[2])), int(sys.argv[3]), time.time()
while time.time() < end + float(sys.argv[4]):
    seed += 4
    put_in_steps(cache, seed, 10, largest=1 << 20)
    time.sleep(0.1)  # the disk is to keep up for ten minutes
assert not cache.stats.damaged
print(*cache.stats)
"""


def test_four_processes_for_ten_minutes(tmp_path: Path) -> None:
    folder, limit, seconds = tmp_path / "cache", 96 << 20, 600
    watcher = BlockCache(folder, limit)
    words = [sys.executable, "-c", WATCHED, str(folder), str(limit)]
    processes = [
        subprocess.Popen([*words, str(seed), str(seconds)], cwd=ROOT, stdout=subprocess.PIPE,
                         text=True, env=environment(tmp_path))
        for seed in range(4)
    ]  # fmt: skip
    most = samples = 0
    while any(process.poll() is None for process in processes):
        with watcher._account():  # so that no file is moved while they are counted
            most, samples = max(most, disk_bytes(folder)), samples + 1
        time.sleep(0.05)
    outputs = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    hits, _, read, written, evictions, _ = (
        sum(int(words[at]) for words in outputs) for at in range(6)
    )
    assert samples > 5 * seconds and hits and evictions > 1_000
    assert most <= limit
    record(
        "cache",
        f"cache of 4 processes for {seconds} s: {samples:,} samples, at most {most:,} bytes on the "
        f"disk, limit {limit:,}; {written / 1e9:.1f} GB written, {read / 1e9:.1f} GB read, all "
        f"exact; {evictions:,} entries evicted",
    )
