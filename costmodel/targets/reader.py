"""Reads targets out of YAML: those that come with nybble, and files of users.

See docs/howto/add-target.md for what is in such a file.
"""

from collections.abc import Hashable
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from nybble.costmodel.targets.nodes import Node, TargetFileError
from nybble.costmodel.targets.target import (
    ARITHMETIC,
    KINDS,
    RESOURCES,
    TENSOR_BYTES,
    Arithmetic,
    Fact,
    Level,
    Rate,
    Target,
    Tile,
)
from nybble.dialects.errors import UnknownNameError

TARGETS = {
    "cpu-sse4": "cpu_sse4.yaml",
    "cpu-avx2": "cpu_avx2.yaml",
    "cpu-avx512": "cpu_avx512.yaml",
    "cpu-neon": "cpu_neon.yaml",
    "a100": "a100.yaml",
    "h100": "h100.yaml",
    "u280": "u280.yaml",
    "vhk158": "vhk158.yaml",
    "u55c": "u55c.yaml",
    "v80": "v80.yaml",
    "zcu104": "zcu104.yaml",
    "kv260": "kv260.yaml",
}
"""Name of a target -> its file, beside this one."""
SUFFIXES = (".yaml", ".yml")
MOST_BYTES = 1 << 20
_PARTS = ("memory", "rates", "arithmetic", "tile")


@cache
def shipped_target(name: str) -> Target:
    """A target that comes with nybble."""
    text = files("nybble.costmodel.targets").joinpath(TARGETS[name]).read_text()
    return read_target(text, name)


def find_target(name: str) -> Target:
    """The target of that name, or of a YAML file; UnknownNameError and TargetFileError."""
    if name in TARGETS:
        return shipped_target(name)
    if not name.endswith(SUFFIXES):
        raise UnknownNameError(
            f"unknown target '{name[:60]}'", accepted=f"{', '.join(TARGETS)}, or a .yaml file"
        )
    try:
        raw = Path(name).read_bytes()
    except OSError as error:
        raise TargetFileError(f"cannot read {name}: {error.strerror}") from error
    if len(raw) > MOST_BYTES:
        raise TargetFileError(f"{name} has {len(raw)} bytes", accepted=f"up to {MOST_BYTES}")
    return read_target(raw.decode(errors="replace"), name)


def target_for_level(level: str) -> Target:
    """The target that stands for an instruction-set level, as a machine of that level alone;
    UnknownNameError."""
    known = {one: name for name in TARGETS for one in shipped_target(name).levels}
    if level not in known:
        raise UnknownNameError(
            f"no target describes a machine of level '{level}'",
            accepted=f"{', '.join(known)}, or a .yaml file",
        )
    return replace(find_target(known[level]), levels=(level,))


def read_target(text: str, source: str) -> Target:
    """The target that YAML text describes; TargetFileError names the key that is wrong."""
    try:
        loaded = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark else source
        raise TargetFileError(f"{place}: {getattr(error, 'problem', error)}") from error
    if not isinstance(loaded, dict):
        raise TargetFileError(f"{source} holds no mapping", accepted="'name: ...' and other keys")
    top = Node(source, "", loaded).only(
        ("name", "title", "cores", "launch", "scratch", *_PARTS), ("levels", "clock", "resources")
    )
    cores = top.fact("cores", "count")
    rates = {kind: _rate(top.node("rates"), kind, cores) for kind in top.node("rates").data}
    return Target(
        name=top.text("name"),
        title=top.text("title"),
        cores=cores,
        launch=top.fact("launch", "seconds"),
        scratch=top.fact("scratch", "bytes"),
        memory=_memory(top, cores),
        rates=rates,
        arithmetic=_arithmetic(top.node("arithmetic"), tuple(rates)),
        tile=_tile(top.node("tile")),
        levels=top.texts("levels"),
        resources=_resources(top),
        clock=top.fact("clock", "hertz") if "clock" in top.data else None,
    )


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, which YAML forbids and PyYAML lets pass."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for index, key in enumerate(keys) if key in keys[:index]]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{twice[0]}' is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _memory(top: Node, cores: Fact) -> tuple[Level, ...]:
    levels = tuple(_level(one, cores) for one in top.nodes("memory"))
    names = [one.name for one in levels]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise top.fail(f"memory[{index}].name", f"'{name}' is there twice", "a new name")
    if not levels[-1].shared:
        raise top.fail(
            f"memory[{len(levels) - 1}].shared", "the last level holds everything", "true"
        )
    return levels


def _level(node: Node, cores: Fact) -> Level:
    node.only(("name", "shared", "size"), ("core", "total", "channels"))
    core, total = _core_and_total(node, "bytes a second", cores)
    size = node.fact("size", "bytes")
    channels = node.fact("channels", "count") if "channels" in node.data else None
    return Level(node.text("name"), node.flag("shared"), size, core, total, channels)


def _resources(top: Node) -> dict[str, Fact]:
    """The resources of an FPGA, none where the file has no such section."""
    if "resources" not in top.data:
        return {}
    node = top.node("resources").only((), tuple(RESOURCES))
    return {name: node.fact(name, "count") for name in node.data}


def _rate(rates: Node, kind: str, cores: Fact) -> Rate:
    if kind not in KINDS:
        raise rates.fail(kind, "unknown kind of operation", ", ".join(KINDS))
    node = rates.node(kind).only(("unit",), ("core", "total"))
    core, total = _core_and_total(node, "operations a second", cores)
    shared = min(core.value, total.value / cores.value)
    return Rate(Fact(shared, core.source), node.text("unit"))


def _core_and_total(node: Node, quantity: str, cores: Fact) -> tuple[Fact, Fact]:
    """What one core does and what all do, of which one follows from the other."""
    given = [key for key in ("core", "total") if key in node.data]
    if not given:
        raise node.fail("core", "missing", "'core' (of one core), 'total' (of all), or both")
    core, total = (node.fact(key, quantity) if key in given else None for key in ("core", "total"))
    if core is None:
        assert total is not None
        return Fact(total.value / cores.value, total.source), total
    return core, total or Fact(core.value * cores.value, core.source)


def _arithmetic(node: Node, kinds: tuple[str, ...]) -> Arithmetic:
    node.only(("coded", "plain", "attention", "other", "tensors"))
    able = [kind for kind in ARITHMETIC if kind in kinds]
    coded, plain, attention, other = (
        node.choice(key, able) for key in ("coded", "plain", "attention", "other")
    )
    return Arithmetic(coded, plain, attention, other, node.choice("tensors", tuple(TENSOR_BYTES)))


def _tile(node: Node) -> Tile:
    node.only(("tokens", "rows", "cols", "keeps", "source"))
    node.text("source")
    sizes = [node.whole(key) for key in ("tokens", "rows", "cols")]
    return Tile(*sizes, keeps=node.flag("keeps"))
