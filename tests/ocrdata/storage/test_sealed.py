import pytest

from ocrdata.errors import ShardError
from ocrdata.storage.sealed import canonical, check_seal, check_version, parse_object, seal


def test_digests_do_not_depend_on_how_json_is_written() -> None:
    assert canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    assert seal({"b": 1, "a": 2, "digest": "old"}) == seal({"a": 2, "b": 1})


def test_a_seal_over_what_no_json_can_say() -> None:
    for text in ('{"a": 1e999, "digest": null}', '{"a": NaN}', '{"digest": null}'):
        with pytest.raises(ShardError, match="its own digest differs"):
            check_seal("x.json", parse_object("x.json", text))


def test_versions() -> None:
    for version in ("0.1", "1.0", "1.99"):
        check_version("x", version)
    for version in ("2.0", "10.0", "", None, 3):
        with pytest.raises(ShardError):
            check_version("x", version)
