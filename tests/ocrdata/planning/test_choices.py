"""Every choice is one a plan accepts, and no other is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from ocrdata.errors import UsageError
from ocrdata.planning import choices
from ocrdata.planning.plan import Plan, PlanSettings, PlanSource
from tests.support.plans import even_blocks

SETTINGS = PlanSettings(batch=2, steps=3, seed=0)
NAMES = {
    "mix_by": choices.MIXES,
    "weigh_by": ("rows", "samples"),  # tokens need lengths
    "at_end": choices.AT_END,
    "shuffle": choices.SHUFFLES,
}


def plan(settings: PlanSettings) -> Plan:
    return Plan([PlanSource("a", 9, Fraction(1), "a", "", even_blocks(9))], settings, [])


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_accepts_every_choice_and_no_other(name: str) -> None:
    for choice in NAMES[name]:
        assert plan(replace(SETTINGS, **{name: choice})).steps == 3
    with pytest.raises(UsageError, match="nonsense"):
        plan(replace(SETTINGS, **{name: "nonsense"}))


def test_reading_a_command_line_needs_none_of_the_large_libraries() -> None:
    code = (
        "import sys\nfrom ocrtrain.settings import flags, presets\n"
        "flags.parse([], presets.stage1, prog='', description='')\n"
        "assert not {'numpy', 'pyarrow', 'tiktoken', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
