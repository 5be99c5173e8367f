"""nybble: an MLIR compiler stack for the operators of low-bit and sparse LLMs.

The names below are imported when they are used first; `import nybble` brings in no library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nybble.dialects.errors import NybbleError
    from nybble.dialects.lowbit import formats
    from nybble.frontend import spgemm
    from nybble.frontend.api import compile, lower, quantize
    from nybble.frontend.compiled import Compiled
    from nybble.frontend.weight_choice import WeightChoice

__version__ = "0.1.0"

_LAZY = {
    "Compiled": "nybble.frontend.compiled:Compiled",
    "NybbleError": "nybble.dialects.errors:NybbleError",
    "WeightChoice": "nybble.frontend.weight_choice:WeightChoice",
    "compile": "nybble.frontend.api:compile",
    "formats": "nybble.dialects.lowbit.formats:",
    "lower": "nybble.frontend.api:lower",
    "quantize": "nybble.frontend.api:quantize",
    "spgemm": "nybble.frontend.spgemm:",
}
"""Name -> "module:object", or "module:" for the module itself."""

__all__ = [
    "Compiled",
    "NybbleError",
    "WeightChoice",
    "__version__",
    "compile",
    "formats",
    "lower",
    "quantize",
    "spgemm",
]


def __getattr__(name: str) -> object:
    """A public name, at its first use."""
    place = _LAZY.get(name)
    if place is None:
        raise AttributeError(f"module 'nybble' has no attribute '{name}'")
    module, _, attribute = place.partition(":")
    found: object = import_module(module)
    if attribute:
        found = getattr(found, attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
