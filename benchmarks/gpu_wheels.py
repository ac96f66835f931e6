"""Wheels of what a GPU machine with torch may lack, for `benchmarks/gpu.py` to install offline.

    python -m benchmarks.gpu_wheels wheels [--python 3.12]

Run it where the project is installed and a package index can be reached. It downloads the versions
of `constraints.txt` for Linux on x86-64: everything that the project needs, less what every machine
with torch and transformers has (`PRESENT`) and what training does without (`UNUSED`). Fails if they
are more than 50 MiB.

`install_missing` is the other end: pip decides, from the wheels and from what is there, what the
project's requirements lack. The interpreter's own environment stays as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import site
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.common import ROOT

LIMIT = 50 << 20

UNUSED = {"wandb", "datasets"}
"""Required by the project, but not for training with --wandb off on local shards."""

PRESENT = {"torch", "numpy", "pyarrow", "pillow", "pyyaml", "packaging", "typing-extensions"}
"""Never gathered: with torch and transformers they are there, and together they exceed the limit.
"""

GLIBC = (39, 35, 34, 31, 28, 27, 24, 17)
"""manylinux_2_N: pip takes wheels of exactly the platforms that it is given."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="version of the machine's Python")
    asked = parser.parse_args(arguments)
    wanted = sorted(pinned(closure(direct() - UNUSED)).items())
    download([f"{name}=={version}" for name, version in wanted], asked.folder, asked.python)
    sizes = {path.name: path.stat().st_size for path in asked.folder.glob("*.whl")}
    for name, size in sorted(sizes.items(), key=lambda one: -one[1]):
        print(f"{size / 2**20:8.2f} MiB  {name}")
    total = sum(sizes.values())
    print(f"{total / 2**20:8.2f} MiB in {len(sizes)} wheels; at most {LIMIT >> 20} MiB are allowed")
    return int(total > LIMIT)


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    """'tokenizers>=0.23; extra' -> 'tokenizers'."""
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return normal(found[0])


def requirements() -> list[str]:
    """What `pyproject.toml` requires for training, torch among it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [text for text in project["dependencies"] if name_of(text) not in UNUSED]


def direct() -> set[str]:
    """The names of what the project requires."""
    return {name_of(text) for text in requirements()}


def closure(names: Iterable[str]) -> set[str]:
    """These packages and all that they require, as installed here; not `PRESENT` ones."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    left = [name for name in names if name not in PRESENT]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            one = Requirement(text)
            applies = one.marker is None or one.marker.evaluate({"extra": ""})
            if applies and normal(one.name) not in PRESENT:
                left.append(normal(one.name))
    return found


def pinned(names: Iterable[str]) -> dict[str, str]:
    """The version of each package in `constraints.txt`. Raises SystemExit for one that lacks."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    versions = {normal(name): version for name, _, version in (x.partition("==") for x in lines)}
    missing = sorted(set(names) - versions.keys())
    if missing:
        raise SystemExit(f"constraints.txt has no version of {', '.join(missing)}")
    return {name: versions[name] for name in names}


def download(wanted: Sequence[str], folder: Path, python: str) -> None:
    """Download wheels, and nothing that they require."""
    platforms = [f"manylinux_2_{number}_x86_64" for number in GLIBC]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--only-binary", ":all:", "--python-version", python, "--implementation", "cp",
             *(word for name in platforms for word in ("--platform", name)),
             "--dest", str(folder), *wanted]  # fmt: skip
    subprocess.run(words, check=True)


def install_missing(
    wheels: Path, folder: Path, wanted: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Make an environment in `folder` that has what this interpreter has, and from `wheels` what
    the project requires (or else what is `wanted`) beyond that; offline. Returns its interpreter,
    and what was installed.

    Raises RuntimeError with pip's last words if the requirements cannot be met.
    """
    venv.EnvBuilder(system_site_packages=True, symlinks=True, with_pip=False).create(folder)
    # The environment of a virtual environment would see the packages of its base alone.
    own = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    inherited = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE
                                            else [])]  # fmt: skip
    Path(own, "inherited.pth").write_text("\n".join(inherited) + "\n", "utf-8")
    python, report = folder / "bin" / "python", folder / "report.json"
    words = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-cache-dir",
             "--disable-pip-version-check", "--find-links", str(wheels.resolve()),
             "--report", str(report), *(wanted or requirements())]  # fmt: skip
    done = subprocess.run(
        words, capture_output=True, text=True, check=False,
        env=os.environ | {"PIP_CONFIG_FILE": os.devnull, "PIP_CONSTRAINT": ""},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"pip: {done.stderr.strip()[-2000:]}")
    found = json.loads(report.read_text("utf-8"))["install"] if report.exists() else []
    return str(python), [f"{one['metadata']['name']} {one['metadata']['version']}" for one in found]


if __name__ == "__main__":
    sys.exit(main())
