"""Locations: paths behave as in pathlib, URLs keep their query and hide their secrets."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.storage.location import Location

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=9)


@given(st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4))
def test_path_locations_behave_like_pathlib(parts: list[str]) -> None:
    path = Path("/", *parts)
    location = Location.of(path)
    assert (location.path, location.name, location.scheme) == (path, path.name, "")
    assert location.folder.path == path.parent
    assert location.sibling("b").path == path.with_name("b")
    assert (location / "b").path == path / "b"
    assert Location.of(location) is location and Location.of(str(path)) == location
    assert (str(location), os.fspath(location)) == (str(path), str(path))


@given(
    st.lists(st.sampled_from(["a", "b.tar", ".", "..", "", ".c", "d "]), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from(["x.json", ".x", "sub/x"]),
)
def test_text_of_other_locations_is_that_of_pathlib(
    parts: list[str], absolute: bool, name: str
) -> None:
    text = "/" * absolute + "/".join(parts)
    location, path = Location(text), Path(text)
    assert (location.name, location.folder.text) == (path.name, str(path.parent))
    assert (location / name).text == str(path / name)
    assert location.sibling(name).text == str(path.parent / name)


def test_relative_path_stays_relative() -> None:
    assert Location("x.tar").sibling("x.json") == Location("x.json")
    assert Location("a/x.tar").folder == Location("a")


def test_url_keeps_its_query_and_shows_no_secret() -> None:
    url = Location("s3://me:pass@bucket/a/x-000.tar?sig=1#part")
    assert (url.scheme, url.name) == ("s3", "x-000.tar")
    assert url.sibling("x.json").text == "s3://me:pass@bucket/a/x.json?sig=1"
    assert (url.folder / "b" / "c").text == "s3://me:pass@bucket/a/b/c?sig=1"
    assert str(url) == "s3://bucket/a/x-000.tar"
    assert Location("https://host") / "x.json" == Location("https://host/x.json")


def test_url_never_becomes_a_path() -> None:
    url = Location("https://host/x.tar")
    with pytest.raises(UsageError, match=r"https://host/x\.tar"):
        _ = url.path
    with pytest.raises(UsageError):
        Path(url)


@pytest.mark.parametrize(
    "text", ["https://me:pass@[5]/x.tar", "s3://me:pass@[::1/x", "a://b\u2100c/"]
)
def test_invalid_url_is_one_line_without_its_secret(text: str) -> None:
    for use in (str, lambda one: one.name, lambda one: one.folder, lambda one: one / "b"):
        with pytest.raises(UsageError, match="not a valid URL") as caught:
            use(Location(text))
        assert "pass" not in str(caught.value)


@given(st.text(max_size=20), st.sampled_from(["https://", "s3://", ""]))
def test_any_text_is_a_location_or_a_usage_error(text: str, scheme: str) -> None:
    location = Location(scheme + text)
    try:
        assert isinstance(str(location.folder / "x"), str) and isinstance(location.name, str)
    except UsageError:
        assert location.scheme
