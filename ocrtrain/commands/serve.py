"""Serve a trained model over HTTP, in the format of OpenAI's chat completions.

    python -m ocrtrain.serve runs/stage2-full

Clients give http://127.0.0.1:8000/v1 as their base URL, and images as data URLs. Requests that
arrive together are answered together, greedily, as `ocrtrain.ask` answers. On another address than
loopback it needs a token, from --token-file or the environment's OCR_SERVE_TOKEN. Ctrl-C or
SIGTERM finishes what is being answered. docs/serving.md has the rest.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ocrdata.errors import Problems, UsageError
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.units import parse_bytes
from ocrdata.storage.files import read_file

# What imports torch is imported where it is used, so that --help answers at once.
if TYPE_CHECKING:
    from ocrtrain.run.trained import TrainedModel
    from ocrtrain.serving.batcher import Batcher

TOKEN_VARIABLE = "OCR_SERVE_TOKEN"


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal; returns the exit status."""
    args, problems = build_parser().parse_with_problems(list(arguments))
    _check(args, problems)
    token = ""
    with problems:
        token = find_token(args.token_file)
    problems.raise_all()
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as exc:
        raise UsageError(f"{exc.name} is not installed; pip install 'ocr-shards[serve]'") from exc
    from ocrtrain.serving.listening import Server, bind, is_loopback, url_of

    with bind(args.host, args.port) as bound:
        if not token and not is_loopback(bound):
            raise UsageError(
                f"--host {args.host} can be reached from other machines, which needs a token: "
                f"--token-file FILE, or {TOKEN_VARIABLE} in the environment"
            )
        from ocrtrain.model.device import resolve_device
        from ocrtrain.run.trained import load_for_inference
        from ocrtrain.serving.batcher import Batcher, BatchLimits
        from ocrtrain.serving.chat_request import RequestLimits
        from ocrtrain.serving.endpoint import EndpointOptions, make_app

        trained = load_for_inference(Path(args.run), resolve_device(args.device))
        limits = BatchLimits(args.batch, args.queue, args.cache_memory, args.stop_repeats)
        name = args.name or _name(trained)
        with Batcher(trained, limits) as batcher:
            _warm_up(trained, batcher, args.image_size)
            options = EndpointOptions(
                name,
                token,
                args.image_size,
                limits=RequestLimits(args.max_new_tokens, args.max_images),
                timeout=args.timeout,
                max_body=args.max_body,
                max_pixels=args.max_pixels,
                memory=args.request_memory,
            )

            def ready() -> None:
                print(f"{name} ({trained.checkpoint}): {url_of(bound)}/v1", flush=True)

            app = make_app(trained, batcher, options)
            Server(app, timeout=args.timeout, ready=ready).run(sockets=[bound])
    return 0


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m ocrtrain.serve", description=__doc__ or "")
    parser.add_argument("run", help="a run folder, its checkpoints/step_N, or an exported folder")
    parser.add_argument("--name", default="", help="name of the model in requests (the folder's)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port; 0: any free one")
    parser.add_argument(
        "--token-file", default="",
        help=f"file with the token that requests must bear (or {TOKEN_VARIABLE})",
    )  # fmt: skip
    parser.add_argument("--token", type=_not_here, help=argparse.SUPPRESS)
    parser.add_argument(
        "--image-size", default="",
        help="side of the square that images are letterboxed to, in px (default: the run's)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="answers given at the same time"
    )
    parser.add_argument(
        "--queue", type=int, default=256, metavar="N",
        help="requests that may wait; one more is told to try again (429)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=120, metavar="SECONDS",
        help="time from a request to the end of its answer",
    )  # fmt: skip
    parser.add_argument(
        "--max-new-tokens", type=int, default=1024, help="longest answer, in tokens"
    )
    parser.add_argument(
        "--stop-repeats", type=int, default=256, metavar="N",
        help="stop an answer whose last N tokens are one sequence over and over (0: never)",
    )  # fmt: skip
    parser.add_argument("--max-images", type=int, default=8, help="images in a request")
    parser.add_argument(
        "--max-pixels", type=int, default=50_000_000, help="width x height of an image"
    )
    for flag, default, what in (
        ("--max-body", "32MB", "a request's body"),
        ("--request-memory", "2GB", "all requests until they are answered, images decoded"),
        ("--cache-memory", "2GB", "the decoder's keys and values, on the device"),
    ):
        parser.add_argument(
            flag, type=_size, default=_size(default), metavar="SIZE",
            help=f"largest size of {what} (default: {default})",
        )  # fmt: skip
    return parser


def find_token(file: str) -> str:
    """The token in a file, or else in the environment; "" if there is none.

    Raises UsageError where the file cannot be read, or where it holds no token that a header can.
    """
    if file:
        try:
            token = read_file(Path(file)).decode().strip()
        except OSError as exc:
            raise UsageError(f"--token-file {file}: {exc.strerror}") from exc
        except UnicodeDecodeError:
            raise UsageError(f"--token-file {file}: not a text") from None
        where = f"--token-file {file}"
    elif TOKEN_VARIABLE in os.environ:
        token, where = os.environ[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
    else:
        return ""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{where}: must be one word of ASCII letters, digits and signs")
    return token


def _not_here(token: str) -> str:
    raise argparse.ArgumentTypeError(
        "other users see command lines; give the token with --token-file FILE, or as "
        f"{TOKEN_VARIABLE} in the environment"
    )


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _check(args: argparse.Namespace, problems: Problems) -> None:
    least = {"batch": 1, "queue": 1, "max_new_tokens": 1, "max_images": 0, "max_pixels": 1,
             "max_body": 1, "request_memory": 1, "cache_memory": 1}  # fmt: skip
    for name, smallest in least.items():
        if getattr(args, name) < smallest:
            problems.add(f"--{name.replace('_', '-')} must be at least {smallest}")
    if not 0 < args.timeout < 10**6:
        problems.add(f"--timeout {args.timeout:g}: must be more than 0 and less than 10^6 seconds")
    if args.run and not Path(args.run).is_dir():
        problems.add(
            f"{args.run}: no such folder; name a run folder, its checkpoints/step_N, or an "
            "exported folder"
        )
    with problems:
        from ocrtrain.evaluation.generation import Decoding

        Decoding(stop_repeats=args.stop_repeats)


def _name(trained: TrainedModel) -> str:
    """That of the run's folder, or of the exported one."""
    is_run = trained.folder == trained.checkpoint.parent.parent
    return (trained.folder if is_run else trained.checkpoint).resolve().name


def _warm_up(trained: TrainedModel, batcher: Batcher, image_size: str) -> None:
    """Answer once, so that what torch does only once is done before the first request."""
    import torch

    from ocrdata.sample import IMAGE_PART
    from ocrtrain.evaluation.generation import Question, prompt_ids
    from ocrtrain.serving.batcher import answer_now

    mode = trained.image_mode(image_size)
    blank = torch.full((mode.size, mode.size, 3), 255, dtype=torch.uint8)
    layout = mode.layout(mode.size, mode.size)
    question = Question([{"role": "user", "content": [dict(IMAGE_PART)]}], (blank,), (layout,))
    prompt = len(prompt_ids(trained.model, trained.tokenizer, question))
    if prompt + 2 > batcher.max_positions:
        raise UsageError(
            f"--cache-memory has room for {batcher.max_positions} positions; a question about an "
            f"image takes {prompt + 2}"
        )
    answer_now(batcher, question, prompt, 2)


if __name__ == "__main__":
    run(main)
