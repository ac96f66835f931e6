"""The choices of a plan, by name. Imports nothing, so that a command line is read at once."""

from __future__ import annotations

from fractions import Fraction

MIXES = ("batch", "sample")
"""'batch': all rows of a batch come from one source. 'sample': each row may have another."""

WEIGHTS = ("rows", "samples", "tokens")
"""What weights are fractions of. Unpacked, a row is a sample."""

AT_END = ("repeat", "stop", "move")
"""What happens when a source has no batch left: it starts its next epoch; the run ends; or its
weight is divided among the others in proportion to theirs, and the run ends with the last one."""

SHUFFLES = ("full", "blocks", "none")
"""The order of the samples within an epoch: a permutation of all; of blocks of neighbours, and of
the samples in windows of such blocks; or that of the view (`ocrdata.planning.order`)."""

TOO_LONG = ("truncate", "drop", "error")
"""What to do with a sample longer than seq_len: truncate it at a turn, leave it out, or raise."""

Weight = Fraction | tuple[tuple[int, Fraction], ...]
"""A weight, or weights with the steps they start at: ((0, 1/2), (1000, 1/10))."""
