"""DFloat11: every bit pattern comes back, codes are optimal, kernels can rely on the layout."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import entropy

DF11 = formats.get("df11")


def as_f32(patterns: np.ndarray) -> np.ndarray:
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def bits_of(values: np.ndarray) -> np.ndarray:
    return values.view(np.uint32)


def test_every_bf16_pattern_is_kept() -> None:
    """Infinities, denormals, both zeros, and quiet and signalling NaNs with their payloads."""
    values = as_f32(np.arange(1 << 16, dtype=np.uint16).reshape(64, 1024))
    weight = DF11.quantize(values)
    np.testing.assert_array_equal(bits_of(weight.dequantize()), bits_of(values))
    again = DF11.unpack(DF11.pack(weight), 1024)
    np.testing.assert_array_equal(bits_of(again.dequantize()), bits_of(values))


def test_plain_bf16_bytes_come_back() -> None:
    raw = np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(16, -1)
    form = formats.get("bf16")
    np.testing.assert_array_equal(form.pack(form.unpack(raw, 4096)), raw)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 1300), st.integers(1, 256), st.integers(0, 2**31))
def test_random_symbols_round_trip(rows: int, cols: int, kinds: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    symbols = np.minimum(random.geometric(random.uniform(0.01, 0.9), (rows, cols)), kinds) - 1
    symbols = random.permutation(256).astype(np.uint8)[symbols % 256]
    coded = entropy.encode(symbols)
    np.testing.assert_array_equal(entropy.decode(coded, rows, cols), symbols)


def scalar_decode(coded: entropy.Coded, block: int, count: int) -> list[int]:
    """What a kernel does for one block, by the words of the layout."""
    table = entropy.decode_table(coded.lengths)
    place, symbols = 8 * int(coded.starts[block]), []
    for _ in range(count):
        window = int.from_bytes(coded.bits[place >> 3 : (place >> 3) + 4].tobytes(), "little")
        entry = int(table[window >> (place & 7) & 2047])
        symbols.append(entry & 255)
        place += entry >> 8
    assert (place + 7) // 8 == coded.starts[block + 1]
    return symbols


def test_blocks_decode_alone() -> None:
    symbols = np.random.default_rng(0).binomial(40, 0.3, (3, 1100)).astype(np.uint8)
    coded = entropy.encode(symbols)
    assert len(coded.starts) == 3 * 3 + 1
    assert len(coded.bits) == coded.starts[-1] + 8
    assert scalar_decode(coded, 4, 512) == symbols[1, 512:1024].tolist()
    assert scalar_decode(coded, 8, 76) == symbols[2, 1024:].tolist()


def test_rows_are_coded_in_pieces_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = np.random.default_rng(0).binomial(40, 0.3, (7, 600)).astype(np.uint8)
    whole = entropy.encode(symbols)
    monkeypatch.setattr(entropy, "_CHUNK", 1300)
    pieces = entropy.encode(symbols)
    np.testing.assert_array_equal(pieces.bits, whole.bits)
    np.testing.assert_array_equal(pieces.starts, whole.starts)


def huffman_cost(counts: list[int]) -> int:
    """Total bits of an optimal code without a limit."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        cost += joined
        heapq.heappush(heap, joined)
    return cost


def test_codes_are_optimal_and_limited() -> None:
    random = np.random.default_rng(0)
    even = np.zeros(256, np.int64)
    even[:20] = random.integers(50, 100, 20)
    lengths = entropy.code_lengths(even).astype(np.int64)
    assert (lengths * even).sum() == huffman_cost(even.tolist())
    steep = np.array([2 ** min(one, 40) for one in range(256)])
    lengths = entropy.code_lengths(steep).astype(np.int64)
    assert lengths.max() == entropy.MAX_LENGTH
    assert (lengths > 0).all()
    assert (1 << (11 - lengths)).sum() == 1 << 11  # a complete prefix code
    assert not entropy.code_lengths(np.zeros(256, np.int64)).any()


def test_code_words_are_canonical() -> None:
    lengths = np.zeros(256, np.uint8)
    lengths[[5, 9, 3, 7]] = (1, 2, 3, 3)
    words = entropy.code_words(lengths)
    # 0, 10, 110, 111 with the first bit lowest
    assert [int(words[one]) for one in (5, 9, 3, 7)] == [0b0, 0b01, 0b011, 0b111]
    table = entropy.decode_table(lengths)
    assert table[0b10] == 5 | 1 << 8
    assert table[0b101] == 9 | 2 << 8
    assert table[0b11111111111] == 7 | 3 << 8


def test_trained_weights_take_about_11_bits() -> None:
    values = np.random.default_rng(0).standard_normal((512, 2048)).astype(np.float32) * 0.02
    packed = DF11.pack(DF11.quantize(values))
    exponents, _ = entropy.split_bf16((bits_of(values) >> 16).astype(np.uint16))
    counts = np.bincount(exponents.reshape(-1), minlength=256)
    share = counts[counts > 0] / values.size
    information = 8 - share @ np.log2(share)
    assert information <= 8 * packed.size / values.size <= information + 0.15


def decoded_with(**parts: np.ndarray) -> np.ndarray:
    """Decode symbols of one row of 64 with a part of the code exchanged."""
    coded = entropy.encode(np.arange(64, dtype=np.uint8)[None])
    fields = {"lengths": coded.lengths, "starts": coded.starts, "bits": coded.bits} | parts
    return entropy.decode(entropy.Coded(**fields), 1, 64)


def test_broken_codes_are_refused() -> None:
    ones, long = np.ones(256, np.uint8), np.zeros(256, np.uint8)
    long[0] = 12
    none = np.zeros(256, np.uint8)
    good = entropy.encode(np.arange(64, dtype=np.uint8)[None])
    for lengths in (ones, long):
        with pytest.raises(formats.FormatError, match=r"Huffman code lengths .*at most 11 bits"):
            decoded_with(lengths=lengths)
    with pytest.raises(formats.FormatError, match="do not end with their block"):
        decoded_with(lengths=none)
    short = np.zeros(256, np.uint8)
    short[0] = 1
    with pytest.raises(formats.FormatError, match="do not end with their block"):
        decoded_with(lengths=short)
    for starts in (good.starts + 1, good.starts[::-1].copy(), good.starts[:1]):
        with pytest.raises(formats.FormatError, match=r"block offsets for .*2 rising offsets"):
            decoded_with(starts=starts)
