HEAD


def test_a_run_is_not_overwritten_nor_gone_on_with_otherwise(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = small_config(inputs, run, stop_at=2)
    assert train(config) == 0
    with pytest.raises(UsageError, match="holds a run already; go on with it by --resume"):
        train(config)
    moved = replace(config, shards=(inputs["shards"] + "[:40]",), stop_at=0)
    with pytest.raises(TrainError, match="the shards are not those the run began with"):
        train(moved, resume=True)


def test_a_damaged_checkpoint_is_not_gone_on_from(inputs: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(small_config(inputs, run, stop_at=4)) == 0
    path = checkpoint.steps(run)[-1] / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(TrainError, match=r"model.safetensors: digest differs"):
        train(small_config(inputs, run), resume=True)


def test_resume_without_a_checkpoint_starts_anew(
    inputs: dict[str, str], unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(small_config(inputs, run, save_every=0), resume=True) == 0
    assert "no complete checkpoint yet: starting at step 0" in capsys.readouterr().out
    assert losses(run) == losses(unbroken)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shards": ()}, "--shards is missing"),
        ({"freeze": ("sam",)}, "--freeze sam needs --deepencoder"),
        ({"deepencoder": "nowhere.safetensors"}, "--deepencoder nowhere.safetensors: there is no"),
        ({"tokenizer": "nowhere.json"}, "--tokenizer nowhere.json: there is no such file"),
        ({"tokenizer": ""}, "--init random needs --tokenizer FILE"),
        ({"device": "cuda:9"}, "this machine has 0 CUDA devices"),
        ({"device": "abacus"}, "'abacus' is no device"),
        ({"model": None}, "the tokenizer has 300 tokens, the model --vocab-size 65537"),
    ],
)
def test_mistakes_stop_before_anything_is_written(
    values: dict[str, Any], message: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    config = small_config(inputs, tmp_path / "run")
    if "model" in values:
        values = {"model": replace(config.model, vocab_size=65537)}
    with pytest.raises(UsageError, match=message):
        train(replace(config, **values))
    assert not (tmp_path / "run" / "config.json").exists()


def test_images_in_training_and_validation_are_counted(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(
        inputs, tmp_path / "run", val=(inputs["shards"] + "[40:50]",), stop_at=1, save_every=0
    )
    assert train(config) == 0
    assert "8 validation samples show an image that training shows too" in capsys.readouterr().out
