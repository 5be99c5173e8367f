"""Array types shared by the references."""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I8 = NDArray[np.int8]
I32 = NDArray[np.int32]
KvArray = NDArray[np.float32] | NDArray[np.float16]
