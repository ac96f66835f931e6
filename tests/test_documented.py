"""Every command shown in the documentation is accepted by its own parser."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ocrdata.commands import check_shards, copy_shards, make_shards, reshard, train_tokenizer
from ocrdata.shards.arrow import SCHEMA
from ocrdata.tokens.rendering import TurnCount
from ocrtrain.commands import ask, evaluate, export, plan, serve, show_batch
from ocrtrain.settings import presets
from ocrtrain.settings.flags import parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "shards" / "README.md", ROOT / "benchmarks" / "README.md",
         ROOT / "docs" / "evaluation.md", ROOT / "docs" / "serving.md",
         *sorted((ROOT / "recipes").glob("*.md"))]  # fmt: skip
SOURCES = [*sorted((ROOT / "tools").glob("*.py")), *sorted((ROOT / "ocrtrain").rglob("*.py")),
           *sorted((ROOT / "benchmarks").glob("*.py"))]  # fmt: skip


PARSERS = {
    "ocrtrain.evaluate": evaluate.build_parser,
    "ocrtrain.ask": ask.build_parser,
    "ocrtrain.serve": serve.build_parser,
    "tools/make_shards.py": make_shards.build_parser,
    "tools/check_shards.py": check_shards.build_parser,
    "tools/copy_shards.py": copy_shards.build_parser,
    "tools/reshard.py": reshard.build_parser,
    "tools/export.py": export.build_parser,
    "tools/show_batch.py": show_batch.build_parser,
    "tools/train_tokenizer.py": train_tokenizer.build_parser,
}
"""Command -> the function that builds its parser."""


def test_files_named_in_code_and_pages_exist() -> None:
    cited = {
        (path.name, name)
        for path in [*SOURCES, *(ROOT / "ocrdata").rglob("*.py"), *PAGES]
        for name in re.findall(
            r"(?<![\w/])(?:docs|benchmarks|shards)/\w+\.(?:md|py)\b", path.read_text()
        )
    }
    assert ("writer.py", "docs/formats.md") in cited
    assert {(where, name) for where, name in cited if not (ROOT / name).is_file()} == set()


def test_the_formats_page_lists_every_column() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    kinds = [SCHEMA.field(name).type.value_type for name in ("members", "images")]
    names = [*SCHEMA.names, *(part.name for kind in kinds for part in kind), *TurnCount._fields]
    assert [name for name in names if not re.search(rf"\b{name}\b", page)] == []


def documented() -> list[str]:
    """The commands in fenced blocks of pages and in module docstrings, with continuation lines
    joined."""
    texts = [block for page in PAGES for block in
             re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL)]  # fmt: skip
    texts += [ast.get_docstring(ast.parse(path.read_text())) or "" for path in SOURCES]
    joined = "\n".join(texts).replace("\\\n", " ")
    lines = [line.split(" #")[0].strip() for line in joined.splitlines()]
    return sorted({line for line in lines if line.startswith("python ")})


def test_help_answers_at_once_and_shows_an_example() -> None:
    """Importing torch alone takes seconds."""
    code = (
        "import contextlib, importlib, io, sys\n"
        "for name in sys.argv[1:]:\n"
        "    shown = io.StringIO()\n"
        "    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):\n"
        "        importlib.import_module(name).main(['--help'])\n"
        "    assert 'python ' in shown.getvalue(), name\n"
        "    assert not {'torch', 'transformers', 'datasets', 'wandb'} & set(sys.modules), name\n"
    )
    modules = ["ocrtrain.stage1", "ocrtrain.stage2", "ocrtrain.commands.plan",
               "ocrtrain.commands.evaluate", "ocrtrain.commands.ask", "ocrtrain.commands.serve",
               "ocrtrain.commands.show_batch", "ocrtrain.commands.export",
               "ocrdata.commands.make_shards",
               "ocrdata.commands.check_shards", "ocrdata.commands.reshard",
               "ocrdata.commands.copy_shards", "ocrdata.commands.train_tokenizer"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_main_commands_are_documented() -> None:
    shown = " ".join(documented())
    tools = ("make_shards.py chartqa", "make_shards.py smoltalk", "check_shards.py")
    modules = (
        "ocrtrain.stage1",
        "ocrtrain.stage2",
        "ocrtrain.evaluate",
        "ocrtrain.ask",
        "ocrtrain.serve",
    )
    assert [name for name in tools + modules if name not in shown] == []


@pytest.mark.parametrize("command", documented())
def test_a_documented_command_is_accepted(command: str) -> None:
    words = shlex.split(re.sub(r"\[(--[^\]]*)\]", r"\1", command))[1:]
    if words[0] == "-m":
        program, arguments = words[1], words[2:]
    else:
        program, arguments = words[0], words[1:]
        assert (ROOT / program).exists()
    if "--help" in arguments:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return
    match program:
        case "ocrtrain.stage1":
            parse(arguments, presets.stage1, prog="stage1", description="")
        case "ocrtrain.stage2":
            parse(arguments, presets.stage2, prog="stage2", description="")
        case "tools/plan.py":
            plan.read(arguments)
        case _ if program in PARSERS:
            PARSERS[program]().parse_args(arguments)
        case _:
            name = program.removeprefix("benchmarks.")
            places = (f"{name}.py", f"{name}/__main__.py")
            assert any((ROOT / "benchmarks" / place).exists() for place in places), command
