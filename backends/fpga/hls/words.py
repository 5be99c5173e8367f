"""What templates need to know of streams and memories."""

from typing import Any

from xdsl.ir import SSAValue

from nybble.dialects.fpga.processes import memory_type
from nybble.dialects.fpga.types import StreamType

Context = dict[str, Any]


def stream_context(value: SSAValue) -> Context:
    """The C++ types of a stream and of its words, bits of an element, depth."""
    type_ = value.type
    assert isinstance(type_, StreamType)
    word = f"ap_uint<{type_.word_bits}>"
    return {
        "type": word,
        "stream": f"hls::stream<{word}>",
        "bits": type_.element_bits,
        "lanes": type_.lanes.data,
        "depth": type_.depth.data,
    }


def memory_context(value: SSAValue) -> Context:
    """The C++ type of a word of memory."""
    return {"type": f"ap_uint<{memory_type(value).bits.data}>", "stream": None}


def place_context(value: SSAValue) -> Context:
    """Of a stream or a memory, whichever an operand is; `stream` is None for a memory."""
    return stream_context(value) if isinstance(value.type, StreamType) else memory_context(value)


def optional_context(value: SSAValue | None) -> Context | None:
    """Of a stream that may be missing."""
    return None if value is None else stream_context(value)
