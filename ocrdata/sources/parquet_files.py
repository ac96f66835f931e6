"""Parquet files on this machine: a file, a folder of them, or a pattern.

The columns decide how a row is read, by the rules for records with the same fields: `messages`,
`conversations` or `texts`, or a question and an answer (`ocrdata.sources.annotations`), with images
in a column of a usual name (`conversations.IMAGE_FIELDS`). Types are checked before a row is read.

Files are in the order of their names, numbers by their value. Memory holds one row and one page per
column, see `ocrdata.sources.parquet`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import xxhash

from ocrdata.errors import RejectedRow, ShardError, SourceError, UsageError
from ocrdata.sample import Sample
from ocrdata.shards.names import natural
from ocrdata.sources.annotations import ANSWERS, QUESTIONS, AnnotationFormat
from ocrdata.sources.base import ROW_BYTES, attempt, safe_name
from ocrdata.sources.columns import has_bytes
from ocrdata.sources.conversations import IMAGE_FIELDS, OTHER_MEDIA, Image
from ocrdata.sources.image_files import ImageFolder, digest_of_files, is_data_url
from ocrdata.sources.image_folder import list_files
from ocrdata.sources.parquet import ParquetRows
from ocrdata.sources.shapes import ANSWER, ANYTHING, IMAGES, MESSAGES, PAIRS, TEXT, Shape, has_parts
from ocrdata.sources.table_rows import only_bytes, records, row_images, without_nulls
from ocrdata.storage.files import open_regular
from ocrdata.storage.location import Location

CONVERSATIONS = {"messages": MESSAGES, "conversations": MESSAGES, "texts": PAIRS}
"""Columns that hold a whole conversation. The first that exists is used."""

SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
CHUNK_BYTES = 1 << 20
FIRST_ROWS = 32
"""Rows that are searched for the first image."""

SIZED_GROUPS = 8
"""Row groups of which a few images are read to estimate the size of all."""


class ParquetSource:
    """The rows of Parquet files. `images` is the folder for names of images (default: that of the
    files), `image` the column of the images, if it has no usual name. In a table whose first image
    is bytes, names are not looked up: a row without bytes is rejected.

    Raises UsageError if there are no files or no conversation, SourceError if a file cannot be read
    or a column has a type that does not fit.
    """

    content = ("files", "bytes", "xxh3_128", "images_xxh3_128")

    def __init__(
        self, path: Path, form: AnnotationFormat, *, images: Path | None = None, image: str = ""
    ) -> None:
        files = LocalFiles(path)
        folder = files.folder if images is None else images
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder (--images)")
        self.name = default_name(path)
        self._path, self._files, self._form, self._folder = path, files, form, folder
        self._column = image
        footers = ParquetRows(files, {}).footers()
        columns = {f.name: f.type for footer in reversed(footers) for f in footer.schema}
        self._columns = _image_columns(columns, image)
        self._whole = ""
        if not (form.question or form.answer):
            self._whole = next((name for name in CONVERSATIONS if name in columns), "")
        shapes = self._shapes(columns)
        self._table = ParquetRows(files, shapes, footers=footers)
        self._table.groups()
        used = [
            field
            for footer in footers
            for field in footer.schema
            if field.name in self._columns or field.name == self._whole
        ]
        self._has_bytes = any(has_bytes(field.type) for field in used)
        self._has_names = (
            self._begins_with_names()
            if self._has_bytes
            else any(field.name in self._columns or has_parts(field.type) for field in used)
        )

    def _begins_with_names(self) -> bool:
        """Whether the first image is only a name, in columns that could hold its bytes: `datasets`
        writes images that it found in files so, unless it is told to embed them."""
        for _, row in self._table.rows(0, min(self.count(), FIRST_ROWS)):
            with suppress(RejectedRow):
                images, _ = row_images({} if isinstance(row, RejectedRow) else row, self._columns)
                if images:
                    return isinstance(images[0], str) and not is_data_url(images[0])
        return False

    def _shapes(self, columns: Mapping[str, pa.DataType]) -> dict[str, Shape]:
        """What the columns that are used have to be."""
        form = self._form
        shapes = dict.fromkeys(self._columns, IMAGES)
        shapes.update((name, ANYTHING) for name in OTHER_MEDIA if name in columns)
        for flag, name in (("image", self._column), *_named(form)):
            if name and name not in columns:
                raise UsageError(
                    f"{self._path}: no column {name!r} (--{flag}); it has {_listed(columns)}"
                )
        if self._whole:
            return {**shapes, self._whole: CONVERSATIONS[self._whole]}
        question = form.question or next((name for name in QUESTIONS if name in columns), "")
        answer = form.answer or next((name for name in ANSWERS if name in columns), "")
        if not answer:
            raise UsageError(
                f"{self._path}: no column of a usual name holds a conversation or an answer; name "
                f"one with --answer (and --question); it has {_listed(columns)}"
            )
        if question:
            shapes[question] = TEXT
        return {**shapes, answer: ANSWER}

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The files by their content, images that are files by their names and sizes."""
        return {
            "format": "parquet",
            "origin": self.name,
            **self._files.digest,
            **({"images_xxh3_128": self._images_digest} if self._has_names else {}),
            **{name: value for name, value in vars(self._form).items() if value},
            **({"image": self._column} if self._column else {}),
            "licence": "unknown",
        }

    @cached_property
    def _images_digest(self) -> str:
        return digest_of_files(self._image_files())

    def _image_files(self) -> Iterator[tuple[str, Path]]:
        """Name and path of each image that a row names."""
        folder = ImageFolder(self._folder)
        named: list[tuple[str, Path]] = []

        def note(image: Image) -> bytes:
            if isinstance(image, str) and not is_data_url(image):
                named.append((image, folder.find(image)))
            return b""

        for _, row in self._table.rows(0, self.count()):
            named.clear()
            with suppress(RejectedRow):
                if not isinstance(row, RejectedRow):
                    self._make(row, note)
            yield from named

    def count(self) -> int:
        """Rows in all files."""
        return self._table.count()

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards."""
        files = self._mean_file_bytes() if self._has_names else 0.0
        return self._table.size(start, stop) + round((files + ROW_BYTES) * (stop - start))

    def _mean_file_bytes(self) -> float:
        """Bytes of a row's image files, from rows that are the first of their row group: to reach
        another takes as long as to read all rows before it."""
        groups = self._table.groups()
        first = groups[:: max(1, len(groups) // SIZED_GROUPS)]
        rows = [row for group in first for _, row in self.rows(group.start, group.start + 4)]
        sizes = [sum(map(len, row.images)) for row in rows if isinstance(row, Sample)]
        return sum(sizes) / max(1, len(sizes))

    def notes(self) -> Sequence[str]:
        """Columns, and values in the names of folders, that are left out."""
        remedy = "; name a column of images with --image"
        lost = [note + ("" if self._columns else remedy) for note in self._table.notes()]
        return [*lost, *self._files.notes()]

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`; no row group before that of `start` is read."""
        return attempt(self._table.rows(start, stop), lambda row: self._make(row, self._read))

    def _make(self, row: Mapping[str, Any], read: Callable[[Image], bytes]) -> Sample:
        if self._whole and row[self._whole] is None:
            raise RejectedRow(f"{self._whole} is null")
        images, names = row_images(row, self._columns)
        inside = self._has_bytes or any(isinstance(i, str) and is_data_url(i) for i in images)
        record = {
            name: without_nulls(records(value, name)) if name == self._whole else value
            for name, value in row.items()
            if value is not None and not (inside and name in self._columns)
        }
        sample = self._form.sample(record, images, read, origin=self.name)
        if names:
            sample.meta["image_paths"] = names
        return sample

    def _read(self, image: Image) -> bytes:
        if self._has_names or (isinstance(image, str) and is_data_url(image)):
            return ImageFolder(self._folder).read(image)
        return only_bytes(image)


class LocalFiles:
    """Files for `ParquetRows`, by their paths. Raises UsageError if there are none."""

    def __init__(self, path: Path) -> None:
        self.folder, self._names = _find(path)
        self._states = {}
        for name in self._names:
            with _open(self.folder / name) as file:
                self._states[str(self.folder / name)] = _state(file)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files in the order of their rows."""
        return tuple(self._states)

    def open(self, path: str) -> BinaryIO:
        """One of the files. Raises SourceError if it has changed."""
        file = _open(Path(path))
        if _state(file) != self._states[path]:
            file.close()
            raise SourceError(f"{path}: the file has changed since its rows were counted")
        return file

    @cached_property
    def digest(self) -> dict[str, Any]:
        """Number, size, and a digest of the names and contents of all files."""
        digest = xxhash.xxh3_128()
        for name, path in zip(self._names, self.paths, strict=True):
            size, _ = self._states[path]
            digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogatepass"))
            with self.open(path) as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
        total = sum(size for size, _ in self._states.values())
        return {"files": len(self._states), "bytes": total, "xxh3_128": digest.hexdigest()}

    def notes(self) -> list[str]:
        """One line if folders are named after values: `lang=de/0.parquet`."""
        found = {part for name in self._names for part in Path(name).parent.parts if "=" in part}
        first = min(found, default="")
        return [f"values in names of folders are left out, such as {first}"] if found else []


def default_name(path: Path) -> str:
    """The name of the shards: of the file, or of the folder of the files."""
    if glob.has_magic(str(path)) and not path.exists():
        plain = [part for part in path.absolute().parts if not glob.has_magic(part)]
        return safe_name(plain[-1])
    return safe_name(path.stem if path.is_file() else path.absolute().name)


def _find(path: Path) -> tuple[Path, list[str]]:
    """The folder that a path means, and its files as paths from it, in natural order."""
    if path.is_dir():
        names = [name for name in list_files(path) if name.lower().endswith(".parquet")]
        if not names:
            raise UsageError(f"{path}: no .parquet file in this folder")
        _check_splits(path, names)
        return path, names
    if glob.has_magic(str(path)) and not path.exists():
        places = [Location(place) for place in glob.glob(str(path), recursive=True)]
        found = [place.path for place in natural(places) if place.path.is_file()]
        if not found:
            raise UsageError(f"{path}: no file matches this pattern")
        folder = Path(os.path.commonpath([file.parent for file in found]))
        return folder, [str(file.relative_to(folder)) for file in found]
    if not path.is_file():
        raise UsageError(f"{path}: no such file or folder")
    return path.parent, [path.name]


def _check_splits(folder: Path, names: Sequence[str]) -> None:
    """Raises UsageError if files are of several splits: validation data must not be trained on."""
    found: dict[str, list[str]] = {}
    for name in names:
        words = re.split("[^a-z]+", name.lower())
        split = next((word for word in words if word in SPLITS), "")
        found.setdefault(split, []).append(name)
    if len(found.keys() - {""}) > 1:
        said = ", ".join(f"{len(of)} of {split or 'none'}" for split, of in sorted(found.items()))
        raise UsageError(
            f"{folder}: has files of several splits: {said}; choose one with a pattern, such as "
            f"--path '{folder / '**' / '*train*.parquet'}'"
        )


def _state(file: BinaryIO) -> tuple[int, int]:
    """Size and time of modification: another one means another content."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _open(path: Path) -> BinaryIO:
    try:
        return open(open_regular(path), "rb")
    except ShardError as exc:
        raise SourceError(f"{path}: not a regular file") from exc
    except OSError as exc:
        raise SourceError(f"{path}: {exc.strerror}") from exc


def _image_columns(columns: Mapping[str, pa.DataType], image: str) -> dict[str, str]:
    """The columns with images, and the field that each stands for."""
    return {image: "image"} if image else {name: name for name in IMAGE_FIELDS if name in columns}


def _named(form: AnnotationFormat) -> Iterator[tuple[str, str]]:
    yield from (("question", form.question), ("answer", form.answer))


def _listed(columns: Mapping[str, pa.DataType]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(columns.items()))[:600]
