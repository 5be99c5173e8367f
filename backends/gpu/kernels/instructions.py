"""Instructions that kernels need beside those of GpuBuilder: exponentials, lanes, halves."""

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import Value, f32
from nybble.backends.gpu.builder import GpuBuilder


def exp2(b: GpuBuilder, value: Value) -> Value:
    """2**value, to about 2 ulp; 0 for minus infinity."""
    return b.ptx("ex2.approx.ftz.f32 $0, $1;", [f32], [value])[0]


def maximum(b: GpuBuilder, x: Value, y: Value) -> Value:
    """The larger of two f32."""
    return b.ptx("max.f32 $0, $1, $2;", [f32], [x, y])[0]


def butterfly(b: GpuBuilder, value: Value, distance: int) -> Value:
    """The value of the lane whose number differs in the bit `distance`."""
    text = f"shfl.sync.bfly.b32 $0, $1, {distance}, 31, -1;"
    return b.ptx(text, [value.type], [value], effects=True)[0]


def from_lane(b: GpuBuilder, value: Value, lane: Value) -> Value:
    """The value of the lane of that number, which may differ from lane to lane."""
    return b.ptx(
        "shfl.sync.idx.b32 $0, $1, $2, 31, -1;", [value.type], [value, lane], effects=True
    )[0]


def any_lane(b: GpuBuilder, bit: Value) -> Value:
    """Whether the bit is set in some lane of the warp."""
    vote = "setp.ne.s32 p, $1, 0; vote.sync.any.pred p, p, -1; selp.b32 $0, 1, 0, p;"
    text = f"{{.reg .pred p; {vote}}}"
    return b.ptx(text, [i32], [b.zext(bit, i32)], effects=True)[0].ne(0)


def total_of_four(b: GpuBuilder, value: Value) -> Value:
    """The sum over the four lanes 4 g .. 4 g + 3."""
    for distance in (1, 2):
        value = value + butterfly(b, value, distance)
    return value


def pack_halves(b: GpuBuilder, kind: str, low: Value, high: Value) -> Value:
    """Two f32 as a pair of f16 or bf16, rounded to nearest even."""
    return b.ptx(f"cvt.rn.{kind}x2.f32 $0, $1, $2;", [i32], [high, low])[0]


def to_half(b: GpuBuilder, kind: str, value: Value) -> Value:
    """An f32 as the bits of an f16 or bf16 in the low half of a word."""
    return pack_halves(b, kind, value, b.const(0.0, f32))


def times_halves(b: GpuBuilder, x: Value, y: Value) -> Value:
    """Products of pairs of f16."""
    return b.ptx("mul.rn.f16x2 $0, $1, $2;", [i32], [x, y])[0]


def fused_halves(b: GpuBuilder, x: Value, y: Value, z: Value) -> Value:
    """x * y + z of pairs of f16, rounded once."""
    return b.ptx("fma.rn.f16x2 $0, $1, $2, $3;", [i32], [x, y, z])[0]


def halves_to_floats(b: GpuBuilder, word: Value) -> list[Value]:
    """A pair of f16 as two f32."""
    text = "{{.reg .b16 l, h; mov.b32 {{l, h}}, $2; cvt.f32.f16 $0, l; cvt.f32.f16 $1, h;}}"
    return b.ptx(text.replace("{{", "{").replace("}}", "}"), [f32, f32], [word])


def store_floats(b: GpuBuilder, pointer: Value, values: list[Value]) -> None:
    """One, two or four f32 into global memory."""
    vector = "" if len(values) == 1 else f".v{len(values)}"
    names = ", ".join(f"${i + 1}" for i in range(len(values)))
    group = names if len(values) == 1 else f"{{{names}}}"
    b.ptx(f"st.global{vector}.f32 [$0], {group};", (), [pointer, *values], effects=True)


def load_floats(b: GpuBuilder, pointer: Value, count: int) -> list[Value]:
    """Two or four f32 of global memory that other blocks of this launch wrote."""
    names = ", ".join(f"${i}" for i in range(count))
    text = f"ld.global.cg.v{count}.f32 {{{names}}}, [${count}];"
    return b.ptx(text, [f32] * count, [pointer], effects=True)


def load_matrices(b: GpuBuilder, row: Value, *, transposed: bool) -> list[Value]:
    """Four 8 x 8 matrices of 16-bit elements of shared memory, a register of each.

    row: pointer to row (lane % 8) of matrix (lane / 8). A lane gets elements 2 t and 2 t + 1 of
    row g, or of column g if transposed.
    """
    how = ".trans" if transposed else ""
    text = f"ldmatrix.sync.aligned.m8n8.x4{how}.shared.b16 {{$0, $1, $2, $3}}, [$4];"
    return b.ptx(text, [i32] * 4, [row], effects=True)
