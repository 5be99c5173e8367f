"""Where the variables and parameters of a kernel lie."""

from dataclasses import dataclass, field

from nybble.backends.gpu.sim.memory import GlobalLayout
from nybble.backends.gpu.sim.ptx import Entry, Module, Variable


@dataclass
class Symbols:
    """Addresses: name -> (space, address in it).

    shared: bytes of static shared memory, behind which the dynamic one lies. constants: buffer
    number -> its first bytes.
    """

    addresses: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    shared: int = 0
    local: int = 0
    parameters: int = 0
    constants: dict[int, bytes] = field(default_factory=dict[int, bytes])


def lay_out(module: Module, entry: Entry, layout: GlobalLayout) -> Symbols:
    """Place all variables; those in global and constant memory become buffers of the layout."""
    made = Symbols()
    _place_constants(made, [one for one in module.variables if one.space == "const"], layout)
    dynamic: list[Variable] = []
    for variable in [*module.variables, *entry.variables]:
        if variable.space == "global":
            _place_global(made, variable, layout)
        elif variable.bytes is None:
            dynamic.append(variable)
        elif variable.space == "shared":
            made.shared = _place(made, variable, made.shared)
        elif variable.space == "local":
            made.local = _place(made, variable, made.local)
    if dynamic:
        align = max(variable.align for variable in dynamic)
        made.shared = -(-made.shared // align) * align
    for variable in dynamic:
        made.addresses[variable.name] = ("shared", made.shared)
    for variable in entry.parameters:
        made.parameters = _place(made, variable, made.parameters)
    return made


def _place(made: Symbols, variable: Variable, top: int) -> int:
    """Place a variable; the new top."""
    start = -(-top // variable.align) * variable.align
    made.addresses[variable.name] = (variable.space, start)
    return start + (variable.bytes or 0)


def _place_constants(made: Symbols, variables: list[Variable], layout: GlobalLayout) -> None:
    """Place constant memory, which is buffer 0; its addresses count from 0, as 32 bits may do."""
    data = bytearray()
    for variable in variables:
        data += bytes(-len(data) % variable.align)
        made.addresses[variable.name] = ("const", len(data))
        data += variable.initial.ljust(variable.bytes or 0, b"\0")
    layout.add("constant memory", len(data), read_only=True)
    made.constants[0] = bytes(data)


def _place_global(made: Symbols, variable: Variable, layout: GlobalLayout) -> None:
    number = len(layout.buffers)
    size = variable.bytes or 0
    address = layout.add(variable.name, size)
    made.addresses[variable.name] = (variable.space, address)
    made.constants[number] = variable.initial.ljust(size, b"\0")
