"""Rules that decide claims: small functions of findings, by name."""

from spinal_repro.results.rules import accuracy, cost, epochs, theory
from spinal_repro.results.rules.common import RULES, VERDICTS, Judgement

__all__ = ["RULES", "VERDICTS", "Judgement", "accuracy", "cost", "epochs", "theory"]
