"""Shard specs: every form resolves to its files, or is a SpecError with the reason."""

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocrdata.errors import DiskError, ShardError, SpecError
from ocrdata.reading.spec import join, resolve, separate
from ocrdata.reading.view import open_shards
from ocrdata.shards.manifest import read_manifest
from ocrdata.shards.names import natural, set_name, shard_number
from ocrdata.storage.location import Location
from tests.support.rows import image, write_set, write_tar


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty files named like shards, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    for number in range(12):
        (tmp_path / "shards" / f"c-{number:03d}.tar").touch()
        (tmp_path / "shards" / f"c-{number:03d}.index.parquet").touch()
    (tmp_path / "shards" / "notes.txt").touch()
    return tmp_path


def numbers(spec: str | Sequence[str]) -> list[int]:
    return [int(file.name[-7:-4]) for file in resolve(spec).files]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("shards/c-003.tar", [3]),
        ("shards/c-<003..005>.tar", [3, 4, 5]),
        ("shards/c-{003..005}.tar", [3, 4, 5]),
        ("shards/c-{009..011}.tar", [9, 10, 11]),
        ("shards/c-{003,007,005}.tar", [3, 7, 5]),
        ("shards/c-0<0..1><0..1>.tar", [0, 1, 10, 11]),
        ("shards/c-00*.tar", list(range(10))),
        ("shards/c-00[25].tar", [2, 5]),
        ("shards/c-00?.*", list(range(10))),
        ("shards", list(range(12))),
        ("shards/", list(range(12))),
        ("**/*.tar", list(range(12))),
        (["shards/c-003.tar", "shards/c-001.tar"], [3, 1]),
        (["shards/c-<000..001>.tar", "shards/c-01*.tar"], [0, 1, 10, 11]),
    ],
)
def test_every_form_of_spec(folder: Path, spec: str | list[str], expected: list[int]) -> None:
    assert numbers(spec) == expected
    assert resolve(spec).slice is None
    if isinstance(spec, str):
        found = resolve(f"{spec}[1:]")
        assert (found.slice, found.base) == (slice(1, None), spec)
        assert numbers(f"{spec}[1:]") == expected
        absolute = str(folder / spec)
        assert numbers(absolute) == expected


@pytest.mark.parametrize(
    "words",
    [
        "shards/c-{000..004}.tar",
        "shards/c-{000..004}.tar[:100]",
        "shards/c-00{0,1,2,3,4}.tar[:100]",
        "shards/c-00[01234].tar",
        "'shards/c-{000..004}.tar[:100]'",
        "'shards/c-<000..004>.tar[:100]'",
        "shards/c-{000..003}.tar shards/c-004.tar[:100]",
    ],
)
def test_specs_expanded_by_a_shell(folder: Path, words: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, check=True
    )
    found = resolve(done.stdout.splitlines())
    assert [path.name for path in found.files] == [f"c-{n:03d}.tar" for n in range(5)]
    assert found.slice == (slice(None, 100) if "[:100]" in words else None)
    assert resolve(found.base).files == found.files


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "''"),
        ([], "no shards"),
        ("a\0b", r"a\\x00b"),
        ("\ud800*.tar", r"\\ud800"),
        ("shards/absent.tar", r"shards/absent\.tar: no such .*shards .*12 shards.* c-000\.tar"),
        ("shards/c-003", r"shards/c-003: no such .*shards/c-003\.tar"),
        ("shards/c-01l.tar", r"shards/c-01l\.tar: no such .*mean shards/c-01\d\.tar\?"),
        ("absent/x.tar", r"absent/x\.tar: no such [^;]*$"),
        ("shards/c-<010..014>.tar", r"3 of 5 .*missing: shards/c-012\.tar, .*c-014\.tar;"),
        ("shards/c-<000..100>.tar", r"89 of 101 .*missing: .* 86 more"),
        ("shards/c-<005..001>.tar", r"<005\.\.001>.*\[::-1\]"),
        ("shards/c-<000..9999999>.tar", "1,000,000 files"),
        ("shards/c-<000..999><000..999><00..99>.tar", "1,000,000 files"),
        ("shards/c-<000..001>.index.parquet", r"c-000\.index\.parquet .*\.tar\.zst$"),
        ("shards/d-*.tar", r"shards/d-\*\.tar: the pattern .*no"),
        ("shards/*.parquet", r"the pattern .*12 files, none a \.tar"),
        ("shards/c-000.index.parquet", r"c-000\.index\.parquet: .*name .* shards/c-000\.tar$"),
        ("shards/notes.txt", r"notes\.txt: not a shard .*make_shards\.py"),
        ("shards/c-000.tar[a:b]", r"\[a:b\] .*\[start:stop\]"),
        ("shards/c-000.tar[1:2:3:4]", r"\[1:2:3:4\] .*\[start:stop\]"),
        ("shards/c-000.tar[1.5:]", r"\[1\.5:\] .*\[start:stop\]"),
        ("shards/c-000.tar[::0]", r"shards/c-000\.tar\[::0\]: .*step"),
        ("shards/c-000.tar[5]", r"\[5\] .*\[5:6\]"),
        ("shards/c-000.tar[-1]", r"\[-1\] .*\[-1:\]"),
        (["shards/c-000.tar[:1]", "shards/c-001.tar"], r"c-000\.tar\[:1\] and .*c-001\.tar:"),
        (["shards/c-000.tar[:1]", "shards/c-001.tar[:2]"], r"\[:1\] and .*c-001\.tar\[:2\]:"),
        (["shards/c-000.tar[:1]", "shards/d-000.tar[:1]"], "one shard set, .* 2;"),
        (["shards/c-000.tar", "shards/d-000.tar[:1]"], "one shard set, .* 2;"),
        (["shards/c.json[:9]", "shards/d.json[:9]"], "one shard set, .* 2;"),
        (["shards/c-000.tar", "shards/../shards/c-000.tar"], r"shards/c-000\.tar .*twice"),
        (["shards/c-000.tar", "shards/c-*.tar"], r"shards/c-000\.tar .*twice"),
        ("https://example.org/shards", r"https://example\.org/shards: .*manifest"),
        ("s3://bucket/c-*.tar.gz", r"s3://bucket/c-\*\.tar\.gz: .*manifest"),
        ("hf://models/a/b/x.json", "hf://models/a/b/x.json: .*hf://datasets/"),
        ("ftp://user:secret@host/x.tar", "ftp://host/x.tar: ftp://"),
        ("pipe:cat shards/c-000.tar", "no such file"),
    ],
)
def test_invalid_specs(folder: Path, spec: str | list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        resolve(spec)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_existing_paths_are_never_interpreted(folder: Path) -> None:
    odd = ["a b.tar", "a[1:2].tar", "x[0:1]", "y*.tar", "<1..2>.tar", "{a,b}.tar", "数据-000.tar"]
    for name in odd:
        path = folder / name
        if name.endswith(".tar"):
            path.touch()
        else:
            path.mkdir()
            (path / "c-000.tar").touch()
        found = resolve(name)
        assert len(found.files) == 1
        assert found.slice is None
        sliced = resolve(f"{name}[3:]")
        assert (sliced.files, sliced.slice) == (found.files, slice(3, None))
        assert resolve(str(path)).files == (Location.of(found.files[0].path.absolute()),)
    assert [p.name for p in resolve("数据-<000..000>.tar[:1]").files] == ["数据-000.tar"]


def test_specs_of_compressed_shards(folder: Path) -> None:
    for number in range(3):
        (folder / f"z-{number:03d}.tar.zst").touch()
    names = [f"z-{number:03d}.tar.zst" for number in range(3)]
    for spec in ("z-<000..002>.tar.zst", "z-{000..002}.tar.zst[:5]", "z-*.tar.zst", "z-00?.tar.*"):
        assert [path.name for path in resolve(spec).files] == names
    assert resolve("z-001.tar.zst[2:]").slice == slice(2, None)
    assert (set_name("z-001.tar.zst"), shard_number("z-001.tar.zst")) == ("z", 1)
    assert (set_name("photos.tar.zst"), shard_number("photos.tar.zst")) == ("photos", None)
    for spec, message in (
        ("z-001", r"z-001: no such .* z-001\.tar\.zst"),
        ("z-001.tar", r"z-001\.tar: no such .* z-001\.tar\.zst"),
        ("z-<000..003>.tar.zst", r"1 of 4 .*missing: z-003\.tar\.zst; make"),
        ("z-<000..002>.tar", r"3 of 3 .*missing: z-000\.tar, .*; there is z-000\.tar\.zst"),
    ):
        with pytest.raises(SpecError, match=message):
            resolve(spec)
    (folder / "z-001.tar").touch()
    with pytest.raises(SpecError, match=r"z-001\.tar and \.tar\.zst .*index"):
        resolve(["z-001.tar", "z-001.tar.zst"])


def test_folder_of_compressed_shards(tmp_path: Path) -> None:
    for name in ("a-000.tar.zst", "a-001.tar.zst", ".a-002.tar.zst.tmp"):
        (tmp_path / name).touch()
    assert [path.name for path in resolve(tmp_path).files] == ["a-000.tar.zst", "a-001.tar.zst"]
    (tmp_path / "b-000.tar.zst").touch()
    with pytest.raises(SpecError, match=r"2 shard sets \(a, b\).*a-\{000\.\.001\}\.tar\.zst$"):
        resolve(tmp_path)


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"])
def test_other_compressed_tars_are_refused(folder: Path, ending: str) -> None:
    (folder / f"x-000{ending}").touch()
    with pytest.raises(SpecError, match=rf"x-000{re.escape(ending)}: .*\.tar\.zst"):
        resolve(f"x-000{ending}")


def test_shards_are_sorted_by_number(tmp_path: Path) -> None:
    names = [f"x-{number:03d}.tar" for number in (998, 999, 1000, 1001)]
    for name in names:
        (tmp_path / name).touch()
    for spec in (str(tmp_path), str(tmp_path / "x-*.tar"), str(tmp_path / "x-<998..1001>.tar")):
        assert [path.name for path in resolve(spec).files] == names
    names = [location.text for location in natural(map(Location, ("b2", "b10", "a3")))]
    assert names == ["a3", "b2", "b10"]


def test_manifest_is_found_for_its_shards(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, "x", [2, 1])
    files = tuple(tmp_path / f"x-00{number}.tar" for number in range(2))
    for spec in (tmp_path / "x.json", tmp_path, f"{tmp_path}/x-<000..001>.tar", files):
        found = resolve(spec)
        assert (found.files, found.manifest) == (tuple(map(Location.of, files)), manifest)
    assert resolve(files[1]).manifest == manifest
    assert resolve([*files, write_other(tmp_path)]).manifest is None
    (tmp_path / "other.tar").unlink()
    files[1].unlink()
    with pytest.raises(SpecError, match=r"1 of 2 .*missing: .*x-001\.tar"):
        resolve(tmp_path / "x.json")
    with pytest.raises(SpecError, match=r"1 of 2 .*missing: .*x-001\.tar"):
        resolve(tmp_path)


def test_manifest_applies_only_to_its_own_folder(tmp_path: Path) -> None:
    """The second folder has shards with the same names and other contents."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, counts in ((one, [2, 1]), (two, [1, 3])):
        folder.mkdir()
        write_set(folder, "x", counts)
    files = [str(one / "x-000.tar"), str(two / "x-001.tar")]
    found = resolve(files)
    assert (found.files, found.manifest) == (tuple(map(Location, files)), None)
    assert [read.meta["number"] for read in open_shards(files)] == [0, 1, 1, 2, 3]


def write_other(folder: Path) -> Path:
    (folder / "other.tar").touch()
    return folder / "other.tar"


def test_manifest_without_shards(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [])
    with pytest.raises(SpecError, match=r"x\.json: .*no shards"):
        resolve(tmp_path / "x.json")


def test_corrupted_manifest_is_never_ignored(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [1])
    (tmp_path / "x.json").write_text((tmp_path / "x.json").read_text().replace('"x"', '"y"'))
    for spec in (tmp_path, tmp_path / "x.json", tmp_path / "x-000.tar"):
        with pytest.raises(ShardError, match=r"x\.json: .*checksum"):
            resolve(spec)
    (tmp_path / "x.json").write_text('{"format":')
    with pytest.raises(ShardError, match=r"x\.json: .*JSON"):
        resolve(tmp_path)


def test_manifest_without_read_permission(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [1])
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "x.json").chmod(0)
    with pytest.raises(DiskError, match=r"x\.json: .*permission"):
        resolve(tmp_path)


def test_folder_with_several_sets_lists_them(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no \.tar, no \.tar\.zst and no manifest"):
        resolve(tmp_path)
    write_set(tmp_path, "charts", [1])
    write_set(tmp_path, "chats", [1])
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / ".hidden.tar").touch()
    with pytest.raises(SpecError, match=r"2 shard sets \(charts, chats\).*charts\.json$"):
        resolve(tmp_path)
    for number in range(7):
        (tmp_path / f"s{number}.tar").touch()
    with pytest.raises(SpecError, match=r"9 shard sets \(charts, chats, s0, s1, s2 and 4 more"):
        resolve(tmp_path)


def test_other_json_files_in_a_folder_are_ignored(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, "x", [1])
    (tmp_path / "notes.json").write_text("{}")
    assert resolve(tmp_path).manifest == manifest == read_manifest(tmp_path / "x.json")


def test_too_long_names_and_numbers(folder: Path) -> None:
    long, digits = "a" * 300, "9" * 5_000
    for spec in (long, f"{long}/x.tar", f"x-<000..001>{long}.tar", f"x-<0..{digits}>.tar",
                 f"x.tar[{digits}]", f"x.tar[:{digits}]", "x-<\u0660..\u0661>.tar",
                 "\ud800/*.tar"):  # fmt: skip
        with pytest.raises(SpecError):
            resolve(spec)


def test_set_name_and_number_of_a_shard() -> None:
    assert (set_name("chartqa-003.tar"), shard_number("chartqa-003.tar")) == ("chartqa", 3)
    assert (set_name("a-1-1024.tar"), shard_number("a-1-1024.tar")) == ("a-1", 1024)
    assert (set_name("photos.tar"), shard_number("photos.tar")) == ("photos", None)
    assert (set_name("sa_000020.tar"), shard_number("sa_000020.tar")) == ("sa", 20)
    assert (set_name("my_set-1_001.tar"), set_name("my_set_1-001.tar")) == ("my_set-1", "my_set_1")
    assert (set_name("00012.tar"), shard_number("00012.tar")) == ("", 12)
    assert (set_name("12.tar"), shard_number("12.tar")) == ("12", None)


@pytest.mark.parametrize("name", ["{:05d}.tar", "sa_{:06d}.tar", "part-{:05d}.tar"])
def test_folders_that_other_tools_made_are_one_set(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "laion"
    folder.mkdir()
    for number in (0, 1, 2, 10):
        files = [(f"{number}.jpg", image("JPEG")), (f"{number}.txt", b"%d" % number)]
        write_tar(folder / name.format(number), files)
        (folder / name.format(number).replace(".tar", "_stats.json")).write_text('{"count": 1}')
        (folder / name.format(number).replace(".tar", ".parquet")).touch()
    shards = open_shards(str(folder))
    assert [one.messages[1]["content"][0]["text"] for one in shards] == ["0", "1", "2", "10"]
    assert shards.source_name == {"sa": "sa", "pa": "part", "{:": "laion"}[name[:2]]
    assert open_shards(shards.spec).digest == shards.digest


def test_the_spec_that_a_folder_of_several_sets_suggests_opens_one(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    names = ["x-008.tar", "x-009.tar", "x-010.tar"]
    for others in (["y.tar"], ["y-000.tar"], ["x-long-000.tar"], ["00000.tar"]):
        for name in names + others:
            (folder / name).touch()
        for spec, wanted in ((folder, names), (folder.name, names)):
            with contextlib.chdir(tmp_path), pytest.raises(SpecError) as caught:
                resolve(spec)
            suggested = shlex.split(str(caught.value).rpartition("as in ")[2])
            with contextlib.chdir(tmp_path):
                found = sorted(file.name for file in resolve(suggested).files)
            assert found in (wanted, others)
        for name in others:
            (folder / name).unlink()
    (folder / "x-009.tar").unlink()
    (folder / "y.tar").touch()
    with pytest.raises(SpecError, match=r"2 shard sets \(x, y\).*x-008\.tar'$"):
        resolve(folder)


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", '[{"image": "x.png"}]', '{"a": 1}\n{"a": 2}\n',
                                  "\ufeff[1]", '[{"text": "' + "x" * 70_000])  # fmt: skip
def test_somebodys_json_with_the_name_of_a_set(tmp_path: Path, text: str) -> None:
    write_set(tmp_path, "train", [1, 2])
    (tmp_path / "train.json").write_text(text)
    found = resolve(tmp_path)
    assert ([file.name for file in found.files], found.listed) == (
        ["train-000.tar", "train-001.tar"],
        {},
    )
    with pytest.raises(ShardError, match=r"train\.json: ") as caught:
        resolve(tmp_path / "train.json")
    assert "\n" not in str(caught.value)


def test_a_manifest_that_was_cut_is_never_taken_for_somebodys_json(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [1])
    whole = (tmp_path / "x.json").read_bytes()
    for size in [*range(0, len(whole) - 2, 7), len(whole) - 3]:
        (tmp_path / "x.json").write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"x\.json: "):
            resolve(tmp_path)


def test_an_unfinished_set_does_not_hide_a_complete_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = write_set(tmp_path, "a", [1, 1])
    (tmp_path / ".b.making").mkdir()
    (tmp_path / "b-000.tar").touch()
    assert resolve(tmp_path).manifest == manifest
    assert [": b " in message for message in caplog.messages] == [True]
    with pytest.raises(SpecError, match=": b is incomplete"):
        resolve(tmp_path / "*.tar")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(SpecError, match=r"2 shard sets \(a, b\)"):
        resolve(tmp_path)


@settings(deadline=None)
@given(st.lists(st.text("ab0/-", min_size=1, max_size=6), min_size=1, max_size=6, unique=True))
def test_joined_spec_resolves_to_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("j")
    files = list(dict.fromkeys(folder / (name.replace("/", "_") + ".tar") for name in names))
    for file in files:
        file.touch()
    locations = list(map(Location.of, files))
    assert list(resolve(join(locations)).files) == locations


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text("a<>{}.[]:?,0123456789-/\0 tr", max_size=30), min_size=1, max_size=2))
@example([".tar"])
@example([".tar[:1]", "a.tar[:1]"])
def test_any_text_resolves_or_raises_a_spec_error(texts: list[str]) -> None:
    with contextlib.suppress(SpecError, ShardError):
        resolve(texts)


@pytest.mark.parametrize(
    ("specs", "sets"),
    [
        (["x-000.tar", "x-001.tar[:9]"], [[0, 1]]),
        (["x-000.tar[:9]", "x-001.tar[:9]"], [[0, 1]]),
        (["x-000.tar", "y-000.tar", "x-001.tar"], [[0, 2], [1]]),
        (["a/x-000.tar", "b/x-001.tar"], [[0], [1]]),
        (["x-000.tar[:5]", "x-001.tar[7:9]"], [[0], [1]]),
        (["x.json[:100]", "x.json[200:]", "y"], [[0], [1], [2]]),
        (["x-<000..003>.tar", "x-*.tar[:3]", "x-{004,005}.tar"], [[0], [1], [2]]),
        ([], []),
    ],
)
def test_specs_are_separated_by_set(specs: list[str], sets: list[list[int]]) -> None:
    assert separate(specs) == [[specs[at] for at in one] for one in sets]
