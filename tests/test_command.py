import subprocess
import sys

import pytest

from ocrdata.command import Parser, run
from ocrdata.errors import OcrError, UsageError


@pytest.mark.parametrize(
    ("raised", "status"), [(OcrError("it broke"), 1), (UsageError("you erred"), 2)]
)
def test_an_error_is_its_message_and_a_status(
    raised: OcrError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: object) -> int:
        raise raised

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == f"error: {raised}\n"


def test_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: object) -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    code = (
        "from ocrdata.command import run\n"
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


def test_wrong_flags_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="tool", description="does")
    parser.add_argument("--shards")
    for arguments in (["--shard", "x"], ["--unknown"]):
        with pytest.raises(SystemExit) as caught:
            parser.parse_args(arguments)
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith("tool: error: unrecognized arguments: ")
