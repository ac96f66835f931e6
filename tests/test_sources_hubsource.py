HEAD


@pytest.mark.parametrize("repository", ["chartqa", "a/b/c", "/b", "a/"])
def test_a_repository_is_owner_and_name(repository: str) -> None:
    with pytest.raises(UsageError, match="written as OWNER/NAME"):
        Request(repository, None, "train")


def test_a_request_knows_its_own_answer() -> None:
    request = Request("a/b", "c", "train", "main")
    answer = {"repository": "a/b", "config": "c", "split": "train", "revision": "main"}
    assert request.is_that_of({**answer, "commit": "1" * 40})
    assert Request("a/b", "c", "train", "1" * 40).is_that_of({**answer, "commit": "1" * 40})
    for name in answer:
        assert not request.is_that_of({**answer, name: "other", "commit": "1" * 40})
    assert not request.is_that_of({})
