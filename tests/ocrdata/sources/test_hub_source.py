"""Sources on the hub: pinned to a commit, and no request before rows are needed.

The hub's clients fix endpoint and cache when they are imported; hence a process for what asks.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ocrdata.errors import UsageError
from ocrdata.sources.base import ROW_BYTES
from ocrdata.sources.finevision import FineVisionRow
from ocrdata.sources.hub_source import PROVENANCE, HubSource, Request
from ocrdata.sources.smoltalk import ChatRow
from tests.support.hub import Hub
from tests.support.hubdata import SMOLTALK, card, parquet
from tests.support.shardcommand import environment

RECORDED = {
    "format": "smoltalk", "repository": SMOLTALK, "revision": "main", "commit": "1" * 40,
    "config": None, "split": "train", "licence": "mit",
}  # fmt: skip


@pytest.mark.parametrize("repository", ["chartqa", "a/b/c", "/b", "a/"])
def test_a_repository_is_owner_and_name(repository: str) -> None:
    with pytest.raises(UsageError, match=f"{repository!r}.*OWNER/NAME"):
        Request(repository, None, "train")


def test_a_request_matches_only_its_own_provenance() -> None:
    request = Request("a/b", "c", "train", "main")
    answer = {"repository": "a/b", "config": "c", "split": "train", "revision": "main"}
    assert request.matches({**answer, "commit": "1" * 40})
    assert Request("a/b", "c", "train", "1" * 40).matches({**answer, "commit": "1" * 40})
    for name in answer:
        assert not request.matches({**answer, name: "other", "commit": "1" * 40})
    assert not request.matches({})


@pytest.mark.parametrize("revision", ["main", "1" * 40])
def test_a_recorded_commit_is_kept_without_asking_the_hub(revision: str) -> None:
    others = {"rows": 12, "shard_samples": 1024}  # of the conversion, not of the source
    request = Request(SMOLTALK, None, "train", revision)
    source = HubSource("chats", request, ChatRow("x"), recorded={**RECORDED, **others})
    assert source.provenance == RECORDED
    assert tuple(source.provenance) == PROVENANCE
    assert (source.name, source.request) == ("chats", request)
    assert pickle.loads(pickle.dumps(source)).provenance == RECORDED  # a worker process gets it so


SCRIPT = """
import json, sys
from ocrdata.errors import OcrError, RejectedRow
from ocrdata.sources.hub_source import HubSource, Request
from ocrdata.sources.smoltalk import ChatRow

def read(source):
    rows = [
        [row, str(got) if isinstance(got, RejectedRow) else got.messages[0]["content"][0]["text"]]
        for row, got in source.rows(5, 9)
    ]
    return {"count": source.count(), "size": source.size(5, 9), "rows": rows,
            "provenance": source.provenance, "notes": source.notes()}

answers = []
for repository, revision, recorded in json.loads(sys.argv[1]):
    try:
        request = Request(repository, None, "train", revision)
        answers.append(read(HubSource("x", request, ChatRow("x"), recorded=recorded)))
    except OcrError as exc:
        answers.append(f"{type(exc).__name__}: {exc}")
print(json.dumps(answers))
"""


def ask(home: Path, endpoint: str, calls: list[Any]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(calls)],
        env=environment(home, endpoint),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def chats(texts: list[str]) -> dict[str, bytes]:
    """A repository with one conversation per text; for an empty text its message has no role."""
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    rows = [
        [{"role": "user" if text else None, "content": text}, {"role": "assistant", "content": "a"}]
        for text in texts
    ]
    table = pa.table({"messages": pa.array(rows, kind), "raw": [b"x"] * len(rows)})
    files = {"README.md": card({"default": {"train": "data/train-*"}}, "mit")}
    return {**files, "data/train-00000-of-00001.parquet": parquet(table, 4)}


def test_a_source_stays_at_its_commit(tmp_path: Path) -> None:
    old = chats([f"old {n}" if n != 6 else "" for n in range(11)])
    new = chats([f"new {n}" for n in range(20)])
    none = {
        "README.md": card({"default": {"train": "train.parquet"}}, "mit"),
        "train.parquet": parquet(pa.table({"text": ["a", "b"]}), 4),
    }
    with Hub({SMOLTALK: old}) as hub:
        commit = hub.commits[SMOLTALK]
    recorded = {**RECORDED, "commit": commit}
    with Hub({SMOLTALK: new, "some/text": none}, older={SMOLTALK: old}) as hub:
        newer = hub.commits[SMOLTALK]
        kept, moved, other, pinned, wrong, gone = ask(
            tmp_path,
            hub.url,
            [
                [SMOLTALK, "main", recorded],  # continues at its commit
                [SMOLTALK, "main", {}],
                [SMOLTALK, "main", {**recorded, "split": "test"}],  # another conversion's
                [SMOLTALK, commit, {}],
                ["some/text", "main", {}],
                ["some/none", "main", recorded],
            ],
        )
    old_rows = [[5, "old 5"], [6, "message 0: no role"], [7, "old 7"], [8, "old 8"]]
    assert (kept["count"], kept["rows"], kept["provenance"]) == (11, old_rows, recorded)
    assert (moved["count"], moved["rows"][0]) == (20, [5, "new 5"])
    assert moved["provenance"] == {**RECORDED, "commit": newer}
    assert other == moved
    assert (pinned["count"], pinned["rows"]) == (11, old_rows)
    assert pinned["provenance"] == {**RECORDED, "revision": commit, "commit": commit}
    assert kept["size"] > 4 * ROW_BYTES
    assert len(kept["notes"]) == 1 and "raw (binary: bytes)" in kept["notes"][0]
    assert wrong.startswith("SourceError: train.parquet: no column 'messages', so this is not the")
    assert gone.startswith("SourceError: some/none: no such data set")


def test_row_formats_name_themselves_and_their_columns() -> None:
    for form, column in ((FineVisionRow("x"), "texts"), (ChatRow("x"), "messages")):
        assert column in form.needed
        assert form.format in ("finevision", "smoltalk")
