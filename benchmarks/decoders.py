"""Image decoders side by side on real charts and receipts; and threads against processes.

    python -m benchmarks.decoders [--runs 5] [--limit N]

From the bytes of a file to uint8 RGB [H, W, 3], for each kind of file; CPU milliseconds per image,
one thread. "same" is the number of images with exactly the pixels that Pillow gives under our
rules. Decoders that are not installed are left out (`benchmarks/requirements-peers.txt` lists
them). The floor is the fastest decoder that has the same pixels for all images of a kind; the last
line compares ours with that floor over all real charts.

Then all real charts are decoded by two workers, in wall time: threads; processes that keep what
they decode; processes that send it back, as training needs. Writes
benchmarks/results/decoders-DATE.json.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.metadata
import multiprocessing
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import DATA, interleaved, machine, table, write_result
from ocrdata.images import decode, png
from ocrdata.images.decode import decode_rgb, sniff
from ocrdata.runtime.cli import Parser, run

Pixels = npt.NDArray[np.uint8]
Decoder = Callable[[bytes], Pixels]
PACKAGES = ("pillow", "numpy", "kornia_rs", "opencv-python-headless", "imagecodecs", "pyspng",
            "simplejpeg")  # fmt: skip
COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}


def pillow(data: bytes) -> Pixels:
    """Our rules with Pillow alone: what `decode_rgb` does if the fast decoder cannot be used."""
    name, opened = decode._open(data, decode.MAX_PIXELS)
    decode._load(name, opened)
    return decode._to_rgb(opened, sixteen_bit=False)


def decoders() -> dict[str, Decoder]:
    """The installed decoders, by name. Each drops alpha, which is correct for opaque images."""
    found: dict[str, Decoder] = {"ours": decode_rgb, "Pillow": pillow}
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
        found["OpenCV"] = lambda data: cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB
        )
    with contextlib.suppress(ImportError):
        import imagecodecs

        by_format = {"png": imagecodecs.png_decode, "jpg": imagecodecs.jpeg8_decode}
        found["imagecodecs"] = lambda data: rgb(by_format[sniff(data)](data))
    with contextlib.suppress(ImportError):
        import pyspng

        found["pyspng"] = lambda data: rgb(pyspng.load(data))
    with contextlib.suppress(ImportError):
        import simplejpeg

        found["simplejpeg"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
    with contextlib.suppress(ImportError):
        from kornia_rs import io

        def kornia(data: bytes) -> Pixels:
            if sniff(data) == "jpg":
                return io.decode_image_jpegturbo(data, "rgb")
            mode = {2: "rgb", 6: "rgba"}[data[25]]
            height, width = struct.unpack_from(">II", data, 16)[::-1]
            return rgb(io.decode_image_png_u8(data, (height, width), mode))

        found["kornia-rs"] = kornia
    return found


def rgb(pixels: Pixels) -> Pixels:
    """The pixels of a decoder with three channels: alpha is dropped."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        opaque = png.without_alpha(pixels)
        return pixels[..., :3] if opaque is None else opaque
    return pixels


def kinds(limit: int | None) -> dict[str, list[bytes]]:
    """The files, by data set and kind; of each kind the first `limit`."""
    found: dict[str, list[bytes]] = {}
    for folder, title in (("charts", "chart"), ("docs", "receipt, page")):
        for path in sorted((DATA / folder / "images").glob("*")):
            data = path.read_bytes()
            kind = sniff(data)
            colour = f", {COLOURS[data[25]]}" if kind == "png" else ""
            found.setdefault(f"{title}: {kind}{colour}", []).append(data)
    return {kind: files[:limit] for kind, files in found.items()}


def same(decode: Decoder, files: Sequence[bytes]) -> int | None:
    """How many images have Pillow's pixels; None if the decoder cannot read such files."""
    try:
        return sum(np.array_equal(decode(data), pillow(data)) for data in files)
    except Exception:  # each decoder has its own errors for formats it cannot read
        return None


def measure_kind(files: list[bytes], runs: int) -> dict[str, dict[str, Any]]:
    """For each decoder: milliseconds per image, and how many images have Pillow's pixels."""
    able = {name: (decode, same(decode, files)) for name, decode in decoders().items()}
    cases = {
        name: each(decode, files) for name, (decode, equal) in able.items() if equal is not None
    }
    timings = interleaved(cases, runs)
    return {
        name: {"ms": 1e3 * timing.median_cpu / len(files), "same": able[name][1], "n": len(files)}
        for name, timing in timings.items()
    }


def each(decode: Decoder, files: Sequence[bytes]) -> Callable[[], None]:
    def run_all() -> None:
        for data in files:
            decode(data)

    return run_all


def mix(found: Mapping[str, Mapping[str, Mapping[str, Any]]], decoder: str) -> float:
    """Mean milliseconds per chart; "floor" takes the fastest correct decoder of each kind."""
    total = count = 0.0
    for kind, by_decoder in found.items():
        if not kind.startswith("chart"):
            continue
        n = by_decoder["ours"]["n"]
        right = [row["ms"] for row in by_decoder.values() if row["same"] == n]
        total += n * (min(right) if decoder == "floor" else by_decoder[decoder]["ms"])
        count += n
    return total / count


def keep(files: list[bytes]) -> int:
    return sum(len(decode_rgb(data)) for data in files)


def send(files: list[bytes]) -> list[Pixels]:
    return [decode_rgb(data) for data in files]


def pillow_all(files: list[bytes]) -> list[Pixels]:
    return [pillow(data) for data in files]


def measure_workers(files: list[bytes], runs: int) -> dict[str, float]:
    """Images per second of wall time, medians. Tasks are ten images; pools are started before."""
    parts = [files[at : at + 10] for at in range(0, len(files), 10)]
    seconds: dict[str, list[float]] = {}
    with pools() as (threads, processes):
        cases: dict[str, Callable[[], object]] = {
            "no workers": lambda: [send(part) for part in parts],
            "2 threads": lambda: list(threads.map(send, parts)),
            "2 threads, Pillow alone": lambda: list(threads.map(pillow_all, parts)),
            "2 processes, pixels kept": lambda: list(processes.map(keep, parts)),
            "2 processes, pixels sent": lambda: list(processes.map(send, parts)),
        }
        for turn in range(runs + 1):
            for name, case in cases.items():
                began = time.perf_counter()
                case()
                if turn:
                    seconds.setdefault(name, []).append(time.perf_counter() - began)
    return {name: len(files) / statistics.median(found) for name, found in seconds.items()}


@contextlib.contextmanager
def pools() -> Iterator[tuple[concurrent.futures.Executor, concurrent.futures.Executor]]:
    spawned = multiprocessing.get_context("forkserver")
    with (
        concurrent.futures.ThreadPoolExecutor(2) as threads,
        concurrent.futures.ProcessPoolExecutor(2, spawned) as processes,
    ):
        yield threads, processes


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.decoders", description=__doc__ or "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=int, help="first N images of each kind only")
    asked = parser.parse_args(list(arguments))
    files = kinds(asked.limit)
    found = {kind: measure_kind(some, asked.runs) for kind, some in files.items()}
    charts = [data for kind, some in files.items() if kind.startswith("chart") for data in some]
    workers = measure_workers(charts, asked.runs)
    names = list(decoders())
    rows = []
    for kind, by_decoder in found.items():
        row: dict[str, object] = {"kind": kind, "n": str(len(files[kind]))}
        for name in names:
            one = by_decoder.get(name)
            note = "" if one is None or one["same"] == one["n"] else f" ({one['same']} same)"
            row[name] = "-" if one is None else f"{one['ms']:.2f}{note}"
        rows.append(row)
    print(f"CPU ms per image, {asked.runs} rounds in turns, medians\n\n{table(rows)}\n")
    mixes = {name: mix(found, name) for name in ("ours", "Pillow", "floor")}
    print(f"all charts: {', '.join(f'{name} {ms:.2f} ms' for name, ms in mixes.items())}; "
          f"ours is {mixes['ours'] / mixes['floor']:.2f} times the floor\n")  # fmt: skip
    print(table([{"charts": name, "images/s": rate} for name, rate in workers.items()]))
    result = {
        **machine([name for name in PACKAGES if installed(name)]),
        "runs": asked.runs,
        "kinds": found,
        "mix_ms": mixes,
        "workers_images_per_second": workers,
    }
    print(f"\nwritten to {write_result('decoders', result)}")
    return 0


def installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    run(main)
