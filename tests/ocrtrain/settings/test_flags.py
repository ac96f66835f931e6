import dataclasses
from fractions import Fraction

import pytest

from ocrtrain.settings import presets
from ocrtrain.settings.config import Config, ModelConfig
from ocrtrain.settings.flags import ParsedFlags, override, parse


def parse_words(*words: str) -> ParsedFlags:
    return parse(words, presets.stage1, prog="stage1", description="test")


def test_without_flags_the_config_is_the_preset() -> None:
    assert parse_words() == ParsedFlags(presets.stage1(), frozenset(), False)
    assert parse_words("--preset", "tiny").config == presets.stage1("tiny")


def test_a_flag_overrides_the_preset() -> None:
    parsed = parse_words("--lr", "1e-3", "--preset", "tiny", "--gpt-layers", "2", "--resume")
    assert parsed.config == override(presets.stage1("tiny"), {"lr": 1e-3, "gpt_layers": 2})
    assert parsed.given == {"preset", "lr", "gpt_layers"}
    assert parsed.resume


def test_every_type_of_value_is_parsed() -> None:
    config = parse_words(
        "--shards", "a-000.tar", "a-001.tar", "--text-ratio", "10/28", "--sam-global-layers",
        "0", "1", "--checkpointing", "--no-fresh-gpt", "--freeze",
    ).config  # fmt: skip
    assert config.shards == ("a-000.tar", "a-001.tar")
    assert config.text_ratio == Fraction(5, 14)
    assert config.model.sam_global_layers == (0, 1)
    assert (config.checkpointing, config.fresh_gpt, config.freeze) == (True, False, ())


def test_every_field_has_a_flag_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_words("--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for kind in (Config, ModelConfig):
        for item in dataclasses.fields(kind):
            if item.name != "model":
                assert "--" + item.name.replace("_", "-") in shown
                assert item.metadata["help"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--text-ratio", "1/0"], "argument --text-ratio: invalid fraction '1/0'"),
        (["--step", "3"], "unrecognized arguments: --step 3"),
        (["--preset", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_wrong_flags_exit_with_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_words(*words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
