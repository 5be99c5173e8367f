"""Sparse formats: what is kept, how it is indexed, what the codes of pruned weights are."""

import numpy as np
import pytest

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.sections import Reader, Writer
from nybble.dialects.lowbit.formats.sparse_index import choose, places, read_index, write_index
from nybble.dialects.lowbit.formats.structure import Blocks, NOfM, Unstructured


def normal(rows: int, cols: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


def kept_of(weight: formats.Weight) -> np.ndarray:
    assert weight.kept is not None
    return weight.kept


def test_n_of_m_keeps_the_largest() -> None:
    values = normal(4, 64)
    weight = formats.get("i8:g=32:s=f16:sparse=2of4").quantize(values)
    kept = kept_of(weight).reshape(4, 16, 4)
    assert (kept.sum(axis=2) == 2).all()
    runs = np.abs(values).reshape(4, 16, 4)
    assert (np.where(kept, runs, np.inf).min(axis=2) >= np.where(kept, 0, runs).max(axis=2)).all()


def test_a_block_of_rows_keeps_the_same_columns() -> None:
    values = normal(32, 64)
    kept = kept_of(formats.get("i4:g=32:s=f16:sparse=4of16.block16").quantize(values))
    tiles = kept.reshape(2, 16, 4, 16)
    assert (tiles == tiles[:, :1]).all()
    assert (tiles[:, 0].sum(axis=2) == 4).all()
    energy = np.square(values).reshape(2, 16, 4, 16).sum(axis=1)
    assert (
        np.where(tiles[:, 0], energy, np.inf).min(2) >= np.where(tiles[:, 0], 0, energy).max(2)
    ).all()


def test_densities() -> None:
    values = normal(32, 64)
    for index in ("csr", "bitmap"):
        kept = kept_of(
            formats.get(f"w4g32:sparse={index}.250".replace("w4g32", "i4:g=32:s=f16")).quantize(
                values
            )
        )
        assert kept.sum() == 512
        assert np.abs(values[kept]).min() >= np.abs(values[~kept]).max()
    blocks = kept_of(formats.get("f16:sparse=bcsr8x4.125").quantize(values))
    assert blocks.reshape(4, 8, 16, 4).any(axis=(1, 3)).sum() == 8
    assert blocks.sum() == 8 * 32
    holes = np.where(values > 0, values, np.float32(0))
    np.testing.assert_array_equal(
        kept_of(formats.get("f16:sparse=csr").quantize(holes)), holes != 0
    )


@pytest.mark.parametrize(
    ("element", "zero"),
    [
        *(("u4", zero) for zero in ("", ":z=int.u4", ":z=min.f16", ":z=scaled.f16")),
        *((one, "") for one in ("i4", "nf4", "e2m1", "bip2", "bitmod4[5.0,8.0]")),
        *((one, ":z=min.f16") for one in ("i4", "nf4", "bip2")),
    ],
)
def test_pruned_weights_are_zero_whatever_their_code(element: str, zero: str) -> None:
    weight = formats.get(f"{element}:g=16:s=f16{zero}:sparse=2of4").quantize(normal(8, 64) + 1)
    kept = kept_of(weight)
    assert (weight.dequantize()[~kept] == 0).all()
    if not zero or zero.startswith(":z=int"):
        assert weight.pruned_are_zero == (element != "bip2")
    elif zero == ":z=min.f16":
        assert not weight.pruned_are_zero
    assert weight.codes is not None
    if not weight.pruned_are_zero:
        assert len(set(weight.codes[~kept].tolist())) == 1


def test_scales_are_those_of_the_kept_weights() -> None:
    """A pruned weight neither widens a range nor lowers a mean."""
    values = np.full((1, 64), 3, np.float32)
    values[0, ::2] = 0.5
    for spec in ("bip1:g=32:s=f16", "u2:g=32:s=f16:z=min.f16", "ternary:g=32:s=f16"):
        weight = formats.get(f"{spec}:sparse=2of4").quantize(values)
        np.testing.assert_array_equal(weight.dequantize()[0, 1::2], 3)


def through(pattern: NOfM | Blocks | Unstructured, kept: np.ndarray) -> tuple[Reader, np.ndarray]:
    target = Writer()
    write_index(pattern, kept, target)
    stream = target.finish(*kept.shape)
    return Reader(stream), stream


def test_index_bytes() -> None:
    kept = np.zeros((2, 8), bool)
    kept[0, [1, 2, 4, 7]] = True
    kept[1, [0, 3, 5, 6]] = True
    source, _ = through(NOfM(2, 4), kept)
    assert source.small(8, 2).tolist() == [1, 2, 0, 3, 0, 3, 1, 2]
    source, _ = through(Unstructured("bitmap"), kept)
    assert source.take(np.uint8, 2).tolist() == [0b10010110, 0b01101001]
    source, _ = through(Unstructured("csr"), kept)
    assert source.take(np.uint32, 3).tolist() == [0, 4, 8]
    assert source.take(np.uint16, 8).tolist() == [1, 2, 4, 7, 0, 3, 5, 6]
    blocks = np.repeat(kept[:1], 2, axis=0)
    blocks = np.zeros((4, 8), bool)
    blocks[2:, 4:] = True
    source, _ = through(Blocks(2, 4), blocks)
    assert source.take(np.uint32, 3).tolist() == [0, 0, 1]
    assert source.take(np.uint16, 1).tolist() == [1]
    row, col = places(Blocks(2, 4), blocks)
    assert row.tolist() == [2] * 4 + [3] * 4
    assert col.tolist() == [4, 5, 6, 7] * 2


def test_wide_matrices_have_wide_columns() -> None:
    kept = np.zeros((1, 70000), bool)
    kept[0, [3, 69999]] = True
    source, _ = through(Unstructured("csr"), kept)
    np.testing.assert_array_equal(read_index(Unstructured("csr"), source, 1, 70000), kept)


def test_long_runs_have_wide_places() -> None:
    pattern = NOfM(3, 1000)
    kept = choose(pattern, normal(2, 2000))
    source, _ = through(pattern, kept)
    np.testing.assert_array_equal(read_index(pattern, source, 2, 2000), kept)


def test_masks_of_another_pattern_are_refused() -> None:
    kept = np.zeros((2, 8), bool)
    kept[0, 0] = True
    for pattern in (NOfM(2, 4), NOfM(1, 8, 2), Blocks(2, 2)):
        with pytest.raises(formats.FormatError, match=f"not {pattern.spell}"):
            write_index(pattern, kept, Writer())


def indexed(pattern: NOfM | Unstructured, *sections: np.ndarray) -> np.ndarray:
    target = Writer()
    for section in sections:
        target.put(section)
    return read_index(pattern, Reader(target.finish(1, 8)), 1, 8)


def test_broken_indices_are_refused() -> None:
    csr, wide = Unstructured("csr"), np.uint32
    for columns in ([3, 3], [4, 1], [1, 8]):
        with pytest.raises(formats.FormatError, match="columns that do not rise below 8"):
            indexed(csr, np.array([0, 2], wide), np.array(columns, np.uint16))
    for offsets in ([1, 2], [0, 2, 1]):
        with pytest.raises(formats.FormatError, match=r"offsets that do not rise|section of"):
            indexed(csr, np.array(offsets, wide), np.array([0, 1], np.uint16))
    with pytest.raises(formats.FormatError, match=r"section of 2 bytes .*4"):
        indexed(csr, np.array([0, 2], wide), np.array([1], np.uint16))
    with pytest.raises(formats.FormatError, match="too few sections"):
        indexed(csr, np.array([0, 2], wide))
    for packed in (0b1111_0000, 0b0001_0010):  # 0 and 0; 2 and 0
        with pytest.raises(formats.FormatError, match="places in a run of 4 that do not rise"):
            indexed(NOfM(2, 4), np.array([packed], np.uint8))
    target = Writer()
    target.put(np.array([0b11], np.uint8))
    reader = Reader(target.finish(1, 3))
    with pytest.raises(formats.FormatError, match="places in a run of 3"):
        read_index(NOfM(1, 3), reader, 1, 3)
