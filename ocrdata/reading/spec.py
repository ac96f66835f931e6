"""Resolves shard specs, the way to name shards in commands and settings, to files.

A spec is a shard (.tar or .tar.zst), a range `NAME-<000..017>.tar` (or `{000..017}`, `{a,b}`), a
glob, a folder or a manifest, optionally followed by one slice `[start:stop:step]`. A path that
exists as written is never interpreted further. At a URL nothing is listed: there the manifest is
required, and a shard or a range is looked up in it. Several specs form one set. One slice applies
to the whole set: it follows the last spec, or is repeated after each (a shell expands an unquoted
`x-{000..001}.tar[:9]` to `x-000.tar[:9] x-001.tar[:9]`). With shards of more than one set a slice
is ambiguous, and an error.
"""

from __future__ import annotations

import difflib
import glob
import itertools
import logging
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ocrdata.errors import ShardError, SpecError, TransportError
from ocrdata.reading.slices import parse_slice, split_slice
from ocrdata.shards.manifest import (
    Manifest,
    ShardInfo,
    is_manifest,
    is_other_json,
    read_manifest,
)
from ocrdata.shards.names import (
    COMPRESSED,
    PLAIN,
    is_shard,
    natural,
    set_location,
    set_name,
    shard_number,
    shard_stem,
)
from ocrdata.shards.ranges import expand_ranges, has_range
from ocrdata.storage.file import is_folder, list_names
from ocrdata.storage.files import can_be_a_path, exists, is_file
from ocrdata.storage.hub_urls import pinned
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.stores import check_scheme

_BESIDE_A_SHARD = re.compile(r"(.+)\.(?:index|tokens-[0-9a-f]+)\.parquet")
_BESIDE_A_MANIFEST = re.compile(r"(.+)\.tokens-[0-9a-f]+\.json")

_log = logging.getLogger(__name__)


class Listed(NamedTuple):
    """The manifest that lists a shard, and its entry for that shard."""

    manifest: Manifest
    info: ShardInfo


@dataclass(frozen=True)
class Resolved:
    """What a spec resolves to: its files in order, the slice of their samples (or None), the
    manifest entries of the files that have one, and `base`, the spec without its slice and without
    the secrets of a URL."""

    files: tuple[Location, ...]
    slice: slice | None
    listed: Mapping[Location, Listed]
    base: str

    @property
    def manifest(self) -> Manifest | None:
        """The manifest that lists all of the files, or None."""
        found = {id(listed.manifest): listed.manifest for listed in self.listed.values()}
        all_listed = len(found) == 1 and len(self.listed) == len(self.files)
        return next(iter(found.values())) if all_listed else None


def resolve(spec: LocationLike | Sequence[LocationLike]) -> Resolved:
    """Find the shards a spec names. Raises SpecError, and ShardError for a corrupted manifest."""
    items = [spec] if isinstance(spec, (str, os.PathLike)) else list(spec)
    texts = [Location.of(item).text for item in items]
    if not texts:
        raise SpecError("no shards given")
    split = [(_pinned(base), cut) for base, cut in map(split_slice, texts)]
    slice_text = _common_slice(texts, split)
    found = [_find(base) for base, _ in split]
    files = tuple(itertools.chain.from_iterable(names for names, _ in found))
    absolute = [str(file) if file.scheme else os.path.abspath(file) for file in files]
    twice = _first_repeated(absolute)
    if twice is not None:
        raise SpecError(f"{' '.join(texts)}: {twice} is given twice")
    stem = _first_repeated(map(shard_stem, absolute))
    if stem is not None:
        raise SpecError(
            f"{' '.join(texts)}: {stem}.tar and .tar.zst would share one index; use one of them, "
            "and move the other to another folder"
        )
    base = str(Location(split[0][0])) if len(split) == 1 else join(files)
    named = {file: manifest for names, manifest in found if manifest for file in names}
    return Resolved(files, parse_slice(texts[-1], slice_text), _manifests(files, named), base)


def separate(specs: Sequence[str]) -> list[list[str]]:
    """The sets that several specs name, each with its own slice, as lists of specs to resolve.

    A spec is a set of its own. Only numbered shards of one set, named one by one as by a shell that
    expands braces, are together, with one slice: the same after each of them, or at the end.
    """
    sets: dict[Location | int, list[str]] = {}
    for number, text in enumerate(specs):
        base = Location(split_slice(text)[0])
        numbered = shard_number(base.name) is not None
        sets.setdefault(set_location(base) if numbered else number, []).append(text)
    found = []
    for texts in sets.values():
        slices = [split_slice(text)[1] for text in texts]
        one_slice = len(set(slices)) == 1 or not any(slices[:-1])
        found += [texts] if one_slice else [[text] for text in texts]
    return found


def _common_slice(texts: Sequence[str], split: Sequence[tuple[str, str | None]]) -> str | None:
    """The slice that applies to all specs, or None. Raises SpecError if that is ambiguous."""
    slices = [found for _, found in split]
    locations = [Location(base) for base, _ in split]
    sets = {set_location(one) if is_shard(one.name) else one for one in locations}
    if len(sets) > 1 and any(slices):
        raise SpecError(
            f"{' '.join(texts)}: a slice applies to one shard set, but these are {len(sets)}; drop "
            "the slice, or combine the shards into one set"
        )
    if len(set(slices)) == 1 or all(text is None for text in slices[:-1]):
        return slices[-1]
    other = next(text for text, found in zip(texts, slices, strict=True) if found != slices[-1])
    raise SpecError(
        f"{other} and {texts[-1]}: several shards form one set with one slice; "
        "write the slice once, at the end"
    )


def _find(text: str) -> tuple[list[Location], Manifest | None]:
    """The shards that one spec without a slice names, and their manifest if the spec named one."""
    location = Location(text)
    if location.scheme:
        return _at_url(location)
    if not text or not can_be_a_path(text):
        raise SpecError(f"{text!r} is not a valid shard spec")
    if exists(text):
        return _existing(location)
    if has_range(text):
        return _range(text), None
    if any(character in text for character in "*?["):
        return _glob(text), None
    raise SpecError(f"{text}: no such file or folder{_hint(location)}")


def _pinned(text: str) -> str:
    """A spec at the hub names the commit that its revision is now; others stay as they are."""
    return pinned(Location(text)).text if Location(text).scheme == "hf" else text


def _at_url(location: Location) -> tuple[list[Location], Manifest]:
    """The shards that a spec at a URL names, as its manifest lists them."""
    check_scheme(location)
    if location.name.endswith(".json"):
        manifest = read_manifest(location)
        files = [location.sibling(shard.file) for shard in manifest.shards]
        if not files:
            raise SpecError(f"{location}: the manifest lists no shards")
        return files, manifest
    if not is_shard(location.name):
        raise SpecError(
            f"{location}: at a URL, name the manifest of the shards (.../NAME.json), a shard or a "
            "range of them; nothing is listed there"
        )
    files = [Location(one) for one in expand_ranges(location.text)]
    manifest_file = files[0].sibling(f"{set_name(files[0].name)}.json")
    try:
        manifest = read_manifest(manifest_file)
    except TransportError as exc:
        raise type(exc)(
            exc.shard,
            f"{exc.detail}, the manifest of {location.name}",
            remedy=exc.remedy or "shards at a URL need the manifest of their set beside them",
        ) from exc
    listed = {shard.file for shard in manifest.shards}
    missing = [file.name for file in files if file.name not in listed]
    if missing:
        raise SpecError(
            f"{location}: {len(missing)} of {len(files)} shards are not in the manifest "
            f"{manifest_file}, which lists {len(listed):,}: {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        )
    return files, manifest


def _hint(missing: Location) -> str:
    for ending in (".tar", ".tar.zst", ".zst", ".json"):
        if missing.name and exists((other := missing.sibling(missing.name + ending)).text):
            return f"; did you mean {other}?"
    siblings = _shards_in(missing.folder)
    manifests = dict.fromkeys(f"{set_location(shard).name}.json" for shard in siblings)
    known = [name for name in manifests if exists(missing.sibling(name).text)]
    known += [shard.name for shard in siblings]
    if near := difflib.get_close_matches(missing.name, known, 1):
        return f"; did you mean {missing.sibling(near[0])}?"
    if siblings:
        shards = "1 shard" if len(siblings) == 1 else f"{len(siblings):,} shards"
        return f"; {missing.folder} has {shards}, the first is {siblings[0].name}"
    return ""


def _existing(location: Location) -> tuple[list[Location], Manifest | None]:
    if is_folder(location):
        return _folder(location)
    if beside := _BESIDE_A_MANIFEST.fullmatch(location.name):
        raise SpecError(
            f"{location}: lists the token counts of a set; name its manifest, "
            f"{location.sibling(beside[1] + '.json')}"
        )
    if location.name.endswith(".json"):
        manifest = read_manifest(location)
        return _listed(location, manifest), manifest
    if is_shard(location.name):
        return [location], None
    raise SpecError(f"{location}: {_what_it_is(location)}")


def _what_it_is(file: Location) -> str:
    """Why a file that is no shard cannot be read as one, and what to do."""
    if file.name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")):
        return "the only compressed tars supported are .tar.zst; decompress it first"
    if (beside := _BESIDE_A_SHARD.fullmatch(file.name)) is not None:
        shards = [file.sibling(beside[1] + ending) for ending in (PLAIN, COMPRESSED)]
        shard = next((one for one in shards if exists(one.text)), shards[0])
        return f"lies beside a shard and describes it; name the shard itself, {shard}"
    return (
        "not a shard (.tar, .tar.zst), a manifest (.json) or a folder of them; to convert rows of "
        "your own, see python tools/make_shards.py --help"
    )


def _listed(manifest_file: Location, manifest: Manifest) -> list[Location]:
    files = [manifest_file.sibling(shard.file) for shard in manifest.shards]
    if not files:
        raise SpecError(f"{manifest_file}: the manifest lists no shards")
    _check_exist(str(manifest_file), files)
    return files


def _check_exist(spec: str, files: Sequence[Location]) -> None:
    missing = [file for file in files if not is_file(file)]
    if missing:
        names = ", ".join(str(file) for file in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SpecError(
            f"{spec}: {len(missing)} of {len(files)} shards are missing: {names}{more}; "
            + (
                f"there is {other}: write its ending in the range"
                if (other := _other_form(missing[0]))
                else "make or copy them, or name only those there are"
            )
        )


def _other_form(shard: Location) -> Location | None:
    """The same shard compressed, or not, if it lies there."""
    stem = shard.name.removesuffix(COMPRESSED).removesuffix(PLAIN)
    other = shard.sibling(stem + (PLAIN if shard.name.endswith(COMPRESSED) else COMPRESSED))
    return other if is_file(other) else None


def _folder(folder: Location) -> tuple[list[Location], Manifest | None]:
    tars: dict[str, list[Location]] = {}
    for tar in _shards_in(folder):
        tars.setdefault(set_name(tar.name), []).append(tar)
    manifests = {
        stem: folder / name
        for name in list_names(folder)
        if name.endswith(".json")
        and not (name.startswith(".") or _BESIDE_A_MANIFEST.fullmatch(name))
        for stem in [name.removesuffix(".json")]
        if is_manifest(folder / name) or (stem in tars and not is_other_json(folder / name))
    }
    sets = sorted(tars.keys() | manifests.keys())
    if not sets:
        raise SpecError(f"{folder}: the folder contains no .tar, no .tar.zst and no manifest")
    complete = [name for name in sets if not (name in tars and _is_unfinished(tars[name][0]))]
    if len(complete) > 1:
        listed = ", ".join(name or "numbers only" for name in complete[:5])
        more = f" and {len(complete) - 5} more" if len(complete) > 5 else ""
        first = complete[0]
        one = str(manifests[first]) if first in manifests else _spec_of(tars[first])
        raise SpecError(
            f"{folder}: the folder contains {len(complete)} shard sets ({listed}{more}); name one, "
            f"as in {one}"
        )
    if not complete:
        _refuse_unfinished(tars[sets[0]])
    (name,) = complete
    if left_out := [one for one in sets if one != name]:
        _log.warning("%s: %s left out, not converted completely", folder, ", ".join(left_out))
    if name in manifests:
        manifest = read_manifest(manifests[name])
        return _listed(manifests[name], manifest), manifest
    return tars[name], None


def _spec_of(tars: Sequence[Location]) -> str:
    """A spec of the shards of one set that can be typed as it is, also in a shell: one shard, or a
    range; the first shard where some are missing."""
    first, last = tars[0].text, tars[-1].text
    start, end = _common([first, last]), _common([first[::-1], last[::-1]])[::-1]
    # The numbers in whole: x-008 and x-011 have more in common than their name.
    start = start.rstrip("0123456789")
    end = end.lstrip("0123456789")
    spec = f"{start}{{{first[len(start) : -len(end)]}..{last[len(start) : -len(end)]}}}{end}"
    if len(tars) == 1 or not has_range(spec) or expand_ranges(spec) != [tar.text for tar in tars]:
        return shlex.quote(first)
    return spec if shlex.quote(start + end) == start + end else shlex.quote(spec)


def _is_unfinished(tar: Location) -> bool:
    """Whether the set of a shard is still being converted, or its conversion was killed."""
    name = set_name(tar.name)
    return (
        bool(name)
        and is_folder(tar.sibling(f".{name}.making"))
        and not exists(tar.sibling(f"{name}.json").text)
    )


def _refuse_unfinished(tars: Sequence[Location]) -> None:
    """Raise SpecError for a set that is still being written: a folder or glob means all of it."""
    for name, tar in sorted({set_location(tar): tar for tar in tars}.items()):
        if _is_unfinished(tar):
            raise SpecError(
                f"{name.folder}: {name.name} is incomplete, its conversion has not finished; run "
                "the same make_shards command again, or name the shards to use one by one"
            )


def _shards_in(folder: Location) -> list[Location]:
    """The shards in a folder, without hidden files; none if it is not a folder."""
    names = list_names(folder) if is_folder(folder) else []
    return natural(folder / name for name in names if is_shard(name) and not name.startswith("."))


def _glob(text: str) -> list[Location]:
    found = [Location(name) for name in glob.glob(text, recursive=True)]
    tars = natural(location for location in found if is_shard(location.name))
    if not tars:
        problem = (
            f"matches {len(found)} files, none a .tar or .tar.zst" if found else "matches no files"
        )
        raise SpecError(f"{text}: the pattern {problem}")
    _refuse_unfinished(tars)
    return tars


def _range(text: str) -> list[Location]:
    files = [Location(name) for name in expand_ranges(text)]
    _check_exist(text, files)
    for file in files:
        if not is_shard(file.name):
            raise SpecError(f"{text}: {file} is not a .tar or .tar.zst")
    return files


def join(files: Sequence[Location]) -> str:
    """A spec that resolves to exactly these files."""
    texts = list(map(str, files))
    if len(texts) == 1:
        return texts[0]
    start = _common(texts)
    end = _common([text[len(start) :][::-1] for text in texts])[::-1]
    inner = [text[len(start) : len(text) - len(end)] for text in texts]
    return start + "{" + ",".join(inner) + "}" + end


def _common(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    for at, character in enumerate(first):
        if at >= len(last) or last[at] != character:
            return first[:at]
    return first


def _manifests(
    files: Sequence[Location], named: Mapping[Location, Manifest]
) -> dict[Location, Listed]:
    """The manifest entry of each file: from the manifest the spec named, else from that of its
    set in the same folder. Raises ShardError for a corrupted manifest, or one that does not list
    a shard of its set."""
    found: dict[Location, Listed] = {}
    known: dict[Location, dict[str, Listed]] = {}
    for file in files:
        manifest_file = file.sibling(f"{set_name(file.name)}.json")
        if manifest_file not in known:
            manifest = named.get(file)
            if manifest is None and not file.scheme and is_manifest(manifest_file):
                manifest = read_manifest(manifest_file)
            shards = manifest.shards if manifest else ()
            known[manifest_file] = {one.file: Listed(manifest, one) for one in shards if manifest}
        listed = known[manifest_file].get(file.name)
        if listed is not None:
            found[file] = listed
        elif known[manifest_file]:
            raise ShardError(
                str(file),
                f"is not listed in the manifest {manifest_file} of its set",
                remedy="move it to another folder, or leave it out",
            )
    return found


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
