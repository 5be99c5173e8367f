"""Formats of key-value caches: spelling, sizes, boundaries, and what is refused."""

import numpy as np
import pytest

from nybble.dialects.sparse_attn.kv import EXACT, KEYS, LATER, VALUES, KvError, parse

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
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_spells_itself(name):
    assert parse(name).name == str(parse(name)) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [("kv4(64)", "kv4"), (" kivi2(32, 128,64)", "kivi2"), ("kivi4(64)", "kivi4(64,128)")],
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
    ],
)
def test_bits_of_a_token(name, bits):
    assert parse(name).bits_per_token(128) == 128 * bits


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
