"""The shard sets that a new one is made of, and the identity of each of their samples.

A sample is known by the name of its set, its shard file and its key. Two inputs in which these
would mean different samples are refused, and so is a sample that is given twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import xxhash

from ocrdata.errors import ShardError, UsageError
from ocrdata.reading.slices import split_slice
from ocrdata.reading.spec import separate
from ocrdata.reading.view import Shards, open_shards
from ocrdata.shards.arrow import Int64
from ocrdata.shards.names import set_location
from ocrdata.storage.files import exists
from ocrdata.storage.hub_urls import hub_file
from ocrdata.storage.location import Location

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_-]*)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class InputSet:
    """One input: what opens it, and what it held when it was opened first. `renamed` says that it
    was given its name here; `view` is its spec without folders; `manifest` is the digest of its
    manifest, "" where none lists all of its shards; `checked` says that the conversion which wrote
    the manifest decoded all images and found none to be damaged."""

    name: str
    renamed: bool
    specs: tuple[str, ...]
    view: str
    samples: int
    digest: str
    manifest: str
    licence: str
    checked: bool

    def open(self) -> Shards:
        """Open it again. Raises ShardError if it is no longer what it was, and as `open_shards`."""
        shards = open_shards(self.specs)
        if shards.digest != self.digest:
            raise ShardError(
                shards.spec,
                "the samples are others than when this command began",
                remedy="do not change a set that is being read; run the command again",
            )
        return shards

    @property
    def argument(self) -> str:
        """What names it on a command line, without the folder."""
        return f"{self.name}={self.view}" if self.renamed else self.view

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the manifest of the new set says of the content of this one."""
        return {
            "name": self.name,
            "samples": self.samples,
            "digest": self.digest,
            **({"manifest": self.manifest} if self.manifest else {}),
            "licence": self.licence,
        }


@dataclass(frozen=True)
class Inputs:
    """Several inputs, whose samples are numbered through: those of the first input first."""

    sets: tuple[InputSet, ...]

    @cached_property
    def _starts(self) -> Int64:
        """The number of each input's first sample, and the number of all samples."""
        return np.array([*accumulate((one.samples for one in self.sets), initial=0)], np.int64)

    def owners(self, positions: Int64) -> Int64:
        """The number of the input of each position."""
        return np.searchsorted(self._starts, positions, side="right") - 1

    def locate(self, position: int) -> tuple[InputSet, int]:
        """The input of a position, and the position in it."""
        number = int(self.owners(np.array([position]))[0])
        return self.sets[number], position - int(self._starts[number])

    @property
    def samples(self) -> int:
        """Samples of all inputs."""
        return sum(one.samples for one in self.sets)

    @property
    def licence(self) -> str:
        """The licences of all inputs."""
        return ", ".join(dict.fromkeys(one.licence or "unknown" for one in self.sets))


def open_inputs(texts: Sequence[str]) -> tuple[Inputs, list[Shards]]:
    """Open the sets that `texts` name, each a spec or NAME=SPEC; shards of one set that are given
    one by one are one input.

    Raises UsageError if a sample is named twice, or two samples have the same names; and as
    `open_shards`.
    """
    grouped = _grouped(texts)
    views = [open_shards(specs) for _, specs in grouped]
    sets = tuple(
        _input_set(name, specs, shards)
        for (name, specs), shards in zip(grouped, views, strict=True)
    )
    _check_distinct([one.name for one in sets], views)
    return Inputs(sets), views


def _input_set(name: str, specs: Sequence[str], shards: Shards) -> InputSet:
    manifest = shards.shard_set.manifest
    # At the hub a spec names a branch, and the view's the commit that it was when it was opened.
    pinned = [shards.spec] if Location(specs[0]).scheme == "hf" else specs
    return InputSet(
        name=name or shards.source_name,
        renamed=bool(name),
        specs=tuple(pinned),
        view=_without_folder(shards.spec),
        samples=len(shards),
        digest=shards.digest,
        manifest=manifest.digest if manifest else "",
        licence=manifest.licence if manifest else "",
        checked=manifest is not None and manifest.totals.get("damaged_jpegs") == 0,
    )


def _grouped(texts: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Name, or "", and specs of each input."""
    plain = [text for text in texts if _name_of(text) is None]
    groups = separate(plain)
    found: list[tuple[str, list[str]]] = []
    for text in texts:
        if (name := _name_of(text)) is not None:
            found.append((name, [text[len(name) + 1 :]]))
        elif (group := next((one for one in groups if one[0] == text), None)) is not None:
            groups.remove(group)
            found.append(("", group))
    return found


def _name_of(text: str) -> str | None:
    """'a=x.json' -> 'a'; None for a spec alone, also for a path with an '=' in it."""
    match = _NAMED.fullmatch(text)
    return None if match is None or exists(split_slice(text)[0]) else match[1]


def _without_folder(spec: str) -> str:
    """A spec for a manifest: the part after the last folder; of a URL without its secrets."""
    base, part = split_slice(spec)
    return Location(base).name + (f"[{part}]" if part else "")


def _check_distinct(names: Sequence[str], views: Sequence[Shards]) -> None:
    """Raise UsageError if set, shard and key do not identify each sample of all inputs."""
    parts: dict[tuple[str, str], list[tuple[str, str, range | Int64]]] = {}
    for name, view in zip(names, views, strict=True):
        for _, number, locals_ in view.stretches():
            entry = view.shard_set.shards[number]
            part = (view.spec, entry.rows_digest, locals_)
            parts.setdefault((name, entry.location.name), []).append(part)
    for (name, file), found in parts.items():
        if len(found) == 1:
            continue
        specs = " and ".join(dict.fromkeys(spec for spec, _, _ in found))
        if len({digest for _, digest, _ in found}) > 1:
            raise UsageError(
                f"{specs}: both sets are called {name} and have a {file}, with other samples; give "
                f"one another name, as in {name}-2={found[1][0]}"
            )
        positions = np.concatenate([np.asarray(locals_) for _, _, locals_ in found])
        if twice := len(positions) - len(np.unique(positions)):
            raise UsageError(
                f"{specs}: {twice:,} samples of {file} are given twice; let the slices not overlap"
            )


def refuse_as_output(output: Location, views: Sequence[Shards]) -> None:
    """Raise UsageError if a set of shards to be written, FOLDER/NAME, is one of those to be
    read."""
    for view in views:
        for shard in view.shard_set.shards:
            if _is_same(set_location(shard.location), output):
                raise UsageError(
                    f"{output}: this set is read ({view.spec}) and cannot be written at the same "
                    "time; choose another --out or --name"
                )


def _is_same(one: Location, other: Location) -> bool:
    if one.scheme == other.scheme == "hf":  # written to a branch, read at a commit of it
        return hub_file(one)._replace(revision="") == hub_file(other)._replace(revision="")
    if one.scheme or other.scheme:
        return str(one) == str(other)
    return one.path.resolve() == other.path.resolve()


def positions_digest(positions: Int64) -> str:
    """Identifies the samples chosen among all of the inputs, and their order."""
    return str(xxhash.xxh3_128_hexdigest(np.ascontiguousarray(positions, "<i8").data))
