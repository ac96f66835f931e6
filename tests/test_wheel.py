"""The wheel holds both packages whole and nothing else, and its commands run without a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ocrdata", "ocrtrain")
BUILT_FROM = (*PACKAGES, "tools", "tests", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
COMMANDS = (
    "ocrtrain.evaluate", "ocrtrain.ask", "ocrtrain.serve", "ocrtrain.commands.plan",
    "ocrtrain.commands.show_batch", "ocrtrain.commands.export",
    "ocrtrain.stage1", "ocrtrain.stage2", "ocrtrain.commands.demo", "ocrdata.commands.make_shards",
    "ocrdata.commands.check_shards", "ocrdata.commands.reshard",
    "ocrdata.commands.copy_shards", "ocrdata.commands.train_tokenizer",
)  # fmt: skip
"""Those that load torch come first: two run at a time."""

IMPORT_ALL = """
import importlib, pkgutil, sys
for package in map(importlib.import_module, sys.argv[1:]):
    print(package.__name__, package.__file__)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        module = importlib.import_module(found.name)
        print(module.__name__, module.__file__)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from, so that no build folder is left in the real one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", ".", "-w", folder, "--no-deps", "--no-index",
             "--no-build-isolation", "--no-cache-dir", "--disable-pip-version-check"]  # fmt: skip
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


def python(installed: Path, folder: Path, *words: str) -> str:
    """Run Python in a folder of its own, with the wheel's files as the only ones of ours; gives
    its standard output."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Path below a folder and content of every file in it."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def test_the_wheel_has_every_file_of_the_packages_and_no_other(
    checkout: Path, installed: Path
) -> None:
    in_checkout = {
        f"{package}/{name}": data
        for package in PACKAGES
        for name, data in files(checkout / package)
    }
    in_wheel = {
        name: data
        for name, data in files(installed)
        if not name.split("/")[0].endswith(".dist-info")
    }
    assert sorted(in_wheel) == sorted(in_checkout)
    assert in_wheel == in_checkout
    assert len(in_wheel) > 100


def test_every_module_imports_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    printed = python(installed, tmp_path / "empty", "-c", IMPORT_ALL, *PACKAGES)
    found = dict(line.split(" ", 1) for line in printed.splitlines())
    modules = {
        ".".join(path.relative_to(installed).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (installed / package).rglob("*.py")
    }
    assert found == {name: str(path) for name, path in modules.items()}


def test_every_command_explains_itself(installed: Path, tmp_path: Path) -> None:
    def ask(module: str) -> str:
        return python(installed, tmp_path / module, "-m", module, "--help")

    with ThreadPoolExecutor(2) as pool:
        for module, printed in zip(COMMANDS, pool.map(ask, COMMANDS), strict=True):
            assert printed.startswith("usage: "), module
            assert module.rsplit(".", 1)[-1] in printed.splitlines()[0]


def test_shards_and_a_tokenizer_are_made_and_checked(installed: Path, tmp_path: Path) -> None:
    for words in (
        ["ocrdata.commands.make_shards", "sums", "--limit", "20"],
        ["ocrdata.commands.check_shards", "shards/sums.json"],
        ["ocrdata.commands.train_tokenizer", "--shards", "shards/sums.json", "--vocab-size", "280",
         "--out", "tokenizer.json"],
    ):  # fmt: skip
        printed = python(installed, tmp_path / "work", "-m", *words)
    manifest = json.loads((tmp_path / "work" / "shards" / "sums.json").read_bytes())
    assert manifest["totals"]["samples"] == 20
    assert "tokenizer.json: 280 ids" in printed
