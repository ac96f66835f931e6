"""nanochat's pickle: real pickles of tiktoken load, hostile ones are refused unexecuted."""

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
from ocrdata.tokens.nanochat_pickle import LARGEST_PICKLE, MOST_COUNTED, read_pickled_encoding
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
    return encoding_of(base.backend.ranks)


def encoding_of(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "rustbpe",
        pat_str=NANOCHAT_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={name: len(ranks) + number for number, name in enumerate(NINE)},
    )


def test_a_nanochat_pickle_loads(trained: Tokenizer, tmp_path: Path) -> None:
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


def test_a_pickle_of_65536_tokens_loads() -> None:
    """nanochat's vocabulary size; tokens of about seven bytes, as its own are."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {b"%07d" % rank: rank for rank in range(256, 1 << 16)}
    for protocol in (3, 4, 5):
        data = pickle.dumps(encoding_of(ranks), protocol)
        assert len(data) < LARGEST_PICKLE / 3
        found, specials = read_pickled_encoding(data)
        assert found.ranks == ranks
        assert specials == {name: (1 << 16) + number for number, name in enumerate(NINE)}


class Canary:
    """A pickle of this calls `call(*arguments)` when loaded."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def raw_pickle(module: str, name: str) -> bytes:
    """A pickle that does nothing but look up a name."""
    return f"c{module}\n{name}\n.".encode()


def test_no_pickle_is_executed(trained: Tokenizer, tmp_path: Path) -> None:
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
        b"\x80\x04ctiktoken.core\nEncoding\n)R.",  # REDUCE of the allowed class
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


def test_an_encoding_with_an_unusable_state(tmp_path: Path) -> None:
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
    bare = b"\x80\x04ctiktoken.core\nEncoding\n)\x81."  # its state is never set
    for data in (b"", b"\x80\x04N.", encoding_pickle("gpt2")[:-3], bare):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="pickle"):
            load_tokenizer(path)


def test_the_refused_name_is_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(Canary(os.mkdir, str(tmp_path / "touched"))))
    with pytest.raises(UsageError, match=r"posix\.mkdir.*tiktoken\.Encoding"):
        load_tokenizer(path)


def deep_key(depth: int) -> bytes:
    """A dict whose key is a tuple of two tuples of two tuples ...: each the same, made once."""
    pairs = b"".join(b"h%c\x86\x94" % number for number in range(depth))
    return b"\x80\x04})\x94" + pairs + b"Ns."


def largest(opcodes: bytes) -> bytes:
    """These opcodes again and again, up to the size limit."""
    return (opcodes * (LARGEST_PICKLE // len(opcodes)))[:-1] + b"."


UNUSED_OPCODE = r"opcode b'%s'"
TOO_MANY = f"more than {MOST_COUNTED:,} strings, dicts and marks"
BOMBS = (
    ("a memo of 2 GiB", b"\x80\x04Nr\0\0\0\x10.", "pickle"),
    ("a tuple", b"\x80\x04NN\x86.", UNUSED_OPCODE % r"\\x86"),
    ("2^40 steps to hash", deep_key(40), UNUSED_OPCODE % "h"),
    ("dicts", largest(b"}"), TOO_MANY),
    ("marks", largest(b"("), TOO_MANY),
    ("strings", largest(b"\x8c\x02\xc4\x80"), TOO_MANY),
    ("memo entries", b"\x80\x04N" + b"\x94" * 300_000 + b".", "pickle"),
    ("bytes of 1 TiB", b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
     UNUSED_OPCODE % r"\\x8e"),
    ("bytes of 2 GiB", b"\x80\x04B\xff\xff\xff\x7fx.", "not a readable pickle"),
    ("a frame of 4 EiB", b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"N.", "pickle"),
    ("a long integer", b"\x80\x04\x8a\x01\x01.", UNUSED_OPCODE % r"\\x8a"),
    ("an extension code", b"\x80\x04\x82\x01.", UNUSED_OPCODE % r"\\x82"),
    ("a persistent id", b"\x80\x04NQ.", UNUSED_OPCODE % "Q"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "data", "says"), BOMBS, ids=[name for name, *_ in BOMBS])
def test_a_pickle_cannot_take_much_memory_or_time(
    name: str, data: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(data)
    started = time.monotonic()
    assert measured(partial(refused, path, says)) < 8 << 20
    assert time.monotonic() - started < 5


def test_a_pickle_above_the_size_limit(trained: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    whole = pickle.dumps(nanochat_encoding(trained))
    path.write_bytes(whole.ljust(LARGEST_PICKLE))  # what follows the STOP is not read
    load_tokenizer(path)
    path.write_bytes(whole.ljust(LARGEST_PICKLE + 1))
    refused(path, r"4,000,001 bytes.*4,000,000.*\.tiktoken")


def test_many_special_tokens_stay_below_the_limit_on_strings(trained: Tokenizer) -> None:
    specials = {f"<|{number}|>": 1000 + number for number in range(3_000)}
    encoding = nanochat_encoding(trained)
    encoding._special_tokens = specials
    assert read_pickled_encoding(pickle.dumps(encoding))[1] == specials


def refused(path: Path, says: str) -> None:
    """Loading raises a UsageError that matches."""
    with pytest.raises(UsageError, match=says):
        load_tokenizer(path)


def test_old_protocols_are_refused_by_the_name_they_look_up(
    trained: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.pkl"
    for protocol, name in ((0, r"copy_reg\._reconstructor"), (2, r"_codecs\.encode")):
        path.write_bytes(pickle.dumps(nanochat_encoding(trained), protocol))
        refused(path, name)
