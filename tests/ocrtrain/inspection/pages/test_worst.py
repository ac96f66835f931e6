"""The page of the worst answers: whole in one file, bounded, and text stays text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ocrdata.sample import from_turns
from ocrtrain.inspection.pages.worst import CHARACTERS_SHOWN, IMAGES_SHOWN, worst_page
from tests.support import small


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        assert not {"href", "onclick", "onerror"} & values.keys()
        if "src" in values:
            self.images.append(values["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def line(position: int, answer: str) -> dict[str, Any]:
    return {
        "source": "s", "shard": "s-000.tar", "key": f"{position:09d}", "position": position,
        "turn": 0, "kind": "all", "question": "Q <b>?", "gold": "g", "golds": ["g", "h"],
        "answer": answer, "finished": False, "repeats": False, "gain": 0.25,
        "scores": {"relaxed": False, "ned": 1.0, "length": len(answer)},
        "benchmark": {"name": "docvqa", "values": [["ANLS", 0.125, {}]]},
    }  # fmt: skip


def test_the_page_has_images_texts_and_scores(tmp_path: Path) -> None:
    images = [small.png((at, 0, 0), 900) for at in range(IMAGES_SHOWN + 2)]
    samples = [from_turns([("Q", "g")], images[:count], source="", meta={}) for count in (1, 6)]
    shards = small.write(tmp_path / "s-000.tar", samples)
    lines = [line(1, "<script>alert(1)</script>\nsecond"), line(0, "x" * 10 * CHARACTERS_SHOWN)]
    text = "".join(worst_page(lines, {"s": shards[1:]}, "answers.jsonl", "Be brief."))
    page = Page(text)
    assert "script" not in page.tags and page.tags.count("article") == 2
    assert len(page.images) == IMAGES_SHOWN + 1
    assert all(image.startswith("data:image/jpeg;base64,") for image in page.images)
    for part in ("<script>alert(1)</script>\nsecond", "Q <b>?", "g\nh", "0.125", "+0.250",
                 "2 more images", "cut off", "Be brief.", "answers.jsonl"):  # fmt: skip
        assert part in page.text, part
    assert len(page.text) < 3 * CHARACTERS_SHOWN and "27,000 more characters" in page.text
    old = {name: value for name, value in lines[0].items() if name != "position"}
    assert Page("".join(worst_page([old], {"s": shards}, "", ""))).images == []
    assert text == "".join(worst_page(lines, {"s": shards}, "answers.jsonl", "Be brief."))
