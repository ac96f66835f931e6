"""Files of data set repositories of the hub: pinned, signed and renewed."""

import time
from pathlib import Path

import pytest

from ocrdata.errors import SourceError, SpecError, TransportError
from ocrdata.reading.view import open_shards
from ocrdata.storage import hub_urls
from ocrdata.storage.hub_urls import SignedUrl, hub_file, pinned, signed_url
from ocrdata.storage.location import Location
from ocrdata.storage.remote import fetch, status
from tests.support.hub import Hub
from tests.support.rows import write_set

FILES = {"data/x.json": b"content", "y.tar": b"0123456789"}


@pytest.fixture(autouse=True)
def forget() -> None:
    hub_urls.forget_all()


@pytest.mark.parametrize(
    "text, parts",
    [
        ("hf://datasets/a/b/x.json", ("a/b", "", "x.json")),
        ("hf://datasets/a/b@v1/data/x.json", ("a/b", "v1", "data/x.json")),
        ("hf://datasets/a/b@refs%2Fpr%2F1/x", ("a/b", "refs/pr/1", "x")),
    ],
)
def test_forms(text: str, parts: tuple[str, str, str]) -> None:
    assert hub_file(Location(text)) == parts
    assert hub_file(Location(text)).location == Location(text)


@pytest.mark.parametrize("text", ["hf://a/b/x", "hf://datasets/a/x", "hf://datasets/a/b"])
def test_other_forms(text: str) -> None:
    with pytest.raises(SpecError, match=f"{text}: .*hf://datasets/ORG/NAME"):
        hub_file(Location(text))


def test_a_file_is_read_at_the_commit_of_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub({"a/b": FILES}) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        commit = hub.commits["a/b"]
        place = pinned(Location("hf://datasets/a/b/data/x.json"))
        assert place.text == f"hf://datasets/a/b@{commit}/data/x.json"
        assert pinned(place) == place
        assert fetch(place).data == b"content"
        assert fetch(place.folder.folder / "y.tar", 2, 5).data == b"234"
        with pytest.raises(TransportError, match=f"a/b@{commit}/none: does not exist"):
            fetch(place.folder.folder / "none")
        with pytest.raises(SourceError, match=r"c/d: no such data set"):
            pinned(Location("hf://datasets/c/d/x"))


def test_a_url_is_renewed_before_it_expires_or_when_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = iter([time.time() + 30, time.time() + 500, time.time() + 900])
    asked = []

    def ask(location: Location) -> SignedUrl:
        asked.append(location)
        return SignedUrl(f"https://cdn/{len(asked)}", {}, next(ends))

    monkeypatch.setattr(hub_urls, "_ask", ask)
    place = Location("hf://datasets/a/b/x")
    second = signed_url(place)  # the first would have ended within the next minute
    assert (second.url, len(asked)) == ("https://cdn/2", 2)
    assert signed_url(place) is second
    third = signed_url(place, refused=second)
    assert third.url == "https://cdn/3" and signed_url(place, refused=second) is third
    assert "cdn" not in repr(third)


@pytest.mark.parametrize(
    "query, end",
    [
        ("Expires=1700000000&Signature=x", 1700000000.0),
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=3600", 1700003600.0),
        ("se=2023-11-14T22:13:20Z&sig=x", 1700000000.0),
        ("x=1", float("inf")),
        ("X-Amz-Expires=3600", float("inf")),
    ],
)
def test_end_of_a_signed_url(query: str, end: float) -> None:
    assert hub_urls._end(f"https://cdn/x?{query}") == end


@pytest.mark.parametrize("form", ["amazon", "cloudfront"])
def test_the_state_of_files_whose_urls_are_signed_for_get(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"x.tar": b"0123456789", "y.json": b"{}", "empty.json": b""}
    with Hub({"a/b": files}, elsewhere=True, link_form=form) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        place = Location("hf://datasets/a/b")
        found = {name: status(place / name) for name in files}
        assert {name: one.size for name, one in found.items() if one} == {
            "x.tar": 10, "y.json": 2, "empty.json": 0,
        }  # fmt: skip
        assert status(place / "none") is None


@pytest.mark.parametrize("form", ["amazon", "cloudfront"])
def test_a_set_whose_files_are_on_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    shards = tmp_path / "shards"
    shards.mkdir()
    write_set(shards, "n", [9, 20])
    near = list(open_shards(shards / "n.json").iter_members())
    files = {f"data/{path.name}": path.read_bytes() for path in shards.iterdir()}
    with Hub({"a/b": files}, elsewhere=True, link_form=form, token="hf_secret") as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        there = open_shards("hf://datasets/a/b/data/n.json")
        assert there.spec == f"hf://datasets/a/b@{hub.commits['a/b']}/data/n.json"
        assert [there.members(at) for at in range(9)] == near[:9]
        hub.file_host.expire_links()  # refused from now on: others are asked for
        assert [there.members(at) for at in range(29)] == near
        # The token went to the hub alone, and each file was resolved once, but for those renewed.
        assert hub.served.authorization == {"Bearer hf_secret"}
        assert hub.file_host.served.authorization == {""}
