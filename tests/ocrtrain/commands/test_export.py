"""The command that exports a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrdata.errors import OcrError
from ocrtrain.commands import export
from ocrtrain.state.checkpoint import newest
from tests.support.exported import exported_run


def test_a_checkpoint_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out"
    assert export.main([str(newest(exported_run())), str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: step 150 of ")
    assert (out / "model.safetensors").is_file()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OcrError, match="no such folder"):
        export.main([str(tmp_path / "run"), str(tmp_path / "out")])
    with pytest.raises(OcrError, match="exists"):
        export.main([str(exported_run()), str(tmp_path)])
    with pytest.raises(OcrError, match="--force"):
        export.main([str(exported_run()), str(tmp_path / "out"), "--force"])
