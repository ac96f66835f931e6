"""The hub of the tests behaves as the hub's own client expects: commits by LFS, files elsewhere."""

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from tests.support.hub import Hub

NAME = "org/set"
TAR = b"a tar" * 1000
FILES = {"data/x-000.tar": TAR, "data/x.json": b"{}"}
OID = hashlib.sha256(TAR).hexdigest()


class _Staying(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
    """Status, headers and body; redirects are not followed."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.build_opener(_Staying).open(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.headers, answer.read()


def location(hub: Hub, path: str = "data/x-000.tar") -> str:
    status, headers, _ = get(f"{hub.url}/datasets/{NAME}/resolve/main/{path}", "HEAD")
    assert status in (302, 307) and headers["X-Repo-Commit"] == hub.commits[NAME]
    return headers["Location"]


@pytest.fixture(autouse=True)
def no_xet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return iter([None])


@pytest.mark.parametrize("form", ["amazon", "cloudfront"])
def test_large_files_are_on_another_host_at_a_signed_url(form: str) -> None:
    with Hub({NAME: FILES}, elsewhere=True, link_form=form) as hub:
        url = location(hub)
        assert urlsplit(url).hostname == "127.0.0.2" != urlsplit(hub.url).hostname
        status, _, body = get(url, Range="bytes=5-9")
        assert (status, body) == (206, TAR[5:10])
        assert hub.file_host.served.ranges == [("data/x-000.tar", 5, 10)]
        assert get(url.replace("Signature=", "Signature=0"))[0] == 403
        assert get(url, "HEAD")[0] == (403 if form == "amazon" else 200)
        hub.file_host.expire_links()
        assert get(url)[0] == 403
        assert get(location(hub))[2] == TAR
        assert hub.served.resolved == 2


@pytest.mark.parametrize("form", ["amazon", "cloudfront"])
def test_links_expire_by_themselves(form: str) -> None:
    with Hub({NAME: FILES}, elsewhere=True, link_form=form, link_seconds=0) as hub:
        assert get(location(hub))[0] == 403


def test_the_file_host_refuses_and_records_tokens() -> None:
    with Hub({NAME: FILES}, elsewhere=True) as hub:
        assert get(location(hub), Authorization="Bearer hf_x")[0] == 400
        assert hub.file_host.served.authorization == {"Bearer hf_x"}


def test_small_files_are_redirected_on_the_hub() -> None:
    with Hub({NAME: FILES}, elsewhere=True) as hub:
        where = location(hub, "data/x.json")
        assert where.startswith("/api/resolve-cache/datasets/org/set/")
        assert get(hub.url + where)[2] == b"{}"


def test_refusals_come_once_each() -> None:
    with Hub({NAME: FILES}) as hub:
        hub.refuse_next(2, 429, "7")
        url = f"{hub.url}/datasets/{NAME}/resolve/main/data/x.json"
        answers = [get(url) for _ in range(3)]
        assert [status for status, _, _ in answers] == [429, 429, 200]
        assert answers[0][1]["Retry-After"] == "7"


def test_the_client_downloads_without_telling_the_file_host_its_token() -> None:
    with Hub({NAME: FILES}, elsewhere=True, token="hf_secret") as hub:
        api = HfApi(endpoint=hub.url, token="hf_secret")
        path = api.hf_hub_download(NAME, "data/x-000.tar", repo_type="dataset")
        assert Path(path).read_bytes() == TAR
        assert hub.served.authorization == {"Bearer hf_secret"}
        assert hub.file_host.served.authorization == {""}
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.url, token=False).dataset_info(NAME)


def test_commits() -> None:
    with Hub({}, elsewhere=True, token="hf_secret") as hub:
        api = HfApi(endpoint=hub.url, token="hf_secret")
        api.create_repo(NAME, repo_type="dataset", private=True)
        api.create_repo(NAME, repo_type="dataset", exist_ok=True)
        before = hub.commits[NAME]

        def commit(files: dict[str, bytes], *more: CommitOperationDelete, parent: str = "") -> str:
            operations = [CommitOperationAdd(path, data) for path, data in files.items()]
            found = api.create_commit(
                NAME,
                [*operations, *more],
                commit_message="files",
                repo_type="dataset",
                parent_commit=parent or None,
            )
            return found.oid

        first = commit(FILES)
        assert hub.repositories[NAME] == FILES and hub.commits[NAME] == first != before
        assert hub.file_host.objects == {OID: TAR}
        uploads = hub.file_host.served.requests
        second = commit({"data/y-000.tar": TAR}, CommitOperationDelete("data/x.json"), parent=first)
        assert uploads == hub.file_host.served.requests, "the object is there already"
        assert hub.repositories[NAME] == {"data/x-000.tar": TAR, "data/y-000.tar": TAR}
        assert hub.older[NAME, first] == FILES
        with pytest.raises(HfHubHTTPError, match="412"):
            commit({"z": b"z"}, parent=first)
        assert [(made.oid, made.paths) for made in hub.history] == [
            (first, ("data/x-000.tar", "data/x.json")),
            (second, ("data/y-000.tar", "data/x.json")),
        ]
        info = api.get_paths_info(NAME, ["data/y-000.tar", "none"], repo_type="dataset")
        assert [(file.path, file.size, file.lfs.sha256) for file in info] == [
            ("data/y-000.tar", len(TAR), OID)
        ]
        siblings = api.dataset_info(NAME, files_metadata=True).siblings
        assert {file.rfilename: file.size for file in siblings} == {
            "data/x-000.tar": len(TAR),
            "data/y-000.tar": len(TAR),
        }


def test_a_commit_of_a_missing_object_is_no_commit() -> None:
    with Hub({NAME: {}}) as hub:
        line = {"key": "lfsFile", "value": {"path": "x.tar", "oid": OID, "algo": "sha256"}}
        request = urllib.request.Request(
            f"{hub.url}/api/datasets/{NAME}/commit/main", json.dumps(line).encode()
        )
        with pytest.raises(OSError):
            urllib.request.urlopen(request)
        assert hub.repositories[NAME] == {} and hub.history == []
