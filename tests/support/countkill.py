"""Token counting that is killed and repeated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ocrdata.planning.counting import ViewCounts, count_shards
from ocrdata.reading.view import open_shards
from ocrdata.tokens.rendering import TurnCount
from ocrdata.tokens.tokenizer import Tokenizer, train_tokenizer
from tests.support.kill import points, run_killed, spread
from tests.support.rows import write_set
from tests.support.shardcommand import environment, made


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["What is the value of the blue bar? It is 12 percent."] * 9, 300)


def turns_of(counted: ViewCounts) -> list[list[TurnCount]]:
    """The counts of a view, in its order."""
    found: list[list[TurnCount]] = []
    for first, counts in counted:
        assert first == len(found)
        found += [counts.turns(at) for at in range(len(counts))]
    return found


KILLED = """
import sys
from ocrdata.planning import counting
from ocrdata.reading.view import open_shards
from ocrdata.tokens.tokenizer import load_tokenizer

if __name__ == "__main__":
    counting.SAMPLES_A_PROCESS = 1
    counting.count_shards(
        open_shards(sys.argv[1]), load_tokenizer(sys.argv[2]), workers=int(sys.argv[3])
    )
"""


def killed_and_made_again(home: Path, tokenizer: Tokenizer, *, workers: int, wanted: int) -> None:
    """Kill the process group at `wanted` points: no incomplete file has a final name, and the
    repeated count gives the uninterrupted files."""
    out, program, file = home / "out", home / "killed.py", home / "tokenizer.json"
    out.mkdir()
    write_set(out, "x", [3, 3])
    before = made(out)
    program.write_text(KILLED)
    tokenizer.save(file)
    command = [sys.executable, str(program), str(out / "x.json"), str(file), str(workers)]
    env = environment(home)
    count = len(points(command, out, scratch=home / "hook", env=env)) // workers
    whole = made(out)
    assert len(whole) == len(before) + 3
    for at in spread(count, wanted):
        for path in out.glob("*.tokens-*"):
            path.unlink()
        run_killed(command, out, at=at, scratch=home / "hook", env=env, group=workers > 1)
        for name, data in made(out).items():
            assert name.startswith(".") or data == whole[name], (at, name)
        count_shards(open_shards(str(out / "x.json")), tokenizer)
        assert made(out) == whole, at
