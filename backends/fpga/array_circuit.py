"""What one row of an array takes for one token, counted like a circuit of `rtl`.

The adders, registers and choices of an element are generated with the functions that make circuits,
and counted by the model that is held against synthesis. Nothing of it is emitted.
"""

from functools import lru_cache

from nybble.backends.fpga.rtl.emit import Module, Wire, bits
from nybble.backends.fpga.rtl.resource_model import Count, choice_luts, counted, lut_ram, products
from nybble.backends.fpga.rtl.sums import combined, tree
from nybble.dialects.fpga.attrs import (
    ENTRIES,
    LARGEST_ACTIVATION,
    ElementAttr,
    LookupAttr,
    SparseAttr,
    ValuesAttr,
)
from nybble.dialects.fpga.serial import SerialAttr
from nybble.dialects.fpga.xnor import COLUMNS, XnorAttr

ACTIVATION = Wire("%a", -LARGEST_ACTIVATION, LARGEST_ACTIVATION)


@lru_cache(maxsize=4096)
def row_resources(element: ElementAttr, lanes: int, dot_bits: int, pair: str) -> Count:
    """LUTs, registers and DSP blocks of a row's products and their sum. pair: see `SparseAttr`."""
    module, found = Module("row"), Count()
    if isinstance(element, LookupAttr):
        total = _look_ups(module, element, lanes, found)
    elif isinstance(element, XnorAttr):
        total = _counts(module, element, lanes)
    elif isinstance(element, SerialAttr):
        total = _terms(module, element, lanes)
    elif isinstance(element, SparseAttr):
        total = _chains(module, element, lanes, pair, found)
    else:
        assert isinstance(element, ValuesAttr)
        total = _products(module, element, lanes, found)
    module.register(module.add(total, bits("%kept", dot_bits)))
    found.include(counted(module, dsps=False))
    return found


def _look_ups(module: Module, element: LookupAttr, lanes: int, found: Count) -> Wire:
    """A table of its own for each plane and lane; a tree a plane, and planes put together."""
    most = (1 << (element.entry_bits - 1)) - 1
    for _ in range(element.planes.data * lanes):
        found.include(lut_ram(2 * ENTRIES, element.entry_bits, 1))
    entry = Wire("%entry", -most, most)
    sums = [
        tree(module, [module.register(entry) for _ in range(lanes)])
        for _ in range(element.planes.data)
    ]
    return combined(module, sums, [1 << plane for plane in range(element.planes.data)])


def _counts(module: Module, element: XnorAttr, lanes: int) -> Wire:
    """Bits that differ, counted in each pair of planes; pairs of one weight are added."""
    planes: dict[int, list[Wire]] = {}
    for plane in range(element.planes.data):
        for other in range(element.taken.data):
            differ = module.register(module.differ(bits("%w", COLUMNS), bits("%x", COLUMNS)))
            flags = [module.extract(differ, place, 1) for place in range(COLUMNS)]
            planes.setdefault(plane + other, []).extend(flags * lanes)
    sums = [tree(module, planes[place]) for place in sorted(planes)]
    return combined(module, sums, [1 << place for place in range(len(sums))])


def _terms(module: Module, element: SerialAttr, lanes: int) -> Wire:
    """An activation shifted to one of some places, negated or left out; and a sum over terms."""
    places = element.largest_exponent + 1
    most = LARGEST_ACTIVATION << element.largest_exponent
    parts: list[Wire] = []
    for _ in range(lanes):
        shifted = bits("%shifted", Wire("", -most, most).width)
        if places > 1:
            module.tally.choices.append((places, shifted.width))
        flipped = module.register(module.differ(shifted, shifted))
        parts.append(Wire(flipped.name, -most, most))
        digit = bits("%code", element.field_bits + element.index_bits)
        module.tally.choices.append((1 << digit.width - 1, 2 + (places - 1).bit_length()))
    total = tree(module, parts)
    return module.register(module.add(total, total)) if element.terms > 1 else total


def _products(module: Module, element: ValuesAttr, lanes: int, found: Count) -> Wire:
    """A narrow product without a DSP block, its factor decoded from a code."""
    most = LARGEST_ACTIVATION * element.largest
    width = element.value_bits
    found.include(products(ACTIVATION.width, width, lanes))
    found.luts += lanes * choice_luts(len(element.values.data) / 4, width)
    return tree(module, [module.register(Wire("%p", -most, most)) for _ in range(lanes)])


def _chains(module: Module, element: SparseAttr, lanes: int, pair: str, found: Count) -> Wire:
    """Products in DSP blocks, of columns that are chosen; a share of those that two results use."""
    shared, kept = (2 if pair else 1), element.keep.data
    most = LARGEST_ACTIVATION * element.largest * element.chain()
    found.dsps += lanes * kept / shared
    choosing = choice_luts(element.of.data, ACTIVATION.width)
    if kept < element.of.data:
        found.luts += lanes * kept * choosing / (shared if pair == "row" else 1)
        found.registers += lanes * kept * ACTIVATION.width
    chains = lanes * -(-kept // element.chain())
    return tree(module, [module.register(Wire("%c", -most, most)) for _ in range(chains)])
