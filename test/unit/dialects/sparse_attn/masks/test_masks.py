"""The mask algebra against its words, its block form against its dense form, its text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.dialects.sparse_attn.masks import (
    POLICIES,
    ByHead,
    Causal,
    HeadSet,
    Intersection,
    MaskError,
    Selected,
    Sink,
    Streaming,
    Stride,
    Union,
    Window,
    block_form,
    dense,
    density,
    features,
    parse,
)
from nybble.dialects.sparse_attn.masks.blocks import FULL, SKIP

HEADS = 3
sizes = st.integers(1, 40)
strides = st.tuples(st.integers(1, 9), st.integers(1, 5)).flatmap(
    lambda pair: st.integers(0, pair[1] - 1).map(lambda first: Stride(*pair, first))
)
selected = st.sampled_from(list(POLICIES)).flatmap(
    lambda name: st.tuples(*[st.integers(1, 6)] * len(POLICIES[name])).map(
        lambda numbers: Selected(name, numbers)
    )
)
static_atoms = st.one_of(
    st.just(Causal()),
    sizes.map(Window),
    sizes.map(Sink),
    st.builds(Streaming, sizes, sizes),
    strides,
)
atoms = st.one_of(static_atoms, selected)


def parts_of(masks):
    return st.lists(masks, min_size=2, max_size=3).map(tuple)


def chosen(masks):
    heads = st.sets(st.integers(0, HEADS - 1), min_size=1)
    return st.builds(lambda h, a, b: ByHead(((HeadSet.of(list(h)), a),), b), heads, masks, masks)


masks = st.recursive(
    atoms,
    lambda inner: st.one_of(
        parts_of(inner).map(Union), parts_of(inner).map(Intersection), chosen(inner)
    ),
    max_leaves=5,
)


def lists_for(mask, end, first, rng):
    """Random lists: some rows for the whole call, some for each run of queries."""
    lists = []
    for one in mask.selections:
        rows = 1 if rng.random() < 0.5 else (end - 1) // one.size - first // one.size + 1
        count = one.count or 4
        lists.append(rng.integers(-1, end // one.size + 2, (HEADS, rows, count)).astype(np.int32))
    return lists


def meaning(mask, query, key, head, lists, first):
    """Whether a query sees a key, by the words of the mask's documentation."""
    if key > query:
        return False
    match mask:
        case Union(parts):
            return any(meaning(part, query, key, head, lists, first) for part in parts)
        case Intersection(parts):
            return all(meaning(part, query, key, head, lists, first) for part in parts)
        case ByHead(cases, otherwise):
            part = next((part for heads, part in cases if heads.has(head)), otherwise)
            return meaning(part, query, key, head, lists, first)
        case Selected():
            rows = lists[mask][head]
            row = rows[query // mask.size - first // mask.size] if len(rows) > 1 else rows[0]
            return key // mask.size in row or query - key < mask.recent
        case _:
            return static_meaning(mask, query, key)


def static_meaning(mask, query, key):
    match mask:
        case Causal():
            return True
        case Window(size):
            return query - key < size
        case Sink(count):
            return key < count
        case Streaming(sink, window):
            return key < sink or query - key < window
        case Stride(size, step, start):
            return key // size % step == start


places = st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1]))
blocks = st.tuples(st.integers(1, 9), st.integers(1, 20))


@settings(max_examples=150, deadline=None)
@given(masks, places, st.integers(0, 99))
def test_dense_form_is_what_the_words_say(mask, place, seed):
    first, end = place
    lists = lists_for(mask, end, first, np.random.default_rng(seed))
    seen = dense(mask, np.arange(first, end), np.arange(end), HEADS, lists)
    named = dict(zip(mask.selections, lists, strict=True))
    want = [
        [[meaning(mask, q, k, h, named, first) for k in range(end)] for q in range(first, end)]
        for h in range(HEADS)
    ]
    np.testing.assert_array_equal(seen, want)


@settings(max_examples=300, deadline=None)
@given(masks, places, blocks, st.integers(0, 99))
def test_block_form_is_equal_to_the_dense_form(mask, place, size, seed):
    first, end = place
    lists = lists_for(mask, end, first, np.random.default_rng(seed))
    seen = dense(mask, np.arange(first, end), np.arange(end), HEADS, lists)
    form = block_form(mask, place, size, HEADS, lists)
    np.testing.assert_array_equal(form.expand(seen), seen)


@settings(max_examples=200, deadline=None)
@given(parts_of(static_atoms), places, blocks)
def test_blocks_that_are_read_have_a_pair_that_is_seen(parts, place, size):
    mask = parse("+".join(map(str, parts)))
    seen = dense(mask, np.arange(*place), np.arange(place[1]))
    form = block_form(mask, place, size)
    for row, (a, b) in enumerate(zip(form.queries, form.queries[1:], strict=False)):
        for column, (c, d) in enumerate(zip(form.keys, form.keys[1:], strict=False)):
            some = seen[0, a - place[0] : b - place[0], c:d].any()
            assert (form.states[0, row, column] != SKIP) == some


@settings(max_examples=100, deadline=None)
@given(masks)
def test_text_is_read_back(mask):
    text = str(mask)
    assert str(parse(text)) == text
    assert str(parse(f" {text.replace('+', ' + ').replace(':', ' : ')} ")) == text


@settings(max_examples=60, deadline=None)
@given(masks, places)
def test_nothing_is_seen_beyond_the_span(mask, place):
    if mask.span is None:
        return
    first, end = place
    lists = lists_for(mask, end, first, np.random.default_rng(0))
    queries, keys = np.arange(first, end), np.arange(end)
    seen = dense(mask, queries, keys, HEADS, lists)
    assert not seen[:, queries[:, None] - keys >= mask.span].any()


@pytest.mark.parametrize("text", ["causal", "window(1)", "window(7)", "window(99)"])
def test_a_band_is_all_of_its_span(text):
    mask, queries, keys = parse(text), np.arange(5, 30), np.arange(30)
    distance = queries[:, None] - keys
    inside = (distance >= 0) & (distance < (mask.span or 30))
    assert mask.is_band
    np.testing.assert_array_equal(dense(mask, queries, keys)[0], inside)
    assert not parse("sink(2)+window(3)").is_band


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("causal", 1.0),
        ("window(1)", 2 / 65),
        ("sink(1)", 2 / 65),
        ("stride(16,2)", (2 * 136 + 16 * (48 + 16)) / (64 * 65 / 2)),
        ("heads(0:causal;else:window(1))", (1 + 2 / 65) / 2),
    ],
)
def test_density(text, want):
    assert density(parse(text), 64, 2) == pytest.approx(want)


def test_density_of_long_texts_is_taken_over_some_queries():
    assert density(parse("causal"), 20000) == 1.0
    assert density(parse("window(512)"), 20000) == pytest.approx(512 / 10000, rel=0.1)


def test_features():
    found = features(parse("sink(64)+window(64)"), 1024, 64, 64)
    assert 0.1 < found.density < found.blocks < 0.35
    assert found.selections == 0
    assert features(parse("pages(64,4)"), 1024, 64).selections == 1
    whole = features(parse("causal"), 256, 64, 64)
    assert whole.blocks == pytest.approx(1.0)
    assert 0.3 < whole.partial < 0.6


def test_visits():
    form = block_form(parse("sink(4)+window(20)"), (96, 128), (32, 16))
    assert form.visits(0, 0).tolist() == [0, 4, 5, 6, 7]
    assert (block_form(parse("causal"), (96, 128), (32, 16)).states[0, 0, :6] == FULL).all()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the end in the mask ''"),
        ("windows(3)", r"'windows' in the mask 'windows\(3\)' \(accepted: causal, window"),
        ("window", r"window has 0 numbers \(accepted: 1\)"),
        ("window(-4)", r"window\(-4\) has a size of -4 \(accepted: 1 or more\)"),
        ("window(4", "the end in the mask"),
        ("window(4)) ", r"'\)' in the mask .* \(accepted: the end, '\+' or '&'\)"),
        ("window(4)+", r"the end in the mask 'window\(4\)\+'"),
        ("window(9999999999999)", "a whole number up to 1073741824"),
        ("sink(0)", r"sink\(0\) has a count of 0"),
        ("streaming(0,4)", "has a sink of 0"),
        ("streaming(4,0)", "has a window of 0"),
        ("stride(64)", r"stride has 1 numbers \(accepted: 2 or 3\)"),
        ("stride(0,4)", "has blocks of 0"),
        ("stride(4,0)", "has a step of 0"),
        ("stride(64,4,4)", r"begins at block 4 \(accepted: 0 to 3\)"),
        ("pages(64,0)", "has a count of 0"),
        ("heads(0-1:causal)", r"'\)' in the mask .*accepted: ';'"),
        ("heads(0:causal;0:causal;else:causal)", "0 is named twice"),
        ("heads(3-1:causal;else:causal)", "the range 3-1"),
        ("window(4)!", r"'!' in the mask"),
        ("(" * 20 + "causal" + ")" * 20, "nested deeper than 16"),
        ("+".join(["causal"] * 999), "a mask of 6992 characters"),
    ],
)
def test_texts_that_are_no_mask(text, fault):
    with pytest.raises(MaskError, match=fault):
        parse(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sink(600)", r"sink\(600\) in a context of 512 \(accepted: sink\(1 to 512\)\)"),
        ("streaming(600,1)+causal", "in a context of 512"),
        ("pages(48,2)", r"runs of 48 keys in a context of 512 \(accepted: a divisor of 512\)"),
        ("pages(64,9)", r"keeps 576 keys of a context of 512 \(accepted: 512 keys at most\)"),
        ("heavy(500,64)", "keeps 564 keys"),
        ("heads(2:causal;else:window(4))", r"names head 2 \(accepted: 0 to 1\)"),
    ],
)
def test_masks_that_do_not_fit(text, fault):
    mask = parse(text)
    with pytest.raises(MaskError, match=fault):
        mask.check(512, 2)
    mask.check(1 << 20 if "48" not in text else 48 << 6, 4)
