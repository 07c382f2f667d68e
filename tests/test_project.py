"""The floor plan: imports run downwards, files stay small, `import jdl` stays light, the metadata is true."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import jdl

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# From the ground up: a part imports from the lines above its own, never from its own line or from below.
FLOORS = (
    ("check", "extras"),
    ("saving",),
    ("nn", "losses", "data", "programs", "progress", "schedules", "direction"),
    ("metrics", "zoo", "show", "trees", "decoding"),
    ("objectives", "optimizers", "checkpoints", "weights"),
    ("gradients",),
    ("games",),
    ("steps",),
    ("runs",),
    ("callbacks", "monitor", "diagnosis", "replaying", "tuning", "feeding", "resuming"),
    ("nonfinite",),
    ("looping",),
    ("fitting",),
    ("jdl",),  # jdl/__init__.py, the table of contents
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}

# Parts that could stand alone: all of jdl that they may see.
ALONE = {
    "jdl.nn": ("jdl.nn", "jdl.check"),
    "jdl.nn.functional": ("jdl.nn.functional", "jdl.check"),
    "jdl.zoo": ("jdl.zoo", "jdl.nn", "jdl.check"),
}

IMPORT_NAMES = {"scikit-learn": "sklearn", "scikit-image": "skimage", "pillow": "PIL", "orbax-checkpoint": "orbax"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


JDL = {module_name(path): path for path in sources("jdl")}


def imported(node: ast.AST) -> list[str]:
    """The full names of the modules that an import statement names; nothing for any other node."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.module and not node.level, "ruff refuses relative imports"
        # `from jdl import nn` names the module jdl.nn, `from jdl import fit` perhaps only what jdl re-exports.
        return [name if (name := f"{node.module}.{alias.name}") in JDL else node.module for alias in node.names]
    return []


def run_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: none in functions, nor those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not for_types and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from run_at_once(child)


def imports(path: Path, nodes: Callable[[ast.AST], Iterable[ast.AST]] = ast.walk) -> set[str]:
    """The full names of the modules that a file imports, in those of its nodes."""
    return {name for node in nodes(ast.parse(path.read_text())) for name in imported(node)}


def first_names(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def is_within(name: str, packages: tuple[str, ...] | str) -> bool:
    packages = (packages,) if isinstance(packages, str) else packages
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def part(name: str) -> str:
    """``jdl.nn.core`` belongs to ``nn``, ``jdl`` itself to ``jdl``."""
    return [*name.split("."), name][1]


def test_every_part_of_jdl_has_its_floor():
    assert JDL, "no modules found: the test looks in the wrong place"
    assert sorted({part(name) for name in JDL} - set(FLOOR)) == []


def test_imports_run_downwards():
    upwards = [
        f"{name} imports {target}"
        for name, path in JDL.items()
        for target in imports(path)
        if is_within(target, "jdl") and part(target) != part(name) and FLOOR[part(target)] >= FLOOR[part(name)]
    ]
    assert upwards == []


@pytest.mark.parametrize("package", ALONE)
def test_a_part_that_stands_alone_sees_nothing_else(package: str):
    seen = [
        f"{name} imports {target}"
        for name, path in JDL.items()
        if is_within(name, package)
        for target in imports(path)
        if is_within(target, "jdl") and not is_within(target, ALONE[package])
    ]
    assert seen == []


def test_nothing_imports_the_experiments():
    assert [
        name for name, path in JDL.items() if any(is_within(t, ("experiments", "tests")) for t in imports(path))
    ] == []


def test_files_have_one_subject():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in sources("jdl", "experiments")}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


@pytest.mark.parametrize(
    ("statement", "light"),
    [
        ("import jdl", set()),
        # all but the first are what chex loads, the last on newer Pythons only
        ("from jdl import data, losses, metrics, nn", {"chex", "absl", "toolz", "typing_extensions"}),
    ],
)
def test_imports_load_nothing_heavy(statement: str, light: set[str]):
    code = f"import json, sys, jax; had = set(sys.modules); {statement}; print(json.dumps([*sys.modules.keys() - had]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packages = first_names(json.loads(done.stdout))
    assert "jdl" in packages
    assert packages - {"jdl", "jax"} - light - sys.stdlib_module_names == set()


def test_every_public_name_loads():
    assert [name for name in jdl.__all__ if not hasattr(jdl, name)] == []


def test_every_public_name_is_documented():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    documented = set(re.findall(r"^\.\. auto\w+:: (?:jdl\.)?(\S+)$", pages, re.MULTILINE))
    assert set(jdl.__all__) - set(jdl.nn.__all__) - documented == set()
    assert documented - set(jdl.__all__) == {"nn.functional", "nn.init"}


def requirements(extra: str | None = None) -> set[str]:
    """The import names of the core dependencies, or of an extra."""
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    names = {re.match(r"[\w-]+", line).group() for line in lines}
    return {IMPORT_NAMES.get(name, name) for name in names}


@pytest.mark.slow
def test_what_is_imported_is_declared():
    core = requirements()
    optional = set().union(*map(requirements, PROJECT["optional-dependencies"]))
    ours = {"jdl", "experiments"} | sys.stdlib_module_names
    for path in sources("jdl", "experiments"):
        assert first_names(imports(path)) - core - optional - ours == set(), (
            f"{path} imports what pyproject.toml does not name"
        )
    for path in sources("jdl"):
        assert first_names(imports(path, run_at_once)) - core - ours == set(), (
            f"{path} imports at once what only an extra installs"
        )


def test_metadata():
    assert PROJECT["name"] == "jdl"
    assert PROJECT["version"] == jdl.__version__
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert (ROOT / "jdl" / "py.typed").is_file()
    assert "jdl[experiments,data]" in PROJECT["optional-dependencies"]["test"]
    assert f"## {PROJECT['version'].split('.dev')[0]}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_installed_version_is_this_one():
    try:
        installed = importlib.metadata.version("jdl")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip('jdl is not installed here: python -m pip install -e ".[test]"')
    assert installed == PROJECT["version"]


@pytest.mark.parametrize(
    "command",
    [
        'python -m pip install -e ".[experiments]" && python -m experiments.digits',
        'python -m pip install -e ".[test]" && python -m pytest',
    ],
)
def test_the_readme_has_the_command(command: str):
    assert (ROOT / "README.md").read_text().splitlines().count(command) == 1
