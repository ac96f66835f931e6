"""Weights to start from: finds them at a path or on the hub, checks that they fit, copies them.

A source is a run or checkpoint of this project, a file of weights, a folder that holds one, or a
repository of the hub (`owner/name` or `owner/name@revision`). In: a source and the parts wanted of
it. Out: the model with these parts copied, and what there is to say about it.

Every tensor is accounted for: it is taken, or known and not used (`tensor_names.LAYOUTS` has the
reasons), or the source is refused. So is one whose sizes or other properties are not the model's
(`ocrtrain.model.hyperparameters`). Checks read names and shapes; values are read one tensor at a
time.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ocrdata.errors import ShardError, SourceError, WeightsError
from ocrdata.storage.file import digest_of_file, open_file
from ocrdata.storage.files import explain_disk
from ocrdata.storage.sealed import check_seal, parse_object
from ocrdata.tokens.tokenizer import FILE_NAMES, Tokenizer, load_tokenizer
from ocrtrain.model.encoder_file import read_deepencoder, read_header
from ocrtrain.model.hub_files import fetch
from ocrtrain.model.hyperparameters import check_fit, sizes
from ocrtrain.model.ocr_model import OcrModel, part_of
from ocrtrain.model.tensor_names import (
    NANOCHAT,
    NANOCHAT_HF,
    OURS,
    Names,
    Piece,
    Tensors,
    read_names,
)
from ocrtrain.model.weight_file import (
    Shape,
    StoredTensors,
    is_safetensors,
    open_tensors,
)
from ocrtrain.settings.model_config import PARTS, ModelConfig
from ocrtrain.state.checkpoint import COMPLETE, Checkpoint, complete_checkpoints, newest

NEEDED = (
    "weights: model_*.pt with meta_*.json, model.safetensors (or parts of it with "
    "model.safetensors.index.json), pytorch_model.bin with config.json, step_*.pt or deepencoder_*"
)
EXPORTED = "export.json"
"""The file of digests in the folder of an exported model."""

EMBEDDING, HEAD = "gpt.model.embed_tokens.weight", "gpt.lm_head.weight"
_SAVED = ("complete", "state.json", "config.json", "tokenizer.json", "model.safetensors")
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Weights:
    """Weights that have been found and not yet read.

    `what` is how messages call them, `record` what lies beside them about the model they are for,
    `open` gives the tensors with the given names, `tokenizer` that of their GPT if there is one.
    """

    what: str
    names: Names
    record: dict[str, Any]
    open: Callable[[Sequence[str]], StoredTensors]
    tokenizer: Callable[[], Tokenizer] | None = None
    verified: bool = False
    image_size: int = 0
    beside: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the model that there are weights for."""
        found = {part_of(name) for name in self.names.taken if _is_ours(name)}
        return tuple(part for part in PARTS if part in found)


def find_weights(source: str, *, encoder: bool = False) -> Weights:
    """The weights at a path or on the hub; of a run its newest checkpoint. With `encoder`, a
    deepencoder_* file in a folder comes first.

    Raises UsageError for a source that cannot be one, SourceError where nothing is found or it
    cannot be fetched, WeightsError for a file of something else, TrainError for a damaged
    checkpoint.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if path.name == "model.safetensors" and (path.parent / COMPLETE).is_file():
            return _of_checkpoint(path.parent)
        return _of_file(path, _record_beside(path), what=str(path))
    if path.is_dir():
        own = _last_numbered([one.name for one in path.iterdir()], "deepencoder") if encoder else ""
        if own:
            return _of_file(path / own, None, what=str(path / own))
        if (path / COMPLETE).is_file() or complete_checkpoints(path):
            return _of_checkpoint(newest(path))
    return _of_repository(source)


def _of_checkpoint(folder: Path) -> Weights:
    found = Checkpoint.open(folder)
    config = found.config
    file = folder / "model.safetensors"
    shapes = open_tensors([file]).shapes
    return Weights(
        what=str(folder),
        names=read_names(shapes, what=str(file)),
        record=dataclasses.asdict(config.model) | {"preset": config.preset},
        open=lambda _: _verified(shapes, found.weights),
        tokenizer=found.tokenizer,
        verified=True,
        image_size=config.image_size,
    )


def _verified(shapes: dict[str, Shape], load: Callable[[], Tensors]) -> StoredTensors:
    """Tensors of a file that is read as a whole, and verified, with the first value."""
    tensors = cache(load)
    return StoredTensors(shapes, lambda name: tensors()[name])


def _of_repository(source: str) -> Weights:
    """A folder, or a repository of the hub."""
    listed: list[str] = []

    def choose(names: Sequence[str]) -> list[str]:
        listed[:] = names
        return choose_files(names)

    paths = fetch(source, choose, needed=NEEDED)
    if paths[0].name == COMPLETE:
        return _of_checkpoint(paths[0].parent)
    first, *beside = paths
    record = _read_json(beside[0]) if beside else None
    named = [*FILE_NAMES, *(name for name in listed if name.endswith(".tiktoken"))]
    of_gpt = next((name for name in named if name in listed), None)

    def tokenizer() -> Tokenizer:
        (path,) = fetch(source, lambda names: [name for name in names if name == of_gpt])
        return load_tokenizer(path)

    what = f"{source} ({first.name})"
    if first.name.endswith(".index.json"):
        weights = _of_index(source, first, record or {}, what=what)
    else:
        weights = _of_file(first, record, what=what)
    return dataclasses.replace(weights, tokenizer=tokenizer if of_gpt else None)


def _of_index(source: str, index: Path, record: dict[str, Any], *, what: str) -> Weights:
    """Weights in several files; those without a tensor that is needed are not fetched."""
    owner = _read_json(index).get("weight_map")
    if not (isinstance(owner, dict) and all(isinstance(name, str) for name in owner.values())):
        raise WeightsError(f"{index}: weight_map, which maps tensors to files, is missing")

    def open_needed(names: Sequence[str]) -> StoredTensors:
        needed = sorted({owner[name] for name in names})
        paths = fetch(
            source, lambda listed: [name for name in needed if name in listed], needed=needed[0]
        )
        missing = sorted(set(needed) - {path.name for path in paths})
        if missing:
            raise SourceError(f"{source}: {index.name} names {missing[0]}, which is missing")
        stored = open_tensors(paths)
        _refuse(what, "missing", [name for name in names if name not in stored.shapes])
        return stored

    return Weights(what, read_names(owner, what=what), record, open_needed)


def _of_file(path: Path, record: dict[str, Any] | None, *, what: str) -> Weights:
    if is_safetensors(path):
        header = read_header(path)
        if header is not None:
            shapes = open_tensors([path]).shapes
            return Weights(
                what=what,
                names=read_names(shapes, what=what),
                record=_object(header.get("model")),
                open=lambda _: _verified(shapes, lambda: read_deepencoder(path)[0]),
                verified=True,
                image_size=header.get("image_size") or 0,
            )
    verified = _check_exported(path)
    stored = open_tensors([path])
    tokenizer = next((path.parent / n for n in FILE_NAMES if (path.parent / n).is_file()), None)
    return Weights(
        what=what,
        names=read_names(stored.shapes, what=what),
        record={**stored.record, **(record or {})},
        open=lambda _: stored,
        tokenizer=(lambda: load_tokenizer(tokenizer)) if tokenizer else None,
        verified=verified,
        image_size=next(iter((record or {}).get("image_sizes", [0])), 0),
        beside=stored.beside,
    )


def _check_exported(path: Path) -> bool:
    """Whether an export wrote a file (`ocrtrain.export.folder`), which then is verified. Raises
    WeightsError where it is not as it was written."""
    manifest = path.with_name(EXPORTED)
    if not manifest.is_file():
        return False
    with explain_disk(manifest):
        data = manifest.read_bytes()
    try:
        value = parse_object(str(manifest), data)
        check_seal(str(manifest), value)
        listed = value["files"][path.name]
    except (ShardError, KeyError, TypeError) as exc:
        raise WeightsError(f"{manifest}: malformed, or does not list {path.name}: {exc}") from exc
    with explain_disk(path):
        file = open_file(path)
        found = {"bytes": file.size, "xxh3_128": digest_of_file(file)}
    if found != listed:
        raise WeightsError(
            f"{path}: checksum mismatch: not the file that was exported; export the model again"
        )
    return True


def _record_beside(path: Path) -> dict[str, Any] | None:
    """meta_N.json beside model_N.pt, else config.json beside any file."""
    meta = path.with_name(f"meta_{path.stem.rpartition('_')[2]}.json")
    for one in (meta, path.with_name("config.json")):
        if one.is_file():
            return _read_json(one)
    return None


def choose_files(names: Sequence[str]) -> list[str]:
    """Of the files of a source, those that hold its weights and the record beside them: the latest
    `model_*.pt` with its `meta_*.json`, a checkpoint of ours, safetensors in one file or several,
    `pytorch_model.bin`, or the latest `step_*.pt` or `deepencoder_*`. [] where there are none."""
    present = set(names)
    if present >= set(_SAVED):
        return [*_SAVED]
    for name in sorted(present, key=_number, reverse=True):
        meta = f"meta_{name[6:-3]}.json"
        if re.fullmatch(r"model_\d+\.pt", name) and meta in present:
            return [name, meta]
    metas = [name for name in present if re.fullmatch(r"meta_\d+\.json", name)]
    config = sorted(metas, key=_number)[-1:] or [name for name in names if name == "config.json"]
    for name in ("model.safetensors.index.json", "model.safetensors",
                 "pytorch_model.bin.index.json"):  # fmt: skip
        if name in present:
            return [name, *config]
    if "pytorch_model.bin" in present and config:
        return ["pytorch_model.bin", *config]
    last = _last_numbered(names, "step") or _last_numbered(names, "deepencoder")
    return [last, *(name for name in names if name == "config.json")] if last else []


def _last_numbered(names: Iterable[str], stem: str) -> str:
    """'deepencoder_001000.safetensors' of all deepencoder_*.safetensors and .pt; "" for none."""
    like = re.compile(stem + r"_\d+\.(pt|safetensors)")
    return max(filter(like.fullmatch, names), key=_number, default="")


def _number(name: str) -> int:
    digits = re.search(r"_(\d+)\.", name)
    return int(digits.group(1)) if digits else -1


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
        raise WeightsError(f"{path}: malformed JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return value


class Fitting(NamedTuple):
    """Weights that fit a model: the tensors to copy by our names, how many rows of the vocabulary
    are real, and remarks."""

    weights: Weights
    parts: tuple[str, ...]
    pieces: dict[str, Piece]
    stored: StoredTensors
    rows: int
    remarks: list[str]


def check_weights(
    weights: Weights, config: ModelConfig, shapes: dict[str, Shape], *,
    parts: Sequence[str], optional: Sequence[str] = (),
) -> Fitting:  # fmt: skip
    """Check that `parts` of `weights` fit a model with this config, whose parameters have these
    shapes. Parts in `optional` are left out, with a remark, where the decoder's width differs.

    A vocabulary of 0 tokens in `config` is one that is not known yet, and not compared. Raises
    WeightsError that names the fields or tensors that do not fit, and what opening files raises.
    """
    unknown = [piece.name for name, piece in weights.names.taken.items() if not _is_ours(name)]
    _refuse(weights.what, "unknown", unknown)
    pieces = {n: p for n, p in weights.names.taken.items() if part_of(n) in parts}
    stored = weights.open([piece.name for piece in pieces.values()])
    remarks: list[str] = []
    found = {name: _shape(piece, stored) for name, piece in pieces.items()}
    if "projector" in optional and "projector" in parts:
        width = sizes({n: s for n, s in found.items() if n == "encoder.projector.weight"}).get(
            "gpt_width"
        )
        if width is not None and width != config.gpt_width:
            remarks.append(
                f"the projector is not taken: its gpt_width is {width}, the model's "
                f"{config.gpt_width}"
            )
            parts = tuple(part for part in parts if part != "projector")
            pieces = {n: p for n, p in pieces.items() if part_of(n) in parts}
            found = {n: found[n] for n in pieces}
    unrecorded = check_fit(
        weights.names.layout, weights.record, found, config, parts=parts, what=weights.what
    )
    remarks += [
        f"{name} is not recorded there: the model's, {getattr(config, name)}, is assumed"
        for name in unrecorded
    ]
    wanted = {name: shape for name, shape in shapes.items() if part_of(name) in parts}
    if HEAD in wanted and HEAD not in pieces and EMBEDDING in pieces and _may_be_tied(weights):
        pieces[HEAD] = pieces[EMBEDDING]
        found[HEAD] = found[EMBEDDING]
        remarks.append("the head is a copy of the embedding, with which it is one there")
    lacks = weights.names.layout.lacks
    _refuse(
        weights.what, "missing", [n for n in wanted if n not in pieces and not n.startswith(lacks)]
    )
    _refuse(weights.what, "unknown", [p.name for n, p in pieces.items() if n not in wanted])
    rows = 0
    if EMBEDDING in pieces and config.vocab_size:
        rows = _real_rows(weights, found[EMBEDDING][0], config.vocab_size, remarks)
    tables = (EMBEDDING, HEAD)
    wrong = [
        f"{name} is {list(found[name])}, the model's {list(shape)}"
        for name, shape in wanted.items()
        if name in found and (
            found[name][1:] != shape[1:] if name in tables else found[name] != shape
        )
    ]  # fmt: skip
    if HEAD in pieces and not wrong and found[HEAD] != found[EMBEDDING]:
        wrong = [f"{HEAD} is {list(found[HEAD])}, the embedding {list(found[EMBEDDING])}"]
    _refuse(weights.what, "of wrong shape", wrong)
    return Fitting(weights, tuple(parts), pieces, stored, rows, remarks)


def _is_ours(name: str) -> bool:
    return name.startswith(("encoder.", "gpt."))


def _refuse(what: str, problem: str, names: list[str]) -> None:
    """Raise WeightsError if there are names."""
    if names:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
        raise WeightsError(
            f"{what}: {count} {problem}: {shown}; the weights are of another model, or the flags "
            "give the model other sizes"
        )


def _shape(piece: Piece, stored: StoredTensors) -> Shape:
    shape = stored.shapes[piece.name]
    if piece.third is None:
        return shape
    if not shape or shape[0] % 3:
        return (0,)  # cannot be divided; fits no parameter
    return (shape[0] // 3, *shape[1:])


def _may_be_tied(weights: Weights) -> bool:
    """Whether embedding and head may be one tensor, of which a file has the embedding alone."""
    return (
        weights.names.layout is not OURS and weights.record.get("tie_word_embeddings") is not False
    )


def _real_rows(weights: Weights, rows: int, vocabulary: int, remarks: list[str]) -> int:
    """How many rows of a vocabulary of `rows` are tokens: those beyond are padding. `vocabulary` is
    the tokenizer's, the image token included, which nanochat's own has not."""
    record = weights.record
    recorded = record.get("vocab_size", _object(record.get("model_config")).get("vocab_size"))
    layout = weights.names.layout
    real = recorded if type(recorded) is int else rows
    allowed = {
        NANOCHAT.name: (vocabulary - 1,),
        NANOCHAT_HF.name: (vocabulary - 1, vocabulary),
    }.get(layout.name, (vocabulary,))
    if real not in allowed or real > rows:
        raise WeightsError(
            f"{weights.what}: vocab_size is {real}"
            + ("" if real == rows else f", with {rows} rows of embeddings")
            + f", but the tokenizer has {vocabulary} tokens with the image token; the rows belong "
            "to the tokenizer they were trained with: use it, or leave gpt out of --init-parts"
        )
    if real < rows:
        remarks.append(f"{rows - real} rows of padding after its {real} tokens are dropped")
    if real < vocabulary:
        remarks.append("the image token's row is the mean of the others")
    return real


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@torch.no_grad()
def copy_weights(model: OcrModel, fitting: Fitting) -> None:
    """Copy weights that `check_weights` found to fit into `model`, tensor by tensor.

    Raises WeightsError, with part of the model changed, where one is not of floating-point numbers
    or has values that are not finite.
    """
    parameters = dict(model.named_parameters())
    for name, piece in fitting.pieces.items():
        value = fitting.stored.read(piece.name)
        if piece.third is not None:
            value = value.chunk(3)[piece.third]
        if value.dtype not in _FLOATS:
            raise WeightsError(
                f"{fitting.weights.what}: {piece.name} has numbers of type {value.dtype}: "
                "quantised weights are not read; use those in float32, float16 or bfloat16"
            )
        if name in (EMBEDDING, HEAD):
            value = _with_image_row(value[: fitting.rows], len(parameters[name]))
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(
                f"{fitting.weights.what}: {piece.name} has values that are not finite"
            )
        parameters[name].copy_(value)


def _with_image_row(table: Tensor, vocabulary: int) -> Tensor:
    """[vocabulary - 1, D] -> [vocabulary, D]: append a row for the image token, the mean of the
    others.

    Its embedding is never used (features replace it) and it is never a label, but its logit is part
    of every softmax. With the mean row it starts as likely as an average token; zeros or noise
    would first have to be unlearned. A table that has the row is returned unchanged.
    """
    if len(table) == vocabulary:
        return table
    return torch.cat([table, table.float().mean(dim=0, keepdim=True).to(table.dtype)])


def shapes_of(model: nn.Module) -> dict[str, Shape]:
    """The shapes of a model's parameters."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
