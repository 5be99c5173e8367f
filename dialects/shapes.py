"""Shape questions that verifiers of several dialects ask."""

from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import VerifyException


def tensor_shape(value: SSAValue) -> tuple[int, ...]:
    """The shape of a value of tensor type."""
    assert isinstance(value.type, TensorType)
    return value.type.get_shape()


def element_type(value: SSAValue) -> Attribute:
    """The element type of a value of tensor type."""
    assert isinstance(value.type, TensorType)
    return value.type.element_type


def check_rank(name: str, value: SSAValue, rank: int) -> tuple[int, ...]:
    """Raise unless `value` is a tensor of `rank` dimensions; return its shape."""
    shape = tensor_shape(value)
    if len(shape) != rank:
        raise VerifyException(f"{name} must have {rank} dimensions, got {len(shape)}")
    return shape


def check_equal(name: str, got: int, expected: int, source: str) -> None:
    """Raise unless two dimensions agree, where a dynamic one agrees with all."""
    if DYNAMIC_INDEX in (got, expected) or got == expected:
        return
    raise VerifyException(f"{name} must be {expected} ({source}), got {got}")
