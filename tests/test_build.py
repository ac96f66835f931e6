HEAD


def test_freezing_everything_is_refused(inputs: dict[str, str], tmp_path: Path) -> None:
    config = small_config(inputs, tmp_path / "run", freeze=("clip", "projector", "gpt"))
    tokenizer = find_tokenizer(config)
    config = with_vocabulary(config, tokenizer)
    model = new_model(config, tokenizer)
    trained = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"sam"}
