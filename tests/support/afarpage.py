"""Runs commands one after the other in this process: `python -m tests.support.afarpage JSON`, where
JSON is a list of [program, words].

One process, because the hub's endpoint is fixed when its client is imported, and starting one for
each command would take as long as the commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from ocrdata.commands import check_shards, copy_shards, make_shards, reshard
from ocrtrain import stage1
from ocrtrain.commands import plan

COMMANDS: dict[str, Callable[[list[str]], object]] = {
    "tools/make_shards.py": make_shards.main,
    "tools/check_shards.py": check_shards.main,
    "tools/copy_shards.py": copy_shards.main,
    "tools/reshard.py": reshard.main,
    "tools/plan.py": plan.main,
    "ocrtrain.stage1": stage1.main,
}


def main() -> None:
    for program, words in json.loads(sys.argv[1]):
        print("$", program, *words, flush=True)
        status = COMMANDS[program](words)
        if status:
            sys.exit(f"{program} {words}: exit status {status}")


if __name__ == "__main__":
    main()
