"""Which types of columns can be images, messages, turns and text."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ocrdata.sources.shapes import ANYTHING, IMAGES, MESSAGES, PAIRS, TEXT, Shape

TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(9),
         pa.dictionary(pa.int32(), pa.binary())]  # fmt: skip
NULL, INT = pa.null(), pa.int64()


def lists(kind: pa.DataType) -> list[pa.DataType]:
    return [
        pa.list_(kind), pa.large_list(kind), pa.list_(kind, 2), pa.list_view(kind),
        pa.large_list_view(kind),
    ]  # fmt: skip


def struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


IMAGE = struct(bytes=pa.binary(), path=pa.string())
PART = struct(type=pa.string(), text=pa.string(), image=IMAGE, index=INT)
MESSAGE = struct(role=pa.string(), content=pa.string())

GOOD: list[tuple[Shape, list[pa.DataType]]] = [
    (TEXT, [*TEXTS, NULL]),
    (IMAGES, [*TEXTS, *BYTES, NULL, IMAGE, struct(bytes=pa.large_binary()), struct(path=NULL)]),
    (IMAGES, [struct(url=pa.string(), detail=pa.string()), struct(data=pa.binary())]),
    (IMAGES, [*lists(IMAGE), *lists(pa.binary_view()), pa.list_(NULL), pa.list_(pa.string())]),
    (IMAGES, [struct(bytes=pa.list_(pa.binary()), path=pa.list_(NULL))]),
    (PAIRS, [NULL, *lists(struct(user=pa.string(), assistant=pa.string(), score=pa.float32()))]),
    (PAIRS, [struct(user=pa.list_(pa.string()), assistant=pa.list_view(pa.string_view()))]),
    (MESSAGES, [NULL, *lists(MESSAGE), pa.list_(NULL)]),
    (MESSAGES, [struct(role=pa.list_(pa.string()), content=pa.list_(pa.string()))]),
    (MESSAGES, [pa.list_(struct(value=pa.string(), **{"from": TEXTS[3]}))]),
    (MESSAGES, [pa.list_(struct(role=pa.string(), content=kind)) for kind in lists(PART)]),
    (MESSAGES, [pa.list_(struct(role=pa.string(), content=NULL, images=pa.list_(IMAGE)))]),
    (ANYTHING, [INT, pa.list_(pa.binary()), NULL]),
]
BAD: list[tuple[Shape, list[pa.DataType]]] = [
    (TEXT, [INT, pa.binary(), pa.list_(pa.string()), MESSAGE]),
    (IMAGES, [INT, pa.list_(INT), pa.list_(pa.list_(pa.binary())), struct(height=INT)]),
    (IMAGES, [struct(bytes=INT), struct(path=pa.binary()), struct(bytes=IMAGE)]),
    (IMAGES, [pa.map_(pa.string(), pa.binary())]),
    (PAIRS, [pa.string(), MESSAGE, pa.list_(MESSAGE), pa.list_(pa.string())]),
    (PAIRS, [pa.list_(struct(user=INT, assistant=pa.string())), pa.list_(struct(user=TEXTS[0]))]),
    (PAIRS, [pa.list_(struct(user=TEXTS[0], assistant=TEXTS[0], image=pa.binary()))]),
    (PAIRS, [struct(user=pa.list_(pa.string()), assistant=pa.string())]),
    (MESSAGES, [pa.string(), MESSAGE, pa.list_(pa.string()), pa.list_(struct(role=TEXTS[0]))]),
    (MESSAGES, [pa.list_(struct(role=INT, content=TEXTS[0]))]),
    (MESSAGES, [pa.list_(struct(role=TEXTS[0], content=pa.list_(TEXTS[0])))]),
    (MESSAGES, [pa.list_(struct(role=TEXTS[0], content=pa.list_(struct(text=TEXTS[0]))))]),
    (MESSAGES, [pa.list_(struct(role=TEXTS[0], content=TEXTS[0], sound=pa.binary()))]),
    (MESSAGES, [pa.list_(struct(role=TEXTS[0],
                content=pa.list_(struct(type=TEXTS[0], sound=pa.binary()))))]),
    (ANYTHING, [pa.struct([("a", INT), ("a", INT)])]),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "kinds"), GOOD)
def test_types_that_fit(shape: Shape, kinds: list[pa.DataType]) -> None:
    assert [(kind, shape.why_not(kind)) for kind in kinds] == [(kind, "") for kind in kinds]


@pytest.mark.parametrize(("shape", "kinds"), BAD)
def test_types_that_do_not_fit(shape: Shape, kinds: list[pa.DataType]) -> None:
    assert [kind for kind in kinds if not shape.why_not(kind)] == []
