"""The house: imports go strictly downwards, files stay readable, nothing prints.

The levels are the table in the design; a new folder of the package is added here.
"""

from __future__ import annotations

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "pinnkit"

LEVELS = {
    "errors": 0,
    "declare": 1,
    "implicit": 1,
    "ir": 2,
    "nn": 2,
    "train": 2,
    "lower": 3,
    "classical": 3,
    "gp": 3,
    "graphs": 3,
    "neural_de": 3,
    "solution": 4,
    "solvers": 5,
    "choosing": 6,
    "driver": 7,
    "process_pool": 8,
    "cli": 8,
    "__main__": 9,
    "__init__": 9,
    "problems": 10,
}

# The only two ways up, both late (inside functions), both from the problems of declare/.
LATE = {("declare", "ir"), ("declare", "driver")}

FILES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def name_of(path: pathlib.Path) -> str:
    return "/".join(path.relative_to(PACKAGE).parts)


@functools.cache
def tree_of(path: pathlib.Path) -> ast.Module:
    """Read once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def place(path: pathlib.Path) -> str:
    """The folder of the package a file belongs to, or its own name at the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def own_imports(path: pathlib.Path) -> list[tuple[str, int, bool]]:
    """(folder of ours, line, inside a function) for every import of pinnkit that runs."""
    found: list[tuple[str, int, bool]] = []

    def visit(node: ast.AST, late: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            names: list[str] = []
            if isinstance(child, ast.Import):
                names = [a.name for a in child.names]
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                module = child.module or ""
                names = [
                    f"{module}.{a.name}" if module == "pinnkit" else module for a in child.names
                ]
            for name in names:
                if name == "pinnkit" or name.startswith("pinnkit."):
                    parts = name.split(".")
                    line = getattr(child, "lineno", 0)
                    found.append((parts[1] if len(parts) > 1 else "__init__", line, late))
            inside = late or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            visit(child, inside)

    visit(tree_of(path), False)
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_strictly_downwards(path):
    """Level by level; folders of one level do not know each other; late imports are no way round."""
    here = place(path)
    assert here in LEVELS, f"add {here} to LEVELS"
    for there, line, late in own_imports(path):
        assert there in LEVELS, f"line {line}: unknown part pinnkit.{there}"
        if there == here or (late and (here, there) in LATE):
            continue
        assert LEVELS[there] < LEVELS[here], f"{name_of(path)}:{line} imports {there} upwards"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_readable_in_one_sitting(path):
    """Fewer than 500 lines and a docstring that says what the file is."""
    assert len(path.read_text(encoding="utf-8").splitlines()) < 500
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize(
    "path", [p for p in FILES if place(p) not in ("cli", "__main__")], ids=name_of
)
def test_nothing_prints_or_sets_global_state(path):
    """Logging for decisions; the terminal belongs to the command line."""
    forbidden = {
        "print",
        "eval",
        "exec",
        "set_default_dtype",
        "set_default_device",
        "set_num_threads",
        "filterwarnings",
        "simplefilter",
    }
    tree = tree_of(path)
    # Inside `with warnings.catch_warnings()` a filter is put back at once.
    lent = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.With)
        and any("catch_warnings" in ast.unparse(item.context_expr) for item in block.items)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node) not in lent:
            f = node.func
            called = f.id if isinstance(f, ast.Name) else ""
            if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name):
                called = f.attr if f.value.id in ("torch", "warnings") else ""
            assert called not in forbidden, f"{name_of(path)}:{node.lineno} calls {called}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{name_of(path)}:{node.lineno} bare except"


def test_declarations_know_no_torch():
    """declare/ and ir/ are sympy and numpy only."""
    for path in FILES:
        if place(path) in ("declare", "ir"):
            for node in ast.walk(tree_of(path)):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                assert not any(n == "torch" or n.startswith("torch.") for n in names), name_of(path)
