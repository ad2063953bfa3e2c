"""The shape of the house: imports go down and never round, functions are short, all is typed, documented and tested."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module by its dotted name; a package's is its `__init__`."""
    paths = {path: path.relative_to(ROOT).with_suffix("").parts for path in sorted((ROOT / "cfx").rglob("*.py"))}
    return {".".join(p for p in parts if p != "__init__"): ast.parse(path.read_text()) for path, parts in paths.items()}


def at_run_time(node: ast.AST):
    """Everything in a tree but what only type checkers see."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.orelse:
            yield from at_run_time(child)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from at_run_time(child)


def imported(tree: ast.Module, known: set[str]) -> set[str]:
    """The modules that a tree imports, also inside functions."""
    found = set()
    for node in at_run_time(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & known) | ({node.module} if whole - known else set())
    return found & known


@cache
def graph() -> dict[str, set[str]]:
    """What every module imports of cfx."""
    trees = modules()
    return {name: imported(tree, set(trees)) for name, tree in trees.items()}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which leads to all others of its group (strongly connected, after Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in sorted(arrows[v]):
            if w not in index:
                visit(w)
            if w in stack:
                low[v] = min(low[v], low[w])
        if low[v] == index[v]:
            group = stack[stack.index(v) :]
            del stack[stack.index(v) :]
            if len(group) > 1 or v in arrows[v]:
                found.append(sorted(group))

    for v in sorted(arrows):
        if v not in index:
            visit(v)
    return found


def floors() -> dict[str, int]:
    """The floor of every room, 0 on top, as the import contract of pyproject.toml has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return {room: i for i, layer in enumerate(layers) for room in re.findall(r"\w+", layer)}


def functions():
    """Every function and method with the name it goes by."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                yield f"{module}.{node.name}:{node.lineno}", node


def public(module: str, tree: ast.Module):
    """Public functions, classes and their methods."""
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield f"{module}.{node.name}", node
            inside = node.body if isinstance(node, ast.ClassDef) else []
            for method in inside:
                if isinstance(method, FUNCTIONS) and not method.name.startswith("_"):
                    yield f"{module}.{node.name}.{method.name}", method


def length(function: ast.FunctionDef) -> int:
    """Lines of its body without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_a_circle_and_a_detour_are_told_apart():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a", "c"}}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"d"}}) == [["d"], ["a", "b", "c"]]


def test_imports_for_type_checkers_alone_do_not_count():
    tree = ast.parse("from x import y, z\nif TYPE_CHECKING:\n    import u\ndef f():\n    import v.w\n")
    assert imported(tree, {"x", "x.y", "u", "v.w"}) == {"x", "x.y", "v.w"}


def test_imports_go_down_only():
    floor, room = floors(), (lambda module: module.split(".")[1])
    up = [
        f"{a} -> {b}"
        for a, seen in graph().items()
        for b in sorted(seen)
        if "." in a and "." in b and room(a) != room(b) and floor[room(a)] >= floor[room(b)]
    ]
    assert up == []


def test_no_module_imports_itself_by_way_of_others():
    assert circles(graph()) == []


def test_functions_are_short():
    sizes = {name: length(f) for name, f in functions()}
    ordered = sorted(sizes.values())
    assert {name: n for name, n in sizes.items() if n > 60} == {}
    assert ordered[len(ordered) // 2] <= 6
    assert ordered[int(0.9 * len(ordered))] <= 16


def test_every_argument_and_result_is_typed():
    bare = []
    for name, f in functions():
        a = f.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        bare += [f"{name}({arg.arg})" for arg in every if arg.annotation is None and arg.arg not in ("self", "cls")]
        bare += [f"{name} ->"] if f.returns is None else []
    assert bare == []


def test_everything_public_is_documented():
    trees = modules()
    silent = [name for name, tree in trees.items() if ast.get_docstring(tree) is None]
    for module, tree in trees.items():
        silent += [name for name, node in public(module, tree) if ast.get_docstring(node) is None]
    assert silent == []


def mirrored(module: str) -> Path:
    """Where the tests of a module are."""
    *rooms, name = module.split(".")[1:]
    return ROOT.joinpath("tests", *rooms, f"test_{name}.py")


def test_tests_mirror_the_tree():
    """Every module but packages has a test file of its own name."""
    packages = {module.rpartition(".")[0] for module in modules()}
    single = [m for m in modules() if m not in packages and not m.endswith("__main__")]
    assert [m for m in single if not mirrored(m).is_file()] == []


def registered():
    """Name and meaning of every metric that is spelt out for the catalogue."""
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Metric":
                texts = [a.value for a in node.args[:3] if isinstance(a, ast.Constant) and a.value]
                if len(texts) == 3:
                    yield texts[0], texts[2]


def test_every_metric_is_registered_once_and_its_meaning_stands_nowhere_else():
    names, meanings = zip(*registered(), strict=True)
    assert "validity" in names
    assert sorted(names) == sorted(set(names))
    texts = [n.value for t in modules().values() for n in ast.walk(t) if isinstance(n, ast.Constant)]
    assert [said for said in meanings if texts.count(said) != 1] == []


@pytest.mark.parametrize(
    ("what", "pattern", "most"),
    [
        ("whether classes are ordered", r"\.ordered\b|isinstance\([^)]*\bNear\b", 2),
        ("what x_t is, given x and noise", r"\.alpha\([^)]*\) \* [\w.]+ \+ [\w.]+\.sigma\(", 1),
        ("the tolerance of a margin", r"\b1e-5\b.*margin|margin.*\b1e-5\b", 1),
    ],
)
def test_what_is_settled_in_one_place_is_asked_in_few(what, pattern, most):
    found = [path.name for path in sorted((ROOT / "cfx").rglob("*.py")) if re.search(pattern, path.read_text())]
    assert 0 < len(found) <= most, f"{what}: {found}"
