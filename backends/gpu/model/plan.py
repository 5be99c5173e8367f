"""A model's launches, as data: kernels, buffers, and which kernel runs on which buffers.

A plan may come from a file, so making one checks it: every kernel's parameters are bound, to
buffers that are large enough, and what is read only is never written.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nybble.backends.gpu.image import Access, Boxes, KernelImage, Parameter
from nybble.dialects.errors import NybbleError

WEIGHT, STATE, SCRATCH = "weight", "state", "scratch"
KINDS = (WEIGHT, STATE, SCRATCH)
Json = Mapping[str, Any]


class PlanError(NybbleError):
    """A plan that does not fit together."""


@dataclass(frozen=True)
class Buffer:
    """`bytes` of memory. kind: "weight" (read only, comes with the model), "state" (zeros at the
    start, kept between tokens; the caller reads and writes some) or "scratch" (zeros at the start;
    what a token leaves there means nothing to the next)."""

    name: str
    bytes: int
    kind: str


@dataclass(frozen=True)
class Launch:
    """A kernel on buffers, in the order of its parameters."""

    kernel: str
    buffers: tuple[str, ...]


@dataclass(frozen=True)
class GpuPlan:
    """Launches that take one token, or `tokens` of a prompt at once.

    They read `ids` i32 [1] or [tokens], and i32 [1] each: `position`, that of the first token,
    `lengths`, position + 1 or + tokens, and, for a prompt, `last`, the row of its last token; what
    comes after that in `ids` is fed, too, and what it leaves is overwritten by tokens that come.
    They leave `logits` f32 [vocabulary], and `next` i32 [1], the likeliest token.

    launches: of one token. prompt: of many; position + tokens may not be above the context. Empty,
    with tokens 1, where prompts are fed token by token. facts: what the maker wants to find again.
    Raises PlanError.
    """

    images: Mapping[str, KernelImage]
    buffers: Mapping[str, Buffer]
    launches: tuple[Launch, ...]
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    prompt: tuple[Launch, ...] = ()
    tokens: int = 1

    def __post_init__(self) -> None:
        if self.tokens < 1 or (self.tokens > 1) != bool(self.prompt):
            raise PlanError(f"a prompt of {self.tokens} tokens in {len(self.prompt)} launches")
        for buffer in self.buffers.values():
            if buffer.kind not in KINDS or buffer.bytes < 1:
                raise PlanError(f"buffer '{buffer.name}' is {buffer.bytes} bytes '{buffer.kind}'")
        for index, launch in enumerate((*self.launches, *self.prompt)):
            self._check(f"launch {index}", launch)

    def _check(self, where: str, launch: Launch) -> None:
        image = self.images.get(launch.kernel)
        if image is None:
            raise PlanError(f"{where} names kernel '{launch.kernel}', which the plan has not")
        if len(image.parameters) != len(launch.buffers):
            raise PlanError(
                f"{where} gives {len(launch.buffers)} buffers to '{launch.kernel}'",
                accepted=str(len(image.parameters)),
            )
        for parameter, name in zip(image.parameters, launch.buffers, strict=True):
            buffer = self.buffers.get(name)
            if buffer is None:
                raise PlanError(f"{where} names buffer '{name}', which the plan has not")
            if buffer.bytes < parameter.bytes:
                raise PlanError(
                    f"{where}: '{parameter.name}' of '{launch.kernel}' needs {parameter.bytes} "
                    f"bytes, and '{name}' has {buffer.bytes}"
                )
            if buffer.kind == WEIGHT and parameter.access is not Access.READ:
                raise PlanError(f"{where}: '{launch.kernel}' would write '{name}', a weight")

    def to_json(self) -> dict[str, Any]:
        """All but the PTX and the weights."""
        kernels: dict[str, Any] = {}
        for name, image in self.images.items():
            kernels[name] = asdict(image)
            del kernels[name]["ptx"]
        return {
            "kernels": kernels, "buffers": [asdict(one) for one in self.buffers.values()],
            "launches": [asdict(one) for one in self.launches], "facts": dict(self.facts),
            "prompt": [asdict(one) for one in self.prompt], "tokens": self.tokens,
        }  # fmt: skip


def from_json(found: Json, ptx: Mapping[str, str]) -> GpuPlan:
    """What `to_json` gave, with the PTX of each kernel; raises PlanError."""
    try:
        images = {name: _image(one, ptx[name]) for name, one in found["kernels"].items()}
        buffers = {one["name"]: Buffer(**one) for one in found["buffers"]}
        launches, prompt = (
            tuple(Launch(one["kernel"], tuple(one["buffers"])) for one in found[name])
            for name in ("launches", "prompt")
        )
        return GpuPlan(images, buffers, launches, found["facts"], prompt, found["tokens"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"the plan of the model cannot be read: {error!r}") from None


def _image(one: Json, ptx: str) -> KernelImage:
    parameters = tuple(
        Parameter(
            each["name"],
            each["dtype"],
            Access(each["access"]),
            each["bytes"],
            _boxes(each["boxes"]),
        )
        for each in one["parameters"]
    )
    sizes = {name: tuple(one[name]) for name in ("grid", "block", "cluster", "zeroed")}
    fields: dict[str, Any] = {**one, **sizes, "parameters": parameters}
    return KernelImage(ptx=ptx, **fields)


def _boxes(found: Json | None) -> Boxes | None:
    if found is None:
        return None
    (width, height), (across, down) = found["shape"], found["box"]
    return Boxes((width, height), (across, down), found["swizzle"])
