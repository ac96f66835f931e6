"""Unfinished answers: what is gone on from, what is asked again, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import DiskError, UsageError
from ocrtrain.evaluation.answers_file import AnswersFile, partial_path

IDENTITY = {"weights": "a1", "--exchange": False}


def lines(source: str, start: int, stop: int) -> list[dict[str, Any]]:
    return [{"source": source, "key": f"{at:09d}", "answer": "é\n"} for at in range(start, stop)]


def filled(out: Path) -> bytes:
    """Two blocks of one source and one of another are kept; returns the bytes on disk."""
    with AnswersFile(out, IDENTITY) as file:
        file.keep_validation({"numbers": {"val/loss": 1.5}, "lines": "loss 1.5"})
        file.keep("a", 2, lines("a", 0, 2))
        file.keep("a", 3, lines("a", 2, 3))
        file.keep("b", 2, lines("b", 0, 2))
    return partial_path(out).read_bytes()


def test_what_is_kept_is_gone_on_from(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    filled(out)
    with AnswersFile(out, IDENTITY) as file:
        assert file.done == {"a": 3, "b": 2}
        assert file.validation == {"numbers": {"val/loss": 1.5}, "lines": "loss 1.5"}
        file.keep("b", 3, lines("b", 2, 3))
        assert not out.exists()
        file.finish()
        wanted = lines("a", 0, 3) + lines("b", 0, 3)
        assert list(file.answers()) == wanted
        file.remove()
    assert [json.loads(line) for line in out.read_text().splitlines()] == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


@given(cut=st.integers(0, 2000), tail=st.binary(max_size=6))
def test_a_torn_end_is_asked_again(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes
) -> None:
    out = tmp_path_factory.mktemp("torn") / "answers.jsonl"
    whole = filled(out)
    torn = whole[: cut % (len(whole) + 1)]
    if tail and torn != whole and not torn.endswith(b"\n"):
        torn += tail.replace(b"\n", b"?")  # what a power failure leaves
    partial_path(out).write_bytes(torn)
    blocks = [({}, 0), ({"a": 2}, 2), ({"a": 3}, 3), ({"a": 3, "b": 2}, 5)]
    ends = [whole.index(mark) + len(mark) for mark in markers(whole)]
    complete = sum(end <= len(torn) and torn[:end] == whole[:end] for end in ends)
    with AnswersFile(out, IDENTITY) as file:
        done, answers = blocks[max(0, complete - 1)]
        assert file.done == done
        assert (file.validation is not None) == (complete > 0)
        assert list(file.answers()) == (lines("a", 0, 3) + lines("b", 0, 2))[:answers]


def markers(whole: bytes) -> list[bytes]:
    return [line for line in whole.splitlines(keepends=True) if b'"digest"' in line]


def test_a_changed_answer_and_all_after_it_are_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    whole = filled(out)
    at = whole.index(b'"000000002"') + 9
    partial_path(out).write_bytes(whole[:at] + b"3" + whole[at + 1 :])
    with AnswersFile(out, IDENTITY) as file:
        assert file.done == {"a": 2}
        assert list(file.answers()) == lines("a", 0, 2)


@pytest.mark.parametrize("name", IDENTITY)
def test_answers_that_depend_on_something_else_are_not_mixed(tmp_path: Path, name: str) -> None:
    out = tmp_path / "answers.jsonl"
    before = filled(out)
    with pytest.raises(
        UsageError, match=rf"answers\.partial\.jsonl .*{name} {IDENTITY[name]}, not"
    ):
        AnswersFile(out, {**IDENTITY, name: "other"})
    assert partial_path(out).read_bytes() == before


def test_without_an_answer_nothing_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    for identity in (IDENTITY, {**IDENTITY, "weights": "b2"}):
        with AnswersFile(out, identity) as file:
            assert (file.done, file.validation) == ({}, None)
            file.keep_validation({"numbers": {}, "lines": ""})
    partial_path(out).write_bytes(b"")
    with AnswersFile(out, IDENTITY) as file:
        assert (file.done, file.validation) == ({}, None)


@pytest.mark.parametrize("content", [b"mine\n", b"{}\n", b'{"step": 0}\n', b"[]\n"])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "answers.jsonl"
    partial_path(out).write_bytes(content)
    with pytest.raises(UsageError, match=r"answers\.partial\.jsonl exists but"):
        AnswersFile(out, IDENTITY)
    assert partial_path(out).read_bytes() == content


def test_a_folder_of_that_name_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    partial_path(out).mkdir()
    with pytest.raises(DiskError, match=r"answers\.partial\.jsonl"):
        AnswersFile(out, IDENTITY)
