"""Ask a trained model one question about an image, or about none.

    python -m ocrtrain.ask --checkpoint runs/stage1-full --image chart.png "What is the title?"

`--checkpoint` is a run folder, for its newest complete checkpoint, or one of its checkpoints/step_N
folders. Only the answer is printed to standard output; with --json, a document with the answer, its
number of tokens and whether it was finished.
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
from ocrdata.sample import IMAGE_PART, Message, text_part
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
    with problems:
        device = resolve_device(args.device)
    with problems:
        decoding = Decoding(max_new_tokens=args.max_new_tokens)
    pictures = []
    for name in args.image:
        with problems:
            pictures.append(read_image(Path(name)))
    if args.checkpoint:
        with problems:
            check_path(Path(args.checkpoint))
    problems.raise_all()
    loaded = load_for_inference(Path(args.checkpoint), device)
    size = loaded.model.image_size
    images = tuple(torch.from_numpy(shrink_to_fit(picture, size)) for picture in pictures)
    (found,) = answer(
        loaded.model,
        loaded.tokenizer,
        [Question([user_message(args.question, len(images))], images)],
        replace(decoding, precision=autocast_type(loaded.config.precision, device)),
    )
    if args.json:
        print_json({
            "question": args.question, "answer": found.text, "tokens": found.tokens,
            "finished": found.finished, "checkpoint": loaded.checkpoint,
        })  # fmt: skip
        return 0
    print(found.text)
    if not found.finished:
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
        "--max-new-tokens", type=int, default=1024, help="longest answer, in tokens"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add_json_flag(parser)
    return parser


def user_message(question: str, images: int) -> Message:
    """A user message: the images first, as in the data sets, then the question."""
    return {"role": "user", "content": [*([IMAGE_PART] * images), text_part(question)]}


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
