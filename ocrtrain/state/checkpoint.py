"""Checkpoints: all that a run needs to go on, complete or absent, verified when read.

Owner of `checkpoints/step_001000/`:

    model.safetensors        weights
    optimizer.safetensors    momenta, by parameter name
    random.safetensors       torch's random state
    state.json               step, totals, versions, thread count, W&B's run id
    config.json, tokenizer.json
    complete                 size and xxh3_128 of every file above, and of itself

The folder is written under a temporary name and renamed; `complete` is its last file. safetensors
notices no flipped bit, so digests are compared before a byte is believed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from ocrdata.errors import ShardError, TrainError
from ocrdata.images.png import decoder_version
from ocrdata.storage.files import explain_disk, fsync_folder, make_folder, publish, temporary_name
from ocrdata.storage.local import LocalFile
from ocrdata.storage.sealed import digest_of, parse_object
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer
from ocrtrain.settings.config import Config, from_json, to_json

FOLDER = "checkpoints"
COMPLETE = "complete"
_STEP_NAME = re.compile(r"step_(\d{6,})")


@dataclass
class State:
    """Where a run stands: `step` optimiser steps are done, which is the loader's position too.
    `identity` is that of the last batch, `skipped` how many samples were in all."""

    step: int = 0
    identity: str = ""
    skipped: int = 0
    total_flops: float = 0.0
    total_tokens: int = 0
    seconds: float = 0.0
    wandb_id: str = ""


def step_folder(run: Path, step: int) -> Path:
    """`RUN/checkpoints/step_001000`."""
    return run / FOLDER / f"step_{step:06d}"


def versions() -> dict[str, Any]:
    """What bit-identical losses depend on beside the config."""
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


def save(
    run: Path, state: State, *, config: Config, model: nn.Module,
    optimizer: torch.optim.Optimizer, tokenizer: Tokenizer,
) -> Path:  # fmt: skip
    """Write the checkpoint of `state` and return its folder. A full disk is a DiskError and
    leaves the earlier checkpoints as they were."""
    final = step_folder(run, state.step)
    make_folder(final.parent)
    temporary = temporary_name(final)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with explain_disk(final):
            temporary.mkdir()
            weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            _save_tensors(weights, temporary / "model.safetensors", final)
            _save_tensors(_momenta(model, optimizer), temporary / "optimizer.safetensors", final)
            _save_tensors(_random_state(), temporary / "random.safetensors", final)
            tokenizer.save(temporary / "tokenizer.json")
            _dump(temporary / "config.json", to_json(config))
            _dump(temporary / "state.json", {"state": vars(state), "versions": versions()})
            _complete(temporary)
        if final.exists():
            # The same step again (a run resumed from before it): the new one replaces it.
            _remove(final)
        publish(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints; 0 keeps all."""
    if keep:
        for folder in complete_checkpoints(run)[:-keep]:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a checkpoint. It loses its final name first: a kill in the middle leaves no half of
    one under that name, and `clean` finds the rest."""
    going = folder.with_name(f".{folder.name}.old.tmp")
    shutil.rmtree(going, ignore_errors=True)
    publish(folder, going)
    with explain_disk(going):
        shutil.rmtree(going)


def clean(run: Path) -> None:
    """Remove what a killed writer left. Only for the holder of the run's lock."""
    with explain_disk(run / FOLDER):
        for left in (run / FOLDER).glob(".step_*.tmp"):
            shutil.rmtree(left)


def complete_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run folder, oldest first."""
    found = (run / FOLDER).glob("step_*")
    complete = [f for f in found if _STEP_NAME.fullmatch(f.name) and (f / COMPLETE).is_file()]
    return sorted(complete, key=lambda folder: int(folder.name.removeprefix("step_")))


def newest(path: Path) -> Path:
    """The checkpoint `path` means: itself, or a run folder's newest. Raises TrainError."""
    with explain_disk(path):
        if (path / COMPLETE).is_file():
            return path
        found = complete_checkpoints(path)
    if not found:
        raise TrainError(
            f"{path}: no complete checkpoint here; give a run folder or a checkpoints/step_N in one"
        )
    return found[-1]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. Files are parsed from the bytes that were checked; the tokenizer,
    which carries a digest of its own, is read once more."""

    folder: Path
    files: dict[str, dict[str, Any]]

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Read `complete`. Raises TrainError where it is damaged."""
        try:
            value = json.loads((folder / COMPLETE).read_bytes())
            files = dict(value["files"])
            good = value["digest"] == digest_of(_canonical(files))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            raise TrainError(f"{folder}: the completion marker cannot be read: {exc}") from exc
        if not good:
            raise TrainError(f"{folder}: the completion marker is damaged; use an earlier one")
        return Checkpoint(folder, files)

    def read(self, name: str) -> bytes:
        """A file's bytes, verified. Raises TrainError naming the file."""
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise TrainError(f"{path}: cannot be read: {exc.strerror}") from exc
        told = self.files.get(name)
        if told is None or told["bytes"] != len(data) or told["xxh3_128"] != digest_of(data):
            raise TrainError(
                f"{path}: digest differs: damaged after it was written; "
                "remove this folder and resume from an earlier checkpoint"
            )
        return data

    @property
    def config(self) -> Config:
        """The run's config."""
        return from_json(self._object("config.json"))

    @property
    def state(self) -> State:
        """Where the run stood."""
        try:
            state = State(**self._object("state.json")["state"])
            if type(state.step) is not int or state.step < 0:
                raise ValueError(f"step {state.step!r}")
            if self.folder.name != step_folder(self.folder, state.step).name:
                raise ValueError(f"it is of step {state.step}")
        except (KeyError, TypeError, ValueError) as exc:
            raise self._foreign("state.json", exc) from exc
        return state

    def changed_versions(self) -> list[str]:
        """What differs here from the machine that wrote it, as 'torch: 2.11 then, 2.13 now'."""
        then, now = self._object("state.json").get("versions"), versions()
        if not isinstance(then, dict):
            raise self._foreign("state.json", "no versions")
        return [f"{k}: {then.get(k)} then, {now[k]} now" for k in now if then.get(k) != now[k]]

    def _object(self, name: str) -> dict[str, Any]:
        """The JSON object in a file, verified."""
        try:
            return parse_object(str(self.folder / name), self.read(name))
        except ShardError as exc:
            raise self._foreign(name, exc.detail) from exc

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors in a file, verified."""
        try:
            tensors: dict[str, torch.Tensor] = load(self.read(name))
        except SafetensorError as exc:
            raise self._foreign(name, exc) from exc
        return tensors

    def _foreign(self, name: str, why: object) -> TrainError:
        """What its digest vouches for and this release cannot read."""
        return TrainError(f"{self.folder / name}: not what this release writes: {why}")

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        self.read("tokenizer.json")
        return load_tokenizer(self.folder / "tokenizer.json")

    def load_weights(self, model: nn.Module) -> None:
        """Fill `model`. Raises TrainError where names or shapes differ."""
        try:
            model.load_state_dict(self._tensors("model.safetensors"), strict=True)
        except RuntimeError as exc:
            raise TrainError(f"{self.folder}: weights do not fit the model: {exc}") from exc

    def load_optimizer(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Fill the optimiser's momenta. Parameters that never had a gradient have none."""
        tensors = self._tensors("optimizer.safetensors")
        names = dict(model.named_parameters())
        for key, tensor in tensors.items():
            kind, name = key.split("/", 1)
            parameter = names.get(name)
            if parameter is None:
                raise TrainError(f"{self.folder}: momenta of an unknown parameter {name}")
            # AdamW counts steps on the host unless it is fused; there the count is on the device.
            device = parameter.device if kind != "step" or _fused(optimizer) else "cpu"
            optimizer.state[parameter][kind] = tensor.to(device)

    def load_random_state(self) -> None:
        """Set torch's generators."""
        tensors = self._tensors("random.safetensors")
        torch.set_rng_state(tensors["cpu"])
        if "cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["cuda"])


def _fused(optimizer: torch.optim.Optimizer) -> bool:
    return any(group.get("fused") for group in optimizer.param_groups)


def _momenta(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{kind}/{name}": value.contiguous()
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def _random_state() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path, final: Path) -> None:
    """safetensors reports a full disk in its own way; say it in ours."""
    try:
        save_file(tensors, path)
    except Exception as exc:
        if "os error" in str(exc).lower() or "I/O error" in str(exc):
            raise _as_os_error(str(exc)) from exc
        raise
    _sync(path)


def _as_os_error(text: str) -> OSError:
    """'... No space left on device (os error 28)' -> OSError(28)."""
    number = re.search(r"os error (\d+)", text)
    code = int(number.group(1)) if number else 5
    return OSError(code, os.strerror(code))


def _dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    _sync(path)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _complete(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = {"bytes": path.stat().st_size, "xxh3_128": LocalFile(path).digest()}
    _dump(folder / COMPLETE, {"files": files, "digest": digest_of(_canonical(files))})
    fsync_folder(folder)


def _canonical(files: dict[str, Any]) -> bytes:
    return json.dumps(files, sort_keys=True).encode()
