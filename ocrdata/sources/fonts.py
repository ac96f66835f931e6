"""The fonts of the sources that draw text: Pillow's own, those of a package, and files.

Without anything else there is Pillow's built-in font (Aileron). The package `rendercv-fonts`, the
extra `fonts`, brings the families below; the names `train` and `held-out` stand for a division of
them, so that a font the scores are about is drawn in no training sample. Layout is Pillow's own
(not Raqm's, which not every machine has). Pixels depend on the version of FreeType inside Pillow:
`versions` is part of the provenance of whatever is drawn.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont, features
from PIL import __version__ as pillow_version

from ocrdata.errors import UsageError

BUILT_IN = "Aileron"
"""Pillow's built-in font."""

TRAIN_FONTS = (
    BUILT_IN, "Roboto", "Open Sans", "Lato", "Noto Sans", "Poppins", "EB Garamond",
    "Gentium Book Plus",
)  # fmt: skip
HELD_OUT_FONTS = ("Source Sans 3", "Ubuntu", "XCharter")
"""Sans and serif on both sides; never move a family across (see `words.HELD_OUT_OF`)."""

GROUPS = {"train": TRAIN_FONTS, "held-out": HELD_OUT_FONTS}

_PACKAGE = "rendercv_fonts"
_NO_CHARACTER = "\U0010ffff"
"""A code point that no font may have a glyph for (Unicode, section 23.7)."""

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True)
class FontFile:
    """One font. `path` is None for Pillow's own; `digest` is that of the file's content."""

    name: str
    path: Path | None = None
    digest: str = ""

    def at(self, size: int) -> Font:
        """The font at a size in px (em), loaded once per process."""
        return _load(self.path, size)

    @property
    def identity(self) -> str:
        """Name and digest, for the provenance: no path of this machine."""
        return f"{self.name} {self.digest}".strip()

    def lacking(self, characters: Iterable[str]) -> list[str]:
        """Those that it has no glyph for: drawn like a code point that can have none."""
        missing = self._drawn(_NO_CHARACTER)
        return [one for one in characters if self._drawn(one) == missing]

    def _drawn(self, character: str) -> tuple[tuple[int, int], bytes]:
        mask = self.at(32).getmask(character)
        return mask.size, bytes(mask)


@lru_cache(maxsize=256)
def _load(path: Path | None, size: int) -> Font:
    if path is None:
        font = ImageFont.load_default(size)
        assert isinstance(font, Font)  # a bitmap font is only for Pillow without FreeType
        return font
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def find_fonts(names: Sequence[str]) -> tuple[FontFile, ...]:
    """The fonts of --font: families, `train`, `held-out`, or files, in the order given.

    Raises UsageError: an unknown name, a package or file that is missing, or no font.
    """
    return tuple(dict.fromkeys(font for name in names for font in _group(name)))


def check_characters(fonts: Iterable[FontFile], characters: str) -> None:
    """Check that there are characters, each one visible and once, and that every font has a glyph
    for each. Raises UsageError."""
    if not characters:
        raise UsageError("--alphabet: no characters")
    for one in characters:
        if one.isspace() or not one.isprintable():
            raise UsageError(f"--alphabet: {one!a} is no visible character")
        if characters.count(one) > 1:
            raise UsageError(f"--alphabet: {one!a} occurs more than once")
    for font in fonts:
        if lacking := font.lacking(characters):
            shown = " ".join(map(ascii, lacking[:8])) + (" ..." if len(lacking) > 8 else "")
            raise UsageError(f"--font {font.name}: the font has no glyph for {shown}")


def _group(name: str) -> list[FontFile]:
    return [_find(one) for one in GROUPS.get(name, (name,))]


def _find(name: str) -> FontFile:
    if name == BUILT_IN:
        return FontFile(BUILT_IN)
    if name in TRAIN_FONTS + HELD_OUT_FONTS:
        path = _in_package(name)
    elif "." in name or "/" in name:
        path = Path(name)
    else:
        families = ", ".join(TRAIN_FONTS + HELD_OUT_FONTS)
        raise UsageError(
            f"--font {name}: expected a file such as my.ttf, {', '.join(GROUPS)}, or one of "
            f"{families}"
        )
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        ImageFont.truetype(path, 16, layout_engine=ImageFont.Layout.BASIC)
    except OSError as exc:
        reason = exc.strerror or "not a font that FreeType can read"
        raise UsageError(f"--font {name}: {reason}") from exc
    return FontFile(name if path != Path(name) else path.name, path.absolute(), digest)


def _in_package(family: str) -> Path:
    """The regular face of a family."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(
            f"--font: {family} needs the package rendercv-fonts: pip install 'ocr-shards[fonts]'; "
            f"without it there is {BUILT_IN}"
        )
    stem = Path(found.origin).parent / family / f"{family.replace(' ', '')}-Regular"
    return next((path for path in map(stem.with_suffix, (".ttf", ".otf")) if path.exists()), stem)


def versions() -> Mapping[str, str]:
    """What pixels and PNG bytes depend on besides the fonts."""
    zlib = features.version("zlib_ng"), features.version("zlib")
    return {
        "pillow": pillow_version,
        "freetype": features.version("freetype2") or "",
        "zlib": f"ng {zlib[0]}" if zlib[0] else zlib[1] or "",
    }
