"""The kinds of data set that `make_shards` converts, one entry each: flags, default name of the
shards, and constructor of the source. `base.py` shows how to add one.

Values are those of the command line by flag name, with underscores for dashes; a flag that was not
given is None or its default.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrdata.sources import chartqa_folder, finevision, smoltalk, webdataset
from ocrdata.sources.annotations import ANSWERS, QUESTIONS, AnnotationFormat
from ocrdata.sources.base import Source, safe_name
from ocrdata.sources.benchmarks import chartqapro
from ocrdata.sources.benchmarks.questions import Layout, QuestionFileSource
from ocrdata.sources.benchmarks.questions import default_name as question_file_name
from ocrdata.sources.benchmarks.registry import LAYOUTS
from ocrdata.sources.jsonl import JsonlSource, set_name
from ocrdata.sources.spans import Span
from ocrdata.sources.words import HELD_OUT, SIDES, TRAIN
from ocrdata.storage.location import Location

LETTERS_AND_DIGITS = string.ascii_letters + string.digits

MOST_CHARACTERS = 1_000
"""Of a word, or lines of an image: far more than fit."""

SYNTHETIC_ROWS = 10_240
"""Rows of a synthetic data set without --stop and --limit."""

Values = Mapping[str, Any]
Recorded = Mapping[str, Any]
"""The provenance of an earlier conversion with the same name; {} if there is none."""


@dataclass(frozen=True)
class Flag:
    """One flag of a kind. `default` None means no default; `several` takes one or more values."""

    name: str
    help: str
    metavar: str | None = None
    kind: type = str
    default: object = None
    required: bool = False
    choices: tuple[str, ...] = ()
    several: bool = False


@dataclass(frozen=True)
class SourceKind:
    """A kind of data set: help text, flags, default name of its shards, constructor."""

    text: str
    flags: tuple[Flag, ...]
    default_name: Callable[[Values], str]
    make: Callable[[Values, Recorded], Source]


def _hub_flags(repository: str) -> tuple[Flag, ...]:
    return (
        Flag("repo", f"repository on the hub (default: {repository})", "OWNER/NAME"),
        Flag(
            "revision",
            "branch, tag or commit; the commit it points to at the first start is recorded and "
            "used from then on (default: main)",
        ),
    )


def _finevision(values: Values, recorded: Recorded) -> Source:
    return finevision.finevision(
        values.get("subset") or "chartqa",
        repository=values["repo"] or finevision.REPOSITORY,
        revision=values["revision"] or "main",
        recorded=recorded,
    )


def _smoltalk(values: Values, recorded: Recorded) -> Source:
    return smoltalk.smoltalk(
        values["config"],
        values["split"],
        repository=values["repo"] or smoltalk.REPOSITORY,
        revision=values["revision"] or "main",
        recorded=recorded,
    )


def _jsonl(values: Values, _: Recorded) -> Source:
    images = Location.of(values["images"]).path if values["images"] else None
    return JsonlSource(Location.of(values["path"]).path, images)


def _parquet(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.parquet_files import ParquetSource

    images = Location.of(values["images"]).path if values["images"] else None
    path = Location.of(values["path"]).path
    image = values["image"] or ""
    return ParquetSource(path, _annotations(values), images=images, image=image)


def _parquet_name(values: Values) -> str:
    from ocrdata.sources.parquet_files import default_name

    return default_name(Location.of(values["path"]).path)


def _image_folder(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.image_folder import ImageFolderSource

    return ImageFolderSource(Location.of(values["path"]).path, _annotations(values))


def _webdataset(values: Values, _: Recorded) -> Source:
    return webdataset.WebDatasetSource(values["path"], _annotations(values))


def _annotations(values: Values) -> AnnotationFormat:
    names = (flag.name for flag in _ANNOTATIONS)
    return AnnotationFormat(**{name: values[name] or "" for name in names})


def _chartqa_folder(values: Values, _: Recorded) -> Source:
    return chartqa_folder.ChartQaFolderSource(Location.of(values["path"]).path, values["split"])


def _chartqapro(values: Values, recorded: Recorded) -> Source:
    return chartqapro.chartqapro(
        repository=values["repo"] or chartqapro.REPOSITORY,
        revision=values["revision"] or "main",
        recorded=recorded,
    )


def _question_file(layout: Layout) -> SourceKind:
    """A benchmark whose questions are in one JSON file, about images in a folder."""

    def make(values: Values, _: Recorded) -> Source:
        images = Location.of(values["images"]).path if values["images"] else None
        return QuestionFileSource(layout, Location.of(values["path"]).path, images=images)

    return SourceKind(
        f"benchmark: {layout.text}",
        (
            Flag("path", "the JSON file of questions", "FILE", required=True),
            Flag(
                "images",
                "folder that image names are relative to (default: the folder of FILE)",
                "DIR",
            ),
        ),
        lambda values: question_file_name(layout, Location.of(values["path"]).path),
        make,
    )


def _olmocr_bench(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.benchmarks import olmocr_bench

    path = Location.of(values["path"]).path
    prompt = values["prompt"] or olmocr_bench.PROMPT
    return olmocr_bench.OlmOcrBenchSource(path, side=values["side"], prompt=prompt)


def _synthetic_rows(values: Values) -> int:
    """Number of rows to generate: a synthetic data set has as many as are requested."""
    return int(values["stop"] or values["start"] + (values["limit"] or SYNTHETIC_ROWS))


def _charts(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.charts import ChartsSource

    return ChartsSource(_synthetic_rows(values), seed=values["seed"])


def _open_charts(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.open_charts import MAX_ITEMS, OpenChartOptions, OpenChartsSource

    options = OpenChartOptions(
        size=values["size"],
        items=Span.of("--items", values["items"], 1, MAX_ITEMS),
        images=values["per_sample"],
        questions=tuple(dict.fromkeys(values["questions"])),
        offset=values["offset"],
        words=values["words"],
    )
    return OpenChartsSource(_synthetic_rows(values), options, seed=values["seed"])


def _tables(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.tables import TablesSource

    return TablesSource(_synthetic_rows(values), seed=values["seed"], words=values["words"])


def _sums(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.sums import SumsSource

    return SumsSource(_synthetic_rows(values), seed=values["seed"])


def _glyphs(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.fonts import find_fonts
    from ocrdata.sources.glyphs import GlyphOptions, GlyphsSource

    characters = values["characters"] or ("3..4" if values["words"] == HELD_OUT else "1..4")
    options = GlyphOptions(
        size=values["size"],
        images=values["per_sample"],
        lines=Span.of("--lines", values["lines"], 1, MOST_CHARACTERS),
        characters=Span.of("--characters", characters, 1, MOST_CHARACTERS),
        alphabets=tuple(values["alphabet"]),
        fonts=find_fonts(values["font"]),
        glyph_size=_glyph_size(values),
        offset=values["offset"],
        spacing=values["spacing"],
        place=values["place"],
        words=values["words"],
    )
    return GlyphsSource(_synthetic_rows(values), options, seed=values["seed"])


def _lines(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.lines import LinesOptions, LinesSource

    lines = Span.of("--lines", values["lines"], 1, MOST_CHARACTERS)
    options = LinesOptions(**_text_options(values), lines=lines)
    return LinesSource(_synthetic_rows(values), options, seed=values["seed"])


def _pages(values: Values, _: Recorded) -> Source:
    from ocrdata.sources.pages import PagesOptions, PagesSource

    options = PagesOptions(**_text_options(values))
    return PagesSource(_synthetic_rows(values), options, seed=values["seed"])


def _text_options(values: Values) -> dict[str, Any]:
    """The values of `TextOptions`."""
    from ocrdata.sources.fonts import find_fonts

    return {
        "fonts": find_fonts(values["font"]),
        "glyph_size": _glyph_size(values),
        "characters": Span.of("--characters", values["characters"], 1, MOST_CHARACTERS),
        **{name: values[name] for name in ("width", "height", "text", "alphabet", "words")},
    }


def _glyph_size(values: Values) -> Span:
    return Span.of("--glyph-size", values["glyph_size"], 4, 256)


def _by_words(name: str) -> Callable[[Values], str]:
    """The name of shards that have either words for training or held-out ones."""
    return lambda values: name if values["words"] == TRAIN else f"{name}-{values['words']}"


_SUBSET = Flag(
    "subset",
    "its name on the hub; also the default name of the shards, with characters other than letters, "
    "digits, _ and - replaced by -",
    required=True,
)
_ANNOTATIONS = (
    Flag(
        "question",
        f"field that holds the question (default: one of {', '.join(QUESTIONS)})",
        "FIELD",
    ),
    Flag(
        "answer",
        f"field that holds the answer (default: the first that exists of {', '.join(ANSWERS)})",
        "FIELD",
    ),
    Flag(
        "prompt",
        "the question for images that have none, such as those with a caption (default: the image "
        "alone)",
        "TEXT",
    ),
)
"""The flags of sources whose images have annotations: the fields of `AnnotationFormat`."""

_SEED = Flag("seed", "seed of the random samples (default: 0)", kind=int, default=0)

_WORDS = Flag(
    "words",
    "which random words: train (default) or held-out. Each word of 3 and more characters is on one "
    "side for good, in every synthetic source: what is held out stands in no training data",
    choices=SIDES,
    default=TRAIN,
)

CHART_QUESTIONS = ("table", "title", "type", "count", "largest", "value", "compare")
"""`open_charts.KINDS`, named here too: the module draws, and is imported when it is used."""

_FONT = Flag(
    "font",
    "fonts to draw from: files, families of the extra `fonts`, or train or held-out for a fixed "
    "division of these (default: Aileron, which comes with Pillow)",
    "FONT",
    default=("Aileron",),
    several=True,
)
_GLYPH_SIZE = Flag("glyph_size", "of the font (em), px (default: 16)", "PX|LOW..HIGH", default="16")
_ALPHABET = Flag(
    "alphabet",
    "characters of random strings (default: 52 letters and 10 digits)",
    default=LETTERS_AND_DIGITS,
)


def _text_flags(width: int, height: int) -> tuple[Flag, ...]:
    return (
        _SEED,
        _WORDS,
        Flag("width", f"of the image, px (default: {width})", "PX", int, width),
        Flag("height", f"of the image, px (default: {height})", "PX", int, height),
        _FONT,
        _GLYPH_SIZE,
        Flag(
            "text",
            "words (default), pronounceable, and numbers; or strings of the alphabet",
            choices=("words", "strings"),
            default="words",
        ),
        _ALPHABET,
        Flag("characters", "per word (default: 3..9)", "N|LOW..HIGH", default="3..9"),
    )


REGISTRY = {
    "chartqa": SourceKind(
        "charts with questions: FineVision's subset chartqa",
        _hub_flags(finevision.REPOSITORY),
        lambda _: "chartqa",
        _finevision,
    ),
    "finevision": SourceKind(
        "any subset of FineVision, or of a repository with the same columns",
        (*_hub_flags(finevision.REPOSITORY), _SUBSET),
        lambda values: safe_name(values["subset"]),
        _finevision,
    ),
    "smoltalk": SourceKind(
        "conversations: a repository with a `messages` column, with images or without",
        (
            *_hub_flags(smoltalk.REPOSITORY),
            Flag("config", "config of the repository (`all` for HuggingFaceTB/smoltalk)"),
            Flag("split", "train (default) or test", default="train"),
        ),
        lambda values: smoltalk.default_name(values["config"], values["split"]),
        _smoltalk,
    ),
    "jsonl": SourceKind(
        "your own file of conversations, with a folder of images",
        (
            Flag(
                "path",
                "JSON Lines or JSON arrays, also as .gz or .zst; a record is {messages: [{role, "
                "content}]}, LLaVA's {conversations: [{from, value}]}, {texts: [{user, "
                "assistant}]}, {prompt, answer}, or a bare list of messages, with its images under "
                "`image` or `images`",
                "FILE",
                required=True,
            ),
            Flag(
                "images",
                "folder that image names are relative to (default: the folder of FILE)",
                "DIR",
            ),
        ),
        lambda values: set_name(Path(values["path"])),
        _jsonl,
    ),
    "parquet": SourceKind(
        "your own Parquet files, with the images inside or in a folder",
        (
            Flag(
                "path",
                "a file, a folder with its subfolders, or a pattern in quotes; columns are those "
                "of a JSON record: messages, conversations, texts, or question and answer, with "
                "images under image or images",
                "FILES",
                required=True,
            ),
            Flag(
                "image",
                "column that holds the image or images, as bytes or names (default: one of a usual "
                "name, such as image or images)",
                "FIELD",
            ),
            Flag(
                "images",
                "folder that image names are relative to (default: the folder of FILES)",
                "DIR",
            ),
            *_ANNOTATIONS,
        ),
        _parquet_name,
        _parquet,
    ),
    "imagefolder": SourceKind(
        "a folder of images, described in metadata.jsonl or .csv, or each with a caption in a .txt "
        "of the same name",
        (
            Flag("path", "the folder, with its subfolders", "FOLDER", required=True),
            *_ANNOTATIONS,
        ),
        lambda values: safe_name(Path(values["path"]).absolute().name),
        _image_folder,
    ),
    "webdataset": SourceKind(
        "anybody's WebDataset tars, such as img2dataset's: images with .txt or .json",
        (
            Flag(
                "path",
                "tars, in this order: files, a range such as 'x-{000..017}.tar', a glob, a folder",
                "TARS",
                required=True,
                several=True,
            ),
            *_ANNOTATIONS,
        ),
        lambda values: webdataset.default_name(values["path"]),
        _webdataset,
    ),
    "chartqa-folder": SourceKind(
        "ChartQA as its authors publish it: train, val and test, each with png and JSON files",
        (
            Flag("path", "ChartQA's folder, or that of one split", "FOLDER", required=True),
            Flag("split", "train (default), val or test"),
        ),
        lambda values: chartqa_folder.default_name(
            Location.of(values["path"]).path, values["split"]
        ),
        _chartqa_folder,
    ),
    "chartqapro": SourceKind(
        "benchmark: ChartQAPro's test split on the hub",
        _hub_flags(chartqapro.REPOSITORY),
        lambda _: "chartqapro",
        _chartqapro,
    ),
    **{name: _question_file(layout) for name, layout in LAYOUTS.items()},
    "olmocr-bench": SourceKind(
        "benchmark: olmOCR-bench's bench_data, JSON Lines of tests with PDFs beside them",
        (
            Flag("path", "the folder bench_data", "FOLDER", required=True),
            Flag("side", "longest side of a page in px (default: 1288)", "PX", int, 1288),
            Flag("prompt", 'what is asked of every page (default: "Read the text.")', "TEXT"),
        ),
        lambda _: "olmocr-bench",
        _olmocr_bench,
    ),
    "charts": SourceKind(
        "synthetic charts with questions of ChartQA's kinds, seeded",
        (_SEED,),
        lambda _: "charts",
        _charts,
    ),
    "open-charts": SourceKind(
        "synthetic charts whose words and values are random, to be read and not guessed, seeded",
        (
            _SEED,
            _WORDS,
            Flag("size", "side of the image, px (default: 256)", "PX", int, 256),
            Flag("items", "bars or points of a chart (default: 2..4)", "N|LOW..HIGH", str, "2..4"),
            Flag("per_sample", "charts in a sample (default: 1)", "N", int, 1),
            Flag(
                "questions",
                "kinds of questions (default: all)",
                default=CHART_QUESTIONS,
                choices=CHART_QUESTIONS,
                several=True,
            ),
            Flag("offset", "largest shift of a string, px: 0 to 8 (default: 1)", "PX", int, 1),
        ),
        _by_words("open-charts"),
        _open_charts,
    ),
    "tables": SourceKind(
        "the questions of open-charts about tables in words, without images, seeded",
        (_SEED, _WORDS),
        _by_words("tables"),
        _tables,
    ),
    "glyphs": SourceKind(
        "short random strings on small squares, on which an encoder learns to read, seeded",
        (
            _SEED,
            _WORDS,
            Flag("per_sample", "images in a sample, each with its turn (default: 1)", "N", int, 1),
            Flag("lines", "strings of an image (default: 1)", "N|LOW..HIGH", default="1"),
            Flag("characters", "per string (default: 1..4, or 3..4 held out)", "N|LOW..HIGH"),
            Flag(
                "alphabet",
                "characters of the strings (default: 52 letters and 10 digits); of several "
                "alphabets, each string is of one",
                default=(LETTERS_AND_DIGITS,),
                several=True,
            ),
            Flag("size", "side of the image, px (default: 64)", "PX", int, 64),
            _FONT,
            _GLYPH_SIZE,
            Flag(
                "spacing",
                "grid (default): each character in the middle of a cell of 16 px, or more where it "
                "is wider; natural: as the font has them",
                choices=("grid", "natural"),
                default="grid",
            ),
            Flag(
                "offset",
                "largest shift of the text against the grid of 16 px, to each side, px: 0 "
                "(default) to 8",
                "PX",
                int,
                0,
            ),
            Flag(
                "place",
                "where strings start: at the left end of a line (default), or anywhere in it",
                choices=("left", "anywhere"),
                default="left",
            ),
        ),
        _by_words("glyphs"),
        _glyphs,
    ),
    "lines": SourceKind(
        "one or a few lines of random words, seeded",
        (
            *_text_flags(256, 64),
            Flag("lines", "in an image (default: 1)", "N|LOW..HIGH", default="1"),
        ),
        _by_words("lines"),
        _lines,
    ),
    "pages": SourceKind(
        "pages of headings and paragraphs of random words, seeded",
        _text_flags(512, 512),
        _by_words("pages"),
        _pages,
    ),
    "sums": SourceKind(
        "synthetic conversations without images, seeded",
        (_SEED,),
        lambda _: "sums",
        _sums,
    ),
}
"""By the first argument of `make_shards`."""
