"""From shard bytes to what the device receives: uint8 as shipped here, against float32.

    python -m benchmarks.pixels [--runs 5] [--limit N]

The original decodes with Pillow, letterboxes to 1,024 px (bicubic) and normalises to float32, all
in the data-loading worker. Here the worker only decodes (and shrinks pages of over 4 megapixels);
the device letterboxes and normalises. That part is not free, so it is timed too, with this CPU as
the device, and the result is compared with Pillow's pixel by pixel. One thread; CPU seconds.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.common import DATA, Timing, interleaved, machine, table, write_result
from ocrdata.images.decode import decode_rgb, read_header
from ocrdata.images.letterbox import letterbox_geometry, shrink_to_fit
from ocrtrain.model.pixels import FILL, letterbox, resize_float

PACKAGES = ("torch", "pillow", "numpy")


def original(data: bytes, size: int) -> torch.Tensor:
    """What the original recipe sends to the device: float32 [3, size, size]."""
    with Image.open(io.BytesIO(data)) as image:
        padded = ImageOps.pad(
            image.convert("RGB"), (size, size), Image.Resampling.BICUBIC, color=(FILL,) * 3
        )
    pixels = torch.from_numpy(np.array(padded)).permute(2, 0, 1).contiguous()
    return pixels.float().div(255).sub(0.5).div(0.5)


def shipped(data: bytes, size: int) -> torch.Tensor:
    """What this project sends to the device: uint8 [H, W, 3]."""
    return torch.from_numpy(shrink_to_fit(decode_rgb(data), size))


def difference(images: list[bytes], size: int) -> dict[str, float]:
    """Difference to Pillow's letterbox of the same decoded pixels, in grey levels (of 255).

    For the CPU's path, and for the float path that CUDA uses (computed on the CPU here).
    """
    means, floats, most, most_float = [], [], 0.0, 0.0
    for data in images:
        whole = decode_rgb(data)
        expected = ImageOps.pad(
            Image.fromarray(whole), (size, size), Image.Resampling.BICUBIC, color=(FILL,) * 3
        )
        reference = torch.from_numpy(np.array(expected)).permute(2, 0, 1).float()
        small = torch.from_numpy(shrink_to_fit(whole, size))
        gap = ((letterbox([small], size)[0] + 1) * 127.5 - reference).abs()
        means.append(float(gap.mean()))
        most = max(most, float(gap.max()))
        gap = (_float_letterbox(small, size) - reference).abs()
        floats.append(float(gap.mean()))
        most_float = max(most_float, float(gap.max()))
    return {
        "mean": float(np.mean(means)),
        "worst_image_mean": max(means),
        "pixel_max": most,
        "float_path_mean": float(np.mean(floats)),
        "float_path_worst_image_mean": max(floats),
        "float_path_pixel_max": most_float,
    }


def _float_letterbox(image: torch.Tensor, size: int) -> torch.Tensor:
    box = letterbox_geometry(image.shape[1], image.shape[0], size)
    out = torch.full((3, size, size), float(FILL))
    resized = resize_float(image.permute(2, 0, 1)[None], box.height, box.width)[0].float()
    out[:, box.top : box.top + box.height, box.left : box.left + box.width] = resized
    return out


def load(folder: str, limit: int | None) -> list[bytes]:
    return [path.read_bytes() for path in sorted((DATA / folder / "images").glob("*"))][:limit]


def measure(images: list[bytes], size: int, runs: int) -> dict[str, Timing]:
    received = [shipped(data, size) for data in images]

    def each(call: Callable[[bytes, int], object]) -> Callable[[], None]:
        def run() -> None:
            for data in images:
                call(data, size)

        return run

    def on_device() -> None:
        for image in received:
            letterbox([image], size)

    cases = {"original": each(original), "ours": each(shipped), "device": on_device}
    return interleaved(cases, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=int, help="first N images of each set only")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    charts, documents = load("charts", asked.limit), load("docs", asked.limit)
    rows, details = [], []
    for name, images, size in (
        ("charts", charts, 1024),
        ("receipts and pages that shrink", documents, 1024),
        ("receipts and pages that shrink", documents, 512),
    ):
        if "shrink" in name:
            images = [data for data in images if max(read_header(data)[1:]) > size]
        timing = measure(images, size, asked.runs)
        gap = difference(images, size)
        cpu = {case: 1e3 * t.median_cpu / len(images) for case, t in timing.items()}
        rows.append(
            {
                "images": name,
                "n": len(images),
                "px": size,
                "original ms": cpu["original"],
                "ours ms": cpu["ours"],
                "per core": f"{cpu['original'] / cpu['ours']:.1f}x",
                "device ms (CPU)": cpu["device"],
                "ours + device": f"{cpu['original'] / (cpu['ours'] + cpu['device']):.1f}x",
                "mean diff": gap["mean"],
                "max": gap["pixel_max"],
            }
        )
        seconds = {case: {"wall": t.wall, "cpu": t.cpu} for case, t in timing.items()}
        sizes = [shipped(data, size).numel() for data in images]
        details.append(
            {
                "images": name,
                "n": len(images),
                "size": size,
                "seconds": seconds,
                "ms_per_image_cpu": cpu,
                "difference_grey_levels": gap,
                "bytes_shipped_mean": float(np.mean(sizes)),
                "bytes_original": 4 * 3 * size * size,
            }
        )
    print(table(rows))
    path = write_result(
        "pixels", {"machine": machine(PACKAGES), "runs": asked.runs, "cases": details}
    )
    print(f"written to {Path(path).relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
