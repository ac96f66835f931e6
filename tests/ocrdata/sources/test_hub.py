"""Data sets on the hub through its real clients, each test in a process of its own: they fix
endpoint and cache when they are imported."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocrdata.sources import hub as data_sets
from tests.support.hub import Hub
from tests.support.hubdata import FINEVISION, card, finevision_repository, made_up_rows, parquet
from tests.support.shardcommand import environment

REPOSITORY = finevision_repository(
    {name: made_up_rows(12) for name in ("chartqa", "docvqa", "chart2text(cauldron)")}, group=4
)

SCRIPT = """
import json, sys
from ocrdata.errors import OcrError
from ocrdata.sources.hub import RangeFile, resolve, resolve_commit
calls = {"resolve": resolve, "resolve_commit": resolve_commit, "read":
         lambda *at: RangeFile(*at[:4]).read(at[4])}
answers = []
for name, *arguments in json.loads(sys.argv[1]):
    try:
        answers.append(repr(calls[name](*arguments)))
    except OcrError as exc:
        answers.append(f"{type(exc).__name__}: {exc}")
print(json.dumps(answers))
"""


def ask(home: Path, endpoint: str, calls: list[list[Any]], **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(calls)],
        env=environment(home, endpoint, **env),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answers: list[str] = json.loads(done.stdout)
    assert all("\n" not in answer for answer in answers)
    return answers


def test_missing_repositories_configs_and_splits_are_one_line_errors(tmp_path: Path) -> None:
    files = {"README.md": card({"default": {"train": "a.csv"}}, "mit"), "a.csv": b"a\n1\n"}
    two = {
        "README.md": card({n: {"train": f"{n}.parquet"} for n in "ab"}, "mit"),
        "a.parquet": b"PAR1",
        "b.parquet": b"PAR1",
    }
    repositories = {FINEVISION: REPOSITORY, "some/csv": files, "some/two": two, "some/gated": two}
    with Hub(repositories, gated=["some/gated"]) as hub:
        commit, csv, b = (hub.commits[n] for n in (FINEVISION, "some/csv", "some/two"))
        cases: dict[str, list[Any]] = {
            f"'{commit}'": ["resolve_commit", FINEVISION, "main"],
            f"'{'f' * 40}'": ["resolve_commit", FINEVISION, "f" * 40],
            f"SourceError: {FINEVISION} has no revision v9 ": ["resolve_commit", FINEVISION, "v9"],
            "SourceError: some/none: no such data set": ["resolve_commit", "some/none", "main"],
            "SourceError: some/gated is gated: ask": ["resolve_commit", "some/gated", "main"],
            f"UsageError: {FINEVISION} has no subset 'chartsqa'; similar names: chartqa": [
                "resolve", FINEVISION, "chartsqa", "train", commit,
            ],
            f"UsageError: {FINEVISION} has no subset 'zzz'; it has chart2text(cauldron), ": [
                "resolve", FINEVISION, "zzz", "train", commit,
            ],
            "UsageError: some/two: choose one of its configs: a, b": [
                "resolve", "some/two", None, "train", b,
            ],
            f"UsageError: {FINEVISION} has no split 'test' in config 'chartqa'; it has train": [
                "resolve", FINEVISION, "chartqa", "test", commit,
            ],
            "SourceError: some/csv: the train split is not stored as Parquet": [
                "resolve", "some/csv", None, "train", csv,
            ],
        }  # fmt: skip
        answers = ask(tmp_path, hub.url, list(cases.values()))
    for expected, answer in zip(cases, answers, strict=True):
        assert answer.startswith(expected), (expected, answer)


def test_an_error_about_an_existing_config_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = ValueError("the card is malformed")

    def refuse(*_: object, **__: object) -> None:
        raise refusal

    clients = SimpleNamespace(
        disable_progress_bars=lambda: None,
        load_dataset_builder=refuse,
        get_dataset_config_names=lambda *_, **__: ["a"],
    )
    monkeypatch.setitem(sys.modules, "datasets", clients)
    monkeypatch.setattr(data_sets, "repository_info", lambda *_: {})
    with pytest.raises(ValueError, match="card is malformed") as caught:
        data_sets.resolve("some/known", "a", "train", "f" * 40)
    assert caught.value is refusal


def test_a_subset_with_parentheses_and_its_licence(tmp_path: Path) -> None:
    with Hub({FINEVISION: REPOSITORY}) as hub:
        commit = hub.commits[FINEVISION]
        [answer] = ask(
            tmp_path,
            hub.url,
            [["resolve", FINEVISION, "chart2text(cauldron)", "train", commit]],
            HF_TOKEN="hf_secret",
        )
        assert "Bearer hf_secret" in hub.served.authorization
    assert "licence='cc-by-4.0'" in answer and "chart2text(cauldron)/train-00001-of" in answer
    assert "hf_secret" not in answer


def test_a_missing_licence_is_unknown(tmp_path: Path) -> None:
    import pyarrow as pa

    data = parquet(pa.table({"messages": [None]}), 1)
    with Hub({"some/bare": {"train.parquet": data}}) as hub:
        commit = hub.commits["some/bare"]
        [answer] = ask(tmp_path, hub.url, [["resolve", "some/bare", None, "train", commit]])
    assert "licence='unknown'" in answer and "'train.parquet'" in answer


def test_ranges_are_exact_or_an_error(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4_000  # 1 MB: above and below the block size
    files = {"x.bin": data}
    call = ["read", "some/files", "main", "x.bin", len(data)]
    with Hub({"some/files": files}) as hub:
        small, large = ask(tmp_path / "a", hub.url, [[*call, 10], [*call, 600_000]])
        served = hub.served.ranges
    assert small == repr(data[:10]) and large == repr(data[:600_000])
    assert served == [("x.bin", 0, 256 << 10), ("x.bin", 0, 600_000)]
    with Hub({"some/files": files}, ignore_ranges=True) as hub:
        [whole] = ask(tmp_path / "b", hub.url, [[*call, 10]])
    assert whole.startswith("SourceError: some/files: x.bin: ")
    for fact in ("bytes 0-262143 of 1024000", "status 200", "range ''"):
        assert fact in whole


def test_a_hub_that_is_switched_off_or_refuses_connections(tmp_path: Path) -> None:
    calls = [
        ["resolve_commit", FINEVISION, "main"],
        ["resolve", FINEVISION, "chartqa", "train", "f" * 40],
    ]
    nobody = "http://127.0.0.1:9"
    for off in ask(tmp_path, nobody, calls, HF_HUB_OFFLINE="1"):
        assert off.startswith(f"UnreachableError: {FINEVISION}: ")
        assert "HF_HUB_OFFLINE; unset it" in off
    for gone in ask(tmp_path, nobody, calls):
        assert gone.startswith(f"UnreachableError: {FINEVISION}: ")
        for fact in (nobody, "Connection refused", "finished work is kept"):
            assert fact in gone


@pytest.mark.torture  # half a minute of waiting
def test_a_hub_that_never_answers_is_reported_within_a_minute(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        [answer] = ask(tmp_path, endpoint, [["resolve", FINEVISION, "chartqa", "train", "f" * 40]])
        assert time.monotonic() - began < 60
    assert "is not responding (timed out)" in answer
