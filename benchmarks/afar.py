"""Reading from afar, side by side: 30 ms there and back, 50 MB/s, nginx behind a proxy.

    python -m benchmarks.afar [--runs 5] [--samples 12288] [--only in_order --only webdataset]

The real charts, repeated under other keys to 12,288 samples of 38 kB, lie in folders that nginx
serves; a proxy of its own process adds 15 ms each way (50 ms in the cases at 100 ms) and caps the
bandwidth at 50 MB/s, which is worth about 1,320 samples/s. Each case is a process of its own, with
empty cache folders unless it says otherwise; cases take turns. Ours verifies every sample. `raw` is
the client library alone. The other loaders read from the same server: webdataset and SPDL over
HTTP, mosaicml-streaming and litdata by S3 requests, which nginx answers like any others (over TLS
for litdata, whose client refuses plain HTTP). LanceDB lists its files, which nginx does not do: it
reads from nanio, behind a proxy of the same kind. They need the environment of `benchmarks.peers`
and are left out where they are not installed. Requests are counted by nginx, bytes by the proxy.
Writes benchmarks/results/afar-DATE.json.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.afar_clients import write_lance
from benchmarks.charts import SHARD_SAMPLES, load_charts, write_ours
from benchmarks.common import ROOT, machine, table, write_result
from benchmarks.peers.peer import charts, chats
from benchmarks.peers.run import end_session, memory
from benchmarks.peers.run import environment as caches
from ocrdata.runtime.cli import Parser, run
from ocrdata.shards.manifest import Manifest, write_manifest
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter
from tests.support.servers.nginx import Nginx, find_nginx, serve_nginx
from tests.support.servers.proxy import DELAY, RATE, Proxy, serve_proxy
from tests.support.servers.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, serve_s3

LIMIT_S = 180.0
SMALL = 64
CHATS = 12_288
"""Conversations in the compressed set."""

FARTHER = 0.05
"""Seconds each way in the cases at 100 ms."""

COLUMNS = (
    "samples/s",
    "ms",
    "requests/sample",
    "bytes/needed",
    "CPU ms/MB",
    "memory, MB",
    "failed",
)

PACKAGES = ("obstore", "numpy", "xxhash", "pyarrow", "torch")
PEERS = {
    "webdataset": "webdataset",
    "mosaicml-streaming": "streaming",
    "litdata": "litdata",
    "spdl": "spdl",
    "lancedb": "lancedb",
}
"""Package -> the module it is found by."""


@dataclass(frozen=True)
class Case:
    """A client reading one of the sets. `place` is 'far' (30 ms), 'farther' (100 ms), 'tls',
    'bucket' or 'disk'; `keeps` names a cache folder that cases share, made by the first of them."""

    name: str
    client: str
    place: str = "far"
    data: str = "charts"
    keeps: str = ""
    needs: str = ""


CASES = [
    Case("raw obstore, 1 MiB, depth 8", "raw_pieces"),
    Case("raw obstore, 38 kB at random, depth 32", "raw_random"),
    Case("ours, in order", "in_order"),
    Case("ours, in blocks", "in_blocks", keeps="blocks"),
    Case("ours, resume in the middle", "resume", keeps="blocks"),
    Case("ours, at random, depth 32", "at_random"),
    Case("ours, first at 90 %", "first", keeps="first"),
    Case("ours, first at 90 %, index cached", "first", keeps="first"),
    Case("ours, in order, TLS", "in_order", place="tls"),
    Case("ours, in order, 100 ms", "in_order", place="farther"),
    Case("ours, in blocks, 100 ms", "in_blocks", place="farther"),
    Case("ours, chats in .tar.zst, in order", "in_order", data="chats"),
    Case("ours, chats in .tar.zst, in blocks", "in_blocks", data="chats"),
    Case("ours, two workers", "two_workers"),
    Case("ours, two workers, disk", "two_workers", place="disk"),
    Case("ours, in order, disk", "in_order", place="disk"),
    Case("webdataset", "webdataset", needs="webdataset"),
    Case("webdataset, first at 90 %", "webdataset_first", needs="webdataset"),
    Case("webdataset, disk", "webdataset", place="disk", needs="webdataset"),
    Case("mosaicml-streaming", "mosaic", data="mosaic", needs="mosaicml-streaming"),
    Case("mosaicml-streaming, first at 90 %", "mosaic_first", data="mosaic",
         needs="mosaicml-streaming"),
    Case("mosaicml-streaming, disk", "mosaic", "disk", "mosaic", needs="mosaicml-streaming"),
    Case("litdata, TLS", "litdata", "tls", "litdata", needs="litdata"),
    Case("litdata, TLS, first at 90 %", "litdata_first", "tls", "litdata", needs="litdata"),
    Case("litdata, disk", "litdata", "disk", "litdata", needs="litdata"),
    Case("spdl", "spdl", needs="spdl"),
    Case("spdl, disk", "spdl", "disk", needs="spdl"),
    Case("lancedb", "lancedb", "bucket", "lance", needs="lancedb"),
    Case("lancedb, shuffled by 16", "lancedb_clumps", "bucket", "lance", needs="lancedb"),
    Case("lancedb, first at 90 %", "lancedb_first", "bucket", "lance", needs="lancedb"),
    Case("lancedb, disk", "lancedb", "disk", "lance", needs="lancedb"),
]  # fmt: skip


@dataclass(frozen=True)
class Places:
    """The running servers, and the folder that they serve."""

    nginx: Nginx
    far: Proxy
    farther: Proxy
    tls: Proxy
    bucket: Proxy
    folder: Path
    path: str

    def url(self, case: Case, name: str) -> str:
        by_s3 = case.data in ("mosaic", "litdata")
        if case.place == "disk":
            return str(set_folder(self.folder, name))
        if case.place == "bucket":
            return f"s3://{BUCKET}/{name}"
        if by_s3:
            return f"s3:/{self.path}/{name}"
        scheme, port = "http", self.proxy(case).port
        if case.place == "tls":
            scheme = "https"
        return f"{scheme}://127.0.0.1:{port}{self.path}/{name}"

    def small(self, case: Case) -> str:
        """The small set, from the server itself where the protocol allows it."""
        name = f"{case.data}-small"
        if case.place in ("disk", "bucket") or case.data in ("mosaic", "litdata"):
            return self.url(case, name)
        origin = self.nginx.tls_url if case.place == "tls" else self.nginx.url
        return f"{origin}{self.path}/{name}"

    def proxy(self, case: Case) -> Proxy:
        other = {"farther": self.farther, "tls": self.tls, "bucket": self.bucket}
        return other.get(case.place, self.far)


def set_folder(folder: Path, name: str) -> Path:
    """The folder of a set; those of LanceDB are in the folder of a bucket."""
    return folder / BUCKET / name if name.startswith("lance") else folder / name


@dataclass
class Outcome:
    """One run of a case. `requests` and `bytes` are those of the servers."""

    seconds: float = 0.0
    cpu: float = 0.0
    samples: int = 0
    requests: int = 0
    bytes: int = 0
    memory: int = 0
    error: str = ""


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.afar", description=__doc__ or "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=12_288)
    parser.add_argument("--only", action="append", default=[], metavar="CLIENT",
                        help="a client of benchmarks/afar_clients.py; may be repeated")  # fmt: skip
    asked = parser.parse_args(list(arguments))
    found = {name for name, module in PEERS.items() if importlib.util.find_spec(module)}
    cases = [case for case in CASES if not case.needs or case.needs in found]
    cases = [case for case in cases if not asked.only or case.client in asked.only]
    program = find_nginx()
    if program is None:
        parser.error("nginx is missing; install it: apt-get install --no-install-recommends nginx")
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name) / "data"
        folder.mkdir()
        sizes = write_sets(folder, asked.samples, {case.data for case in cases})
        places = servers.enter_context(serving(Path(name), folder, str(program)))
        rounds: dict[str, list[Outcome]] = {case.name: [] for case in cases}
        for number in range(asked.runs):
            scratch = Path(name) / f"scratch-{number}"
            for case in turn(cases, number):
                outcome = measure(case, places, scratch, asked.samples)
                rounds[case.name].append(outcome)
                print(f"round {number + 1}: {case.name}: {told(outcome)}", flush=True)
            shutil.rmtree(scratch)
            # After every round, so that a run that is interrupted leaves those it made.
            result = {"samples": asked.samples, **summary(rounds, sizes, cases)}
            path = write_result("afar", {**machine([*PACKAGES, *sorted(found)]), **result})
    print(table(result["cases"]))
    print(f"written to {path}")
    return 0


def turn(cases: Sequence[Case], number: int) -> list[Case]:
    """The cases in another order each round; those that share a cache folder stay together."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.keeps or case.name, []).append(case)
    names = list(groups)
    at = number * 7 % len(names)
    return [case for name in names[at:] + names[:at] for case in groups[name]]


def write_sets(folder: Path, count: int, wanted: set[str]) -> dict[str, int]:
    """Every set in its format, and a small one of each; the bytes of each set of ours."""
    samples = load_charts()
    sizes = {}
    for name, number in (("charts", count), ("charts-small", SMALL)):
        (folder / name).mkdir()
        sizes[name] = write_ours(folder / name, samples, number)
    if "chats" in wanted:
        for name, number in (("chats", CHATS), ("chats-small", SMALL)):
            (folder / name).mkdir()
            sizes[name] = write_chats(folder / name, number)
    for kind, module in (("mosaic", "mosaic:Mosaic"), ("litdata", "lit:Litdata")):
        if kind in wanted:
            file, peer = module.split(":")
            writer = getattr(importlib.import_module(f"benchmarks.peers.{file}"), peer)()
            for name, number in ((kind, count), (f"{kind}-small", SMALL)):
                (folder / name).mkdir()
                writer.write(charts(number), folder / name)
    if "lance" in wanted:
        for name, number in (("lance", count), ("lance-small", SMALL)):
            write_lance(charts(number), set_folder(folder, name))
    return sizes


def write_chats(folder: Path, count: int) -> int:
    """Real conversations as a compressed set."""
    source = chats(count)
    shards = []
    for number, keys in enumerate(source.shards()):
        with ShardWriter(folder / f"charts-{number:03d}.tar.zst") as writer:
            for key in keys:
                writer.write(make_key(key), source.sample(key))
        shards.append(writer.close())
    manifest = Manifest("charts", tuple(shards))
    write_manifest(folder / "charts.json", manifest)
    return manifest.bytes


@contextmanager
def serving(scratch: Path, folder: Path, program: str) -> Iterator[Places]:
    """All servers, with `folder` published."""
    (scratch / "nginx").mkdir()
    with ExitStack() as running:
        nginx = running.enter_context(serve_nginx(scratch / "nginx", program=program))
        ports = {"far": nginx.plain_port, "farther": nginx.plain_port, "tls": nginx.tls_port}
        proxies = {}
        for name, port in ports.items():
            (scratch / name).mkdir()
            delay = FARTHER if name == "farther" else DELAY
            proxy = serve_proxy(port, scratch / name, delay=delay, rate=RATE)
            proxies[name] = running.enter_context(proxy)
        (scratch / "bucket").mkdir()
        bucket = running.enter_context(serve_s3("nanio", folder))
        proxy = serve_proxy(bucket.port, scratch / "bucket")
        proxies["bucket"] = running.enter_context(proxy)
        yield Places(nginx, folder=folder, path=nginx.publish(folder), **proxies)


def measure(case: Case, places: Places, scratch: Path, count: int) -> Outcome:
    """Run a case in a process of its own. A failure is returned as an outcome, not raised."""
    own = scratch / (case.keeps or case.name.replace(" ", "-").replace(",", ""))
    own.mkdir(parents=True, exist_ok=True)
    number = CHATS if case.data == "chats" else count
    job = {"url": places.url(case, case.data), "small": places.small(case), "scratch": str(own),
           "count": number}  # fmt: skip
    words = [sys.executable, "-m", "benchmarks.afar_clients", case.client, json.dumps(job)]
    before, logged = places.proxy(case).counts(), len(places.nginx.requests())
    with (scratch / "errors.txt").open("w+") as errors:
        process = subprocess.Popen(
            words, env=environment(case, places, own, number), cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
        peak, until = 0, time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < until:
            peak = max(peak, memory(process.pid)[0])
            # A longer interval takes less CPU from what is measured; workers start within a second.
            time.sleep(0.05 if case.client == "two_workers" else 0.5)
        end_session(process)
        assert process.stdout is not None
        said = process.stdout.read()
        errors.seek(0)
        lines = [line.strip() for line in errors if line.strip()]
    if process.returncode or not said:
        return Outcome(error=(lines or ["no output within the time"])[-1][:200])
    served = [one for one in places.nginx.requests()[logged:] if "-small/" not in one.path]
    return Outcome(
        **json.loads(said),
        requests=len(served),
        bytes=places.proxy(case).counts().down - before.down,
        memory=peak,
    )


def environment(case: Case, places: Places, own: Path, count: int) -> dict[str, str]:
    """The environment of a client: caches of its own, and nginx as its S3 server."""
    authority = str(places.nginx.certificate.authority)
    scheme = "https" if case.place == "tls" else "http"
    endpoint = f"{scheme}://127.0.0.1:{places.proxy(case).port}"
    return {
        **caches(own),
        "AFAR_SHARDS": str(-(-count // SHARD_SAMPLES)),
        "SSL_CERT_FILE": authority,
        "AWS_CA_BUNDLE": authority,
        "AWS_ENDPOINT_URL": endpoint,
        "S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
    }


def told(outcome: Outcome) -> str:
    if outcome.error:
        return f"failed: {outcome.error}"
    return (
        f"{outcome.samples:,} samples in {outcome.seconds:.3f} s, {outcome.requests:,} requests, "
        f"{outcome.bytes / 1e6:,.1f} MB"
    )


def summary(
    rounds: Mapping[str, Sequence[Outcome]], sizes: Mapping[str, int], cases: Sequence[Case]
) -> dict[str, Any]:
    """Medians of every case, as rows of a table, and all rounds."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        good = [outcome for outcome in rounds[case.name] if not outcome.error]
        if not good:
            rows.append({"case": case.name, **dict.fromkeys(COLUMNS, "-")})
            continue
        middle = {
            name: statistics.median(getattr(outcome, name) for outcome in good)
            for name in ("seconds", "cpu", "samples", "requests", "bytes", "memory")
        }
        one = middle["samples"] == 1 or case.client == "resume"
        needed = sizes.get(case.data, sizes["charts"]) if not one else 0
        whole = needed and case.client not in ("at_random", "raw_random")
        far = case.place != "disk"
        counted = far and case.place != "bucket"
        megabytes = (middle["bytes"] if far else needed) / 1e6
        values = {
            "samples/s": "-" if one else round(middle["samples"] / middle["seconds"]),
            "ms": round(1e3 * middle["seconds"]),
            "requests/sample": middle["requests"] / middle["samples"] if counted else "-",
            "bytes/needed": middle["bytes"] / needed if far and whole else "-",
            "CPU ms/MB": 1e3 * middle["cpu"] / megabytes if megabytes and not one else "-",
            "memory, MB": round(middle["memory"] / 1e6),
            "failed": len(rounds[case.name]) - len(good),
        }
        rows.append({"case": case.name, **values})
    return {
        "bytes": dict(sizes),
        "cases": rows,
        "rounds": {name: [asdict(one) for one in found] for name, found in rounds.items()},
    }


if __name__ == "__main__":
    run(main)
