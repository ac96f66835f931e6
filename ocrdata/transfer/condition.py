"""The condition of `--where`: an SQL expression over the index and the meta of samples.

DuckDB parses and evaluates it, and nothing else does; it may read no file, and no table but that of
the samples. Comparisons with null (no image, a field that is missing or null) are null, as in SQL,
and a sample is chosen only where the condition is true.

A field of the meta has one type in all samples: whole numbers, numbers, booleans or text; lists and
objects are JSON. Where samples differ, it is text. No sample is judged under a narrower type than
the others: where one shows that the type must be wider, `TypeWidened` asks to begin again.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ocrdata.errors import UsageError
from ocrdata.shards.index import IndexRow

SQL_RULE = "sql-1"
"""Recorded in the provenance: another rule needs another name."""

Mask = npt.NDArray[np.bool_]
Path = tuple[str, ...]
"""The name of a column, or the names that lead to a field of the meta: ("meta", "page", "size")."""

META = "meta"
COLUMNS = {
    "key": pa.string(),
    "size": pa.int64(),
    "turns": pa.int32(),
    "source": pa.string(),
    "images": pa.int32(),
    "format": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "formats": pa.list_(pa.string()),
    "widths": pa.list_(pa.int32()),
    "heights": pa.list_(pa.int32()),
}
"""What is known of a sample from the index. `size` is its bytes in the tar, `images` their number;
`format`, `width` and `height` are those of the first image, the plural forms those of all."""

NULL, WHOLE, NUMBER = "null", "a whole number", "a number"
BOOLEAN, TEXT, JSON = "a boolean", "text", "JSON"
_TYPES = {
    NULL: pa.null(),
    WHOLE: pa.int64(),
    NUMBER: pa.float64(),
    BOOLEAN: pa.bool_(),
    TEXT: pa.string(),
    JSON: pa.string(),
}

_OF_ONE_SAMPLE = frozenset(
    ("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT",
     "FUNCTION", "LAMBDA", "OPERATOR", "TYPE")
)  # fmt: skip
"""DuckDB's classes of expressions that depend on one sample alone; others are subqueries, windows,
parameters and `*`."""

_NAMES_KEPT = 1000
"""Most names of fields that are kept to find the one that was meant."""


class TypeWidened(Exception):
    """A field of the meta has a wider type than the samples so far showed; says which."""


class Condition:
    """A condition over samples. Raises UsageError for one that cannot be evaluated.

    `meta` are the fields of the meta that it names.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._expression, named = self._parse()
        self.meta = tuple(path for path in named if path[0] == META)
        self._columns = tuple(path[0] for path in named if path[0] != META)
        self._check_names()
        self._types = dict.fromkeys(self.meta, NULL)
        self._mixed = dict[Path, str]()
        self._siblings: dict[Path, set[str]] = {path: set() for path in self.meta}
        self._run({name: pa.array([], COLUMNS[name]) for name in self._columns}, [])

    def evaluate(
        self, rows: Sequence[IndexRow], metas: Sequence[Mapping[str, Any] | None] | None = None
    ) -> tuple[Mask, Mask]:
        """Where the condition is true, and where it is null, for these samples. Shapes: [n].
        `metas` are needed if `meta` is not empty; None stands for one without fields.

        Raises UsageError if there is no such value, TypeWidened if the pass must begin again.
        """
        found = [meta or {} for meta in metas or [{}] * len(rows)]
        self._learn_types(found)
        columns = {name: _column(name, rows) for name in self._columns}
        true, null = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
        for at, value in self._run(columns, found):
            true[at], null[at] = value is True, value is None
        return true, null

    def check_found(self) -> None:
        """To be called after the last sample. Raises UsageError if none had a field of the meta
        that the condition names."""
        for path, kind in self._types.items():
            if kind == NULL:
                known = sorted(self._siblings[path])
                near = difflib.get_close_matches(path[-1], known, 3)
                names = ", ".join(_dotted((*path[:-1], name)) for name in near or known[:8])
                hint = f"; did you mean {names}?" if near else f"; there are {names}"
                raise self._error(
                    f"{_dotted(path)} is missing or null in all samples{hint if names else ''}"
                )

    def _error(self, detail: str) -> UsageError:
        return UsageError(f"--where '{self.text}': {detail}")

    def _parse(self) -> tuple[Any, list[Path]]:
        """The expression as DuckDB's syntax tree, in which fields of the meta are columns with a
        dotted name; and what it names."""
        statement, frame = (_serialize(f"{_FRAME} WHERE {text}\n") for text in (self.text, "true"))
        if "statements" not in statement:
            raise self._error(statement["error_message"])
        expression, _ = (_take_condition(one) for one in (statement, frame))
        if statement != frame:
            raise self._error("must be one expression, such as turns > 1 and width <= 2000")
        named: dict[Path, None] = {}
        for node, bound in _nodes(expression, frozenset()):
            if node["class"] not in _OF_ONE_SAMPLE:
                kind = node["class"].lower().replace("_", " ")
                raise self._error(f"{kind} is not possible: it must depend on one sample alone")
            if node["class"] == "FUNCTION":
                self._check_function(node["function_name"])
            if node["class"] == "COLUMN_REF" and node["column_names"][0] not in bound:
                path = _path(node["column_names"])
                named[path] = None
                node["column_names"] = [_dotted(path)]
        return expression, list(named)

    def _check_function(self, name: str) -> None:
        """Raise UsageError for a function whose value depends on more than its arguments, such as
        the time. One that does not exist is left to DuckDB."""
        overloads = _functions().get(name.lower())
        if overloads and not any(
            (kind == "scalar" and stability == "CONSISTENT")
            or (kind == "macro" and "current_" not in definition)
            for kind, stability, definition in overloads
        ):
            raise self._error(f"{name}() is not possible: it must depend on one sample alone")

    def _check_names(self) -> None:
        for name in self._columns:
            if name not in COLUMNS:
                near = difflib.get_close_matches(name, COLUMNS, 1)
                meant = f"did you mean {near[0]}? There" if near else "there"
                raise self._error(
                    f"no column {name}; {meant} are {', '.join(COLUMNS)}, and meta.NAME for fields "
                    "of the meta"
                )
        if (META,) in self.meta:
            raise self._error('name a field of the meta, as in meta.page or meta."two words"')
        spelled: dict[str, str] = {}
        for name in map(_dotted, self.meta):
            if (other := spelled.setdefault(name.lower(), name)) != name:
                raise self._error(f"SQL cannot tell {other} and {name} apart")

    def _learn_types(self, metas: Sequence[Mapping[str, Any]]) -> None:
        """Widen the types of the fields to those of these values. Raises TypeWidened if earlier
        samples were judged under another type."""
        for path, known in list(self._types.items()):
            names = self._siblings[path]
            for meta in metas:
                around = _value(meta, path[1:-1])
                if isinstance(around, Mapping) and len(names) < _NAMES_KEPT:
                    names.update(islice(around, _NAMES_KEPT))
            kinds = {_kind(_value(meta, path[1:])) for meta in metas} - {NULL}
            before = kinds | ({known} - {NULL})
            kind = self._types[path] = _widest(before)
            if kind == TEXT and before != {TEXT}:
                self._mixed[path] = " and ".join(sorted(before))
            if known not in (NULL, kind):
                raise TypeWidened(f"{_dotted(path)} is {known} in some samples, and not in others")

    def _run(
        self, columns: Mapping[str, pa.Array], metas: Sequence[Mapping[str, Any]]
    ) -> list[tuple[int, bool | None]]:
        """(number of the sample, value) of each sample. Raises UsageError."""
        fields = {
            _dotted(path): _meta_column([_value(meta, path[1:]) for meta in metas], kind)
            for path, kind in self._types.items()
        }
        size = max(len(metas), *map(len, [*columns.values(), *fields.values()]), 0)
        table = pa.table({"number": pa.array(range(size), pa.int64()), **columns, **fields})
        wanted = ["number", *map(_quoted, columns)]
        for path, kind in self._types.items():
            name = _quoted(_dotted(path))
            wanted.append(f"CAST({name} AS JSON) AS {name}" if kind == JSON else name)
        query = _serialize(f"SELECT number, NULL FROM (SELECT {', '.join(wanted)} FROM samples)")
        query["statements"][0]["node"]["select_list"][1] = self._expression
        import duckdb

        try:
            _connection().register("samples", table)
            ((text,),) = _fetch("SELECT json_deserialize_sql(?::JSON)", json.dumps(query))
            cursor = _connection().execute(text)
            kind = str(cursor.description[1][1])
            found: list[tuple[int, bool | None]] = cursor.fetchall()
        except duckdb.Error as exc:
            raise self._error(self._explained(exc)) from exc
        # The type is not known before that of every field is: DuckDB 1 takes null for a number.
        if kind != "BOOLEAN" and NULL not in self._types.values():
            raise self._error(f"is no condition: its value is of type {kind}; compare it")
        return found

    def _explained(self, exc: Exception) -> str:
        """DuckDB's words, and which fields are text because samples differ."""
        words = " ".join(str(exc).partition("\n\n")[0].split())
        for path, kinds in self._mixed.items():
            name = _dotted(path)
            words += f"; {name} is {kinds}, so it is text: write TRY_CAST({name} AS DOUBLE)"
        return words


def _path(names: Sequence[str]) -> Path:
    """Names in a COLUMN_REF -> the path of what they mean. Columns of the index may be written in
    capital letters; names in the meta are as they are."""
    if names[0].lower() == META:
        return (META, *names[1:])
    return (".".join(names).lower(),)


def _dotted(path: Path) -> str:
    return ".".join(path)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _nodes(tree: Any, bound: frozenset[str]) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """The expressions in a syntax tree, outer ones first, each with the names that stand for
    parameters of a lambda there."""
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part, bound)
    elif isinstance(tree, dict):
        if "class" in tree:
            yield tree, bound
        if tree.get("class") == "LAMBDA":
            bound |= {node["column_names"][0] for node, _ in _nodes(tree["lhs"], frozenset())
                      if node["class"] == "COLUMN_REF"}  # fmt: skip
        for part in tree.values():
            yield from _nodes(part, bound)


def _value(meta: Any, path: Path) -> Any:
    """The value at a path; None where there is none."""
    for name in path:
        if not isinstance(meta, Mapping):
            return None
        meta = meta.get(name)
    return meta


def _kind(value: Any) -> str:
    match value:
        case None:
            return NULL
        case bool():
            return BOOLEAN
        case int():
            return WHOLE if -(1 << 63) <= value < 1 << 63 else TEXT
        case float():
            return NUMBER if math.isfinite(value) else NULL
        case str():
            return TEXT
        case _:
            return JSON


def _widest(kinds: set[str]) -> str:
    """The type that holds values of all these types."""
    if len(kinds) <= 1:
        return next(iter(kinds), NULL)
    return NUMBER if kinds == {WHOLE, NUMBER} else TEXT


def _meta_column(values: Sequence[Any], kind: str) -> pa.Array:
    found: list[Any] = [None if _kind(value) == NULL else value for value in values]
    if kind == NUMBER:
        found = [value if value is None else float(value) for value in found]
    elif kind in (TEXT, JSON):
        found = [value if value is None else _text(value, kind) for value in found]
    return pa.array(found, _TYPES[kind])


def _text(value: Any, kind: str) -> str:
    """A value as text or JSON: NaN inside it is null, and half a surrogate pair becomes a '?'; a
    sample with either cannot be written anyway."""
    if kind == JSON or not isinstance(value, str):
        value = json.loads(json.dumps(value), parse_constant=lambda _: None)
        value = json.dumps(value, ensure_ascii=False)
    return str(value).encode(errors="replace").decode()


def _column(name: str, rows: Sequence[IndexRow]) -> pa.Array:
    """One of `COLUMNS` for these samples."""
    values: list[Any]
    if name in ("key", "size", "turns", "source"):
        values = [getattr(row, name) for row in rows]
    elif name == "images":
        values = [len(row.images) for row in rows]
    else:
        kind = name.removesuffix("s")
        # An image whose header cannot be read has no format, and a size of 0.
        values = [[getattr(image, kind) or None for image in row.images] for row in rows]
        if kind == name:
            values = [found[0] if found else None for found in values]
    return pa.array(values, COLUMNS[name])


_FRAME = "SELECT 1 FROM samples"


def _take_condition(statement: dict[str, Any]) -> Any:
    """Remove the WHERE clause of a statement and return it."""
    return statement["statements"][0]["node"].pop("where_clause", None)


def _serialize(statement: str) -> dict[str, Any]:
    """The syntax tree of a SELECT; without `statements`, but with an `error_message`, if it is
    none."""
    ((text,),) = _fetch("SELECT json_serialize_sql(?::VARCHAR)", statement)
    found: dict[str, Any] = json.loads(text)
    return found


@lru_cache(maxsize=1)
def _functions() -> Mapping[str, list[tuple[Any, ...]]]:
    """Kind, stability and definition of all functions of each name."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for name, *about in _fetch(
        "SELECT function_name, function_type, stability, macro_definition FROM duckdb_functions()"
    ):
        found.setdefault(name, []).append(tuple(about))
    return found


def _fetch(query: str, *values: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = _connection().execute(query, list(values)).fetchall()
    return rows


@lru_cache(maxsize=1)
def _connection() -> Any:
    """A database in memory that can read nothing but what is given to it. Raises UsageError."""
    try:
        import duckdb
    except ImportError as exc:
        raise UsageError(
            "--where needs DuckDB; install it with pip install 'ocr-shards[reshard]'"
        ) from exc
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": "1",
        "enable_external_access": "false",
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
        "python_enable_replacements": "false",
        "lock_configuration": "true",
    }
    return duckdb.connect(config=settings)
