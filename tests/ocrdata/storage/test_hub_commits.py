"""Files in repositories of a loopback hub, over its LFS path."""

import hashlib
import logging
import os
from pathlib import Path

import pytest

from ocrdata.errors import SourceError, UsageError
from ocrdata.storage import hub_commits
from ocrdata.storage.hub_commits import (
    HubBlob,
    check_folder,
    commit,
    create_repository,
    found_in,
    git_blob,
    not_sent,
    send,
)
from ocrdata.storage.location import Location
from ocrdata.storage.remote import fetch, status
from ocrdata.storage.upload import upload_bytes
from tests.support.hub import Hub

NAME = "org/set"
FOLDER = Location(f"hf://datasets/{NAME}/data")


@pytest.fixture(autouse=True)
def no_xet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(hub_commits, "FIRST_WAIT_S", 0.01)


def use(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    hub_commits.forget_all()


def test_bytes_that_were_sent_are_committed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar, text = tmp_path / "x-000.tar", tmp_path / "x.jsonl"
    tar.write_bytes(os.urandom(100_000))
    text.write_bytes(b"{}\n")
    blob = HubBlob(100_000, hashlib.sha256(tar.read_bytes()).hexdigest())
    with Hub({}, elsewhere=True, token="hf_secret") as hub:
        use(hub, monkeypatch)
        with pytest.raises(SourceError, match=f"{NAME}: no such data set"):
            send(FOLDER, [tar])
        create_repository(FOLDER)
        create_repository(FOLDER)
        assert send(FOLDER, [tar, text]) == {"x-000.tar": blob, "x.jsonl": None}
        assert hub.repositories[NAME] == {} and not_sent(FOLDER, [blob]) == set()
        other = blob._replace(version="0" * 64)
        assert not_sent(FOLDER, [blob, other]) == {other}
        data = tar.read_bytes()
        tar.unlink()
        assert status(FOLDER / "x-000.tar") is None
        commit(FOLDER, {"x-000.tar": blob, "x.jsonl": text}, "both")
        assert hub.repositories[NAME] == {"data/x-000.tar": data, "data/x.jsonl": b"{}\n"}
        assert found_in(FOLDER, ["x-000.tar", "x.jsonl", "none"]) == {
            "x-000.tar": blob, "x.jsonl": git_blob(b"{}\n"),
        }  # fmt: skip
        assert fetch(FOLDER / "x-000.tar").data == data
        commit(FOLDER, {}, "away", deleted=["x.jsonl"])
        upload_bytes(FOLDER / "y.json", b"[]")
        assert hub.repositories[NAME] == {"data/x-000.tar": data, "data/y.json": b"[]"}
        assert [one.summary for one in hub.history] == ["both", "away", "y.json"]
        assert hub.file_host.served.authorization == {""}


def test_a_busy_hub_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Hub({NAME: {}}) as hub:
        use(hub, monkeypatch)
        hub.refuse_next(2, 520)
        with caplog.at_level(logging.WARNING):
            upload_bytes(FOLDER / "y.json", b"[]")
        assert hub.repositories[NAME] == {"data/y.json": b"[]"}
        assert caplog.text.count("trying again") == 2 and "secret" not in caplog.text
        monkeypatch.setattr(hub_commits, "GIVE_UP_S", 0.0)
        hub.refuse_next(1, 520)
        with pytest.raises(SourceError, match=f"{NAME}: .*520") as caught:
            upload_bytes(FOLDER / "z.json", b"[]")
        assert "secret" not in str(caught.value) and "data/z.json" not in hub.repositories[NAME]


def test_a_commit_is_nothing_to_write_to() -> None:
    check_folder(FOLDER)
    check_folder(Location("hf://datasets/org/set@branch"))
    with pytest.raises(UsageError, match="branch"):
        check_folder(Location(f"hf://datasets/org/set@{'0' * 40}/data"))
    with pytest.raises(UsageError, match="hf://datasets/ORG/NAME"):
        check_folder(Location("hf://org/set"))
