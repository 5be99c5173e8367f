"""The table of bindings: the name of a fusion -> the rule that binds it."""

from collections.abc import Callable

from nybble.backends.cpu.bindings.attention import (
    bind_append_bounds,
    bind_attention,
    bind_finish,
    bind_merge,
    bind_partial,
    bind_retained,
    bind_rope,
    bind_rope_append,
    bind_select_pages,
)
from nybble.backends.cpu.bindings.ends import bind_embed, bind_last_row, bind_nll, bind_sample
from nybble.backends.cpu.bindings.products import bind_product
from nybble.backends.cpu.bindings.rowwise import (
    bind_add,
    bind_glu,
    bind_hadamard,
    bind_norm,
    bind_norm_quantize,
    bind_quantize,
)
from nybble.backends.cpu.bindings.site import Binding, Site
from nybble.backends.cpu.bindings.tables import (
    bind_norm_quantize_tables,
    bind_quantize_tables,
    bind_tables,
)
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.linalg import bind_linalg
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp

RULES: dict[str, Callable[[Site], Binding]] = {
    "norm": bind_norm,
    "norm_quantize": bind_norm_quantize,
    "quantize": bind_quantize,
    "tables": bind_tables,
    "quantize_tables": bind_quantize_tables,
    "norm_quantize_tables": bind_norm_quantize_tables,
    "product": bind_product,
    "product_add": bind_product,
    "product_glu": bind_product,
    "rope_append": bind_rope_append,
    "rope": bind_rope,
    "attention": bind_attention,
    "attention_retained": bind_retained,
    "append_bounds": bind_append_bounds,
    "select_pages": bind_select_pages,
    "attention_part": bind_partial,
    "attention_merge": bind_merge,
    "attention_finish": bind_finish,
    "linalg": bind_linalg,
    "glu": bind_glu,
    "hadamard": bind_hadamard,
    "add": bind_add,
    "embed": bind_embed,
    "last_row": bind_last_row,
    "nll": bind_nll,
    "sample": bind_sample,
}


def bind(op: KernelOp, isa: Isa, threads: int) -> Binding:
    """The binding of a region; raises BindingError where no rule covers it."""
    site = Site(op, isa, threads)
    rule = RULES.get(op.kernel_name.data)
    if rule is None:
        raise site.error(f"is none of {', '.join(RULES)}")
    try:
        binding = rule(site)
        if site.options and binding.choices is None:
            raise site.error(f"has no sizes to schedule, and was given {', '.join(site.options)}")
        return binding
    except (NybbleError, ValueError) as fault:
        raise site.rephrased(fault) from fault
