"""The kinds of data set that can be converted."""

import re
from pathlib import Path
from typing import Any

import pytest

from ocrdata.commands.make_shards import build_parser, command
from ocrdata.sources.base import safe_name
from ocrdata.sources.charts import ChartsSource
from ocrdata.sources.jsonl import JsonlSource
from ocrdata.sources.registry import REGISTRY, SYNTHETIC_ROWS


def values(*words: str) -> dict[str, Any]:
    return vars(build_parser().parse_args(list(words)))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("chartqa",), "chartqa"),
        (("finevision", "--subset", "chart2text(cauldron)"), "chart2text-cauldron"),
        (("smoltalk",), "smoltalk-train"),
        (("smoltalk", "--config", "all", "--split", "test"), "smoltalk-all-test"),
        (("jsonl", "--path", "a folder/my data.jsonl"), "my-data"),
        (("parquet", "--path", "a folder/my set/train-*.parquet"), "my-set"),
        (("parquet", "--path", "a folder/my set"), "my-set"),
        (("imagefolder", "--path", "a folder/my scans/"), "my-scans"),
        (("charts",), "charts"),
        (("sums",), "sums"),
        (("glyphs", "--words", "held-out"), "glyphs-held-out"),
        (("lines",), "lines"),
        (("pages", "--font", "held-out"), "pages"),
    ],
)
def test_shards_are_named_after_their_data_set(words: tuple[str, ...], name: str) -> None:
    assert REGISTRY[words[0]].default_name(values(*words)) == name


@pytest.mark.parametrize(
    ("words", "rows"),
    [((), SYNTHETIC_ROWS), (("--limit", "5"), 5), (("--start", "7", "--limit", "5"), 12),
     (("--stop", "9"), 9)],
)  # fmt: skip
def test_the_number_of_synthetic_rows_is_the_number_requested(
    words: tuple[str, ...], rows: int
) -> None:
    source = REGISTRY["charts"].make(values("charts", *words, "--seed", "3"), {})
    assert isinstance(source, ChartsSource)
    assert (source.count(), source.provenance["seed"]) == (rows, 3)


def test_a_jsonl_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    source = REGISTRY["jsonl"].make(values("jsonl", "--path", str(tmp_path / "a.jsonl")), {})
    assert isinstance(source, JsonlSource)
    assert source.count() == 1


def test_a_folder_given_as_a_dot_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = values("imagefolder", "--path", ".", "--prompt", "Read it.")
    assert REGISTRY["imagefolder"].default_name(found) == safe_name(tmp_path.name)
    assert f"--path {tmp_path.name} --prompt 'Read it.'" in command(found)


def test_the_command_in_a_manifest_has_no_folders_and_no_default_values() -> None:
    words = ("jsonl", "--path", "/a/b.jsonl", "--images", "/a/pictures", "--out", "/o", "--workers",
             "3", "--start", "0", "--stop", "4", "--compress", "zstd")  # fmt: skip
    assert command(values(*words)) == (
        "python tools/make_shards.py jsonl --stop 4 --compress zstd --path b.jsonl "
        "--images pictures"
    )


def test_every_kind_has_an_example_in_the_help_and_in_the_readme() -> None:
    root = Path(__file__).parents[3]
    shown = [(root / "README.md").read_text(), build_parser().description or ""]
    benchmarks = (root / "docs" / "evaluation.md").read_text()
    for kind, found in REGISTRY.items():
        example = rf"^ *python tools/make_shards\.py {kind}\b(?!-)"
        for text in [benchmarks] if found.text.startswith("benchmark: ") else shown:
            assert re.search(example, text, re.MULTILINE), kind
