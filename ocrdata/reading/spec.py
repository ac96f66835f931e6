"""Shard specs: what people write where shards are named, resolved to files.

A spec is a shard (.tar or .tar.zst), a range `NAME-<000..017>.tar` (or `{000..017}`, `{a,b}`), a
glob, a folder or a manifest, then optionally one slice `[start:stop:step]`. A path that exists as
it is written is that path, whatever signs it holds. Several specs make one set. Shards of one set
may have a slice, which holds for all: each the same (a shell makes `x-000.tar[:9] x-001.tar[:9]` of
an unquoted `x-{000..001}.tar[:9]`), or the last alone. Whose slice it is could not be told of specs
of several sets: that is an error.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ocrdata.errors import ShardError, SpecError
from ocrdata.reading.slices import NUMBER, parse_slice, split_slice
from ocrdata.shards.manifest import Manifest, ShardInfo, is_manifest, read_manifest
from ocrdata.shards.names import (
    is_compressed,
    is_shard,
    natural,
    set_location,
    set_name,
    shard_stem,
)
from ocrdata.storage.file import is_folder, list_names
from ocrdata.storage.files import can_be_a_path, exists, is_file
from ocrdata.storage.location import Location, LocationLike

MAX_FILES = 1_000_000
_RANGE = re.compile(
    rf"<({NUMBER})\.\.({NUMBER})>|\{{({NUMBER})\.\.({NUMBER})\}}|\{{([^{{}}]*,[^{{}}]*)\}}"
)


class Listed(NamedTuple):
    """A shard's manifest, and what it says of it."""

    manifest: Manifest
    info: ShardInfo


@dataclass(frozen=True)
class Resolved:
    """The files a spec names, in order; the slice over their samples, if any; what
    manifests say of the files that are in one; and `base`, the spec without its slice."""

    files: tuple[Location, ...]
    slice: slice | None
    listed: Mapping[Location, Listed]
    base: str

    @property
    def manifest(self) -> Manifest | None:
        """The one that lists all of the files, if there is one."""
        found = {id(one.manifest): one.manifest for one in self.listed.values()}
        all_listed = len(found) == 1 and len(self.listed) == len(self.files)
        return next(iter(found.values())) if all_listed else None


def resolve(spec: LocationLike | Sequence[LocationLike]) -> Resolved:
    """Find the shards a spec names. Raises SpecError, ShardError for a damaged manifest."""
    items = [spec] if isinstance(spec, (str, os.PathLike)) else list(spec)
    texts = [Location.of(item).text for item in items]
    if not texts:
        raise SpecError("no shards are given")
    split = [split_slice(text) for text in texts]
    taken = _one_slice(texts, split)
    found = [_find(base) for base, _ in split]
    files = tuple(itertools.chain.from_iterable(names for names, _ in found))
    twice = _first_repeated(_absolute(file) for file in files)
    if twice is not None:
        raise SpecError(f"{' '.join(texts)}: {twice} is named twice")
    stem = _first_repeated(_absolute(file.sibling(shard_stem(file.name))) for file in files)
    if stem is not None:
        raise SpecError(
            f"{' '.join(texts)}: {stem}.tar and .tar.zst have one index between them; name one of "
            "them, and move the other into another folder"
        )
    base = split[0][0] if len(split) == 1 else join(files)
    named = {file: manifest for names, manifest in found if manifest for file in names}
    return Resolved(files, parse_slice(texts[-1], taken), _manifests(files, named), base)


def _one_slice(texts: Sequence[str], split: Sequence[tuple[str, str | None]]) -> str | None:
    slices = [found for _, found in split]
    places = [Location(base) for base, _ in split]
    sets = {set_location(place) if is_shard(place.name) else place for place in places}
    if len(sets) > 1 and any(slices):
        raise SpecError(
            f"{' '.join(texts)}: a slice applies to one shard set, these are {len(sets)}; leave it "
            "out, or make one set of what is wanted"
        )
    if len(set(slices)) == 1 or all(text is None for text in slices[:-1]):
        return slices[-1]
    odd = next(text for text, found in zip(texts, slices, strict=True) if found != slices[-1])
    raise SpecError(
        f"{odd} and {texts[-1]}: several shards make one set with one slice; "
        "write the slice once, at the end"
    )


def _find(text: str) -> tuple[list[Location], Manifest | None]:
    """The shards one spec without a slice names, and the manifest that named them."""
    location = Location(text)
    if location.scheme:
        raise SpecError(
            f"{location}: this version reads local files only, not {location.scheme}://; copy the "
            "shards here and name the copies"
        )
    if not text or not can_be_a_path(text):
        raise SpecError(f"{text!r} names no shards")
    if exists(text):
        return _existing(location)
    if _RANGE.search(text):
        return _range(text), None
    if any(sign in text for sign in "*?["):
        return _glob(text), None
    raise SpecError(f"{text}: no such file or folder{_hint(location)}")


def _hint(missing: Location) -> str:
    for ending in (".tar", ".tar.zst", ".zst", ".json"):
        if missing.name and exists((other := missing.sibling(missing.name + ending)).text):
            return f"; {other} is there"
    if siblings := _shards_in(missing.folder):
        return f"; {missing.folder} holds {len(siblings)} shards, {siblings[0].name} to begin with"
    return ""


def _existing(path: Location) -> tuple[list[Location], Manifest | None]:
    if is_folder(path):
        return _folder(path)
    if path.name.endswith(".json"):
        manifest = read_manifest(path)
        return _listed(path, manifest), manifest
    if is_shard(path.name):
        return [path], None
    if path.name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")):
        raise SpecError(f"{path}: of compressed tars only .tar.zst is read; unpack it first")
    raise SpecError(f"{path}: neither a .tar or .tar.zst, nor a manifest .json, nor a folder")


def _listed(path: Location, manifest: Manifest) -> list[Location]:
    files = [path.sibling(shard.file) for shard in manifest.shards]
    if not files:
        raise SpecError(f"{path}: the manifest lists no shards")
    _all_there(str(path), files)
    return files


def _all_there(spec: str, files: Sequence[Location]) -> None:
    missing = [file for file in files if not is_file(file.path)]
    if missing:
        names = ", ".join(str(file) for file in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SpecError(f"{spec}: {len(missing)} of {len(files)} shards are missing: {names}{more}")


def _folder(path: Location) -> tuple[list[Location], Manifest | None]:
    tars = _shards_in(path)
    sets = {set_name(tar.name) for tar in tars}
    manifests = {
        name.removesuffix(".json"): path / name
        for name in list_names(path)
        if name.endswith(".json")
        and not name.startswith(".")
        and (name.removesuffix(".json") in sets or is_manifest(path / name))
    }
    names = sorted(sets | manifests.keys())
    if not names:
        raise SpecError(f"{path}: the folder holds no .tar, no .tar.zst and no manifest")
    if len(names) > 1:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise SpecError(
            f"{path}: the folder holds {len(names)} shard sets ({listed}); name one, "
            f"as in {path / names[0]}-*.tar{_more(tars, names[0])}"
        )
    for place in manifests.values():
        manifest = read_manifest(place)
        return _listed(place, manifest), manifest
    _refuse_unfinished(tars)
    return tars, None


def _refuse_unfinished(tars: Sequence[Location]) -> None:
    """Who names no file means all of a set: one that is still being made is not that."""
    for path in sorted({set_location(tar) for tar in tars}):
        unfinished = is_folder(path.sibling(f".{path.name}.making"))
        if unfinished and not exists(path.sibling(f"{path.name}.json").text):
            raise SpecError(
                f"{path.folder}: {path.name} is not complete, its conversion has not ended; run "
                "the same make_shards command again, or name the shards that are wanted"
            )


def _shards_in(path: Location) -> list[Location]:
    """The shards that lie in a folder, hidden files left out; none where it is no folder."""
    names = list_names(path) if is_folder(path) else []
    return natural(path / name for name in names if is_shard(name) and not name.startswith("."))


def _more(tars: Sequence[Location], name: str) -> str:
    """What the ending of a set's shards has beyond .tar."""
    first = next((tar for tar in tars if set_name(tar.name) == name), None)
    return ".zst" if first is not None and is_compressed(first.name) else ""


def _glob(text: str) -> list[Location]:
    try:
        found = [Location(name) for name in glob.glob(text, recursive=True)]
    except ValueError:  # a sign that no file name can hold
        found = []
    tars = natural(path for path in found if is_shard(path.name))
    if not tars:
        what = (
            f"matches {len(found)} files, none a .tar or .tar.zst" if found else "matches nothing"
        )
        raise SpecError(f"{text}: the pattern {what}")
    _refuse_unfinished(tars)
    return tars


def _range(text: str) -> list[Location]:
    pieces: list[list[str]] = []
    at, count = 0, 1
    for match in _RANGE.finditer(text):
        choices = _choices(text, match)
        count *= len(choices)
        if count > MAX_FILES:
            raise SpecError(f"{text}: names more than {MAX_FILES:,} files")
        pieces += [[text[at : match.start()]], choices]
        at = match.end()
    pieces.append([text[at:]])
    files = [Location("".join(parts)) for parts in itertools.product(*pieces)]
    _all_there(text, files)
    for file in files:
        if not is_shard(file.name):
            raise SpecError(f"{text}: {file} is no .tar or .tar.zst")
    return files


def _choices(text: str, match: re.Match[str]) -> list[str]:
    first, last = match[1] or match[3], match[2] or match[4]
    if first is None:
        return match[5].split(",")
    start, stop = int(first), int(last)
    if stop < start:
        raise SpecError(f"{text}: the range {match[0]} runs backwards; slice with [::-1] for that")
    if stop - start >= MAX_FILES:
        raise SpecError(f"{text}: names more than {MAX_FILES:,} files")
    padded = any(len(bound) > 1 and bound[0] == "0" for bound in (first, last))
    width = max(len(first), len(last)) if padded else 1
    return [f"{number:0{width}d}" for number in range(start, stop + 1)]


def join(files: Sequence[Location]) -> str:
    """A spec that names exactly these files."""
    texts = [file.text for file in files]
    if len(texts) == 1:
        return texts[0]
    start = _common(texts)
    end = _common([text[len(start) :][::-1] for text in texts])[::-1]
    inner = [text[len(start) : len(text) - len(end)] for text in texts]
    return start + "{" + ",".join(inner) + "}" + end


def _common(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    for at, sign in enumerate(first):
        if at >= len(last) or last[at] != sign:
            return first[:at]
    return first


def _manifests(
    files: Sequence[Location], named: Mapping[Location, Manifest]
) -> dict[Location, Listed]:
    """What the manifest of each file says of it: the one that was named, else that of its set
    beside it. Raises ShardError for one that is damaged, or does not list a shard of its set."""
    found: dict[Location, Listed] = {}
    known: dict[Location, dict[str, Listed]] = {}
    for file in files:
        path, manifest = file.sibling(f"{set_name(file.name)}.json"), named.get(file)
        if manifest is None and path not in known:
            manifest = read_manifest(path) if is_file(path.path) and is_manifest(path) else None
        if path not in known:
            shards = manifest.shards if manifest else ()
            known[path] = {info.file: Listed(manifest, info) for info in shards if manifest}
        listed = known[path].get(file.name)
        if listed is not None:
            found[file] = listed
        elif known[path]:
            raise ShardError(
                str(file),
                f"is not in the manifest {path} of its set",
                remedy="move it into another folder, or leave it out",
            )
    return found


def _absolute(file: Location) -> str:
    """One text for one file, however it was written."""
    return file.text if file.scheme else os.path.abspath(file)


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
