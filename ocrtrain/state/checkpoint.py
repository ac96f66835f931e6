"""Checkpoints: everything a run needs to resume, written completely or not at all.

A checkpoint is a folder `checkpoints/step_001000/`:

    model.safetensors        weights
    optimizer.safetensors    moments of AdamW and Muon, by parameter name
    random.safetensors       torch's random state
    state.json               step, totals, versions, thread count, W&B's run id
    config.json, tokenizer.json
    complete                 size and xxh3_128 of every file above, and its own xxh3_128

The folder is written under a temporary name and then renamed; `complete` is written last. Every
file is verified before it is parsed, because safetensors does not detect flipped bits.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from ocrdata.errors import ShardError, TrainError
from ocrdata.images.png import decoder_version
from ocrdata.storage.file import digest_of_file, open_file
from ocrdata.storage.files import explain_disk, fsync_folder, make_folder, publish, temporary_name
from ocrdata.storage.sealed import canonical_spaced, digest_of, parse_object
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer
from ocrtrain.settings.config import Config
from ocrtrain.settings.saved_config import from_json, to_json

FOLDER = "checkpoints"
COMPLETE = "complete"
_STEP_NAME = re.compile(r"step_(\d{6,})")


@dataclass
class State:
    """Progress of a run after `step` optimizer steps; a resumed run continues with batch `step` of
    the plan.

    `identity` is the digest of the last batch, `skipped` the number of samples skipped so far,
    `seconds` the training time so far. Tokens, and those that carry loss, are also counted by
    source; in a run that an older version began, from its first resume with this one.
    """

    step: int = 0
    identity: str = ""
    skipped: int = 0
    total_flops: float = 0.0
    total_tokens: int = 0
    seconds: float = 0.0
    wandb_id: str = ""
    source_tokens: dict[str, int] = field(default_factory=dict)
    source_supervised: dict[str, int] = field(default_factory=dict)


def step_folder(run: Path, step: int) -> Path:
    """`RUN/checkpoints/step_001000`."""
    return run / FOLDER / f"step_{step:06d}"


def versions() -> dict[str, Any]:
    """Library versions, machine type and thread count, on which bit-identical losses depend."""
    import numpy
    import PIL.features
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "kornia-rs": decoder_version(),
        "libjpeg": PIL.features.version("libjpeg_turbo") or PIL.features.version("jpg"),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


class Tensors(NamedTuple):
    """The weights of a checkpoint, and the optimizer's moments by "MOMENT/PARAMETER"."""

    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]


def collect(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
    keep: bool = True,
) -> Tensors:
    """What a checkpoint holds of a model and its optimizer.

    `gather` makes a tensor whole that ranks hold in parts; all of them must call this, and those
    that do not write `keep` nothing.
    """

    def whole(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        found = {}
        for name, tensor in tensors:
            full = tensor if gather is None else gather(tensor).cpu()
            if keep:
                found[name] = full.contiguous()
        return found

    moments = (
        (f"{kind}/{name}", value)
        for name, parameter in model.named_parameters()
        # Sorted: the order differs between ranks after a resume, and they gather together.
        for kind, value in sorted(optimizer.state.get(parameter, {}).items())
    )
    return Tensors(whole(model.state_dict().items()), whole(moments))


def save(
    run: Path, state: State, *, config: Config, tensors: Tensors, tokenizer: Tokenizer
) -> Path:
    """Write the checkpoint of step `state.step` and return its folder.

    Raises DiskError where it cannot be written; earlier checkpoints are left unchanged.
    """
    final = step_folder(run, state.step)
    make_folder(final.parent)
    temporary = temporary_name(final)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with explain_disk(final):
            temporary.mkdir()
            _save_tensors(tensors.weights, temporary / "model.safetensors")
            _save_tensors(tensors.moments, temporary / "optimizer.safetensors")
            _save_tensors(_random_state(), temporary / "random.safetensors")
            tokenizer.save(temporary / "tokenizer.json")
            _write_json(temporary / "config.json", to_json(config))
            _write_json(temporary / "state.json", {"state": vars(state), "versions": versions()})
            write_completion_marker(temporary)
        if final.exists():
            # A run resumed from an earlier step reaches this step again: the new one replaces it.
            _remove(final)
        publish(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints; 0 keeps all. Raises DiskError."""
    if keep:
        for folder in complete_checkpoints(run)[:-keep]:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a checkpoint.

    It is renamed first, so that a process killed here never leaves part of a checkpoint under its
    final name; `clean` removes the rest.
    """
    renamed = folder.with_name(f".{folder.name}.old.tmp")
    shutil.rmtree(renamed, ignore_errors=True)
    publish(folder, renamed)
    with explain_disk(renamed):
        shutil.rmtree(renamed)


def clean(run: Path) -> None:
    """Remove temporary folders of a killed process. The caller must hold the run's lock."""
    with explain_disk(run / FOLDER):
        for folder in (run / FOLDER).glob(".step_*.tmp"):
            shutil.rmtree(folder)


def complete_checkpoints(run: Path) -> list[Path]:
    """Folders of the complete checkpoints in a run folder, oldest first."""
    found = (run / FOLDER).glob("step_*")
    complete = [f for f in found if _STEP_NAME.fullmatch(f.name) and (f / COMPLETE).is_file()]
    return sorted(complete, key=lambda folder: int(folder.name.removeprefix("step_")))


def newest(path: Path) -> Path:
    """`path` if it is a complete checkpoint, else the newest one in the run folder `path`.

    Raises TrainError where there is none.
    """
    with explain_disk(path):
        if (path / COMPLETE).is_file():
            return path
        found = complete_checkpoints(path)
    if not found:
        raise TrainError(
            f"{path}: no complete checkpoint found; give a run folder, or one of its "
            "checkpoints/step_N"
        )
    return found[-1]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Every file is verified when read, and what is parsed are the verified bytes; only the tokenizer,
    which has a digest of its own, is read again.
    """

    folder: Path
    files: dict[str, dict[str, Any]]
    """Size ("bytes") and digest ("xxh3_128") by file name."""

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Read and verify the file `complete`. Raises TrainError where it is corrupted."""
        try:
            value = json.loads((folder / COMPLETE).read_bytes())
            files = dict(value["files"])
            intact = value["digest"] == digest_of(canonical_spaced(files))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            raise TrainError(f"{folder / COMPLETE}: cannot be read: {exc}") from exc
        if not intact:
            raise TrainError(
                f"{folder / COMPLETE}: checksum mismatch: corrupted after it was written; "
                "remove this folder and resume from an earlier checkpoint"
            )
        return Checkpoint(folder, files)

    def read(self, name: str) -> bytes:
        """The verified bytes of a file. Raises TrainError naming the file."""
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise TrainError(f"{path}: cannot be read: {exc.strerror}") from exc
        saved = self.files.get(name)
        if saved is None or saved["bytes"] != len(data) or saved["xxh3_128"] != digest_of(data):
            raise TrainError(
                f"{path}: checksum mismatch: corrupted after it was written; "
                "remove this folder and resume from an earlier checkpoint"
            )
        return data

    @property
    def config(self) -> Config:
        """The config of the run. Raises TrainError, or UsageError for another release's."""
        return from_json(self._object("config.json"))

    @property
    def state(self) -> State:
        """Progress of the run. Raises TrainError where the file is invalid or of another step."""
        try:
            state = State(**self._object("state.json")["state"])
            if type(state.step) is not int or state.step < 0:
                raise ValueError(f"invalid step {state.step!r}")
            if self.folder.name != step_folder(self.folder, state.step).name:
                raise ValueError(f"it holds step {state.step}, not the step in the folder's name")
        except (KeyError, TypeError, ValueError) as exc:
            raise self._invalid("state.json", exc) from exc
        return state

    def changed_versions(self) -> list[str]:
        """Versions that differ from those of this process, as 'torch: 2.11 then, 2.13 now'.

        Raises TrainError where the file is invalid.
        """
        then, now = self._object("state.json").get("versions"), versions()
        if not isinstance(then, dict):
            raise self._invalid("state.json", "versions are missing")
        return [f"{k}: {then.get(k)} then, {now[k]} now" for k in now if then.get(k) != now[k]]

    def _object(self, name: str) -> dict[str, Any]:
        """The JSON object in a verified file."""
        try:
            return parse_object(str(self.folder / name), self.read(name))
        except ShardError as exc:
            raise self._invalid(name, exc.detail) from exc

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors in a verified file."""
        try:
            tensors: dict[str, torch.Tensor] = load(self.read(name))
        except SafetensorError as exc:
            raise self._invalid(name, exc) from exc
        return tensors

    def _invalid(self, name: str, reason: object) -> TrainError:
        """The error for a file that is intact, but not in the format of this release."""
        return TrainError(f"{self.folder / name}: not in the format of this release: {reason}")

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run. Raises TrainError where the file is corrupted."""
        self.read("tokenizer.json")
        return load_tokenizer(self.folder / "tokenizer.json")

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights by name, verified. Raises TrainError where the file is corrupted."""
        return self._tensors("model.safetensors")

    def load_weights(self, model: nn.Module) -> None:
        """Copy the weights into `model`. Raises TrainError where names or shapes differ."""
        try:
            model.load_state_dict(self.weights(), strict=True)
        except RuntimeError as exc:
            raise TrainError(
                f"{self.folder / 'model.safetensors'}: does not fit the model: {exc}"
            ) from exc

    def load_optimizer(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        place: Callable[[torch.Tensor, nn.Parameter], torch.Tensor] = lambda tensor, _: tensor,
    ) -> None:
        """Copy the moments into `optimizer`. A parameter that never had a gradient has none.
        `place` takes what this rank holds of a moment, if ranks hold them in parts.

        Raises TrainError where the file is corrupted or names an unknown parameter.
        """
        tensors = self._tensors("optimizer.safetensors")
        names = dict(model.named_parameters())
        for key, tensor in tensors.items():
            kind, name = key.split("/", 1)
            parameter = names.get(name)
            if parameter is None:
                raise TrainError(
                    f"{self.folder / 'optimizer.safetensors'}: unknown parameter {name}"
                )
            optimizer.state[parameter][kind] = place(tensor.to(parameter.device), parameter)

    def load_random_state(self) -> None:
        """Restore torch's random state. Raises TrainError where the file is corrupted."""
        tensors = self._tensors("random.safetensors")
        torch.set_rng_state(tensors["cpu"])
        if "cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["cuda"])


def _random_state() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors; an error of the operating system is raised as OSError."""
    try:
        save_file(tensors, path)
    except Exception as exc:
        if "os error" in str(exc).lower() or "I/O error" in str(exc):
            raise _as_os_error(str(exc)) from exc
        raise
    _fsync(path)


def _as_os_error(text: str) -> OSError:
    """Message of safetensors, '... (os error 28)' -> OSError(28)."""
    number = re.search(r"os error (\d+)", text)
    code = int(number.group(1)) if number else errno.EIO
    return OSError(code, os.strerror(code))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    _fsync(path)


def _fsync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_completion_marker(folder: Path) -> None:
    """Write `complete`: sizes and digests of all files in `folder`, durably. Raises OSError."""
    files = {}
    for path in sorted(folder.iterdir()):
        file = open_file(path)
        files[path.name] = {"bytes": file.size, "xxh3_128": digest_of_file(file)}
    _write_json(folder / COMPLETE, {"files": files, "digest": digest_of(canonical_spaced(files))})
    fsync_folder(folder)
