"""Gathering wheels, and installing from them without a network."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu_wheels import (
    PRESENT,
    UNUSED,
    closure,
    direct,
    install_missing,
    pinned,
    requirements,
)


def wheel(folder: Path, name: str, *requires: str) -> None:
    """A wheel of one module that holds its own name."""
    info = f"{name}-1.0.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"NAME = {name!r}\n")
        file.writestr(f"{info}/METADATA", head + "".join(f"Requires-Dist: {r}\n" for r in requires))
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


def test_only_what_lacks_is_installed_and_what_is_there_stays_visible(tmp_path: Path) -> None:
    wheel(tmp_path, "ocr_first", "ocr_second", "numpy>=1", "torch")
    wheel(tmp_path, "ocr_second")
    python, installed = install_missing(tmp_path, tmp_path / "env", ["ocr_first", "xxhash"])
    assert sorted(installed) == ["ocr_first 1.0", "ocr_second 1.0"]
    words = "import ocr_first, ocr_second, numpy, xxhash; print(ocr_first.NAME)"
    done = subprocess.run([python, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "ocr_first\n"


def test_a_wheel_that_lacks_is_named(tmp_path: Path) -> None:
    wheel(tmp_path, "ocr_first", "ocr_absent==3")
    with pytest.raises(RuntimeError, match="ocr_absent==3"):
        install_missing(tmp_path, tmp_path / "env", ["ocr_first"])


def test_what_is_gathered_has_a_version_and_leaves_out_what_is_there() -> None:
    versions = pinned(closure(direct() - UNUSED))
    assert {"transformers", "tokenizers", "simplejpeg", "huggingface-hub"} <= versions.keys()
    assert not versions.keys() & (PRESENT | UNUSED)
    assert any(text.startswith("torch") for text in requirements())
    with pytest.raises(SystemExit, match="no-such-package"):
        pinned(["no-such-package"])
