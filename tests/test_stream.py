HEAD


def test_an_empty_slice_says_which_flag(inputs: dict[str, str], tmp_path: Path) -> None:
    config = small_config(inputs, tmp_path / "run", val=(inputs["shards"] + "[100:]",))
    with pytest.raises(UsageError, match=r"--val .* holds no samples"):
        train(config)
    config = small_config(inputs, tmp_path / "run", val=(), shards=(inputs["shards"],))
    with pytest.raises(UsageError, match=r"--val .*\[60:60\]|--val .* holds no samples"):
        train(config)
