"""What the house tests look at: the repository's own files."""

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LAYERS = ("dialects", "costmodel", "passes", "backends", "frontend", "tools")
"""From the bottom to the top: each may import those before it."""


@dataclass
class Source:
    """One Python file: its path below the repository's root."""

    path: Path

    @property
    def layer(self) -> str:
        return self.path.parts[0]

    @property
    def module(self) -> str:
        return ".".join(("nybble", *self.path.with_suffix("").parts)).removesuffix(".__init__")

    @cached_property
    def text(self) -> str:
        return (ROOT / self.path).read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def layers():
    return LAYERS


@pytest.fixture(scope="session")
def sources():
    """Every Python file of the six layers."""
    files = (path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py")))
    return [Source(path.relative_to(ROOT)) for path in files]


@pytest.fixture(scope="session")
def make_source():
    """A function (path, text) -> Source of a file that does not exist, for testing a check."""

    def make(path: str, text: str) -> Source:
        made = Source(Path(path))
        made.__dict__ |= {"text": text, "tree": ast.parse(text)}
        return made

    return make
