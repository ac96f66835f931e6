"""How long an answer takes: `ask` from cold, beside `import torch`, and a server that runs.

    python -m benchmarks.serving --run RUN [--turns 5] [--image chart.png]

The two starts are measured in turns, as wall and as CPU seconds; then one client asks the server 20
times, one request after the other, and a hundred at once. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

QUESTION = "What is the title?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="a run folder")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--image", help="image file; none: a question without one")
    args = parser.parse_args()
    print(json.dumps({"cold": cold(args), "server": server(args)}, indent=2))


def cold(args: argparse.Namespace) -> dict[str, Any]:
    """Medians of both starts."""
    image = ["--image", args.image] if args.image else []
    commands = {
        "import torch": ["-c", "import torch"],
        "ask": ["-m", "ocrtrain.ask", "--checkpoint", args.run, *image, QUESTION],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(args.turns):
        for name, words in commands.items():
            # mypy infers no type for a lambda with a default, which binds this turn's words.
            found[name].append(timed(lambda words=words: subprocess.run(  # type: ignore[misc]
                [sys.executable, *words], check=True, capture_output=True)))  # fmt: skip
    return {
        name: {"wall": statistics.median(wall for wall, _ in turns),
               "cpu": statistics.median(cpu for _, cpu in turns)}
        for name, turns in found.items()
    }  # fmt: skip


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds of `work`, and CPU seconds of the processes it starts."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def server(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of answers, and the server's peak memory."""
    words = [sys.executable, "-m", "ocrtrain.serve", args.run, "--port", "0", "--name", "m"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        place = urlsplit(process.stdout.readline().split()[-1])
        assert place.hostname and place.port, "the server did not start"
        body = request(args.image)

        def ask(_: int) -> float:
            began = time.perf_counter()
            connection = http.client.HTTPConnection(place.hostname or "", place.port)
            connection.request("POST", f"{place.path}/chat/completions", body,
                               {"Content-Type": "application/json"})  # fmt: skip
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
            connection.close()
            return time.perf_counter() - began

        alone = [ask(number) for number in range(20)]
        began = time.perf_counter()
        with ThreadPoolExecutor(100) as pool:
            together = list(pool.map(ask, range(100)))
        hundred = time.perf_counter() - began
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    return {
        "alone_median": statistics.median(alone),
        "alone_most": max(alone),
        "hundred_at_once": hundred,
        "hundred_slowest": max(together),
        "peak_mb": int(peak) / 1024,
    }


def request(image: str | None) -> bytes:
    """The question as a body."""
    content: list[dict[str, Any]] = [{"type": "text", "text": QUESTION}]
    if image:
        data = base64.b64encode(Path(image).read_bytes()).decode()
        url = {"url": f"data:image/png;base64,{data}"}
        content.insert(0, {"type": "image_url", "image_url": url})
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "m", "messages": messages}).encode()


if __name__ == "__main__":
    main()
