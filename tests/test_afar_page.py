"""Every command of docs/afar.md, run against servers on loopback."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocrdata.commands import check_shards, copy_shards, make_shards
from ocrdata.reading.view import open_shards
from ocrdata.storage import fetching, hub_urls
from ocrtrain import stage1
from ocrtrain.commands import plan
from tests.support.hub import Hub
from tests.support.hubdata import FINEVISION, finevision_repository, made_up_rows
from tests.support.servers.nginx import Nginx
from tests.support.servers.s3 import S3Server

PAGE = Path(__file__).parent.parent / "docs" / "afar.md"

COMMANDS: dict[str, Callable[[list[str]], object]] = {
    "tools/make_shards.py": make_shards.main,
    "tools/check_shards.py": check_shards.main,
    "tools/copy_shards.py": copy_shards.main,
    "tools/plan.py": plan.main,
    "ocrtrain.stage1": stage1.main,
}

SMALL = ["--preset", "tiny", "--steps", "1", "--batch", "2", "--device", "cpu", "--eval-every", "0"]
"""What is added to commands that train, which would take hours."""


def commands() -> list[list[str]]:
    """The words of each command in the page's blocks, without `python` and `-m`."""
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("python ")]
    return [[word for word in shlex.split(line)[1:] if word != "-m"] for line in lines]


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto: S3Server, nginx: Nginx
) -> Iterator[Callable[[str], str]]:
    """Puts the servers of the test in place of those of the page."""
    for name, value in moto.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "indexes"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    hub_urls.forget_all()
    rows = finevision_repository({"chartqa": made_up_rows(24)})
    example = nginx.url + nginx.publish(tmp_path / "example")

    def put(word: str) -> str:
        word = word.replace("s3://my-bucket/ocr", moto.url("ocr"))
        word = word.replace("https://example.org/ocr", example)
        return word.replace("/data/ocr-cache", str(tmp_path / "cache"))

    with Hub({FINEVISION: rows, "me/chartqa-shards": {}}) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        yield put
    fetching.use_cache(None)


def test_every_command_of_the_page(
    place: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    assert make_shards.main(["chartqa", "--tokenizer", "bytes", "--out", str(shards)]) == 0
    (tmp_path / "example").symlink_to(shards)
    ran = set()
    for number, (program, *words) in enumerate(commands()):
        given = [place(word) for word in words]
        if program in ("ocrtrain.stage1", "tools/plan.py"):
            given += SMALL + (["--out", str(tmp_path / f"run-{number}")] * (program[0] == "o"))
        status = COMMANDS[program](given)
        assert not status, (program, given, capsys.readouterr().err)
        ran.add(program)
    assert ran == COMMANDS.keys()
    near = open_shards(shards / "chartqa.json")
    there = open_shards(place("s3://my-bucket/ocr/chartqa.json"))
    assert list(there.iter_members()) == list(near.iter_members())
