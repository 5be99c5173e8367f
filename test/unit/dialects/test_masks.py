"""The mask algebra against its definition, position by position."""

import numpy as np
import pytest
from xdsl.dialects.builtin import IntAttr

from nybble.dialects.sparse_attn.masks import CausalMask, WindowMask


@pytest.mark.parametrize(("first", "rows"), [(0, 1), (0, 9), (5, 4), (30, 1)])
@pytest.mark.parametrize("size", [None, 1, 3, 64])
def test_dense_form(first, rows, size):
    mask = CausalMask() if size is None else WindowMask(IntAttr(size))
    queries, keys = np.arange(first, first + rows), np.arange(first + rows)
    seen = mask.dense(queries, keys)
    for i, query in enumerate(queries):
        for j, key in enumerate(keys):
            assert seen[i, j] == (key <= query and (size is None or query - key < size))
    assert mask.span == size
    assert seen.any(axis=1).all()
