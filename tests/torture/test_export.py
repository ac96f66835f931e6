"""An exported folder in a process that cannot import this project, and every code point in both
pattern engines (minutes each)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

from ocrdata.tokens.vocabulary import GPT2_PATTERN, NANOCHAT_PATTERN, Ranks
from tests.support import small
from tests.support.exported import exported

pytestmark = pytest.mark.torture

STRANGER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ocrdata", "ocrtrain"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, picture = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
messages = [{"role": "user", "content": [
    {"type": "image", "path": picture}, {"type": "text", "text": "Which colour?"}]}]
inputs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
with torch.no_grad():
    found = model.generate(**inputs)
print(processor.batch_decode(found[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)[0])
"""


def test_a_stranger_loads_it_without_this_project(tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(small.png(small.COLOURS["blue"]))
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(exported()), str(tmp_path / "blue.png")],
        cwd=tmp_path, env={"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "blue\n"


SURROUNDINGS = ("a{}", "1{}", " {}", "{} ", "{}a", "!{}", "'{}", "it'{}", "{}\n", "\n{}")


@pytest.mark.parametrize("pattern", [NANOCHAT_PATTERN, GPT2_PATTERN], ids=["nanochat", "gpt2"])
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_every_code_point_is_split_alike(pattern: str, surroundings: str) -> None:
    """Each text is a token, which is taken only where the pattern does not split it."""
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    texts = [surroundings.format(letter).encode() for letter in letters]
    ranks = {bytes([value]): value for value in range(256)}
    ranks |= {text: 256 + number for number, text in enumerate(texts) if text not in ranks}
    ours = Ranks({token: n for n, token in enumerate(ranks)}, pattern)
    theirs = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    for text in texts:
        whole = len(theirs.pre_tokenize_str(text.decode())) == 1
        assert (len(ours.encode(text.decode())) == 1) == whole, text
