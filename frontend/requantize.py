"""A checkpoint whose weights are rounded to other formats, one tensor at a time when it is read."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.frontend.checkpoint import Checkpoint, TensorEntry
from nybble.frontend.checkpoint.architectures import EMBEDDING, HEAD
from nybble.frontend.compensation import reason_against
from nybble.frontend.rounding import Quantizer, quantizer_named
from nybble.frontend.weight_choice import USE_INPUTS, WeightChoice
from nybble.frontend.weight_rules import LAYERS, choose_formats, parse_rules

TIED = "tie_word_embeddings"
FLOATS = ("f32", "f16", "bf16")
NEAREST = 3
_PROBE_ROWS = 16  # a multiple of the rows that any format keeps together
SMALLER_GROUPS = (256, 128, 64, 32, 16)
_MORE_NAMES = ("w8g32", "w4g32", "w3g32", "w2g32", "w1g32")


def values_of(entry: TensorEntry) -> npt.NDArray[np.float32]:
    """The numbers of a parameter, f32 of its shape."""
    raw, form = entry.raw(), formats.get(entry.format)
    stored = raw if form.is_streamed else raw.reshape(-1, raw.shape[-1])
    return form.unpack(stored, entry.shape[-1]).dequantize().reshape(entry.shape)


def requantized(checkpoint: Checkpoint, choice: WeightChoice) -> Checkpoint:
    """The checkpoint with its matrices in the formats that a choice gives them.

    Nothing is read yet. An embedding and a head that shared storage still do if they get one
    format. Raises NybbleError for rules that cannot be read or name nothing, and for a format that
    cannot be quantized to or cannot hold a tensor of its shape; it names the tensor.
    """
    if not choice.rules:
        return checkpoint
    tensors = checkpoint.tensors
    matrices = [name for name, entry in tensors.items() if len(entry.shape) == 2]
    chosen = choose_formats(parse_rules(choice.rules), matrices)
    first: dict[tuple[str, tuple[int, ...]], str] = {}
    for name, spec in chosen.items():
        first.setdefault((spec, tensors[name].shape), name)
    for (spec, shape), name in first.items():
        check_target(f"tensor '{name}'", formats.get(spec), (shape[0], shape[1]))
    if choice.quantizer in USE_INPUTS:
        check_compensation({spec: name for name, spec in chosen.items() if LAYERS in name})
    quantize = quantizer_named(choice.quantizer)
    found = {
        name: _rounded(entry, chosen[name], quantize) if name in chosen else entry
        for name, entry in tensors.items()
    }
    config = dict(checkpoint.config)
    config[TIED] = config[TIED] and found[EMBEDDING].stored_as == found[HEAD].stored_as
    return replace(
        checkpoint,
        config=MappingProxyType(config),
        tensors=MappingProxyType(found),
    )


def check_compensation(formats_of: Mapping[str, str]) -> None:
    """Raise NybbleError for a format that cannot be rounded with compensation; format -> tensor."""
    for spec, name in formats_of.items():
        reason = reason_against(formats.get(spec))
        if reason is not None:
            raise NybbleError(
                f"tensor '{name}' cannot be rounded to '{spec}' with compensation: {reason}",
                accepted="a format with a code per weight and groups along rows, or another "
                "--quantizer",
            )


def _rounded(entry: TensorEntry, spec: str, quantize: Quantizer) -> TensorEntry:
    """A parameter in another format, or in its own as if it were another."""
    target = formats.get(spec)

    if formats.get(entry.format) == target:
        return replace(entry, original=entry)

    def read() -> npt.NDArray[np.uint8]:
        return target.pack(quantize(target, values_of(entry), None))

    stored = f"{entry.stored_as} as {spec}"
    return replace(entry, format=spec, stored_as=stored, read=read, original=entry)


def check_target(what: str, target: formats.Format, shape: tuple[int, int]) -> None:
    """Raise NybbleError unless a weight of this shape can be rounded to a format.

    what: the weight in words, for the message, which names the nearest formats that would do.
    """
    reason = refusal(target, shape)
    if reason is not None:
        near = ", ".join(nearest(target, shape))
        raise NybbleError(
            f"{what} cannot be rounded to '{target.spec}': {reason.message}",
            accepted=near or reason.accepted,
        )


def refusal(target: formats.Format, shape: tuple[int, int]) -> formats.FormatError | None:
    """Why tensors of a shape cannot be rounded to a format and stored in it; None if they can."""
    try:
        target.check_shape(shape)
        target.check_storable()
        target.quantize(np.zeros((_PROBE_ROWS, shape[1]), np.float32))
    except formats.FormatError as error:
        return error
    return None


def nearest(target: formats.Format, shape: tuple[int, int]) -> list[str]:
    """The formats nearest to one that refuses a shape, of those that take it."""
    found: list[str] = []
    for spec in _candidates(target):
        if spec not in found and refusal(formats.get(spec), shape) is None:
            found.append(spec)
        if len(found) == NEAREST:
            break
    return found


def _candidates(target: formats.Format) -> Iterator[str]:
    """The same format in smaller groups, then others by their bits per weight."""
    size = target.grouping.size or 0
    for group in SMALLER_GROUPS if target.store == "native" else ():
        if group < size:
            yield replace(target, grouping=replace(target.grouping, size=group)).spec
    bits = target.bits_per_weight
    others = [formats.get(name) for name in (*formats.names(), *_MORE_NAMES)]
    yield from (one.spec for one in sorted(others, key=lambda o: abs(o.bits_per_weight - bits)))


def note(tensors: Mapping[str, TensorEntry], choice: WeightChoice) -> str:
    """What a choice does to weights that are rounded already, for people; empty if nothing."""
    changed = bool(choice.rotate) or choice.smooth
    pairs = {
        (entry.original.format, entry.format)
        for entry in tensors.values()
        if entry.original is not None
        and entry.original.format not in FLOATS
        and (changed or entry.original.format != entry.format)
    }
    if not pairs:
        return ""
    spelled = ", ".join(f"{before} to {after}" for before, after in sorted(pairs))
    return f"weights that were rounded before are rounded again: {spelled}"
