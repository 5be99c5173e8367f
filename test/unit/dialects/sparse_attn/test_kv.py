"""Formats of key-value caches: spelling, sizes, boundaries, and what is refused."""

import numpy as np
import pytest

from nybble.dialects.sparse_attn.kv import EXACT, KEYS, LATER, VALUES, KvError, parse, products
from nybble.dialects.sparse_attn.kv.corrections import low_rank

NAMES = (
    *EXACT,
    "kv8",
    "kv4",
    "kv2",
    "kv4(32)",
    "kivi4",
    "kivi2",
    "kivi4(64,0)",
    "kivi2(16,64)",
    "kivi4(32,128)",
    "kivi2(32,0,64)",
    "kivi2-h",
    "kivi4(32,128)-h",
    "kivi2(16,64)-h-i8",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_spells_itself(name):
    assert parse(name).name == str(parse(name)) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("kv4(64)", "kv4"),
        (" kivi2(32, 128,64)", "kivi2"),
        ("kivi4(64)", "kivi4(64,128)"),
        ("kivi2(32,128,64)-h-i8", "kivi2-h-i8"),
    ],
)
def test_one_spelling(text, name):
    assert parse(text).name == name


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("f32", 64.0),
        ("bf16", 32.0),
        ("kv8", 16 + 32 / 64 + 32 / 128),
        ("kv2(128)", 4 + 32 / 128 + 32 / 128),
        ("kivi2", 4 + 2 * 32 / 32),
        ("kivi2-h", 4 + 2 * 32 / 32),
    ],
)
def test_bits_of_a_token(name, bits):
    assert parse(name).bits_per_token(128) == 128 * bits


def test_turned_keys_take_more_of_their_range():
    shares = {name: parse(name).spread_of(KEYS) for name in ("kivi2", "kivi2-h", "kivi4-h")}
    assert shares == {"kivi2": 0.8, "kivi2-h": 0.95, "kivi4-h": 1.0}
    assert parse("kivi2-h").spread_of(VALUES) == 1.0
    assert parse("kivi2-h-i8").turned
    assert parse("kivi2-h-i8").integers


def test_only_heads_of_a_power_of_two_are_turned():
    parse("kivi2-h").check(512, 64)
    with pytest.raises(KvError, match=r"turns heads of 96 .* a power of two, or kivi2-i8"):
        parse("kivi2-h-i8").check(512, 96)


def test_boundaries():
    paged, kivi = parse("kv4"), parse("kivi4(32,32)")
    assert [paged.boundary(query) for query in (0, 63, 64, 127, 128)] == [0, 0, 64, 64, 128]
    assert [kivi.boundary(query) for query in (0, 95, 96, 159, 160)] == [0, 0, 64, 64, 128]
    queries = np.arange(300)
    for kv in (paged, kivi, parse("f16")):
        assert kv.boundaries(queries).tolist() == [kv.boundary(int(one)) for one in queries]
        assert all(kv.boundary(query) <= query for query in range(300))


def test_room_holds_what_rows_see_as_it_is():
    kv = parse("kivi2(32,96)")
    assert all(pos + 40 - kv.boundary(pos) <= kv.room(40) for pos in range(1000))


def test_decoded_is_near_and_only_so_far():
    cache = np.random.default_rng(0).standard_normal((2, 256, 32)).astype(np.float16)
    for name, most in (("kv8", 0.02), ("kv4", 0.25), ("kivi2(16,0)", 1.8)):
        for side in (KEYS, VALUES):
            found = parse(name).decoded(side, cache, 128)
            assert 0 < np.abs(found[:, :128] - cache[:, :128]).max() < most
            assert not found[:, 128:].any()


def test_scales_of_keys_are_of_channels_and_of_values_of_tokens():
    cache = np.random.default_rng(0).standard_normal((1, 64, 32)).astype(np.float16)
    cache[:, :, 5] *= 100
    keys, values = (parse("kv4").decoded(side, cache, 64) for side in (KEYS, VALUES))
    plain = np.arange(32) != 5
    assert np.abs(keys - cache)[:, :, plain].max() < 0.5 < np.abs(values - cache)[:, :, plain].max()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kv3", r"unknown format of a cache 'kv3' .accepted: f32, f16, bf16, kv8"),
        ("kivi8", "unknown format of a cache 'kivi8'"),
        ("", "unknown format of a cache ''"),
        ("f16(3)", r"unknown format of a cache 'f16\(3\)'"),
        ("kv4(48)", r"a page of 48 in kv4 .accepted: a page of 16, 32, 64, 128 tokens"),
        ("kv4(64,2)", r"kv4 of 2 numbers .accepted: at most 1"),
        ("kivi4(32,100)", r"100 recent tokens of kivi4 with groups of 32 .accepted: a mult"),
        ("kivi4(128,128,64)", r"64 pinned tokens of kivi4 with pages of 128 .* a multiple of 128"),
        ("gear3", "unknown format of a cache 'gear3'"),
        ("gear4(65)", r"a rank of 65 in gear4 .accepted: 0 to 64"),
        ("gear4(0,0)", r"a rank of 0 in gear4 .accepted: 1 to 64"),
        ("gear4(4,2)", r"2 outliers at each end of a line in gear4 .accepted: 0 or 1"),
        ("gear4(4,1,48)", r"a group of 48 in gear4 .accepted: a group of 16"),
        ("gear4-i8", r"gear4 adds to its codes and is read as floats .accepted: kvN-i8, kiviN-i8"),
        ("bf16-i8", r"bf16 has no codes to multiply as integers .accepted: kvN-i8, kiviN-i8"),
        ("kv4-h", r"keys of kv4 are not turned .accepted: kiviN-h, kiviN-h-i8"),
        ("gear2-h", r"keys of gear2 are not turned"),
        ("kivi2-i8-h", r"unknown format of a cache 'kivi2-i8-h'"),
        ("lowrank(0)", r"a rank of 0 in lowrank .accepted: 1 to 64"),
        ("lowrank4", "unknown format of a cache 'lowrank4'"),
        *((f"{name}4", f"no kernel computes '{name}4'") for name in LATER),
    ],
)  # fmt: skip
def test_refuses(text, said):
    with pytest.raises(KvError, match=said):
        parse(text)


@pytest.mark.parametrize("name", ["kv8", "kv4(16)", "kivi2(16,64)", "kivi4"])
def test_a_span_is_refused_just_where_no_code_is_seen(name):
    kv = parse(name)
    queries = np.arange(1000)
    for span in range(1, kv.recent + 5):
        reads = bool((np.maximum(0, queries - span + 1) < kv.boundaries(queries)).any())
        if reads:
            kv.check_span(span)
        else:
            with pytest.raises(KvError, match=r"so that no code would be read .accepted: a mask"):
                kv.check_span(span)
    kv.check_span(None)
    parse("f16").check_span(1)


def test_what_does_not_fit_a_cache():
    with pytest.raises(KvError, match=r"groups of 32 features of heads of 80 .accepted: .*16"):
        parse("kivi4").check(4096, 80)
    with pytest.raises(KvError, match=r"of a context of 128 .accepted: at most 64 recent tokens"):
        parse("kivi4").check(128, 64)
    with pytest.raises(KvError, match=r"keeps the first 512 tokens of a context of 512 .acc"):
        parse("kivi4(32,0,512)").check(512, 64)
    parse("f16").check(1, 1)


def test_pinned_tokens_are_no_codes():
    kv, keys = parse("kivi2(32,0,64)"), np.arange(256)
    seen = kv.is_code(keys, np.array([[0], [64], [192]]))
    assert [np.flatnonzero(row).tolist() for row in seen] == [[], [], list(range(64, 192))]


@pytest.mark.parametrize(("side", "most"), [(KEYS, 0.85), (VALUES, 1.0)])
def test_levels_of_two_bits_are_nearer_to_one_another_for_keys(side, most):
    tokens = np.random.default_rng(0).standard_normal((1, 4096, 32)).astype(np.float16)
    wide, near = (
        np.square(parse(name).decoded(side, tokens, 4096) - tokens).mean()
        for name in ("kv2(32)", "kivi2(32,0)")
    )
    assert near <= most * wide


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gear4(4,1,32,128,64)", "gear4"), ("gear2(4)", "gear2"), ("gear2(2,0)", "gear2(2,0)"),
        ("gear4(4,1,16,64)", "gear4(4,1,16,64)"),
        ("gear4(4,1,32,128)", "gear4(4,1,32,128)"), ("lowrank(24)", "lowrank"),
        ("kv4(64)-i8", "kv4-i8"), ("kivi2(32,64)-i8", "kivi2(32,64)-i8"),
    ],
)  # fmt: skip
def test_spellings_of_what_is_added_and_multiplied(text, name):
    kv = parse(text)
    assert kv.name == name
    assert parse(kv.name) == kv


def page(random, rank, noise):
    """Keys of a head that are nearly of a rank, with loud channels and a loud number."""
    cache = random.standard_normal((1, 128, rank)) @ random.standard_normal((rank, 64))
    cache += noise * random.standard_normal(cache.shape)
    cache[..., 3] *= 20
    cache[0, 70, 9] = 60
    return cache.astype(np.float16)


def error(name, side, cache):
    found = parse(name).decoded(side, cache, cache.shape[1])
    return float(np.linalg.norm(found - cache) / np.linalg.norm(cache.astype(np.float32)))


@pytest.mark.parametrize("side", [KEYS, VALUES])
def test_corrections_make_codes_nearer(side):
    cache = page(np.random.default_rng(1), 6, 0.1)
    names = "kivi2(32,0)", "gear2(4,0,32,0)", "gear2(4,1,32,0)"
    plain, ranked, both = (error(name, side, cache) for name in names)
    assert both < 0.95 * ranked < 0.9 * plain


def test_keys_of_a_low_rank_are_the_product_of_their_factors():
    cache = page(np.random.default_rng(2), 6, 0.0)
    assert error("lowrank(8)", KEYS, cache) < 2e-3 < error("lowrank(4)", KEYS, cache)
    assert parse("lowrank(8)").bits_per_token(64) == 64 * 8 + 32 + 16 * 8 * (64 + 64) / 64


def test_flat_and_empty_pages_have_no_corrections():
    for name in ("gear4", "gear2(3,0)", "lowrank"):
        cache = np.zeros((1, 64, 32), np.float16)
        assert not parse(name).decoded(KEYS, cache, 64).any()
        cache[:] = 7
        np.testing.assert_allclose(parse(name).decoded(VALUES, cache, 64), 7, rtol=1e-3)


def test_low_rank_is_that_of_a_decomposition_where_the_rank_is_enough():
    random = np.random.default_rng(3)
    matrix = random.standard_normal((2, 48, 3)) @ random.standard_normal((2, 3, 64))
    weights, lines = low_rank(matrix.astype(np.float32), 5)
    found = weights.astype(np.float32).swapaxes(1, 2) @ lines.astype(np.float32)
    assert np.abs(found - matrix).max() < 2e-2
    square = weights.astype(np.float32) @ weights.astype(np.float32).swapaxes(1, 2)
    assert np.abs(square - np.diag([1, 1, 1, 0, 0])).max() < 2e-3


@pytest.mark.parametrize("name", ["kv4-i8", "kivi2(32,0)-i8", "kv8(16)-i8"])
def test_products_of_integers_are_near_those_of_floats(name):
    kv, random = parse(name), np.random.default_rng(4)
    keys, values = random.standard_normal((2, 2, 128, 32)).astype(np.float16)
    query = random.standard_normal((3, 4 * 32)).astype(np.float32)
    exact = query.reshape(3, 2, 2, 32).transpose(1, 2, 0, 3) @ kv.decoded(KEYS, keys, 128)[
        :, None
    ].swapaxes(2, 3)
    found = products.scores(kv, query, keys, 128, 0.5)
    assert 0 < np.abs(found - 0.5 * exact).max() < 0.2
    weights = random.random((2, 2, 3, 130))
    wanted = weights[..., :128] @ kv.decoded(VALUES, values, 128)[:, None]
    near = products.weighted(kv, weights, values, 128, 16)
    assert 0 < np.abs(near - wanted).max() < 0.2
    assert not products.scores(kv, query * 0, keys, 128, 0.5).any()
