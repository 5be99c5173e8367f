"""The table of nybble's dialects, and a context that knows them and the upstream ones."""

from collections.abc import Callable
from functools import partial
from typing import TypeGuard

from xdsl.context import Context
from xdsl.dialects import get_all_dialects
from xdsl.ir import Dialect

from nybble.dialects.loading import Registry

DIALECTS: dict[str, str] = {
    "lowbit": "nybble.dialects.lowbit.dialect:LowBit",
    "mpgemm": "nybble.dialects.mpgemm.dialect:MPGemm",
    "sparse_attn": "nybble.dialects.sparse_attn.dialect:SparseAttn",
    "fused": "nybble.dialects.fused.dialect:Fused",
    "schedule": "nybble.dialects.schedule.dialect:Schedule",
    "spgemm": "nybble.dialects.spgemm.dialect:SpGEMM",
    "fpga": "nybble.dialects.fpga.dialect:Fpga",
}


def _is_dialect(found: object) -> TypeGuard[Dialect]:
    return isinstance(found, Dialect)


REGISTRY: Registry[Dialect] = Registry("dialect", DIALECTS, _is_dialect)


def make_context(*, allow_unregistered: bool = False) -> Context:
    """A context with nybble's and the upstream dialects registered and none of them loaded.

    allow_unregistered: accept ops, types and attributes of dialects that nobody registered.
    """
    factories: dict[str, Callable[[], Dialect]] = dict(get_all_dialects())
    factories |= {name: partial(REGISTRY.load, name) for name in DIALECTS}
    context = Context(allow_unregistered=allow_unregistered)
    for name, factory in factories.items():
        context.register_dialect(name, factory)
    return context
