"""The mask algebra: which cached keys a query may see."""

import abc

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import IntAttr
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException


class MaskAttr(ParametrizedAttribute, abc.ABC):
    """A rule over absolute positions of queries and keys."""

    @abc.abstractmethod
    def dense(
        self, queries: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """True where query position [i] sees key position [j]; bool [queries, keys]."""

    @property
    @abc.abstractmethod
    def span(self) -> int | None:
        """How many most recent keys a query can see at most; None for all of them."""


@irdl_attr_definition
class CausalMask(MaskAttr):
    """Every key up to the query itself."""

    name = "sparse_attn.causal"

    def dense(
        self, queries: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """See `MaskAttr`."""
        return keys[None, :] <= queries[:, None]

    @property
    def span(self) -> int | None:
        """See `MaskAttr`."""
        return None


@irdl_attr_definition
class WindowMask(MaskAttr):
    """The last `size` keys up to and including the query: `#sparse_attn.window<512>`."""

    name = "sparse_attn.window"
    size: IntAttr

    def dense(
        self, queries: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """See `MaskAttr`."""
        distance = queries[:, None] - keys[None, :]
        return (distance >= 0) & (distance < self.size.data)

    @property
    def span(self) -> int | None:
        """See `MaskAttr`."""
        return self.size.data

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> tuple[Attribute, ...]:
        """`<` size `>`"""
        with parser.in_angle_brackets():
            return (IntAttr(parser.parse_integer(allow_boolean=False)),)

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        with printer.in_angle_brackets():
            printer.print_int(self.size.data)

    def verify(self) -> None:
        if self.size.data < 1:
            raise VerifyException(f"a window holds at least 1 key, got {self.size.data}")
