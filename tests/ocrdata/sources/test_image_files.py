"""Images by every name that records give them."""

from __future__ import annotations

import base64
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import RejectedRow
from ocrdata.sources.image_files import ImageFolder, is_data_url
from tests.support.numbered import square

RED = square("red")


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "red.png").write_bytes(RED)
    (folder / "sub" / "a b%20.png").write_bytes(b"inner")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return ImageFolder(folder)


def test_paths_and_file_urls_inside_the_folder_are_read(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = images.folder
    for name in ("red.png", "images/red.png", "./sub/../red.png", f"{folder}/red.png",
                 f"file://{folder}/red.png", f"file://localhost{folder}/red.png"):  # fmt: skip
        assert images.read(name) == RED
    inner = folder / "sub" / "a b%20.png"
    for name in (str(inner), f"file://{quote(str(inner))}"):
        assert images.read(name) == b"inner"
    # The same folder by another path: a link to it, and a relative one.
    (tmp_path / "link").symlink_to(folder)
    assert ImageFolder(tmp_path / "link").read(f"{folder}/red.png") == RED
    assert images.read(f"{tmp_path}/link/red.png") == RED
    monkeypatch.chdir(tmp_path)
    assert ImageFolder(Path("images")).read(f"{folder}/red.png") == RED


def test_a_link_in_the_folder_is_followed(images: ImageFolder, tmp_path: Path) -> None:
    (images.folder / "linked.png").symlink_to(tmp_path / "secret.png")
    assert images.read("linked.png") == images.read(f"{images.folder}/linked.png") == b"secret"


@pytest.mark.parametrize(
    "place",
    [
        "../secret.png",
        "sub/../../secret.png",
        "{}/secret.png",
        "{}/images/../secret.png",
        "file://{}/secret.png",
        "..",
    ],
)
def test_what_is_outside_the_folder_is_refused(
    images: ImageFolder, tmp_path: Path, place: str
) -> None:
    with pytest.raises(RejectedRow, match="is outside the image folder"):
        images.read(place.format(tmp_path))


@pytest.mark.parametrize("name", ["https://host/red.png", "s3://b/red.png", "file://host/red.png"])
def test_other_urls_are_refused(images: ImageFolder, name: str) -> None:
    with pytest.raises(RejectedRow, match=f"^{name} is a URL; download it"):
        images.read(name)


@pytest.mark.parametrize("name", ["\udfff.png", "a\0.png", "file:///a%00.png"])
def test_a_name_that_no_file_can_have(images: ImageFolder, name: str) -> None:
    with pytest.raises(RejectedRow, match="no file can have such a name") as caught:
        images.read(name)
    str(caught.value).encode()  # it can be written to the rejects


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_record", ["NFC", "NFD"])
def test_names_in_another_normal_form_are_found(
    images: ImageFolder, on_disk: str, in_record: str
) -> None:
    file, name = (unicodedata.normalize(form, "Übersicht é.png") for form in (on_disk, in_record))
    (images.folder / file).write_bytes(b"found")
    for place in (name, f"images/{name}", f"{images.folder}/{name}"):
        assert images.read(place) == b"found"


def test_of_two_forms_the_exact_one_is_read(images: ImageFolder) -> None:
    for form in ("NFC", "NFD"):
        (images.folder / unicodedata.normalize(form, "é.png")).write_bytes(form.encode())
    for form in ("NFC", "NFD"):
        assert images.read(unicodedata.normalize(form, "é.png")) == form.encode()


@given(
    data=st.binary(max_size=200),
    url_safe=st.booleans(),
    padded=st.booleans(),
    break_at=st.integers(1, 80),
    line_end=st.sampled_from(["", "\n", "\r\n", " "]),
    escaped=st.booleans(),
    head=st.sampled_from(["data:image/png;base64", "DATA:;BASE64", " data:image/png;x=1;Base64"]),
)
def test_every_spelling_of_a_data_url_is_its_bytes(
    *,
    data: bytes,
    url_safe: bool,
    padded: bool,
    break_at: int,
    line_end: str,
    escaped: bool,
    head: str,
) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    text = line_end.join(text[at : at + break_at] for at in range(0, len(text), break_at))
    url = f"{head},{quote(text, safe='') if escaped else text}"
    assert is_data_url(url)
    assert ImageFolder(Path("nowhere")).read(url) == data


@pytest.mark.parametrize("body", ["png,abc", "png;base64", *("a?b=", "a=bc", "abcde", "é")])
def test_a_data_url_of_something_else_is_refused(images: ImageFolder, body: str) -> None:
    head = "data:image/" if body.startswith("png") else "data:;base64,"
    with pytest.raises(RejectedRow, match=r"^invalid data URL: "):
        images.read(head + body)


def test_bare_base64_is_named_as_such(images: ImageFolder) -> None:
    for data in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a"):
        with pytest.raises(RejectedRow, match=r"^bare base64; write it as"):
            images.read(base64.b64encode(data + bytes(300)).decode())
    with pytest.raises(RejectedRow, match=r"^9j/x\.png: no such file"):
        images.read("9j/x.png")
