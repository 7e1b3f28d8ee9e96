"""Rules that decide claims: functions of a `ResultsIndex`, by name."""

from spinal_repro.results.rules import accuracy, cost, epochs
from spinal_repro.results.rules.common import RULES, Judgement, Verdict

__all__ = ["RULES", "Judgement", "Verdict", "accuracy", "cost", "epochs"]
