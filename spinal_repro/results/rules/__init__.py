"""Rules that decide claims: functions of a `ResultsIndex`, by name.

Of their options, ``cells`` are names or patterns of cells, of which those with a counterpart
count; ``quantity`` is one of `cost.QUANTITIES`, or for curves ``accuracy`` or ``loss``; ``below``
and ``outside`` claim the opposite; numbers are in the unit of the published ones.
"""

from spinal_repro.results.rules import accuracy, cost, epochs
from spinal_repro.results.rules.common import RULES, Judgement, Verdict

__all__ = ["RULES", "Judgement", "Verdict", "accuracy", "cost", "epochs"]
