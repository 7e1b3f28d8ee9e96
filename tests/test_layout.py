"""The layout of the package: imports point one way, and few modules stand at the top."""

import ast
from pathlib import Path

import spinal_repro

PACKAGE = Path(spinal_repro.__file__).parent
# A module may import from its own layer's package and from the layers before it.
LAYERS = (
    ("errors", "registry", "seeds", "io"),
    ("config",),
    ("records", "data", "models", "trackers"),
    ("training",),
    ("paper", "inference"),
    ("results",),
    ("export", "search", "sweep"),
    ("cli",),
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}


def imported(path: Path) -> set[str]:
    """Parts of this package that a module imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spinal_repro"):
            rest = (node.module or "").split(".")[1:]
            names |= {rest[0]} if rest else {alias.name for alias in node.names}
    return names & set(LEVEL)


def test_the_top_level():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules == {"__init__", "errors", "io", "registry", "seeds"}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules - {"__init__"} | folders == set(LEVEL)


def test_imports_point_one_way():
    wrong = []
    for path in PACKAGE.glob("*/**/*.py"):
        own = path.relative_to(PACKAGE).parts[0]
        wrong += [
            f"{path.relative_to(PACKAGE)} imports {name}"
            for name in imported(path)
            if name != own and LEVEL[name] >= LEVEL[own]
        ]
    assert not wrong


def test_results_never_import_torch():
    for path in (PACKAGE / "results").rglob("*.py"):
        tree = ast.parse(path.read_text())
        modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        assert not [m for m in modules if m.split(".")[0] in ("torch", "torchvision", "timm")]
