"""A shard written over an older one of that name, killed at every point on the way."""

from __future__ import annotations

import sys
from pathlib import Path

import xxhash

from ocrdata.reading.view import open_shards
from ocrdata.shards.index import index_path, read_header
from tests.support.kill import points, run_killed
from tests.support.rows import sample, write_shard
from tests.support.shardcommand import environment, made

WRITER = """
import sys
from pathlib import Path
from tests.support.rows import sample, write_shard

write_shard(Path(sys.argv[1]), [sample(3), sample(4)])
"""


def test_an_older_index_never_stands_beside_a_newer_tar(tmp_path: Path) -> None:
    """Both tars have one size, so that nothing but the digests of all the samples would tell."""
    out, scratch, env = tmp_path / "out", tmp_path / "hook", environment(tmp_path)
    out.mkdir()
    tar = out / "x-000.tar"
    command = [sys.executable, "-c", WRITER, str(tar)]
    old = write_shard(tar, [sample(1), sample(2)])
    before, rows = made(out), [[sample(1), sample(2)], [sample(3), sample(4)]]
    steps = points(command, out, scratch=scratch, env=env)
    whole, lone = made(out), 0
    assert len(whole[tar.name]) == old.bytes and whole.keys() == before.keys()
    for at in range(1, len(steps) + 1):
        for path in out.iterdir():
            path.unlink()
        for name, data in before.items():
            (out / name).write_bytes(data)
        run_killed(command, out, at=at, scratch=scratch, env=env)
        digest = xxhash.xxh3_128_hexdigest(tar.read_bytes())
        index = index_path(tar).path
        lone += not index.exists()
        assert not index.exists() or read_header(index).shard_digest == digest, steps[at - 1]
        assert list(open_shards(str(tar))) == rows[digest != old.digest], steps[at - 1]
    assert lone > 2
