"""A config as `config.json` of a run has it, and what differs between two configs."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any, NamedTuple

from ocrdata.errors import UsageError
from ocrtrain.settings.config import Config
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.model_config import ModelConfig

VERSION = 1


def to_json(config: Config) -> dict[str, Any]:
    """The config as JSON values, with the version of the format."""
    value = dataclasses.asdict(config)
    value["text_ratio"] = str(config.text_ratio)
    return {"version": VERSION, **value}


def from_json(value: dict[str, Any]) -> Config:
    """The inverse of `to_json`. Raises UsageError for another version, unknown or missing keys."""
    value = dict(value)
    version = value.pop("version", None)
    if version != VERSION:
        raise UsageError(
            f"config version {version} was written by another release; this one reads {VERSION}"
        )
    for item in dataclasses.fields(Config):
        if item.metadata.get("older") is not None:
            value.setdefault(item.name, item.metadata["older"])
    try:
        _check_complete(Config, value)
        _check_complete(ModelConfig, value["model"])
        model = ModelConfig(**_as_fields(ModelConfig, value.pop("model")))
        return Config(model=model, **_as_fields(Config, value))
    except (TypeError, KeyError, ValueError, AttributeError) as exc:
        raise UsageError(f"the saved config cannot be read: {exc}") from exc


def _check_complete(kind: type[Config | ModelConfig], value: dict[str, Any]) -> None:
    """Check that no field is missing: its default may not be what the run was started with."""
    missing = [item.name for item in dataclasses.fields(kind) if item.name not in value]
    if missing:
        raise ValueError(f"missing keys: {', '.join(missing)}")


def _as_fields(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """Convert JSON values to the fields' types: lists to tuples, `text_ratio` to a fraction."""
    result: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    if kind is Config:
        result["text_ratio"] = Fraction(value["text_ratio"])
    return result


class Difference(NamedTuple):
    """A setting that differs between two configs: its field, and both values."""

    field: dataclasses.Field[Any]
    old: Any
    new: Any

    @property
    def name(self) -> str:
        """Name of the field."""
        return self.field.name


def compare(old: Config, new: Config) -> list[Difference]:
    """All settings that differ, but for the folder, which is where a run is."""
    pairs: list[tuple[dataclasses.Field[Any], Any, Any]] = [
        (item, old, new) for item in dataclasses.fields(Config) if item.name not in ("model", "out")
    ]
    pairs += [(item, old.model, new.model) for item in dataclasses.fields(ModelConfig)]
    found = [Difference(f, getattr(a, f.name), getattr(b, f.name)) for f, a, b in pairs]
    return [one for one in found if one.old != one.new]


def differences(old: Config, new: Config) -> list[str]:
    """Differing settings that may not change on resume: '--seq-len: 512 in the run, 64 given'."""
    return [
        f"{flag_name(one.name)}: {one.old} in the run, {one.new} given"
        for one in compare(old, new)
        if not (one.field.metadata["runtime"] or one.field.metadata["change"])
    ]
