"""Plans as JSON and back, without trusting what comes back."""

from collections.abc import Callable
from typing import TypeVar, cast

from nybble.backends.cpu.plan import (
    Buffer,
    BufferRef,
    Config,
    Json,
    Kernel,
    Kind,
    Plan,
    PlanError,
    Program,
    Step,
)

T = TypeVar("T", bool, int, str)
Item = TypeVar("Item")
MAX_ITEMS = 1 << 20  # of one list: far above any model, far below what would fill the memory


def to_json(plan: Plan) -> dict[str, Json]:
    """The plan as JSON values; a step is [kernel, [[buffer, offset], ..], barrier]."""
    return {
        "buffers": [[b.name, b.bytes, b.kind.value] for b in plan.buffers],
        "kernels": [[k.symbol, list[Json](k.sizes), k.access] for k in plan.kernels],
        "programs": [
            {
                "name": program.name,
                "steps": [
                    [s.kernel, [[ref.buffer, ref.offset] for ref in s.args], s.barrier]
                    for s in program.steps
                ],
            }
            for program in plan.programs
        ],
        "config": {
            "context": plan.config.context,
            "chunk": plan.config.chunk,
            "threads": plan.config.threads,
            "vocab": plan.config.vocab,
            "extra": dict(plan.config.extra),
            "first": plan.config.first,
        },
    }


def from_json(value: Json) -> Plan:
    """The plan that `to_json` wrote; raises PlanError for anything else."""
    table = as_object(value, "the plan")
    return Plan(
        buffers=_items(table, "buffers", _buffer),
        kernels=_items(table, "kernels", _kernel),
        programs=_items(table, "programs", _program),
        config=_config(as_object(table.get("config"), "config")),
    )


def as_object(value: Json, what: str) -> dict[str, Json]:
    """`value` if it is a JSON object; PlanError if not."""
    if not isinstance(value, dict):
        raise PlanError(f"{what} is {_shown(value)}", accepted="an object")
    return value


def as_scalar(value: Json, kind: type[T], what: str) -> T:
    """`value` if it is exactly of the type; PlanError if not (a truth value is no number)."""
    if type(value) is not kind:
        raise PlanError(f"{what} is {_shown(value)}", accepted=kind.__name__)
    return cast("T", value)


def _list(value: Json, what: str, length: int | None = None) -> list[Json]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise PlanError(f"{what} is {_shown(value)}", accepted="a list")
    if length is not None and len(value) != length:
        raise PlanError(f"{what} has {len(value)} items", accepted=str(length))
    return value


def _shown(value: Json) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else ""
    return text[:40] or f"a {type(value).__name__}"


def _items(table: dict[str, Json], key: str, read: Callable[[Json], Item]) -> tuple[Item, ...]:
    return tuple(read(item) for item in _list(table.get(key), key))


def _buffer(value: Json) -> Buffer:
    name, size, kind = _list(value, "a buffer", 3)
    kinds = {kind.value: kind for kind in Kind}
    spelled = as_scalar(kind, str, "a buffer's kind")
    if spelled not in kinds:
        raise PlanError(f"a buffer of kind '{spelled[:40]}'", accepted=", ".join(kinds))
    return Buffer(
        as_scalar(name, str, "a buffer's name"),
        as_scalar(size, int, "a buffer's size"),
        kinds[spelled],
    )


def _kernel(value: Json) -> Kernel:
    symbol, sizes, access = _list(value, "a kernel", 3)
    return Kernel(
        as_scalar(symbol, str, "a kernel's symbol"),
        tuple(as_scalar(n, int, "an argument's size") for n in _list(sizes, "a kernel's sizes")),
        as_scalar(access, str, "a kernel's access"),
    )


def _program(value: Json) -> Program:
    table = as_object(value, "a program")
    name = as_scalar(table.get("name"), str, "a program's name")
    return Program(name, _items(table, "steps", _step))


def _step(value: Json) -> Step:
    kernel, args, barrier = _list(value, "a step", 3)
    return Step(
        as_scalar(kernel, str, "a step's kernel"),
        tuple(_ref(arg) for arg in _list(args, "a step's arguments")),
        as_scalar(barrier, bool, "a step's barrier"),
    )


def _ref(value: Json) -> BufferRef:
    buffer, offset = _list(value, "an argument", 2)
    return BufferRef(
        as_scalar(buffer, str, "an argument's buffer"),
        as_scalar(offset, int, "an argument's offset"),
    )


def _config(table: dict[str, Json]) -> Config:
    return Config(
        context=as_scalar(table.get("context"), int, "context"),
        chunk=as_scalar(table.get("chunk"), int, "chunk"),
        threads=as_scalar(table.get("threads"), int, "threads"),
        vocab=as_scalar(table.get("vocab"), int, "vocab"),
        extra=as_object(table.get("extra"), "extra"),
        first=as_scalar(table.get("first", 0), int, "first"),
    )
