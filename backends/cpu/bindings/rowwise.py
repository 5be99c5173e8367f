"""Bindings of kernels that work row by row: norms, quantization, gates, sums."""

from nybble.backends.cpu.bindings.scheduled import NORMS, ROWS, scheduled
from nybble.backends.cpu.bindings.site import Binding, In, Out, Site, columns, parts
from nybble.backends.cpu.kernels.bit_rows import QuantizePlanes, RmsNormQuantizePlanes
from nybble.backends.cpu.kernels.elementwise import Add, Glu
from nybble.backends.cpu.kernels.hadamard import Hadamard
from nybble.backends.cpu.kernels.norm import RmsNorm, RmsNormQuantize
from nybble.backends.cpu.kernels.quantize import Quantize
from nybble.backends.cpu.plane_weights import plane_rows
from nybble.backends.cpu.weights import digits_of
from nybble.dialects.fused.ops import GluOp, HadamardOp, RmsNormOp
from nybble.dialects.lowbit.ops import QuantizeOp


def bind_norm(site: Site) -> Binding:
    """RMSNorm of rows or heads."""
    norm = site.only(RmsNormOp)
    width = columns(norm.weight)
    kernel = RmsNorm(
        width=width,
        rows=site.tokens,
        eps=norm.eps.value.data,
        heads=columns(norm.input) // width,
        offset=norm.unit_offset is not None,
        lanes=site.lanes,
    )
    return Binding(
        scheduled(kernel, NORMS, site.options),
        (In(site.place(norm.input)), In(site.place(norm.weight)), Out(site.result(norm.result))),
    )


def bind_norm_quantize(site: Site) -> Binding:
    """RMSNorm and the quantization of its result, which nothing else reads."""
    norm, quantize = site.only(RmsNormOp), site.only(QuantizeOp)
    if columns(norm.weight) != columns(norm.input) or len(site.op.outputs) != 1:
        raise site.error("must norm whole rows and yield their quantization alone")
    eps, offset = norm.eps.value.data, norm.unit_offset is not None
    planes = plane_rows(quantize.result.type, site.tokens, site.lanes)
    form = quantize.result.type.number_format
    kernel = (
        scheduled(
            RmsNormQuantize(
                width=columns(norm.input),
                rows=site.tokens,
                eps=eps,
                group=form.group,
                offset=offset,
                lanes=site.lanes,
                digits=digits_of(form),
            ),
            NORMS,
            site.options,
        )
        if planes is None
        else RmsNormQuantizePlanes(planes, eps, offset)
    )
    inputs = (In(site.place(norm.input)), In(site.place(norm.weight)))
    return Binding(kernel, (*inputs, *parts(Out, site.result(quantize.result))))


def bind_quantize(site: Site) -> Binding:
    """Quantization of activations."""
    quantize = site.only(QuantizeOp)
    planes = plane_rows(quantize.result.type, site.tokens, site.lanes)
    kernel = (
        scheduled(
            Quantize(
                width=columns(quantize.input),
                rows=site.tokens,
                group=quantize.result.type.number_format.group,
                lanes=site.lanes,
                digits=digits_of(quantize.result.type.number_format),
            ),
            ROWS,
            site.options,
        )
        if planes is None
        else QuantizePlanes(planes)
    )
    place, result = site.place(quantize.input), site.result(quantize.result)
    return Binding(kernel, (In(place), *parts(Out, result)))


def bind_glu(site: Site) -> Binding:
    """The gated linear unit by itself."""
    glu = site.only(GluOp)
    kernel = Glu(columns(glu.gate), site.tokens, glu.activation.data, site.lanes)
    slots = (In(site.place(glu.gate)), In(site.place(glu.up)), Out(site.result(glu.result)))
    return Binding(scheduled(kernel, ROWS, site.options), slots)


def bind_hadamard(site: Site) -> Binding:
    """The Hadamard transform of rows, in the memory of its input."""
    op = site.only(HadamardOp)
    kernel = Hadamard(columns(op.input), site.tokens, op.block.value.data, site.lanes)
    place = site.place(op.input)
    return Binding(kernel, (In(place), Out(site.result(op.result))), in_place={0: place})


def bind_add(site: Site) -> Binding:
    """A residual sum; it takes over the memory of its first operand."""
    (add,) = list(site.op.body.block.ops)[:1]
    first, second = (site.place(value) for value in add.operands)
    kernel = Add(columns(add.results[0]), site.tokens, site.lanes)
    slots = (In(first), In(second), Out(0))
    return Binding(scheduled(kernel, ROWS, site.options), slots, in_place={0: first})
