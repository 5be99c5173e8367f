"""One launch of a function: what its kernel is made for, and which values its buffers hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from xdsl.ir import SSAValue

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.cuda.source import cuda_source
from nybble.backends.gpu.image import KernelImage, Parameter
from nybble.backends.gpu.kernels.attention.decode import decode_image, decode_module
from nybble.backends.gpu.kernels.attention.lists import ListsSpec, lists_kernel
from nybble.backends.gpu.kernels.attention.parts import (
    FinishSpec,
    MergeSpec,
    finish_kernel,
    merge_kernel,
)
from nybble.backends.gpu.kernels.attention.prefill import (
    PrefillSpec,
    prefill_image,
    prefill_module,
)
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec
from nybble.backends.gpu.kernels.matmul.lookup import (
    LookupSpec,
    TablesSpec,
    lookup_kernel,
    tables_kernel,
)
from nybble.backends.gpu.kernels.matmul.spec import StreamSpec
from nybble.backends.gpu.kernels.rows.codes import CodesSpec, codes_kernel
from nybble.backends.gpu.kernels.rows.machine import RowKernel, RowSpec
from nybble.backends.gpu.kernels.rows.norm import NormSpec, norm_kernel
from nybble.backends.gpu.kernels.rows.planes import PlanesSpec, planes_kernel
from nybble.backends.gpu.kernels.rows.quantize import QuantizeSpec, quantize_kernel
from nybble.backends.gpu.kernels.rows.rotate import RotateSpec, rotate_kernel
from nybble.backends.gpu.kernels.rows.simple import (
    AddSpec,
    EmbedSpec,
    GluSpec,
    LargestSpec,
    LastRowSpec,
    add_kernel,
    embed_kernel,
    glu_kernel,
    largest_kernel,
    last_row_kernel,
)
from nybble.backends.gpu.products import compile_spec
from nybble.dialects.lowbit.formats import Weight

PACKED, TABLE, LENGTHS, LAST = "packed", "table", "lengths", "last"
"""Forms of a slot: weights as products read them, a table in f16; without a value, how many keys
there are with the last token, and the row of the last token."""


class Spec(Protocol):
    """What a kernel is made for; hashable, so that equal ones are one kernel."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The kernel's parameters, in order."""
        ...


class Compiled(Protocol):
    """A kernel that was compiled."""

    @property
    def image(self) -> KernelImage:
        """The kernel and its launch."""
        ...

    def source(self) -> str:
        """The kernel as CUDA C++."""
        ...


@dataclass(frozen=True)
class Slot:
    """What a buffer holds: a value as `Storage` keeps it, or in a form.

    values: one, those of a gate and the other factor for weights that are packed together, or none.
    form: one of the constants above, or a part of a quantization in the order of one reader, or of
    a cache with codes.
    """

    values: tuple[SSAValue, ...] = ()
    form: str = ""


@dataclass(frozen=True)
class Step:
    """One launch. slots: parameter -> what its buffer holds; others are scratch. format: of the
    weights of a product."""

    spec: Spec
    slots: Mapping[str, Slot] = field(default_factory=dict[str, Slot])
    format: str = ""

    @property
    def name(self) -> str:
        """Tells people what the kernel is for; several may have one name."""
        spec = self.spec
        if isinstance(spec, StreamSpec):
            return f"product_{spec.tokens}x{spec.features}x{spec.layout.cols}"
        if isinstance(spec, RowSpec):
            return spec.name
        return "prefill" if isinstance(spec, PrefillSpec) else "decode"

    def compile(self, arch: Arch, name: str) -> Compiled:
        """The kernel under a name; raises CodegenError."""
        spec = self.spec
        if isinstance(spec, StreamSpec):
            return compile_spec(self.format, spec, name)
        if isinstance(spec, RowSpec):
            kernel = ROW_KERNELS[type(spec)](spec, name)
            image = kernel.image(arch)
            if isinstance(spec, LookupSpec):
                return LookupProduct(image, kernel, spec)
            return Finished(image, kernel.source)
        if isinstance(spec, PrefillSpec):
            image, build = prefill_image(spec, arch, name), partial(prefill_module, spec, name)
        else:
            assert isinstance(spec, DecodeSpec)
            image, build = decode_image(spec, arch, name), partial(decode_module, spec, name)
        names = [one.name for one in image.parameters]
        return Finished(image, lambda: cuda_source(build(), names))


@dataclass(frozen=True)
class Finished:
    """An image, and what writes it as CUDA C++; see Compiled."""

    image: KernelImage
    source: Callable[[], str]


@dataclass(frozen=True)
class LookupProduct:
    """A product by `lmma`; see Compiled."""

    image: KernelImage
    kernel: RowKernel
    spec: LookupSpec

    def source(self) -> str:
        """See Compiled."""
        return self.kernel.source()

    def pack(self, weight: Weight) -> npt.NDArray[np.uint8]:
        """u8 [spec.weight_bytes]; raises NybbleError for what does not fit."""
        return self.spec.pack(weight)


ROW_KERNELS: Mapping[type[RowSpec], Callable[[Any, str], RowKernel]] = {
    NormSpec: norm_kernel, QuantizeSpec: quantize_kernel, PlanesSpec: planes_kernel,
    RotateSpec: rotate_kernel, AddSpec: add_kernel, GluSpec: glu_kernel, EmbedSpec: embed_kernel,
    LastRowSpec: last_row_kernel, LargestSpec: largest_kernel, TablesSpec: tables_kernel,
    LookupSpec: lookup_kernel, CodesSpec: codes_kernel, ListsSpec: lists_kernel,
    MergeSpec: merge_kernel, FinishSpec: finish_kernel,
}  # fmt: skip
