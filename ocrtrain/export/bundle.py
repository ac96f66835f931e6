"""The code that goes into an exported folder: modules of this project, copied.

In: modules. Out: the text of a file for each of them and each module of this project that they
import, which import one another. So the folder is loaded with the very code that trained the model,
and without this project. What a module imports for type checking alone is left out.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from ocrdata.errors import OcrError

PREFIX = "ocr_"
PACKAGES = ("ocrdata", "ocrtrain")

ITSELF = "this_module"
"""The name of the module itself in each file: `from .ocr_png import this_module as png`, because
Hugging Face's loader finds only the files that are imported from by name."""


def bundle(modules: Sequence[str]) -> dict[str, str]:
    """File name -> text, of these modules and all they need of this project.

    Raises OcrError where two modules would have one name.
    """
    files: dict[str, str] = {}
    origins: dict[str, str] = {}
    left = list(modules)
    while left:
        module = left.pop(0)
        name = file_name(module)
        if origins.setdefault(name, module) != module:
            raise OcrError(f"{module} and {origins[name]} would both be {name}")
        if name not in files:
            files[name], needed = _converted(module)
            left += needed
    return files


def file_name(module: str) -> str:
    """'ocrtrain.model.head' -> 'ocr_head.py'."""
    return f"{PREFIX}{module.rpartition('.')[2]}.py"


def _converted(module: str) -> tuple[str, list[str]]:
    """The text of a module with its imports converted, and the modules that it needs."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise OcrError(f"{module}: no such module")
    text = Path(spec.origin).read_text(encoding="utf-8")
    lines = text.splitlines()
    needed: list[str] = []
    changes: list[tuple[int, int, list[str]]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            changes.append((node.lineno, node.end_lineno or node.lineno, []))
        elif isinstance(node, ast.ImportFrom) and _is_ours(node.module):
            found = _import_lines(node)
            needed += [name for name, _ in found]
            indent = " " * node.col_offset
            new = [indent + line for _, line in found]
            changes.append((node.lineno, node.end_lineno or node.lineno, new))
        elif isinstance(node, ast.Import) and any(_is_ours(one.name) for one in node.names):
            raise OcrError(f"{module}: {ast.unparse(node)}: import names from it instead")
    dropped = [(start, end) for start, end, new in changes if not new]
    for start, end, new in sorted(changes, reverse=True):
        if any(start > first and end <= last for first, last in dropped):
            continue
        lines[start - 1 : end] = new
    kept = "\n".join(lines)
    needed = [name for name in needed if f".{file_name(name)[:-3]} import" in kept]
    footer = f"\n\nimport sys  # noqa: E402\n\n{ITSELF} = sys.modules[__name__]\n"
    return f"# {module}, copied by its export\n{kept}{footer}", needed


def _is_ours(module: str | None) -> bool:
    return (module or "").split(".")[0] in PACKAGES


def _import_lines(node: ast.ImportFrom) -> list[tuple[str, str]]:
    """What an import becomes: a line for each module that it needs, with the module's name."""
    found, names = [], []
    module = node.module or ""
    for one in node.names:
        whole = f"{module}.{one.name}"
        spec = _spec(whole)
        if spec is not None:
            stem = file_name(whole)[:-3]
            found.append((whole, f"from .{stem} import {ITSELF} as {one.asname or one.name}"))
        else:
            names.append(f"{one.name} as {one.asname}" if one.asname else one.name)
    if names:
        line = f"from .{file_name(module)[:-3]} import {', '.join(names)}"
        found.append((module, line))
    return found


def _spec(name: str) -> object:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:  # its parent is a module, not a package
        return None
