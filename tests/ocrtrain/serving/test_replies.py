"""Answers as documents and as a stream of text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.evaluation.generation import Continuation, plain_text
from ocrtrain.serving.replies import Reply, TextStream, event
from tests.support import small

TOKENS = st.lists(st.integers(0, small.MODEL.vocab_size - 1), max_size=30)


@given(st.text(max_size=20).map(lambda text: small.tokenizer().encode(text)) | TOKENS)
def test_the_pieces_are_the_whole_text(tokens: list[int]) -> None:
    stream = TextStream(small.tokenizer())
    pieces = [stream.add(token) for token in tokens]
    assert "".join([*pieces, stream.close(tokens)]) == plain_text(small.tokenizer(), tokens)


def test_a_character_of_several_tokens_comes_whole() -> None:
    tokens = small.tokenizer().encode("€5")  # single bytes: three and one
    stream = TextStream(small.tokenizer())
    assert [stream.add(token) for token in tokens] == ["", "", "€", "5"]
    assert stream.close(tokens) == ""


def test_what_a_loop_repeated_is_not_taken_back() -> None:
    stream = TextStream(small.tokenizer())
    tokens = small.tokenizer().encode("ababab")
    sent = "".join(stream.add(token) for token in tokens)
    assert sent + stream.close(tokens[:2]) == "ababab"


def test_documents_say_how_the_answer_ended_and_what_it_took() -> None:
    reply = Reply("small", prompt_tokens=7)
    for end, finish, stop in (
        (Continuation([1, 2], finished=True, repeats=False), "stop", None),
        (Continuation([1, 2], finished=False, repeats=False), "length", None),
        (Continuation([1, 2], finished=False, repeats=True), "length", "repeats"),
    ):
        whole = reply.whole("ab", end)
        (choice,) = whole["choices"]
        assert choice["message"] == {"role": "assistant", "content": "ab", "refusal": None}
        (last,) = reply.last_chunk(end)["choices"]
        for one in (choice, last):
            assert (one["finish_reason"], one["stop_reason"]) == (finish, stop)
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        assert whole["usage"] == reply.usage_chunk(end)["usage"] == usage
        chunks = (reply.first_chunk(), reply.text_chunk("a"), reply.last_chunk(end))
        assert {one["id"] for one in (whole, *chunks)} == {whole["id"]}
    (chunk,) = reply.text_chunk("ä\n")["choices"]
    assert (chunk["delta"], chunk["finish_reason"]) == ({"content": "ä\n"}, None)


def test_an_event_is_one_line_of_data() -> None:
    assert event("[DONE]") == b"data: [DONE]\n\n"
    assert event({"a": "ä\n"}) == 'data: {"a": "ä\\n"}\n\n'.encode()
