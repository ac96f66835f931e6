from pathlib import Path

import pytest
from PIL import ImageFont

from ocrdata.errors import UsageError
from ocrdata.sources import fonts
from ocrdata.sources.fonts import (
    BUILT_IN,
    GROUPS,
    HELD_OUT_FONTS,
    TRAIN_FONTS,
    FontFile,
    check_characters,
    find_fonts,
    versions,
)
from ocrdata.sources.typesetting import ALPHABET


def test_the_families_for_training_and_the_held_out_ones_are_different_fonts() -> None:
    train, held_out = find_fonts(["train"]), find_fonts(["held-out"])
    assert [font.name for font in train] == list(TRAIN_FONTS) and len(train) >= 4
    assert [font.name for font in held_out] == list(HELD_OUT_FONTS)
    digests = [font.digest for font in train + held_out]
    assert len(set(digests)) == len(digests)
    check_characters(train + held_out, ALPHABET + ".")
    drawn = {bytes(font.at(24).getmask("Rag7")) for font in train + held_out}
    assert len(drawn) == len(digests)


def test_fonts_keep_their_order_and_occur_once() -> None:
    found = find_fonts(["Lato", "train", BUILT_IN])
    assert [font.name for font in found] == ["Lato", *(n for n in TRAIN_FONTS if n != "Lato")]


def test_a_file_is_known_by_its_name_and_content_and_not_by_its_folder(tmp_path: Path) -> None:
    (lato,) = find_fonts(["Lato"])
    assert lato.path is not None
    file = tmp_path / "my.ttf"
    file.write_bytes(lato.path.read_bytes())
    (mine,) = find_fonts([str(file)])
    assert mine.identity == f"my.ttf {lato.digest}"
    assert bytes(mine.at(20).getmask("Rag")) == bytes(lato.at(20).getmask("Rag"))
    assert mine.at(20) is mine.at(20)


def test_pillows_own_font_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_PACKAGE", "a_package_nobody_has")
    assert find_fonts([BUILT_IN]) == (FontFile(BUILT_IN),)
    for name in ("Roboto", *GROUPS):
        with pytest.raises(UsageError, match=r"rendercv-fonts: pip install"):
            find_fonts([name])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Robotto", "Robotto: expected a file"),
        ("missing.ttf", "missing.ttf: No such file"),
        ("a.ttf", "a.ttf: not a font"),
        ("folder.d", "folder.d: Is a directory"),
    ],
)
def test_what_is_no_font_is_refused(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.ttf").write_bytes(b"no font" * 100)
    Path("folder.d").mkdir()
    with pytest.raises(UsageError, match=reason):
        find_fonts([name])


def test_characters_without_a_glyph_are_refused() -> None:
    aileron, lato = find_fonts([BUILT_IN, "Lato"])
    assert lato.lacking("aé") == [] and aileron.lacking("aéЖ") == ["é", "Ж"]
    with pytest.raises(UsageError, match=r"Aileron: .* '\\xe9'"):
        check_characters([lato, aileron], "abé")


@pytest.mark.parametrize(
    ("alphabet", "reason"), [("", "no char"), ("a b", "' '"), ("aba", "'a'"), ("a\x07", "x07")]
)
def test_alphabets_are_visible_characters_once_each(alphabet: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"--alphabet: .*{reason}"):
        check_characters([FontFile(BUILT_IN)], alphabet)


def test_versions_name_what_pixels_depend_on() -> None:
    assert set(versions()) == {"pillow", "freetype", "zlib"} and all(versions().values())


def test_layout_does_not_depend_on_a_library_beside_pillow() -> None:
    for font in find_fonts(["train"]):
        assert font.at(16).layout_engine == ImageFont.Layout.BASIC
