"""The rules of the house, each as a function from a source tree to its violations.

Every rule is run on this repository, where it must find nothing, and on a small tree that breaks it,
where it must find just that.
"""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = {"envs": 0, "rewards": 1, "rl": 2}
HEAVY = {"torch", "transformers", "trl", "vllm", "peft", "accelerate"}
HEAVY_FILES = (
    "rl/demo.py",
    "rl/engines/vllm_worker.py",
    "rl/measure.py",
    "rl/muon.py",
    "rl/session.py",
    "rl/train.py",
    "rl/trainers/callbacks.py",
    "rl/trainers/critic.py",
    "rl/trainers/grpo.py",
    "rl/trainers/head.py",
    "rl/trainers/linear.py",
    "rl/trainers/packed.py",
    "rl/trainers/ppo.py",
    "rl/trainers/preference.py",
    "rl/trainers/reward_model.py",
    "rl/trainers/settings.py",
    "rl/trainers/sft.py",
    "rl/trainers/start.py",
    "rl/trainers/table.py",
)
"""The only files that may load a training stack when they are imported, by themselves or through one another."""
CATCHES_ALL = {
    "envs/bridges/mcp.py": 1,
    "envs/environment.py": 1,
    "envs/sandbox/inside/calls.py": 1,
    "envs/sandbox/inside/keeper.py": 1,
    "envs/sandbox/inside/slots.py": 1,
    "envs/threads.py": 1,
    "rewards/graders/child.py": 1,
    "rl/engines/vllm.py": 1,
    "rl/hosted/worker.py": 1,
}
"""How often a file may catch everything: where code of others is called, or a fork must not return."""
FILE_LINES, FUNCTION_LINES = 400, 60


def sources(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for floor in FLOORS for path in (root / floor).rglob("*.py"))


def parsed(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for name in sources(root):
        yield name, ast.parse((root / name).read_text(encoding="utf-8"), name)


def module_name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import; `from a import b` gives a and a.b, since b may be a module."""
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        yield node.lineno, module
        yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not function bodies, not `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)


def imports_upwards(root: Path) -> list[str]:
    found = set()
    for file, tree in parsed(root):
        floor = FLOORS[file.split("/")[0]]
        for node in ast.walk(tree):
            for line, name in imports(node):
                if FLOORS.get(name.split(".")[0], -1) > floor:
                    found.add(f"{file}:{line} imports {name.split('.')[0]}")
                if name.startswith("."):
                    found.add(f"{file}:{line} is a relative import")
    return sorted(found)


def heavy_imports(root: Path) -> list[str]:
    found = set()
    for file, tree in parsed(root):
        nodes = at_import(tree) if file.startswith("rl/") else ast.walk(tree)
        for node in nodes:
            for line, name in imports(node):
                if name.split(".")[0] in HEAVY and file not in HEAVY_FILES:
                    found.add(f"{file}:{line} imports {name.split('.')[0]}")
    return sorted(found)


def loads_heavy(root: Path) -> list[str]:
    """Import every light module in a fresh interpreter, and see what came along."""
    modules = [module_name(file) for file in sources(root) if file not in HEAVY_FILES]
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    for heavy in {sorted(HEAVY)!r}:\n"
        "        if heavy in sys.modules:\n"
        "            sys.exit(f'{name} loads {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    return [done.stderr.strip().splitlines()[-1]] if done.returncode else []


def depends_on(tree: ast.Module, modules: Iterable[str]) -> set[str]:
    """The modules of the house that importing this one imports; `from a import b` is a.b where that is a module."""
    names = {name for node in at_import(tree) for _, name in imports(node) if name in modules}
    packages = {
        node.module
        for node in at_import(tree)
        if isinstance(node, ast.ImportFrom) and all(f"{node.module}.{alias.name}" in modules for alias in node.names)
    }
    plain = {alias.name for node in at_import(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names - (packages - plain)


def cycles(root: Path) -> list[str]:
    modules = {module_name(file): tree for file, tree in parsed(root)}
    graph = {name: depends_on(tree, modules) - {name} for name, tree in modules.items()}
    found: set[str] = set()
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.add(" -> ".join((*path[path.index(name) :], name)))
        elif name not in done:
            for used in sorted(graph[name]):
                visit(used, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return sorted(found)


def too_long(root: Path) -> list[str]:
    found = []
    for file, tree in parsed(root):
        lines = len((root / file).read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            found.append(f"{file} has {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.append(f"{file}:{node.lineno} {node.name} has {length} lines")
    return found


def catches_all(root: Path) -> list[str]:
    """Handlers that swallow everything; one that ends in a bare `raise` only cleans up."""
    found = []
    for file, tree in parsed(root):
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and swallows_all(node)]
        if len(lines) > CATCHES_ALL.get(file, 0):
            found += [f"{file}:{line} catches everything" for line in sorted(lines)]
    return found


def swallows_all(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    caught = set() if handler.type is None else set(ast.unparse(handler.type).strip("()").split(", "))
    return handler.type is None or bool({"Exception", "BaseException"} & caught)


def machine_paths(root: Path) -> list[str]:
    """Files that name the place of this very checkout, or of the interpreter that runs it."""
    places = [
        str(root),
        *(p for p in {sys.prefix, sys.base_prefix} if p not in ("/usr", "/usr/local")),
        "file:" + "///",
    ]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0")[:-1] if listed.returncode == 0 else sources(root)
    found = []
    for name in names:
        if not (root / name).is_file():
            continue
        for number, line in enumerate((root / name).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            found += [f"{name}:{number} names {place}" for place in places if place in line]
    return found


RULES: dict[Callable[[Path], list[str]], tuple[str, str, str]] = {
    imports_upwards: ("envs/a.py", "from rewards.score import Score\n", "envs/a.py:1 imports rewards"),
    heavy_imports: ("rl/stats.py", "import torch.nn\n", "rl/stats.py:1 imports torch"),
    loads_heavy: ("rl/a.py", "import sys, types\nsys.modules['vllm'] = types.ModuleType('vllm')\n", "rl.a loads vllm"),
    cycles: ("rl/a.py", "from rl import b\n", "rl.a -> rl.b -> rl.a"),
    too_long: ("rewards/a.py", "def f():\n" + "    pass\n" * 60, "rewards/a.py:1 f has 61 lines"),
    catches_all: (
        "rl/a.py",
        "try:\n    pass\nexcept (OSError, Exception):\n    pass\n",
        "rl/a.py:3 catches everything",
    ),
    machine_paths: ("rl/a.py", f"HERE = '{sys.prefix}/bin'\n", f"rl/a.py:1 names {sys.prefix}"),
}
"""Each rule with a file that breaks it and what it must then say."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Callable[[Path], list[str]]) -> None:
    gc.collect()  # a finalizer that logs a traceback parses code too, and Python 3.11's parser is not reentrant
    assert rule(ROOT) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_sees_what_breaks_it(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    file, text, complaint = RULES[rule]
    tree = {"envs/__init__.py": "", "rewards/__init__.py": "", "rl/__init__.py": "", "rl/b.py": "def b(): ...\n"}
    if rule is cycles:
        tree |= {"rl/b.py": "import rl.a\n", "rl/a.py": ""}
    for name, content in tree.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert rule(tmp_path) == []
    (tmp_path / file).write_text(text)
    assert rule(tmp_path) == [complaint]


@pytest.mark.parametrize(
    ("text", "rule", "clean"),
    [
        ("def f():\n    import torch\n", heavy_imports, True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n", heavy_imports, True),
        ("class A:\n    import torch\n", heavy_imports, False),
        ("try:\n    import trl\nexcept ImportError:\n    pass\n", heavy_imports, False),
        ("\n" * 401, too_long, False),
        ("try:\n    pass\nexcept:\n    pass\n", catches_all, False),
        ("try:\n    pass\nexcept BaseException as e:\n    print(e)\n", catches_all, False),
        ("try:\n    pass\nexcept BaseException as e:\n    print(e)\n    raise\n", catches_all, True),
        ("from . import b\n", imports_upwards, False),
    ],
)
def test_the_rules_know_their_corner_cases(
    text: str, rule: Callable[[Path], list[str]], clean: bool, tmp_path: Path
) -> None:
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "a.py").write_text(text)
    assert (rule(tmp_path) == []) is clean


def test_an_environment_may_not_import_torch_even_inside_a_function(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "a.py").write_text("def f():\n    import torch\n")
    assert heavy_imports(tmp_path) == ["envs/a.py:2 imports torch"]


@pytest.mark.parametrize(
    ("package", "module", "cyclic"),
    [
        ("from rl.a import f\n", "from rl import b\n", False),
        ("from rl.a import f\n", "from rl import g\n", True),
        ("from rl.a import f\n", "import rl\n", True),
        ("from rl.a import f\n", "def f():\n    import rl\n", False),
    ],
)
def test_a_module_may_import_its_siblings_through_their_package_but_not_from_it(
    package: str, module: str, cyclic: bool, tmp_path: Path
) -> None:
    (tmp_path / "rl").mkdir()
    for name, text in {"__init__": package, "a": module, "b": "", "c": ""}.items():
        (tmp_path / "rl" / f"{name}.py").write_text(text)
    assert bool(cycles(tmp_path)) is cyclic


def test_the_named_heavy_files_are_worth_naming() -> None:
    """A file that no longer loads a training stack has no place on the list."""
    trees = dict(parsed(ROOT))
    for file in HEAVY_FILES:
        if file in trees:
            names = {name for node in at_import(trees[file]) for _, name in imports(node)}
            through = {f"{name.replace('.', '/')}.py" for name in names} & set(HEAVY_FILES)
            assert through or {name.split(".")[0] for name in names} & HEAVY, f"{file} is light: take it off the list"
