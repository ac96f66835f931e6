import errno
import json
import os
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocrdata.errors import DiskError
from ocrdata.storage.files import (
    atomic_file,
    discard,
    explain_disk,
    free_bytes,
    make_folder,
    publish,
    replace_file,
    temporary_name,
    write_json,
)


def test_a_file_is_complete_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_file(path) as file:
        file.write(b"one")
        assert not path.exists()
        assert temporary_name(path).exists()
    assert path.read_bytes() == b"one"
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"two")
        raise RuntimeError
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_writers_of_one_cache_file_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, both = tmp_path / "a.bin", threading.Barrier(2, timeout=30)
    rename = os.rename

    def rename_together(source: Path, target: Path) -> None:
        both.wait()  # both files are written, neither has its name
        assert not path.exists() or path.stat().st_size == 1 << 16
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_together)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda byte: replace_file(path, byte * (1 << 16)), (b"a", b"b")))
    assert path.read_bytes() in (b"a" * (1 << 16), b"b" * (1 << 16))
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_cache_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "a.bin", b"data")
    assert not list(tmp_path.iterdir())


def test_json_is_sorted_and_complete(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "ä"})
    assert (tmp_path / "a.json").read_text().index('"a"') < 10
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": "ä", "b": 1}
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "size limit"),
        (errno.EACCES, "no permission"),
        (errno.EPERM, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "not a folder"),
        (errno.ELOOP, "symbolic link"),
        (errno.ENAMETOOLONG, "too long"),
    ],
)
def test_disk_errors_are_explained(number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=words) as caught, explain_disk(tmp_path / "x"):
        raise OSError(number, "refused")
    assert str(tmp_path / "x") in str(caught.value)


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(DiskError, match=r"a\.json: .* a folder"):
        write_json(tmp_path / "a.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_other_errors_are_not_explained(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError), explain_disk(tmp_path):
        raise OSError(errno.EINTR, "interrupted")


def test_a_file_above_the_size_limit_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ocrdata.storage.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as file: file.write(bytes(1 << 20))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert "DiskError" in result.stderr
    assert "size limit" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_make_folder_and_free_bytes(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"file: .* a file"):
        make_folder(tmp_path / "file")
    with pytest.raises(DiskError, match="not a folder"):
        make_folder(tmp_path / "file" / "below")
    assert free_bytes(tmp_path / "not" / "yet" / "there") == pytest.approx(
        free_bytes(tmp_path), rel=0.1
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has /proc")
def test_a_file_system_that_creates_no_folders() -> None:
    with pytest.raises(DiskError, match=r"/proc/no-such: .*folder"):
        make_folder(Path("/proc/no-such"))


def test_discard_never_raises(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    discard(tmp_path / "folder")
    discard(tmp_path / "nothing")
    assert (tmp_path / "folder").is_dir()
    (tmp_path / "file").touch()
    discard(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_publishing_below_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ".x.tmp").touch()
    with pytest.raises(DiskError, match=r"file/x: .* is a file"):
        publish(tmp_path / ".x.tmp", tmp_path / "file" / "x")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Anyone who may write to the folder could have us overwrite a file elsewhere."""
    other, path = tmp_path / "other", tmp_path / "a.bin"
    other.write_bytes(b"precious")
    temporary_name(path).symlink_to(other)
    with atomic_file(path) as file:
        file.write(b"mine")
    assert other.read_bytes() == b"precious"
    assert (path.read_bytes(), path.is_symlink()) == (b"mine", False)
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    temporary_name(path).mkdir()
    with pytest.raises(DiskError, match=r"no permission|a folder"), atomic_file(path):
        pass


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
