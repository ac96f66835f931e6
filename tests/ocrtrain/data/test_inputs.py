"""What a command line names is there, or all that is missing is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ocrdata.errors import UsageErrors
from ocrtrain.data.inputs import check_inputs
from tests.support.data import small_config


def test_all_that_is_missing_is_told(inputs: dict[str, str], tmp_path: Path) -> None:
    config = replace(small_config(inputs, tmp_path / "run"), text=(inputs["text"],))
    check_inputs(config)
    gone = {name: str(tmp_path / name) for name in ("shards", "val", "text", "val_text")}
    files = {"tokenizer": str(tmp_path / "t.json"), "deepencoder": str(tmp_path / "d.pt")}
    missing = replace(config, **{name: (path,) for name, path in gone.items()}, **files)
    with pytest.raises(UsageErrors) as caught:
        check_inputs(missing)
    paths = [*gone.values(), *files.values()]
    assert len(caught.value.messages) == len(paths)
    for path in paths:
        assert len([line for line in caught.value.messages if f"{path}:" in line]) == 1
    check_inputs(replace(config, deepencoder=files["deepencoder"]), weights=False)
