"""Ask a trained model one question about an image, or about none.

    python -m ocrtrain.ask --checkpoint runs/stage1-full --image chart.png "What is the title?"

`--checkpoint` is a run folder, for its newest complete checkpoint, or one of its checkpoints/step_N
folders. Images come before the question, as in most data sets; `<image>` in the question is the
place of the next one, as in JSON Lines: "Before: <image> After: <image> What changed?". Only the
answer is printed to standard output; with --json, a document with the answer, its number of tokens
and whether it was finished.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ocrdata.errors import ImageError, TransportError, UsageError
from ocrdata.images.decode import RGB, decode_rgb
from ocrdata.images.letterbox import shrink_to_fit
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run
from ocrdata.sample import IMAGE_PART, Message, split_placeholders, text_part
from ocrdata.sources.conversations import PLACEHOLDER
from ocrdata.storage.files import read_file


def main(arguments: Sequence[str]) -> int:
    """Print the answer; returns the exit status."""
    args, problems = build_parser().parse_with_problems(list(arguments))
    # Imported late: --help needs no torch.
    import torch

    from ocrtrain.evaluation.generation import Decoding, Question, answer
    from ocrtrain.model.device import autocast_type, resolve_device
    from ocrtrain.run.trained import check_path, load_for_inference

    if args.question is not None and not args.question.strip():
        problems.add("the question is empty")
    messages: list[Message] = []
    with problems:
        messages = conversation(args.question or "", len(args.image), args.system)
    with problems:
        device = resolve_device(args.device)
    with problems:
        decoding = Decoding(args.max_new_tokens, stop_repeats=args.stop_repeats)
    if args.checkpoint:
        with problems:
            check_path(Path(args.checkpoint))
    pictures = []
    try:
        for name in args.image:
            with problems:
                pictures.append(read_image(Path(name)))
    except ImageError:
        problems.raise_all()  # what is wrong with the command line is told first
        raise
    problems.raise_all()
    loaded = load_for_inference(Path(args.checkpoint), device)
    mode = loaded.image_mode(args.image_size)
    images = tuple(torch.from_numpy(shrink_to_fit(picture, mode.size)) for picture in pictures)
    layouts = tuple(mode.layout(*picture.shape[1::-1]) for picture in pictures)
    (found,) = answer(
        loaded.model,
        loaded.tokenizer,
        [Question(messages, images, layouts)],
        replace(decoding, precision=autocast_type(loaded.config.precision, device)),
    )
    if args.json:
        print_json({
            "question": args.question, "answer": found.text, "tokens": found.tokens,
            "finished": found.finished, "repeats": found.repeats, "checkpoint": loaded.checkpoint,
        })  # fmt: skip
        return 0
    print(found.text)
    if found.repeats:
        print(
            "the answer was stopped: from there on it repeats its end (--stop-repeats)",
            file=sys.stderr,
        )
    elif not found.finished:
        print(
            f"the answer was cut off after {found.tokens} tokens (--max-new-tokens)",
            file=sys.stderr,
        )
    return 0


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m ocrtrain.ask", description=__doc__ or "")
    parser.add_argument("question", help="what to ask")
    parser.add_argument("--checkpoint", required=True, help="a run folder, or checkpoints/step_N")
    parser.add_argument(
        "--image", action="append", default=[], help="image file; repeat for several images"
    )
    parser.add_argument(
        "--image-size", default="",
        help="side of the square that images are letterboxed to, in px (default: the run's)",
    )  # fmt: skip
    parser.add_argument("--system", default="", help="system message, put before the question")
    parser.add_argument(
        "--max-new-tokens", type=int, default=1024, help="longest answer, in tokens"
    )
    parser.add_argument(
        "--stop-repeats", type=int, default=256, metavar="N",
        help="stop an answer whose last N tokens are one sequence over and over, and keep that "
        "sequence once (0: never)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add_json_flag(parser)
    return parser


def conversation(question: str, images: int, system: str = "") -> list[Message]:
    """The messages to answer, as a record with this text has them: the images where `<image>` is in
    the question, or before it. Raises UsageError if it places another number of images."""
    placed = question.count(PLACEHOLDER)
    if placed and placed != images:
        raise UsageError(
            f"the question places {placed} {PLACEHOLDER}, but there are {images} --image; give as "
            f"many, or leave {PLACEHOLDER} out to have the images before the question"
        )
    if placed:
        content = split_placeholders(question, PLACEHOLDER)
    else:
        content = [*(dict(IMAGE_PART) for _ in range(images)), text_part(question)]
    messages: list[Message] = [{"role": "user", "content": content}]
    if system:
        messages.insert(0, {"role": "system", "content": [text_part(system)]})
    return messages


def read_image(path: Path) -> RGB:
    """The pixels of an image file. Raises UsageError if it cannot be read, ImageError if it is not
    an image."""
    try:
        return decode_rgb(read_file(path))
    except TransportError as exc:
        raise UsageError(
            f"--image {path}: a folder, or no regular file; it must be an image file (repeat "
            "--image for several)"
        ) from exc
    except OSError as exc:
        raise UsageError(f"--image {path}: {exc.strerror}") from exc
    except ImageError as exc:
        raise ImageError(f"--image {path}: {exc}") from exc


if __name__ == "__main__":
    run(main)
