import pytest

from ocrdata.errors import ShardError
from ocrdata.storage.sealed import (
    canonical,
    canonical_ascii,
    canonical_spaced,
    check_seal,
    check_version,
    parse_object,
    seal,
    version_problem,
)


def test_the_written_forms_never_change() -> None:
    """Old files must keep their digests."""
    value = {"b": [1, 2.5], "a": "é\ud800"}
    assert canonical(value) == '{"a":"é\ud800","b":[1,2.5]}'.encode("utf-8", "surrogatepass")
    assert canonical_ascii(value) == b'{"a":"\\u00e9\\ud800","b":[1,2.5]}'
    assert canonical_spaced(value) == b'{"a": "\\u00e9\\ud800", "b": [1, 2.5]}'


def test_digests_do_not_depend_on_how_json_is_written() -> None:
    assert canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    assert seal({"b": 1, "a": 2, "digest": "old"}) == seal({"a": 2, "b": 1})


def test_nan_and_infinity_never_match_a_seal() -> None:
    for text in ('{"a": 1e999, "digest": null}', '{"a": NaN}', '{"digest": null}'):
        with pytest.raises(ShardError, match=r"x\.json: checksum mismatch"):
            check_seal("x.json", parse_object("x.json", text))


def test_minor_versions_are_readable_and_newer_major_ones_are_not() -> None:
    for version in ("0.1", "1.0", "1.99", 1, 0):
        check_version("x", version)
    for version in ("2.0", "10.0", 2):
        with pytest.raises(ShardError, match=rf"^x: .*{version} is newer than 1\.0.*update"):
            check_version("x", version)
    check_version("x", "2.7", "2.0")
    with pytest.raises(ShardError, match=r"3\.0 is newer than 2\.0"):
        check_version("x", "3.0", "2.0")
    for version in ("", None, True, -1, "x", "1x", "٣", "9" * 5_000):
        with pytest.raises(ShardError, match=r"^x: invalid format version"):
            check_version("x", version)


def test_a_format_with_plain_numbers_as_versions() -> None:
    assert version_problem(1, 1) == version_problem(0, 1) == ""
    assert "version 2 is newer than 1" in version_problem(2, 1)


def test_only_objects_are_documents() -> None:
    for text in ("[]", "1", '"x"', "null"):
        with pytest.raises(ShardError, match=r"x\.json: .*object"):
            parse_object("x.json", text)
    for text in ("{", "", "[" * 10**5, b"\xff"):
        with pytest.raises(ShardError, match=r"x\.json: .*JSON"):
            parse_object("x.json", text)
