"""Arrays as processing elements take and give them, and what they must compute (numpy)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.spec import PeSpec

U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Product:
    """One product: integers `weights` [n, k] times signed integers `activations` [k]."""

    weights: NDArray[np.integer[Any]]
    activations: NDArray[np.integer[Any]]

    def reference(self) -> I64:
        """What comes out: i64 [n]."""
        return self.weights.astype(np.int64) @ self.activations.astype(np.int64)


@dataclass(frozen=True)
class Beats:
    """A product as words of the ports: a u32 [beats, words], w u32 [cycles, words].

    flags: u32 [cycles], as in `flow`; limit: cycles of a tile less one; results: cycles of y;
    ideal: cycles if every multiplier were busy in each. start, factor: a sum is `start + factor *
    y`, which whoever scales it multiplies in.
    """

    a: U32
    w: U32
    flags: U32
    limit: int
    results: int
    ideal: float
    start: int = 0
    factor: int = 1


def words_of(fields: I64, width: int) -> U32:
    """Fields [count, m] of `width` bits each, lowest first, as words u32 [count, words]."""
    count = fields.shape[0]
    planes = (fields[..., None] >> np.arange(width) & 1).astype(np.uint8)
    packed = np.packbits(planes.reshape(count, -1), axis=1, bitorder="little")
    short = -packed.shape[1] % 4
    return np.ascontiguousarray(np.pad(packed, ((0, 0), (0, short)))).view(np.uint32)


def fields_of(words: U32, width: int, count: int) -> I64:
    """The inverse of `words_of`, with sign: i64 [rows, count]."""
    raw = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    planes = raw[:, : width * count].reshape(-1, count, width).astype(np.int64)
    weights = 1 << np.arange(width)
    weights[-1] = -weights[-1]
    return (planes * weights).sum(-1)


def padded(spec: PeSpec, product: Product) -> tuple[I64, I64, int]:
    """Weights [tiles, steps, rows, k of a tile], activations [tiles, lanes, group], steps.

    Rows that are missing repeat the first; columns that are missing have activations of zero, or
    the least, and the weight that is least in magnitude, or the least where weights are odd.
    Raises RtlError for a product that the element has no room for.
    """
    n, k = product.weights.shape
    tiles, steps = -(-k // spec.k), max(-(-n // spec.rows), 4)
    if product.activations.shape != (k,) or n < 1 or k < 1:
        raise RtlError(
            f"weights {product.weights.shape} and activations {product.activations.shape}",
            accepted="[n, k] and [k]",
        )
    if steps > spec.depth:
        raise RtlError(
            f"{n} outputs need accumulators for {steps} cycles, {steps - spec.depth} too many",
            accepted=f"at most {spec.depth * spec.rows} outputs",
        )
    if tiles > spec.max_tiles:
        raise RtlError(
            f"a sum of {k} products may overflow {spec.accumulator_bits} bits",
            accepted=f"at most {spec.max_tiles * spec.k} products",
        )
    missing = tiles * spec.k - k
    filler = spec.digits.low if spec.digits.step == 2 else 0
    weights = np.pad(
        product.weights.astype(np.int64), ((0, 0), (0, missing)), constant_values=filler
    )
    weights = weights[np.minimum(np.arange(steps * spec.rows), n - 1)]
    weights = weights.reshape(steps, spec.rows, tiles, spec.k).transpose(2, 0, 1, 3)
    activations = np.pad(checked(spec, product), (0, missing), constant_values=spec.idle)
    return weights, activations.reshape(tiles, spec.lanes, spec.group), steps


def checked(spec: PeSpec, product: Product) -> I64:
    """The activations; RtlError for one that the element cannot take."""
    low, high = spec.activation_range
    found = product.activations.astype(np.int64)
    outside = found[(found < low) | (found > high) | (spec.odd & (found % 2 == 0))]
    if outside.size:
        raise RtlError(
            f"activation {outside[0]}", accepted=f"{low} to {high}{', odd' if spec.odd else ''}"
        )
    return found


def table_beats(spec: PeSpec, product: Product) -> Beats:
    """A product for the table-stationary element: digits of a group are an address."""
    weights, activations, steps = padded(spec, product)
    shape = (len(weights), steps, spec.rows, spec.lanes, spec.group, spec.digits.planes)
    digits = spec.digits.split(weights).reshape(shape)
    powers = spec.digits.radix ** np.arange(spec.group)
    addresses = (digits * powers[:, None]).sum(4)  # [tiles, steps, rows, lanes, planes]
    fields = addresses.transpose(0, 1, 3, 2, 4).reshape(len(digits) * steps, -1)
    return _beats(spec, product, activations, words_of(fields, spec.address_bits), steps)


def multiplier_beats(spec: PeSpec, product: Product) -> Beats:
    """A product for an element with activations in registers: the bits of each weight."""
    weights, activations, steps = padded(spec, product)
    fields = spec.row_fields(weights).reshape(len(weights) * steps, -1)
    made = _beats(spec, product, activations, words_of(fields, 1), steps)
    added = activations.size - product.activations.size
    return replace(made, start=-added * spec.idle * spec.digits.low) if spec.odd else made


def counting_beats(spec: PeSpec, product: Product) -> Beats:
    """A product for the element that counts bits that differ: each takes 2 from the whole."""
    whole = product.activations.size * spec.idle * spec.digits.low
    return replace(multiplier_beats(spec, product), start=whole, factor=-2)


def serial_beats(spec: PeSpec, product: Product) -> Beats:
    """A product for the bit-serial element: a weight takes as many cycles as it has terms."""
    made = multiplier_beats(spec, product)
    return replace(made, ideal=made.ideal * spec.terms)


def _beats(spec: PeSpec, product: Product, activations: I64, w: U32, steps: int) -> Beats:
    n, k = product.weights.shape
    a = words_of(activations.reshape(-1, spec.group), spec.activation_bits)
    flags = np.zeros(len(w), np.uint32)
    flags[:steps] |= 1
    flags[-steps:] |= 2
    return Beats(a, w, flags, steps - 1, steps, n * k / spec.macs_per_cycle)
