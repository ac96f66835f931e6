"""The import direction (README, "The parts"), read off the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OWN = {"ocrdata", "ocrtrain", "tools", "tests", "benchmarks"}
MODULES = sorted((ROOT / "ocrdata").rglob("*.py")) + sorted((ROOT / "ocrtrain").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_what_it_must_not(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    found = tops(path)
    assert not found & {"tools", "tests", "benchmarks"}
    assert not found & {"dill", "cloudpickle", "shelve", "marshal"}
    if path.name != "nanochat_pickle.py" and "pickle" in found:
        # What torch raises when it refuses a pickle may be caught.
        assert {n for n in imports(path) if n.startswith("pickle")} == {
            "pickle",
            "pickle.UnpicklingError",
        }
    if package == "ocrdata":
        assert "ocrtrain" not in found
        assert "torch" not in found
    else:
        assert not found & {"tarfile", "webdataset"}
        assert "ocrdata.shards.tar" not in imports(path)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_stages_are_config_values_only(stage: str) -> None:
    path = ROOT / "ocrtrain" / f"{stage}.py"
    other = {"stage1": "stage2", "stage2": "stage1"}[stage]
    assert f"ocrtrain.{other}" not in imports(path)
    assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.For)]
    for module in (ROOT / "ocrtrain").rglob("*.py"):
        if module.name not in {"stage1.py", "stage2.py", "presets.py", "config.py"}:
            strings = [
                n.value
                for n in ast.walk(ast.parse(module.read_text()))
                if isinstance(n, ast.Compare)
                for n in ast.walk(n)
                if isinstance(n, ast.Constant)
            ]
            assert not {"stage1", "stage2"} & {s for s in strings if isinstance(s, str)}


def test_making_and_reading_shards_imports_no_torch() -> None:
    names = [
        str(p.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for p in (ROOT / "ocrdata").rglob("*.py")
        if p.name != "__init__.py"
    ]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
