import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError, UsageErrors
from ocrdata.runtime.cli import add_json_flag
from ocrtrain.settings import presets
from ocrtrain.settings.checks import check_data
from ocrtrain.settings.config import Config
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.flags import GROUPS, ParsedFlags, override, parse, typed
from ocrtrain.settings.model_config import ModelConfig


def parse_words(*words: str) -> ParsedFlags:
    return parse(words, presets.stage1, prog="stage1", description="test")


def test_without_flags_the_config_is_the_preset() -> None:
    parsed = parse_words()
    assert (parsed.config, parsed.given, parsed.resume) == (presets.stage1(), {}, False)
    assert parse_words("--preset", "tiny").config == presets.stage1("tiny")


def test_a_flag_overrides_the_preset() -> None:
    parsed = parse_words("--lr", "1e-3", "--preset", "tiny", "--gpt-layers", "2", "--resume")
    assert parsed.config == override(presets.stage1("tiny"), {"lr": 1e-3, "gpt_layers": 2})
    assert set(parsed.given) == {"preset", "lr", "gpt_layers"}
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
    fields = [*dataclasses.fields(Config), *dataclasses.fields(ModelConfig)]
    for item in fields:
        if item.name != "model":
            assert "--" + item.name.replace("_", "-") in shown
            assert item.metadata["help"]
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(item.name for item in fields if item.name != "model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--text-ratio", "1/0"], "argument --text-ratio: invalid fraction '1/0'"),
        (["--step", "3"], "unrecognized arguments: --step 3"),
        (["--preset", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_wrong_flags_are_usage_errors(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_words(*words)
    assert message in str(caught.value) and len(caught.value.messages) == 1


def test_what_else_is_missing_is_told_of_a_wrong_command_line() -> None:
    """The check gets what is right of it, and is not made for a resumed run."""
    checked: list[Config] = []

    def check(config: Config) -> None:
        checked.append(config)
        raise UsageError("--val is missing")

    def parse_checked(*words: str) -> ParsedFlags:
        return parse(words, presets.stage1, prog="", description="", check=check)

    with pytest.raises(UsageErrors) as caught:
        parse_checked("--lr", "-1", "--steps", "7", "--warmup", "x", "--gpt-heads", "7")
    assert [line.split()[0] for line in caught.value.messages] == [
        "argument", "--gpt-width", "--lr", "--val"]  # fmt: skip
    assert checked == [dataclasses.replace(presets.stage1(), steps=7)]
    resumed = parse_checked("--lr", "-1", "--resume")  # its run decides what fits
    with pytest.raises(UsageError, match="--lr"):
        resumed.problems.raise_all()
    parse_checked("--lr", "1")
    assert len(checked) == 1
    with pytest.raises(UsageError) as wrong:  # not that sources are missing
        parse_checked("--source", "charts=charts.json")
    (told,) = wrong.value.messages
    assert told.startswith("--source charts=charts.json: ")


@pytest.mark.parametrize("words", [("--source", "shards/x.json:3"), ("--source", "x=y.json")])
def test_a_source_in_a_wrong_form_is_not_also_missing(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words, presets.stage1, prog="", description="", check=check_data)
    assert len(caught.value.messages) == 1 and words[1] in str(caught.value)


def test_a_command_can_have_flags_of_its_own() -> None:
    parsed = parse(["--json"], presets.stage1, prog="", description="", add=add_json_flag)
    assert parsed.others == {"json": True} and parsed.config == presets.stage1()


def test_random_weights_have_the_vocabulary_of_the_tokenizer() -> None:
    assert parse_words("--init", "random").config.model.vocab_size == 0
    assert parse_words("--init", "random", "--vocab-size", "9").config.model.vocab_size == 9
    assert parse_words("--init", "pretrained").config.model.vocab_size == 65537


@pytest.mark.parametrize("preset", ["full", "tiny"])
def test_help_groups_the_flags_and_shows_the_defaults_of_the_preset(
    preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_words("--preset", preset, "--help")
    shown_help = capsys.readouterr().out
    titles = [line[:-1] for line in shown_help.splitlines() if line.endswith(":")]
    assert [title for title in titles if title in GROUPS] == list(GROUPS)
    text = " ".join(shown_help.split())
    config = presets.stage1(preset)
    for name, shown in {"lr": config.lr, "steps": config.steps, "gpt_width": config.model.gpt_width,
                        "pack": "off", "text_ratio": "5/14"}.items():  # fmt: skip
        entry = text[text.index(f" {flag_name(name)}", text.index("options: ")) :].split(" --", 2)
        assert f"(default: {shown})" in " --".join(entry), name


@given(st.data())
def test_the_typed_flags_give_the_config(data: st.DataObject) -> None:
    base = presets.stage1("tiny")
    changes = {"shards": ("a.json", "b c.json"), "pack": True, "lr": 0.5, "gpt_layers": 5,
               "text_ratio": Fraction(1, 3), "out": "x", "sam_global_layers": (0,)}  # fmt: skip
    names = data.draw(st.lists(st.sampled_from(sorted(changes)), unique=True))
    config = override(base, {name: changes[name] for name in names})
    words = typed(config, base)
    assert parse_words("--preset", "tiny", *words).config == config
    assert len([word for word in words if word.startswith("--")]) == len(names)
