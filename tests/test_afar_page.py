"""Every command of docs/afar.md, run against servers on loopback."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ocrdata.reading.view import open_shards
from tests.support.afarpage import COMMANDS
from tests.support.hub import Hub
from tests.support.hubdata import FINEVISION, finevision_repository, made_up_rows
from tests.support.servers.nginx import Nginx
from tests.support.servers.s3 import S3Server
from tests.support.shardcommand import environment

PAGE = Path(__file__).parent.parent / "docs" / "afar.md"

SMALL = ["--preset", "tiny", "--steps", "1", "--batch", "2", "--device", "cpu", "--eval-every", "0"]
"""What is added to commands that train, which would take hours."""


def commands() -> list[list[str]]:
    """The words of each command in the page's blocks, without `python` and `-m`."""
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("python ")]
    return [[word for word in shlex.split(line)[1:] if word != "-m"] for line in lines]


def test_every_command_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto: S3Server, nginx: Nginx
) -> None:
    (tmp_path / "shards").mkdir()
    example = nginx.url + nginx.publish(tmp_path / "shards")
    found = [["tools/make_shards.py", "chartqa", "--tokenizer", "bytes"], *commands()]
    given = []
    for number, (program, *words) in enumerate(found):
        words = [
            word.replace("s3://my-bucket/ocr", moto.url("page"))
            .replace("https://example.org/ocr", example)
            .replace("/data/ocr-cache", "cache")
            .replace("train=0.98,val=0.02", "train=0.6,val=0.4")  # few images, in many samples
            for word in words
        ]
        if program == "ocrtrain.stage1":
            words += [*SMALL, "--out", f"run-{number}"]
        elif program == "tools/plan.py":
            words += SMALL
        given.append((program, words))
    assert {program for program, _ in given} == COMMANDS.keys()
    rows = finevision_repository({"chartqa": made_up_rows(150)})
    with Hub({FINEVISION: rows, "me/chartqa-shards": {}}) as hub:
        more = {**moto.variables, "OCR_SHARDS_CACHE": str(tmp_path / "indexes")}
        env = environment(tmp_path, hub.url, **more, HF_TOKEN="hf_secret", WANDB_MODE="disabled",
                          HF_HUB_DISABLE_XET="1")  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.afarpage", json.dumps(given)],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "secret" not in done.stdout + done.stderr
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    near = open_shards(tmp_path / "shards" / "chartqa.json")
    there = open_shards(moto.url("page/chartqa.json"))
    assert list(there.iter_members()) == list(near.iter_members()) and len(near)
