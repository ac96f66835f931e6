"""Rendered lengths equal counted ones for every real chat and chart, at several row lengths."""

import pytest

from ocrdata.tokens.tokenizer import load_tokenizer
from tests.support.reallengths import SHARED, check, real

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("name", ["charts/charts.jsonl", "chat/chat.jsonl"])
@pytest.mark.parametrize("seq_len", [100, 300, 1024, 8192])
def test_every_real_conversation(name: str, seq_len: int) -> None:
    found = real(name)
    check(found, load_tokenizer(SHARED / "tokenizer" / "gpt2.tiktoken"), slots=273, seq_len=seq_len)
