"""nanochat's pickle: real pickles of tiktoken are the input, and no canary ever sings."""

from __future__ import annotations

import os
import pickle
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from ocrdata.errors import UsageError
from ocrdata.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer, train_tokenizer
from ocrdata.tokens.vocabulary import NANOCHAT_PATTERN, Ranks
from tests.support.bombs import measured

NINE = SPECIAL_TOKENS[:-1]
TEXTS = ["The share of adults who say so rose from 12% in 2009 to 64% in 2015.", "a <|bos|> b"]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(TEXTS, 290)


def nanochat_encoding(base: Tokenizer) -> tiktoken.Encoding:
    """What nanochat pickles: its name, ranks, pattern, and nine specials after the ranks."""
    assert isinstance(base.backend, Ranks)
    ranks = base.backend.ranks
    return tiktoken.Encoding(
        "rustbpe",
        pat_str=NANOCHAT_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={name: len(ranks) + number for number, name in enumerate(NINE)},
    )


def test_nanochat_pickle(trained: Tokenizer, tmp_path: Path) -> None:
    encoding = nanochat_encoding(trained)
    for protocol in (3, 4, 5):
        (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(encoding, protocol))
        tokenizer = load_tokenizer(tmp_path)  # the folder that holds it
        assert tokenizer.vocab_size == encoding.n_vocab + 1
        assert tokenizer.image == encoding.n_vocab
        for text in TEXTS:
            assert tokenizer.encode(text) == encoding.encode_ordinary(text)
        for name in NINE:
            assert tokenizer.specials[name] == encoding.encode_single_token(name)


class Canary:
    """A pickle of this calls `call(*arguments)` when loaded."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def raw_pickle(module: str, name: str) -> bytes:
    """A pickle that does nothing but look up a name."""
    return f"c{module}\n{name}\n.".encode()


def test_no_other_pickle_is_executed(trained: Tokenizer, tmp_path: Path) -> None:
    touched, path = tmp_path / "touched", tmp_path / "tokenizer.pkl"
    canaries = [
        Canary(os.mkdir, str(touched)),
        Canary(eval, f"__import__('os').mkdir({str(touched)!r})"),
        {"mergeable_ranks": Canary(os.mkdir, str(touched))},
        Canary(tiktoken.Encoding, "x"),
        [nanochat_encoding(trained), Canary(os.mkdir, str(touched))],
    ]
    pickles = [pickle.dumps(canary) for canary in canaries]
    pickles += [
        raw_pickle("tiktoken.core", "Encoding.__init__"),
        raw_pickle("tiktoken.registry", "get_encoding"),
        raw_pickle("builtins", "getattr"),
        raw_pickle("copyreg", "_reconstructor"),
        b"Psomething\n.",
    ]
    for data in pickles:
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"tokenizer\.pkl: .*pickle"):
            load_tokenizer(path)
        assert not touched.exists()


def encoding_pickle(state: object) -> bytes:
    """A pickled `tiktoken.Encoding` with any state."""
    head = b"\x80\x04ctiktoken.core\nEncoding\n)\x81"
    body = pickle.dumps(state, 4)
    return head + body[2:-1] + b"b."


def test_other_states_of_the_one_class(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    whole = {"name": "x", "pat_str": ".", "special_tokens": {}}
    for state, message in (
        ("gpt2", "only the name of an encoding"),
        (whole, "is not a tiktoken.Encoding with ranks"),
        (7, "is not a tiktoken.Encoding with ranks"),
        (whole | {"mergeable_ranks": {"a": 1}}, "wrong type"),
        (whole | {"mergeable_ranks": {}}, "wrong type"),
        (whole | {"mergeable_ranks": {b"a": 1}}, "lack 255 of the 256"),
    ):
        path.write_bytes(encoding_pickle(state))
        with pytest.raises(UsageError, match=message):
            load_tokenizer(path)
    for data in (b"", b"\x80\x04N.", encoding_pickle("gpt2")[:-3]):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="pickle"):
            load_tokenizer(path)


def test_another_name_is_refused_where_it_stands(tmp_path: Path) -> None:
    """Not only in the end, for what it gives: the name itself is told, before anything is made."""
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(Canary(os.mkdir, str(tmp_path / "touched"))))
    with pytest.raises(UsageError, match=r"asks for posix\.mkdir; only a pickled tiktoken\.Enc"):
        load_tokenizer(path)


def deep_key(depth: int) -> bytes:
    """A dict whose key is a tuple of two tuples of two tuples ...: each the same, made once."""
    pairs = b"".join(b"h%c\x86\x94" % number for number in range(depth))
    return b"\x80\x04})\x94" + pairs + b"Ns."


def test_steps_that_cost_more_than_they_take(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    for data, says in (
        (b"\x80\x04Nr\0\0\0\x10.", r"numbers its value 0 as 268,435,456 at byte 3"),
        (b"\x80\x04Nq\x01.", r"numbers its value 0 as 1 at byte 3"),
        (deep_key(40), "holds the step TUPLE2 at byte"),
        (b"\x80\x04" + b"}" * 17 + b".", "more than 16 steps EMPTY_DICT, at byte 18"),
        (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.", "not a readable pickle"),
        (b"\x80\x04B\xff\xff\xff\x7fx.", "not a readable pickle"),
        (b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"N.", "pickle"),
        (b"\x80\x04\x8a\x01\x01.", "holds the step LONG1 at byte 2"),
        (b"\x80\x04\x82\x01.", "holds the step EXT1 at byte 2"),
    ):
        path.write_bytes(data)
        started = time.monotonic()
        grown = measured(partial(refused, path, says))
        assert grown < 8 << 20, (data[:20], grown)
        assert time.monotonic() - started < 5, data[:20]


def refused(path: Path, says: str) -> None:
    """Loading ends as our error that says so."""
    with pytest.raises(UsageError, match=says):
        load_tokenizer(path)


def test_old_protocols_are_told_by_the_name_they_ask_for(
    trained: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.pkl"
    for protocol, name in ((0, r"copy_reg\._reconstructor"), (2, r"_codecs\.encode")):
        path.write_bytes(pickle.dumps(nanochat_encoding(trained), protocol))
        refused(path, f"asks for {name}; only a pickled")
