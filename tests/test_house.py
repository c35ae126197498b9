"""The house: imports go down the floors, no circles, no room and no file too big."""

import ast

import pytest

from llbook.experiments.experiment import registry
from llbook.runs.folders import repository_root

PACKAGE = repository_root() / "llbook"
FLOORS = (
    ("data", "runs", "parameters"),
    ("tasks",),
    ("measures",),
    ("optimal",),
    ("experiments", "theory", "compression", "selection"),
    ("report", "figures"),
    ("publish",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
}


def imported(path):
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llbook."):
            base = node.module.removeprefix("llbook.")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in FILES else base)
        elif isinstance(node, ast.ImportFrom) and node.module == "llbook":
            found |= {alias.name for alias in node.names if alias.name in FLOOR}
        elif isinstance(node, ast.Import):
            found |= {a.name[7:] for a in node.names if a.name.startswith("llbook.")}
    return found


GRAPH = {name: imported(path) for name, path in FILES.items()}


def room(module):
    return module.split(".")[0]


def circle(graph):
    """A circle of a graph, as a list; None where there is none."""
    state = {}

    def visit(node, road):
        state[node] = "open"
        for following in sorted(graph.get(node, ())):
            if state.get(following) == "open":
                return (
                    [*road[road.index(following) :], following]
                    if following in road
                    else [node, following]
                )
            if following not in state and (found := visit(following, [*road, following])):
                return found
        state[node] = "done"
        return None

    for node in sorted(graph):
        if node not in state and (found := visit(node, [node])):
            return found
    return None


def test_every_room_has_its_floor():
    assert {room(name) for name in FILES} == set(FLOOR)


def test_no_import_goes_up():
    up = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if FLOOR[room(other)] > FLOOR[room(name)]
    ]
    assert not up


def test_there_is_no_circle_of_files_nor_of_rooms():
    assert circle(GRAPH) is None
    rooms = {}
    for name, others in GRAPH.items():
        rooms.setdefault(room(name), set()).update(set(map(room, others)) - {room(name)})
    assert circle(rooms) is None


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, {"a", "b", "c"}),
        ({"a": {"b"}, "b": {"c"}, "c": set()}, None),
    ],
)
def test_a_circle_would_be_seen(graph, found):
    assert (set(circle(graph)) if circle(graph) else None) == found


def test_no_room_and_no_file_is_too_big():
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert not {name: count for name, count in lines.items() if count > 450}
    total = sum(lines.values())
    rooms = {}
    for name, count in lines.items():
        rooms[room(name)] = rooms.get(room(name), 0) + count
    assert not {name: count / total for name, count in rooms.items() if count > 0.2 * total}


@pytest.mark.parametrize("name", registry())
def test_a_runs_key_knows_all_code_that_decides_its_results(name):
    """Whatever the modules of the key import, of the rooms that compute, is in the key too."""
    code = registry()[name].all_code()
    known = {module for module in FILES if covered(f"llbook.{module}", code)}
    needed, seen = set(known), set()
    while needed - seen:
        module = (needed - seen).pop()
        seen.add(module)
        inside = {name for name in FILES if name.startswith(f"{module}.")}  # of a package
        inside |= GRAPH.get(module, set())
        needed |= {m for m in inside if room(m) in ("data", "tasks", "measures", "optimal")}
    assert needed & set(FILES) <= known


def covered(module, code):
    return any(module == part or module.startswith(f"{part}.") for part in code)
