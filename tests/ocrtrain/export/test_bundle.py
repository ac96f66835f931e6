"""The code in an exported folder: complete, and independent of this project."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from ocrdata.errors import OcrError
from ocrtrain.export.bundle import bundle, file_name

ALLOWED = {"torch", "numpy", "PIL", "transformers", "huggingface_hub", "kornia_rs"}
MODULES = ("ocrtrain.export.modeling", "ocrtrain.export.processing")


def test_the_files_import_each_other_and_what_transformers_needs_itself() -> None:
    files = bundle(MODULES)
    assert {"ocr_modeling.py", "ocr_processing.py", "ocr_configuration.py"} <= files.keys()
    for name, text in files.items():
        tree = ast.parse(text)
        assert ast.get_docstring(tree), name
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                other = f"{node.module}.py"
                assert other in files, f"{name} imports {other}"
                defined = {getattr(one, "name", "") for one in ast.parse(files[other]).body} | {
                    target.id
                    for one in ast.walk(ast.parse(files[other]))
                    if isinstance(one, ast.Assign | ast.AnnAssign)
                    for target in (one.targets if isinstance(one, ast.Assign) else [one.target])
                    for target in ast.walk(target)
                    if isinstance(target, ast.Name)
                }
                assert {alias.name for alias in node.names} <= defined, f"{name}: {other}"
            elif isinstance(node, ast.ImportFrom | ast.Import):
                modules = (
                    [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else [alias.name for alias in node.names]
                )
                tops = {module.split(".")[0] for module in modules}
                assert tops <= ALLOWED | sys.stdlib_module_names, f"{name}: {tops}"


def test_apart_from_imports_a_file_is_the_module() -> None:
    import ocrtrain.model.pixels as module

    ours = Path(module.__file__).read_text().splitlines()
    theirs = bundle(["ocrtrain.model.pixels"])["ocr_pixels.py"].splitlines()
    differing = [line for line in ours if line not in theirs]
    assert differing == ["from ocrdata.images.letterbox import letterbox_geometry"]
    assert "from .ocr_letterbox import letterbox_geometry" in theirs


def test_imports_of_all_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ocrfake"
    package.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ocrtrain.export.bundle.PACKAGES", ("ocrfake",))
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "from ocrfake import two, three as other\n"
        "from ocrfake.two import (\n    a,\n    b as c,\n)\n"
        "if TYPE_CHECKING:\n    from ocrfake.missing import T\n\ndef f():\n"
        "    from ocrfake.three import d\n    return d\n"
    )
    (package / "two.py").write_text("a = 1\nb = 2\n")
    (package / "three.py").write_text("d = 3\n")
    files = bundle(["ocrfake.one"])
    assert set(files) == {"ocr_one.py", "ocr_two.py", "ocr_three.py"}
    lines = files["ocr_one.py"].splitlines()
    for wanted in (
        "from .ocr_two import this_module as two",
        "from .ocr_three import this_module as other",
        "from .ocr_two import a, b as c",
        "    from .ocr_three import d",
    ):
        assert wanted in lines
    assert "missing" not in files["ocr_one.py"]
    (package / "two.py").write_text("import ocrfake.three\n")
    with pytest.raises(OcrError, match=r"ocrfake\.two"):
        bundle(["ocrfake.one"])
    with pytest.raises(OcrError, match="no such module"):
        bundle(["ocrfake.four"])
    (package / "inner").mkdir()
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "three.py").write_text("")
    with pytest.raises(OcrError, match=r"ocr_three\.py"):
        bundle(["ocrfake.three", "ocrfake.inner.three"])
    assert file_name("ocrfake.inner.three") == "ocr_three.py"
