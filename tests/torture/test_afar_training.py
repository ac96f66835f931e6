"""Stage 2 on shards at a URL, ten times larger than the cache: the batches of a local run, in
bounded disk space, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ocrdata.commands import make_shards
from ocrdata.runtime.units import human_bytes
from ocrdata.shards.manifest import read_manifest
from ocrtrain.state import checkpoint
from tests.support.cachefiles import disk_bytes
from tests.support.results import record
from tests.support.servers.nginx import Nginx
from tests.support.servers.proxy import serve_proxy

pytestmark = pytest.mark.torture

STEPS, BATCH, CHARTS, CHATS = 30, 16, 6000, 4000


@dataclass
class Watched:
    """The most bytes that a folder took on the disk, looked at every 50 ms."""

    folder: Path
    most: int = 0
    looks: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.over.wait(0.05):
            self.most = max(self.most, disk_bytes(self.folder))
            self.looks += 1


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    found = Watched(folder)
    thread = threading.Thread(target=found.watch)
    thread.start()
    try:
        yield found
    finally:
        found.over.set()
        thread.join()


def command(base: str, out: Path, encoder: str, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "ocrtrain.stage2", "--preset", "tiny", "--device", "cpu",
        "--deepencoder", encoder, "--shards", f"{base}/charts.json", "--text", f"{base}/sums.json",
        "--tokenizer", "bytes", "--batch", str(BATCH), "--steps", str(STEPS), "--save-every", "10",
        "--eval-every", "0", "--out", str(out), *more,
    ]  # fmt: skip


def identities(run: Path) -> dict[int, str]:
    lines = map(json.loads, (run / "batches.jsonl").read_text().splitlines())
    return {line["step"]: line["identity"] for line in lines}


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def waiting(run: Path) -> float:
    """The share of the steps' time spent waiting for data, but for the first step's."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if "train/wait" in line][1:]
    return sum(line["train/wait"] for line in steps) / sum(line["train/dt"] for line in steps)


def test_stage_2_from_afar(tmp_path: Path, nginx: Nginx) -> None:
    shards, cache = tmp_path / "shards", tmp_path / "cache"
    for kind, rows in (("charts", CHARTS), ("sums", CHATS)):
        words = [kind, "--limit", str(rows), "--out", str(shards), "--tokenizer", "bytes"]
        assert make_shards.main(words) == 0
    vision = read_manifest(shards / "charts.json").bytes
    limit = vision // 10
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OCR_SHARDS_CACHE": str(tmp_path / "indexes")}

    def run(words: list[str]) -> str:
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = tmp_path / "stage1"
    run([
        sys.executable, "-m", "ocrtrain.stage1", "--preset", "tiny", "--device", "cpu", "--shards",
        f"{shards}/charts.json", "--tokenizer", "bytes", "--batch", "4", "--steps", "1", "--out",
        str(first), "--eval-every", "0",
    ])  # fmt: skip
    (encoder,) = map(str, first.glob("deepencoder_*.safetensors"))
    near = tmp_path / "near"
    run(command(str(shards), near, encoder))
    bounded = ["--cache", str(cache), "--cache-limit", str(limit)]
    path = nginx.publish(shards)
    with serve_proxy(nginx.plain_port, tmp_path) as proxy, watched(cache) as disk:
        url = f"http://127.0.0.1:{proxy.port}{path}"
        far, killed = tmp_path / "far", tmp_path / "killed"
        said = run(command(url, far, encoder, *bounded))
        process = subprocess.Popen(
            command(url, killed, encoder, *bounded), env=env,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not checkpoint.complete_checkpoints(killed):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        run([*command(url, killed, encoder, *bounded), "--resume"])
    assert identities(far) == identities(near) == identities(killed)
    assert losses(far) == losses(near) == losses(killed)
    assert len(identities(far)) == STEPS and disk.most <= limit
    share = waiting(far)
    record(
        "afar-training",
        f"stage 2 of {STEPS} steps from afar (30 ms, 50 MB/s), {human_bytes(vision)} of charts, "
        f"cache limit {human_bytes(limit)}: at most {human_bytes(disk.most)} on the disk in "
        f"{disk.looks} looks; {share:.2%} of the time waiting for data after the first step; "
        f"identities and losses equal to a local run's, also after SIGKILL and --resume\n"
        + "\n".join(line for line in said.splitlines() if "from afar" in line),
    )
    assert share < 0.01
