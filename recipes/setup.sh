#!/usr/bin/env bash
# An environment in .venv with the pinned versions, on a machine with Python 3.11 or 3.12 and an
# NVIDIA driver. Arguments are passed on to pip where it installs torch: with none, pip installs the
# CUDA build of the pinned version that is the default on Linux; for another CUDA, pass the
# --index-url that "Get started" at pytorch.org shows for it.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install -c constraints.txt "$@" torch
.venv/bin/python -m pip install -c constraints.txt '.[fast,remote]'
.venv/bin/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else
    f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU it can use: see nvidia-smi")'
