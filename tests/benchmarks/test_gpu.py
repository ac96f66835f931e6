"""The prepared script for a GPU, at toy size on a CPU: so that it cannot fail on the day."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_parts
from benchmarks.gpu import PARTS, main, rank_lines


def result(path: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(path.read_text())["parts"]
    return found


def test_every_part_gives_its_numbers_without_wandb_and_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb", "datasets"):  # importing them fails
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "gpu.json"
    main(["--toy", "--here", "--out", str(out)])
    parts = result(out)
    assert list(parts) == ["data", *PARTS]
    for name, part in PARTS.items():
        assert "error" not in parts[name], parts[name]
        if part.work == "train":
            assert parts[name]["steps"] == 2, name
            assert parts[name]["tokens_per_s"] > parts[name]["answer_tokens_per_s"] > 0, name
            assert parts[name]["spent_TFLOPs"] >= parts[name]["useful_TFLOPs"] > 0, name
            assert 0 <= parts[name]["padding"] < 1 and 0 <= parts[name]["wait"] < 1, name
    assert parts["attention"]["sdpa"]["difference"] < 1e-5
    for way in ("flex", "varlen"):  # a GPU's
        assert "error" in parts["attention"][way]
    assert parts["loader"]["samples_per_s_2_threads"] > 0


def test_a_part_that_fails_leaves_the_others_and_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: gpu_parts.Setting) -> dict[str, float]:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu_parts, "peaks", broken)
    out = tmp_path / "gpu.json"
    assert main(["--toy", "--here", "--out", str(out), "--parts", "peaks", "attention"]) == 1
    parts = result(out)
    assert parts["peaks"]["error"] == "no such kernel"
    assert "mask" in parts["attention"]


def test_what_does_not_fit_into_the_time_is_skipped_and_said(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert main(["--here", "--toy", "--out", str(out), "--minutes", "0", "--parts", "peaks"]) == 0
    assert "left" in result(out)["peaks"]["skipped"]


def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    parsed = gpu.parser().parse_args(["--minutes", "1", "--toy"])
    run = gpu.Run(parsed, tmp_path)
    words = ["-c", "print('begun', flush=True)\nwhile True: pass"]
    with pytest.raises(RuntimeError, match="status -9:\nbegun"):
        run.command(words, limit=0.7)


def test_the_ranks_are_a_tokenizer_of_the_wanted_size(tmp_path: Path) -> None:
    from ocrdata.tokens.tokenizer import load_tokenizer

    path = tmp_path / "ranks.tiktoken"
    path.write_text("\n".join(rank_lines(65_537 - 10)))
    tokenizer = load_tokenizer(path)
    assert tokenizer.vocab_size == 65_537
    assert tokenizer.decode(tokenizer.encode("Héllo, 12 tables")) == "Héllo, 12 tables"
    assert len(tokenizer.encode("abcdefgh")) == 4
