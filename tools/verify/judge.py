"""How far a kernel may be from the reference, and how far it is.

Integers are exact: where a case's floating-point sums are exact too, so must the result be. Other
results may differ by `gamma_n * sum |x| |w|` (Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1), n being the roundings on the way: one for each column where products are
summed in f32, a few for each group of 16 columns where they are summed as integers. Where factors
may be rounded to bf16 the reference does so, and a kernel may.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.tools.verify.cases import Case
from nybble.tools.verify.data import Data

F64 = npt.NDArray[np.float64]
ROUNDING = 2.0**-24
UNDERFLOW = 2.0**-126
"""The smallest normal f32: products of scales below it lose bits."""
ROUNDED = 2.0**-8
"""The same for products of factors that were rounded to bf16, or were not, on one side alone."""
NMSE_LIMITS = {"bf16": 1e-4}
NMSE_LIMIT = 1e-10
"""Of activation modes that are not among NMSE_LIMITS."""
GATE_ERROR = 4e-6
"""Relative error of the exponential in a gate."""


@dataclass(frozen=True)
class Judgement:
    """nmse: mean square error, normalised by the results' mean square, or that of their terms
    where it is larger. fault: what is wrong, empty if nothing is."""

    nmse: float
    fault: str


def judge(case: Case, data: Data, wanted: F64, found: F64) -> Judgement:
    """Hold a result against the reference: f64 [tokens, rows] each."""
    regular = np.isfinite(wanted)
    if data.finite and not regular.all():
        return Judgement(np.inf, "the reference of finite weights is not finite")
    if ((regular != np.isfinite(found)) & ~overflowing(data)).any():
        return Judgement(np.inf, "a number is finite in one of result and reference alone")
    regular &= np.isfinite(found)
    difference = np.zeros_like(wanted)
    difference[regular] = np.abs(found[regular] - wanted[regular])
    allowed = np.where(regular, bound(case, data), np.inf)
    power = float(np.square(wanted, where=regular, out=np.zeros_like(wanted)).sum())
    power = max(power, float(np.where(regular, power_of_terms(data), 0.0).sum()))
    floor = UNDERFLOW * case.kernel.cols
    excess = float(np.square(np.maximum(difference - floor, 0.0)).sum())
    nmse = excess / power if power else excess
    worst = np.unravel_index(np.argmax(difference - allowed), difference.shape)
    if difference[worst] > allowed[worst]:
        token, row = (int(place) for place in worst)
        return Judgement(
            nmse,
            f"result[{token}, {row}] is {found[worst]:.9g} where {wanted[worst]:.9g} is right, "
            f"and {allowed[worst]:.3g} may be lost",
        )
    most = NMSE_LIMITS.get(case.kernel.activations, NMSE_LIMIT)
    return Judgement(nmse, f"NMSE {nmse:.3g}, allowed {most}" if nmse > most else "")


def overflowing(data: Data) -> npt.NDArray[np.bool_]:
    """The rows in which kernel and reference may differ in what is finite: bool [rows].

    Those of finite scales whose dequantized weights are too large for f32: a kernel that multiplies
    the scale last may have a finite result. Those with pruned weights under scales that are not
    finite: a kernel that holds them as codes which mean zero multiplies zero by infinity.
    """
    rows = np.zeros(len(data.bias), np.bool_)
    with np.errstate(over="ignore", invalid="ignore"):
        for weight in data.weights:
            scales = np.isfinite(weight.scale).all(axis=1) & (weight.scale.shape[1] > 0)
            wide = np.repeat(scales, len(rows) // max(len(scales), 1))  # of groups across rows
            rows |= wide & ~np.isfinite(weight.dequantize()).all(axis=1)
            if weight.kept is not None and weight.codes is not None:
                rows |= ~wide
    return rows


def power_of_terms(data: Data) -> F64:
    """The squares that results would have without cancellation: f64 [tokens, rows].

    Where one row is all that there is, its terms may cancel each other, and what is left is no
    measure of an error.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.square(data.x.astype(np.float64))
        power = np.ones((len(x), len(data.bias)))
        for weight in data.weights:
            power *= x @ np.square(weight.dequantize().astype(np.float64)).T
    return np.where(np.isfinite(power), power, 0.0)


def bound(case: Case, data: Data) -> F64:
    """The error that is allowed of each element: f64 [tokens, rows]."""
    each = [product_bound(case, data, index) for index in range(len(data.weights))]
    if case.kernel.epilogue != "glu":
        return each[0][0]
    (gate_error, gate), (up_error, up) = each
    with np.errstate(over="ignore", invalid="ignore"):
        opened = np.abs(gate)  # |silu(g)| <= |g|, and its slope is below 1.1
        error = 1.1 * gate_error * (up + up_error) + (opened + 1.1 * gate_error) * up_error
        return error + GATE_ERROR * opened * up


def product_bound(case: Case, data: Data, index: int) -> tuple[F64, F64]:
    """For a product: the error allowed, and a bound on its magnitude."""
    with np.errstate(over="ignore", invalid="ignore"):
        dense = np.abs(data.weights[index].dequantize().astype(np.float64))
        x = np.abs(data.x.astype(np.float64))
        group = max(abs(x).max(initial=0.0) / 100, 0.0)  # rounding of an activation, at most
        size = (x + group) @ dense.T
    size = np.where(np.isfinite(size), size, np.inf) + np.abs(data.bias) + np.abs(data.residual)
    if data.exact and is_summed_exactly(case):
        return np.zeros_like(size), size
    steps = case.kernel.cols if case.kernel.dataflow == "dequantize" else case.kernel.cols // 8
    each = (steps + 8) * ROUNDING + ROUNDED * (case.kernel.activations == "bf16")
    return each * size + UNDERFLOW * case.kernel.cols, size


def is_summed_exactly(case: Case) -> bool:
    """Whether a case's activations stay the integers that they are."""
    return case.kernel.activations in ("i8", "f32")
