"""The rooms of the house: who may import whom, and what no library file does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import thresher

ROOT = Path(thresher.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MOST_LINES = 250

# From the bottom up. A room may import rooms of lower rank only; rooms of equal rank are siblings.
RANK = {
    "errors": 0,
    "config": 1,
    "operators": 2,
    "schedules": 2,
    "targets": 3,
    "attach": 4,
    "budget": 5,
    "contracts": 6,
    "recovery": 6,
    "structure": 6,
    "methods": 7,
    "diagnostics": 7,
    "deploy": 8,
    "session": 9,
    "shrinking": 9,
    "oneshot": 9,
    "trail": 10,
    "plots": 11,
    "apps": 12,
}
# Narrower than their rank says.
ONLY = {
    "deploy": {"errors", "config"},
    "diagnostics": {"errors", "config", "operators", "schedules", "targets", "attach", "budget"},
}


def room_of(path: Path) -> str:
    """`budget` for src/thresher/budget/counts.py, `attach` for src/thresher/attach.py, '' for the front door."""
    first = path.relative_to(ROOT).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node outside `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from nodes_that_run(other)
            continue
        yield child
        yield from nodes_that_run(child)


def imports(path: Path, source: str) -> Iterator[str]:
    """Full names of all modules that a file imports when it runs, relative ones resolved."""
    package = ("thresher", *path.relative_to(ROOT).parent.parts)
    for node in nodes_that_run(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path, source: str) -> set[str]:
    found = {name.split(".")[1] for name in imports(path, source) if name.startswith("thresher.")}
    return found - {room_of(path)}


def breaches(path: Path, source: str) -> list[str]:
    room = room_of(path)
    found = []
    for other in sorted(rooms_imported(path, source)):
        if other not in RANK:  # a name of the front door, `from thresher import Lats`: only apps stand outside it
            found += [] if room == "apps" else [f"{path}: {room} imports {other} from the front door"]
        elif RANK[other] >= RANK[room] or other not in ONLY.get(room, {other}):
            found.append(f"{path}: {room} imports {other}")
    return found


def test_every_room_has_a_rank() -> None:
    assert {room_of(path) for path in FILES} - {""} <= set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards_only(path: Path) -> None:
    if room_of(path):
        assert breaches(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("budget/x.py", "from thresher.methods import Lats"),
        ("operators/x.py", "import thresher.schedules.pgh"),
        ("schedules/x.py", "from ..operators import soft_threshold"),
        ("diagnostics/x.py", "from thresher.session import Trace"),
        ("methods/x.py", "from thresher import diagnostics"),
        ("deploy/storage/x.py", "from thresher.budget import report"),
        ("budget/x.py", "from thresher import Lats"),
        ("session/x.py", "def late():\n    from thresher.apps.data import split"),
        ("errors.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from thresher.config import dumps"),
    ],
)
def test_an_upward_or_sideways_import_is_noticed(place: str, line: str) -> None:
    assert len(breaches(ROOT / place, line)) == 1


def test_type_checking_imports_are_free() -> None:
    assert breaches(ROOT / "errors.py", "if TYPE_CHECKING:\n    from thresher.session import Pruner") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_never_imports_apps(path: Path) -> None:
    if room_of(path) != "apps":
        assert "apps" not in rooms_imported(path, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    place = path.relative_to(ROOT).parts
    if place[:2] in {("apps", "cli"), ("apps", "cli.py")}:
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func) for call in calls}
    assert not names & {"print", "exit", "quit", "sys.exit", "os._exit"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_idea_and_says_which(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    if source.strip() and (path.stem == "__init__" or not path.stem.startswith("_")):
        assert ast.get_docstring(ast.parse(source))


def test_only_attach_works_with_parametrize_and_others_may_just_ask() -> None:
    users: dict[str, set[str]] = {}
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        if any(name.startswith("torch.nn.utils.parametrize") for name in imports(path, source)):
            nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
            uses = {ast.unparse(node) for node in nodes if ast.unparse(node.value) == "parametrize"}
            users[str(path.relative_to(ROOT))] = uses
    assert "parametrize.register_parametrization" in users.pop("attach.py")
    # The storage room refuses unfinished models: it asks, and changes nothing.
    assert users == {"deploy/storage/state.py": {"parametrize.is_parametrized"}}
