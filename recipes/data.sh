#!/usr/bin/env bash
# The shards of both stages, streamed from the hub: 0.9 GB of charts, 0.1 GB of chats. Run it again
# to go on where it was stopped. SHARDS is the folder.
set -euo pipefail
out=${SHARDS:-shards}
python tools/make_shards.py chartqa --out "$out"
python tools/make_shards.py smoltalk --split train --limit 20480 --out "$out"
python tools/make_shards.py smoltalk --split test --limit 1024 --out "$out"
for name in chartqa smoltalk-train smoltalk-test; do
    python tools/check_shards.py "$out/$name.json"
done
