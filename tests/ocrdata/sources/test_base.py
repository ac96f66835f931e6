"""What every source shares, and the worked example of a new one."""

from __future__ import annotations

import importlib
from pathlib import Path
from textwrap import dedent

import pytest

from ocrdata import open_shards
from ocrdata.commands.make_shards import main
from ocrdata.sample import text_of
from ocrdata.sources import base
from ocrdata.sources.base import safe_name
from ocrdata.sources.registry import REGISTRY


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("chartqa", "chartqa"),
        ("chart2text(cauldron)", "chart2text-cauldron"),
        ("olmOCR-mix-0225-documents", "olmOCR-mix-0225-documents"),
        ("../a b", "a-b"),
        ("()", "shards"),
    ],
)
def test_safe_names(text: str, name: str) -> None:
    assert safe_name(text) == name


IMPORTS = """
from __future__ import annotations
from collections.abc import Iterator
from pathlib import Path
from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample, from_turns
from ocrdata.sources.base import attempt
from ocrdata.sources.registry import Flag, SourceKind
"""


def test_the_example_in_the_docstring_is_a_source_that_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = base.__doc__ or ""
    source = dedent(text[text.index("    class PairsSource") : text.index("\nand an entry")])
    entry = dedent(text[text.index('    "pairs": SourceKind') :])
    module = tmp_path / "pairs_source.py"
    module.write_text(f"{IMPORTS}\n{source}\nENTRY = {{\n{entry}}}\n")
    monkeypatch.syspath_prepend(tmp_path)  # worker processes import it too
    monkeypatch.setitem(REGISTRY, "pairs", importlib.import_module("pairs_source").ENTRY["pairs"])
    file = tmp_path / "pairs.txt"
    file.write_text("What is 1 + 1? | 2\nno answer\nAnd 2 + 2? | 4\n")
    words = ["pairs", "--path", str(file), "--out", str(tmp_path / "shards")]
    assert main([*words, "--max-reject-fraction", "0.5"]) == 0
    shards = open_shards(str(tmp_path / "shards" / "pairs.json"))
    turns = [[text_of(message) for message in shards[n].messages] for n in range(len(shards))]
    assert turns == [["What is 1 + 1?", "2"], ["And 2 + 2?", "4"]]
    [rejected] = (tmp_path / "shards").glob("*rejects*")
    assert "no assistant text" in rejected.read_text()
