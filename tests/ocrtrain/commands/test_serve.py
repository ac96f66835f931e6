"""The command that serves a model."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import OcrError, UsageError, UsageErrors
from ocrtrain.commands import serve
from ocrtrain.model.pretrained import EXPORTED
from ocrtrain.serving.listening import ListenError, bind
from tests.support import serving, small


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model never ends its answers."""
    folder = tmp_path_factory.mktemp("serve")
    model = serving.endless(folder)
    return small.Trained(model.model.state_dict(), 0.0).save(folder / "run")


def test_it_answers_and_a_signal_finishes_what_is_asked(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: the client is a thread, which sends the signal after the first words."""
    url, read = threading.Event(), []
    printed: list[str] = []

    def say(line: str, **_: Any) -> None:
        printed.append(line)
        url.set()

    def ask() -> None:
        assert url.wait(60)
        base = printed[0].split()[-1]
        body = {**serving.question("red", "colour"), "model": "other", "stream": True,
                "max_tokens": 300}  # fmt: skip
        request = urllib.request.Request(f"{base}/chat/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            read.append(answer.readline())
            os.kill(os.getpid(), signal.SIGTERM)
            read.extend(answer)

    monkeypatch.setattr("builtins.print", say)
    client = threading.Thread(target=ask)
    client.start()
    before = signal.getsignal(signal.SIGTERM)
    arguments = [str(run_folder), "--port", "0", "--name", "other", "--stop-repeats", "0"]
    assert serve.main(arguments) == 0
    client.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert printed[0].startswith(f"other ({run_folder / 'checkpoints' / 'step_000150'}): http://")
    texts = [json.loads(line[6:]) for line in read if line.startswith(b"data: {")]
    assert len([one for one in texts if one["choices"][0]["delta"].get("content")]) == 300
    assert read[-2].strip() == b"data: [DONE]"


def test_the_model_is_called_as_its_folder(tmp_path: Path) -> None:
    step = tmp_path / "charts" / "checkpoints" / "step_000150"
    one = serving.endless(step)
    assert serve._name(one) == "charts"
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / EXPORTED).touch()
    assert serve._name(replace(one, checkpoint=exported)) == "exported"


@pytest.mark.parametrize(
    ("arguments", "error", "fact"),
    [
        (["--host", "0.0.0.0"], UsageError, "--token-file.*OCR_SERVE_TOKEN"),
        (["--port", "70000"], UsageError, "70000"),
        (["--batch", "0"], UsageError, "--batch"),
        (["--timeout", "0"], UsageError, "--timeout 0"),
        (["--timeout", "nan"], UsageError, "--timeout nan"),
        (["--stop-repeats", "1"], UsageError, "--stop-repeats"),
        (["--max-body", "much"], UsageError, "--max-body.*much"),
        (["--token-file", "absent"], UsageError, "absent: No such file"),
        (["--device", "warp"], UsageError, "'warp'"),
        (["--cache-memory", "9KB"], UsageError, "--cache-memory"),
    ],
)
def test_mistakes_are_told(
    run_folder: Path, arguments: list[str], error: type[OcrError], fact: str
) -> None:
    with pytest.raises(error, match=fact):
        serve.main([str(run_folder), "--port", "0", *arguments])


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageErrors) as caught:
        serve.main(
            [str(tmp_path / "gone"), "--queue", "0", "--max-pixels", "x", "--token", "s3cret"]
        )
    told = "\n".join(caught.value.messages)
    assert len(caught.value.messages) == 4
    for fact in ("gone", "--queue", "--max-pixels", "--token-file"):
        assert fact in told
    assert "s3cret" not in told


def test_a_port_in_use_is_one_line_and_status_1(run_folder: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(ListenError, match=port) as caught:
            serve.main([str(run_folder), "--port", port])
        assert (caught.value.exit_status, len(caught.value.messages)) == (1, 1)


def test_the_token_is_read_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    monkeypatch.delenv(serve.TOKEN_VARIABLE, raising=False)
    assert serve.find_token("") == ""
    monkeypatch.setenv(serve.TOKEN_VARIABLE, "abc")
    assert serve.find_token("") == "abc"
    file.write_text("d+/e=f\n")
    assert serve.find_token(str(file)) == "d+/e=f"
    for wrong in ("", "two words", "é", "a\nb"):
        file.write_text(wrong)
        with pytest.raises(UsageError, match="one word") as caught:
            serve.find_token(str(file))
        assert not wrong or wrong not in str(caught.value)
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not a text"):
        serve.find_token(str(file))
    monkeypatch.setenv(serve.TOKEN_VARIABLE, " ")
    with pytest.raises(UsageError, match=serve.TOKEN_VARIABLE):
        serve.find_token("")
