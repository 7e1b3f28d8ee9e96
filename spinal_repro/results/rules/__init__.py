"""Rules that decide claims: functions of a `ResultsIndex`, by name."""

from spinal_repro.results.rules import accuracy, cost, epochs
from spinal_repro.results.rules.common import RULES, VERDICTS, Judgement

__all__ = ["RULES", "VERDICTS", "Judgement", "accuracy", "cost", "epochs"]
