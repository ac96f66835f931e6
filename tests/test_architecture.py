"""The rooms and what each may import, read off the source (docs/layout.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "ocrdata").rglob("*.py")) + sorted((ROOT / "ocrtrain").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

OPEN_TO_ALL = {"ocrdata/errors", "ocrdata/runtime/units"}

DATA_ROOMS = {
    "storage": set(),
    "runtime": set(),
    "images": set(),
    "sample": {"images"},
    "sources": {"sample", "shards", "images", "storage", "runtime"},
    "shards": {"sample", "storage", "images"},
    "conversion": {"sample", "sources", "shards", "storage", "runtime"},
    "tokens": {"sample", "shards", "storage"},
    "reading": {"sample", "tokens", "shards", "images", "storage"},
    "planning": {"sample", "reading", "tokens", "shards", "storage", "runtime"},
    "transfer": {
        "sample",
        "sources",
        "conversion",
        "reading",
        "tokens",
        "shards",
        "storage",
        "runtime",
    },
    "torch": {"planning", "reading", "images", "tokens", "storage"},
}
"""Room of `ocrdata` -> the rooms of `ocrdata` it may import."""

OWN_FILES = {"sample", "torch"}
"""Rooms of `ocrdata` that are a single file."""

TRAIN_ROOMS = {
    "settings": ({"images/modes", "planning", "reading/slices", "runtime"}, set()),
    "state": ({"storage", "tokens", "images"}, {"settings"}),
    "model": ({"images", "tokens", "storage"}, {"state", "settings"}),
    "data": (
        set(DATA_ROOMS) - {"sources", "conversion", "transfer", "torch"},
        {"state", "settings"},
    ),
    "cost": ({"planning", "runtime"}, {"model", "data", "settings"}),
    "evaluation": (
        {"images/modes", "sample", "reading", "tokens", "storage"},
        {"model", "data", "settings"},
    ),
    "run": (
        {"images/modes", "reading", "tokens", "storage", "runtime"},
        {"evaluation", "cost", "data", "model", "state", "settings"},
    ),
    "export": (
        {"sample", "tokens", "images", "storage", "runtime"},
        {"model", "state", "settings"},
    ),
    "inspection": (
        {"planning", "reading", "tokens", "images", "storage"},
        {"run", "evaluation", "cost", "data", "model", "state", "settings"},
    ),
    "serving": (
        {"sample", "tokens", "images", "storage", "runtime"},
        {"run", "evaluation", "cost", "data", "model", "state", "settings"},
    ),
}
"""Room of `ocrtrain` -> the rooms of `ocrdata`, and those of `ocrtrain`, that it may import."""

ABOVE_ALL = {"ocrdata": {"commands"}, "ocrtrain": {"commands"}}
"""Rooms that may import everything below them, and that nothing imports."""

ROOT_FILES = {
    "ocrdata": {"__init__", "errors", "sample", "reader", "torch"},
    "ocrtrain": {"__init__", "stage", "stage1", "stage2", "evaluate", "ask", "serve", "hf"},
}
"""The files in the two packages' roots: what every room shares, and what people type."""

PICKLE_READERS = {"ocrdata/tokens/nanochat_pickle", "ocrtrain/model/weight_file"}
"""The one unpickler, and who catches what torch raises when it refuses a pickle."""

WRAPPED = {
    "tqdm": "ocrdata/runtime/progress",
    "numba": "ocrdata/planning/jit",
    "filelock": "ocrdata/storage/locks",
    "duckdb": "ocrdata/transfer/condition",
}
"""Library -> the one file that imports it."""


def imports(path: Path) -> set[str]:
    """Every module and name a file imports, wherever in it, with dots."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def name_of(path: Path) -> str:
    """'ocrdata/reading/view'; of a package its folder."""
    name = str(path.relative_to(ROOT).with_suffix(""))
    return name.removesuffix("/__init__")


def own_imports(path: Path) -> set[str]:
    """The files of the two packages that a file imports."""
    files = {name_of(module) for module in MODULES}
    wanted = {name.replace(".", "/") for name in imports(path)}
    return {name for name in wanted if name in files} - {"ocrdata", "ocrtrain"}


def room_of(name: str) -> tuple[str, str]:
    """'ocrdata/reading/view' -> ('ocrdata', 'reading'); of a file in the root its own name."""
    package, room = name.split("/")[:2]
    return package, room


def allowed(package: str, room: str) -> tuple[set[str], set[str]]:
    """The rooms, or files, of `ocrdata` and of `ocrtrain` that a room may import."""
    if package == "ocrdata":
        return DATA_ROOMS[room], set()
    return TRAIN_ROOMS[room]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    package, room = room_of(f"{name_of(path)}/")
    in_root = path.parent == ROOT / package
    for name in own_imports(path) - OPEN_TO_ALL:
        other_package, other = room_of(name)
        assert package == "ocrtrain" or other_package == "ocrdata", f"{name} is above"
        if other in ABOVE_ALL[other_package]:
            assert package == other_package and room == other, f"nothing imports {name}"
        if (package, room) == (other_package, other) or room in ABOVE_ALL[package]:
            continue
        if in_root and room not in OWN_FILES:  # what people type, and re-exports
            continue
        data, train = allowed(package, room)
        mine = data if other_package == "ocrdata" else train
        place = name.removeprefix(f"{other_package}/")
        assert other in mine or place in mine, f"{room} must not import {name}"


@pytest.mark.parametrize("package", ["ocrdata", "ocrtrain"])
def test_every_file_is_in_a_room_and_every_room_is_in_the_table(package: str) -> None:
    folder = ROOT / package
    assert {path.stem for path in folder.glob("*.py")} == ROOT_FILES[package]
    rooms = {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "_"}
    table = set(DATA_ROOMS) - OWN_FILES if package == "ocrdata" else set(TRAIN_ROOMS)
    assert rooms == table | ABOVE_ALL[package]


def test_rooms_form_no_circle() -> None:
    order = ["storage", "runtime", "images", "sample", "shards", "sources", "conversion", "tokens",
             "reading", "planning", "transfer", "torch"]  # fmt: skip
    for number, room in enumerate(order):
        assert DATA_ROOMS[room] <= set(order[:number]), room
    for number, (room, (_, train)) in enumerate(TRAIN_ROOMS.items()):
        assert train <= set(list(TRAIN_ROOMS)[:number]), room


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_room_says_what_goes_in_and_what_comes_out(path: Path) -> None:
    tree = ast.parse(path.read_text())
    text = ast.get_docstring(tree)
    assert text, "no docstring"
    is_room = path.name == "__init__.py" and path.parent.parent in {
        ROOT / "ocrdata",
        ROOT / "ocrtrain",
    }
    if is_room and path.parent.name != "commands":
        assert " In: " in f" {text}" and "Out:" in text, "what goes in, what comes out"
        named = [word for word in text.split("`") if word.endswith(".py")]
        assert named and all((path.parent / word).exists() for word in named), "what to read first"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_imports_what_it_must_not(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & {"tools", "tests", "benchmarks"}
    assert not tops & {"dill", "cloudpickle", "shelve", "marshal"}
    assert "pickle" not in tops or name_of(path) in PICKLE_READERS
    if name_of(path).startswith("ocrdata/"):
        assert "torch" not in tops or name_of(path) == "ocrdata/torch"
    else:
        assert not tops & {"tarfile", "webdataset"}
        assert "ocrdata.shards.tar" not in imports(path)


@pytest.mark.parametrize("library", WRAPPED)
def test_a_wrapped_library_is_imported_in_one_place(library: str) -> None:
    tops = {name_of(path): {name.split(".")[0] for name in imports(path)} for path in MODULES}
    assert [file for file in tops if library in tops[file]] == [WRAPPED[library]]


BY_LOCATION = ("reading", "tokens", "shards", "planning")
"""Rooms that know files by `Location` and `File` and ask the disk nothing themselves."""


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent.name in BY_LOCATION], ids=name_of
)
def test_files_are_known_by_location(path: Path) -> None:
    assert not {"pathlib", "shutil", "os.path"} & imports(path)
    asked = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert not {"stat", "lstat", "fstat", "scandir", "listdir", "getsize"} & asked


def test_torch_refusing_a_pickle_is_all_that_weight_files_know_of_pickles() -> None:
    found = imports(ROOT / "ocrtrain" / "model" / "weight_file.py")
    assert {name for name in found if name.startswith("pickle")} == {
        "pickle",
        "pickle.UnpicklingError",
    }


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_stages_are_config_values_only(stage: str) -> None:
    path = ROOT / "ocrtrain" / f"{stage}.py"
    other = {"stage1": "stage2", "stage2": "stage1"}[stage]
    assert f"ocrtrain.{other}" not in imports(path)
    assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.For)]


@pytest.mark.parametrize(
    "path", [path for path in MODULES if "commands" not in path.parts], ids=name_of
)
def test_no_code_asks_which_stage_it_is_in(path: Path) -> None:
    compared = [
        constant.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    ]
    assert not {"stage1", "stage2"} & set(compared)


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_making_and_reading_shards_imports_no_torch() -> None:
    names = [name_of(path).replace("/", ".") for path in MODULES if "ocrdata" in path.parts]
    names.remove("ocrdata.torch")
    run_python(
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )


def test_the_reader_loads_on_first_use() -> None:
    run_python(
        "import sys, ocrdata.errors\n"
        "assert not {'pyarrow', 'numpy', 'PIL'} & set(sys.modules)\n"
        "from ocrdata import open_shards\n"
        "import ocrdata.reader\n"
        "assert open_shards is ocrdata.reader.open_shards\n"
        "from ocrdata import Sample, SampleRef, Shards\n"
        "assert 'pyarrow' in sys.modules"
    )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_its_tests(path: Path) -> None:
    if path.stem == "__init__":
        return
    folder = ROOT / "tests" / path.relative_to(ROOT).parent
    found = [*folder.glob(f"test_{path.stem}*.py"), *folder.glob(f"commands/test_{path.stem}*.py")]
    assert found, f"no test_{path.stem}*.py in {folder}"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_no_test_imports_another_test(path: Path) -> None:
    others = {name.split(".")[-1] for name in imports(path) if name.startswith("tests.")}
    modules = {name for name in imports(path) if name.startswith("tests.")}
    assert not [name for name in modules if any(part.startswith("test_") for part in
                                                name.split(".")[1:])], others  # fmt: skip
