"""Rules about what is proved and not measured."""

from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import SUPPORTED, Judgement, rule


@rule("decided_by_tests")
def decided_by_tests(findings: ResultsIndex, *, says: str, cites: list[str]) -> Judgement:
    """A statement that is proved in the documents and checked by tests of this repository.

    Args:
        findings: Not needed.
        says: What is proved.
        cites: Files of the repository: the proof and its test.
    """
    return Judgement(SUPPORTED, f"{says}; see {' and '.join(cites)}")
