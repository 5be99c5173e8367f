"""Other types of a GGUF model, made by llama.cpp's own quantizer and kept in a cache folder."""

import ctypes
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import prod
from pathlib import Path
from uuid import uuid4

from nybble.dialects.lowbit import formats
from nybble.frontend.checkpoint import TensorEntry
from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.peers.libraries import library_version, llama

SAME, AUTO = "same", "auto"
REARRANGED = {4: "q4_0", 8: "q8_0"}
"""Bits of a code -> the type that llama.cpp multiplies fastest, rearranged, on any processor."""
_PREFIX = "LLAMA_FTYPE_MOSTLY_"


def file_type(name: str) -> int:
    """llama.cpp's number of a file type such as "q4_0" or "q4_k_m"; raises BenchError."""
    api = llama()
    known = {key.removeprefix(_PREFIX).lower(): key for key in vars(api) if key.startswith(_PREFIX)}
    if name.lower() not in known:
        raise BenchError(
            f"llama.cpp has no file type '{name}'", accepted=", ".join([AUTO, SAME, *sorted(known)])
        )
    return int(getattr(api, known[name.lower()]))


def types_of(names: Sequence[str], tensors: Mapping[str, TensorEntry]) -> tuple[str, ...]:
    """The names, AUTO replaced by SAME and the fastest type of at least as many bits a code.

    tensors: of the model; the format that most of its weights have is what counts.
    """
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.format] += prod(tensor.shape)
    stored = sizes.most_common(1)[0][0] if sizes else ""
    bits = formats.get(stored).element.bits if stored else 0
    fastest = next((name for least, name in REARRANGED.items() if least >= bits), stored)
    automatic = (SAME,) if fastest == stored else (SAME, fastest)
    found = [one for name in names for one in (automatic if name == AUTO else (name,))]
    return tuple(dict.fromkeys(found))


def requantized(source: Path, name: str, folder: Path) -> Path:
    """The model of `source` in type `name`; SAME is the file itself.

    folder: where the files are kept; one is made in full before it gets its name.
    Raises BenchError for an unknown type or if the quantizer refuses.
    """
    if name == SAME:
        return source
    number = file_type(name)
    state = source.stat()
    key = f"{source.resolve()} {state.st_size} {state.st_mtime_ns} {name} {library_version()}"
    target = folder / f"{source.stem}-{name}-{sha256(key.encode()).hexdigest()[:16]}.gguf"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        _quantize(source, draft, number)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _quantize(source: Path, target: Path, number: int) -> None:
    api = llama()
    params = api.llama_model_quantize_default_params()
    params.ftype = number
    params.allow_requantize = True
    failed = api.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    if failed:
        raise BenchError(f"llama.cpp cannot requantize {source} (status {failed})")
