import contextlib
import io
import json
import math
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import OcrError, UsageError, UsageErrors
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run


@pytest.mark.parametrize(
    ("raised", "status"), [(OcrError("it broke"), 1), (UsageError("you erred"), 2)]
)
def test_an_error_prints_its_message_and_sets_the_status(
    raised: OcrError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: object) -> int:
        raise raised

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == f"error: {raised}\n"


def test_a_name_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: object) -> int:
        raise OcrError("a\x1b[2Jb\x07\x9b\x7f\udc80\u202e.png: naïve 東京\tis\n  the remedy")

    with pytest.raises(SystemExit):
        run(main)
    said = "a\\x1b[2Jb\\x07\\x9b\\x7f\\udc80\\u202e.png: naïve 東京\tis\n  the remedy"
    assert capsys.readouterr().err == f"error: {said}\n"


def test_ctrl_c_is_one_line_and_status_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A thread that another test left would end the whole test run by os._exit.
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread()])

    def main(arguments: object) -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


def test_no_traceback_when_the_reader_of_the_output_exits() -> None:
    code = (
        "from ocrdata.runtime.cli import run\n"
        "def main(arguments):\n"
        "    for _ in range(100_000): print('x' * 80)\n"
        "    return 0\n"
        "run(main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1


def test_a_flag_cannot_be_abbreviated() -> None:
    parser = Parser(prog="tool", description="does")
    parser.add_argument("--shards")
    for arguments in (["--shard", "x"], ["--unknown"]):
        with pytest.raises(UsageError, match="unrecognized arguments: " + " ".join(arguments)):
            parser.parse_args(arguments)


def test_the_flag_that_an_unknown_one_resembles_is_named() -> None:
    parser = Parser(prog="tool", description="does")
    kinds = parser.add_subparsers(dest="kind")
    kind = kinds.add_parser("charts", description="converts")
    parser.add_argument("--shards")
    kind.add_argument("--limit")
    for words, near in (
        (["--shard=x"], "mean --shards?"),
        (["charts", "--limits=3", "--seed"], "mean --limit?"),
        (["--limit=3"], "--help"),  # a flag of a subcommand that was not typed
        (["charts", "--zzz"], "--help"),
    ):
        with pytest.raises(UsageError, match=re.escape(near)):
            parser.parse_args(words)


def several() -> Parser:
    parser = Parser(prog="tool", description="does")
    parser.add_argument("word", nargs="?")
    parser.add_argument("--rows", type=int, default=4, help="how many")
    parser.add_argument("--share", type=float, default=0.0, help="of 100 %%")
    parser.add_argument("--kind", choices=("a", "b"), required=True)
    parser.add_argument("--fast", action="store_true", help="hurry")
    return parser


FAULTS = {
    "--rows": ([], ["--rows", "x"], ["--rows"]),
    "--share": ([], ["--share", "y"], ["--share"]),
    "--kind": (["--kind", "a"], ["--kind", "c"], ["--kind"], []),
    "--fast": ([], ["--fast=1"]),
    "--unknown": ([], ["--unknown"]),
}
"""Flag -> words that are right, then words that are wrong."""


@given(st.fixed_dictionaries({flag: st.sampled_from(ways) for flag, ways in FAULTS.items()}))
def test_every_fault_of_a_command_line_is_told(words: dict[str, list[str]]) -> None:
    wrong = {flag for flag, typed in words.items() if typed != FAULTS[flag][0]}
    parser, line = several(), [word for typed in words.values() for word in typed]
    for _ in range(2):  # a parser is as it was after faults
        typed, problems = parser.parse_with_problems(line)
        assert (typed.rows, typed.share, typed.fast) == (4, 0.0, False)
        assert bool(problems) == bool(wrong)
        try:
            problems.raise_all()
        except UsageError as exc:
            assert len(exc.messages) == len(wrong)
            assert all(any(flag in message for message in exc.messages) for flag in wrong)


def test_faults_of_a_subcommand_are_told_together() -> None:
    parser = Parser(prog="tool", description="does")
    one = parser.add_subparsers(dest="kind", required=True).add_parser("one", description="x")
    one.add_argument("--rows", type=int)
    one.add_argument("--path", required=True)
    with pytest.raises(UsageErrors) as caught:
        parser.parse_args(["one", "--rows", "x", "--bad"])
    found = [[flag in line for flag in ("--rows", "--path", "--bad")].index(True)
             for line in caught.value.messages]  # fmt: skip
    assert found == [0, 1, 2]
    for words in ([], ["two"]):
        with pytest.raises(UsageError, match="kind"):
            parser.parse_args(words)


def test_help_shows_the_defaults_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        several().parse_args(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("how many (default: 4)", "of 100 % (default: 0.0)", "hurry"):
        assert text in shown
    assert shown.count("default") == 2


def test_several_errors_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--rows", "x", "--kind", "a\x1b"]
    with pytest.raises(SystemExit, match="2"):
        run(lambda arguments: int(several().parse_args(words).rows))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)


def test_an_output_that_cannot_be_written_prints_one_line() -> None:
    code = "from ocrdata.runtime.cli import run\nrun(lambda arguments: print('x' * 9) or 0)"
    for words in (f'{sys.executable} -c "$0" > /dev/full', f'{sys.executable} -c "$0" >&-'):
        done = subprocess.run(
            ["bash", "-c", words, code], capture_output=True, text=True, check=False
        )
        full = "/dev/full" in words
        assert done.returncode == int(full)
        assert re.fullmatch(r"error: .*No space left on device\n" if full else "", done.stderr)


def load(tmp_path: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose module is `source`, given by name."""
    (tmp_path / "slow_command.py").write_text(source)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "from ocrdata.runtime.cli import run\nrun('slow_command')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_command_can_be_given_by_its_module_name(tmp_path: Path) -> None:
    done = load(tmp_path, "def main(arguments):\n    print('here', arguments)\n    return 3")
    assert (done.returncode, done.stdout) == (3, "here []\n")


def test_ctrl_c_during_the_import_of_a_command_is_one_line(tmp_path: Path) -> None:
    done = load(tmp_path, "raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")
    done = load(tmp_path, "raise RuntimeError('x')")
    assert "Traceback" in done.stderr, "a bug keeps its traceback"


def test_importing_the_module_has_no_side_effects() -> None:
    code = (
        "import signal, sys\n"
        "before = sys.excepthook, signal.getsignal(signal.SIGINT), sys.stdout, sys.stderr\n"
        "import ocrdata.runtime.cli\n"
        "assert before == (sys.excepthook, signal.getsignal(signal.SIGINT), sys.stdout, sys.stderr)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctrl_c_does_not_wait_for_threads() -> None:
    code = (
        "import threading\nfrom ocrdata.runtime.cli import run\n"
        "def main(arguments):\n"
        "    threading.Thread(target=threading.Event().wait).start()\n"
        "    raise KeyboardInterrupt\n"
        "run(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")


def printed(document: dict[str, Any]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        print_json(document)
    return output.getvalue()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=30)
@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_a_printed_document_is_read_back_as_it_was(document: dict[str, Any]) -> None:
    text = printed(document)
    assert json.loads(text) == document
    assert text.isascii()
    assert text.endswith("}\n")


def test_numbers_that_json_does_not_have_become_null_and_paths_strings() -> None:
    document = {
        "losses": (math.nan, 1.5, {"gain": -math.inf}),
        "out": Path("a/b"),
        "name": "\x1b[2J\udc80\u202e",
    }
    expected = {
        "losses": [None, 1.5, {"gain": None}],
        "out": "a/b",
        "name": "\x1b[2J\udc80\u202e",
    }
    assert json.loads(printed(document), parse_constant=pytest.fail) == expected
    with pytest.raises(TypeError):
        print_json({"value": object()})


def test_the_json_flag_is_off_unless_given() -> None:
    parser = Parser(prog="tool", description="does")
    add_json_flag(parser)
    assert [parser.parse_args(given).json for given in ([], ["--json"])] == [False, True]
