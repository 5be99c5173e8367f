"""The decision a scheduler records on a kernel and a lowering reads."""

from collections.abc import Mapping

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, StringAttr, i64
from xdsl.ir import ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.mpgemm.dialect import MPGemm
from nybble.dialects.mpgemm.ops import ProductOp

_PRODUCTS = [op for op in MPGemm.operations if issubclass(op, ProductOp)]
DATAFLOWS = (*(op.DATAFLOW for op in _PRODUCTS if op.DATAFLOW), "vector")


@irdl_attr_definition
class KernelSchedule(ParametrizedAttribute):
    """`#schedule.kernel<"cpu", "int_dot", {rows = 64 : i64}, "why">`

    target: the backend's name. dataflow: one of DATAFLOWS ("vector" for kernels without a matrix
    product). options: sizes that the dataflow takes, as i64. because: the reason, for people.
    """

    name = "schedule.kernel"
    target: StringAttr
    dataflow: StringAttr
    options: DictionaryAttr
    because: StringAttr

    @staticmethod
    def get(
        target: str, dataflow: str, options: Mapping[str, int], because: str
    ) -> "KernelSchedule":
        """A schedule from plain values."""
        sizes = {name: IntegerAttr(value, i64) for name, value in options.items()}
        return KernelSchedule(
            StringAttr(target), StringAttr(dataflow), DictionaryAttr(sizes), StringAttr(because)
        )

    def option(self, name: str) -> int | None:
        """The value of an option, None where the scheduler left it to the lowering."""
        value = self.options.data.get(name)
        return value.value.data if isinstance(value, IntegerAttr) else None

    def sizes(self) -> dict[str, int]:
        """Every option."""
        return {
            name: value.value.data
            for name, value in self.options.data.items()
            if isinstance(value, IntegerAttr)
        }

    def verify(self) -> None:
        if self.dataflow.data not in DATAFLOWS:
            raise VerifyException(
                f'unknown dataflow "{self.dataflow.data}"; accepted: {", ".join(DATAFLOWS)}'
            )
        for name, value in self.options.data.items():
            if not isinstance(value, IntegerAttr):
                raise VerifyException(f'option "{name}" must be an integer, got {value}')
