"""Every citation of a recipe or a quirk, and every link between documents, leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
if not (ROOT / "results").is_dir():
    pytest.skip("results/ is in the repository, not in the source archive", allow_module_level=True)
QUIRKS, RECIPES = DOCS / "quirks.md", DOCS / "recipes.md"
CITING = [
    path
    for folder in ("spinal_repro", "configs", "scripts", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".yaml", ".csv", ".md"} and path != QUIRKS
]
CITING += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES = [path for path in CITING if path.suffix == ".md"] + [QUIRKS]
SECTION = r"\d+(?:\.\d+)?"


def cited(pattern: str) -> dict[str, list[str]]:
    """Files by what they cite; the pattern has one group, in which numbers are looked for."""
    found: dict[str, list[str]] = {}
    for path in CITING:
        for name in re.findall(pattern, path.read_text(encoding="utf-8")):
            found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_every_cited_section_of_the_recipes_is_there():
    headings = re.findall(rf"^#+ ({SECTION}) ", RECIPES.read_text(), re.MULTILINE)
    assert len(headings) == len(set(headings)) > 20
    found = cited(rf"recipes ({SECTION}(?:(?:, | and | to ){SECTION})*)")
    assert len(found) > 10
    for citation, files in found.items():
        missing = set(re.findall(SECTION, citation)) - set(headings)
        assert not missing, f"{files}: recipes {missing}"


def test_every_cited_quirk_has_a_row_and_every_row_is_cited():
    rows = set(re.findall(r"^\| (Q\d+a?) \|", QUIRKS.read_text(), re.MULTILINE))
    found = cited(r"\b(Q\d+a?)\b")
    assert found.keys() == rows and len(found) > 15


def test_every_link_between_documents_leads_to_a_file_and_a_heading():
    links = 0
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s:]*)(?:#([^)]*))?\)", page.read_text()):
            path = (page.parent / target) if target else page
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(path), f"{page.name}: {target}#{anchor}"
            links += 1
    assert links > 15


def test_every_document_named_in_code_is_there():
    named = cited(r"\b((?:docs|results)/[\w/]+\.md)\b")
    assert named
    for name, files in named.items():
        assert (ROOT / name).is_file(), f"{files}: {name}"
