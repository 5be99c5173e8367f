"""`bench attention`: a small run, and what cannot be asked."""

import json

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.kv import parse
from nybble.tools.bench.attention import PEERS, AttentionOptions, bench_attention
from nybble.tools.bench.attention_runners import OurAttention
from nybble.tools.bench.attention_shared import SharedAttention, Texts
from nybble.tools.bench.options import parse_caches
from nybble.tools.bench.peers.ggml_attention import type_of_cache
from nybble.tools.bench.rounds import Schedule

FACTS = {
    "phases": ("decode",),
    "masks": ("causal",),
    "softmax": ("online",),
    "kv": ("kv4",),
    "contexts": (256,),
    "heads": 4,
    "kv_heads": 2,
    "d": 16,
    "threads": 1,
    "peers": (),
    "schedule": Schedule(rounds=1, warmups=0, settle=0),
}


def options(**changes):
    return AttentionOptions(**{**FACTS, **changes})


def test_rows():
    asked = options(masks=("window(64)",), kv=("f32", "kv4"))
    report = bench_attention(asked)
    rows = json.loads(report.as_json())["rows"]
    assert [(row["phase"], row["kv"]) for row in rows] == [("decode", "f32"), ("decode", "kv4")]
    for row in rows:
        assert row["ours_us"] > 0
        assert row["roof_fraction"] > 0
        assert (row["over_bf16"] is None) is (row["kv"] == "f32")
        assert row["bits_per_token"] == {"f32": 2 * 2 * 16 * 32, "kv4": 336}[row["kv"]]
    assert rows[0]["density"] == 0.25


@pytest.mark.parametrize("name", list(PEERS))
@pytest.mark.parametrize("mask", ["causal", "window(100)"])
def test_peers_give_the_same(name, mask):
    pytest.importorskip({"torch": "torch", "llama.cpp": "llama_cpp"}[name])
    asked = options(phases=("decode", "prefill"), kv=("f32", "bf16"), peers=(name,), masks=(mask,))
    report = bench_attention(asked)
    rows = json.loads(report.as_json())["rows"]
    assert [row["peer"] for row in rows] == [name] * 4
    for row in rows:
        assert row["nmse_of_peers"][name] < (1e-9 if row["kv"] == "f32" else 1e-4)
        assert row["peers"][name] > 0


def test_a_mask_of_heads_is_noted():
    pytest.importorskip("llama_cpp")
    asked = options(kv=("f32",), peers=("llama.cpp",), masks=("heads(0:window(9);else:causal)",))
    report = bench_attention(asked)
    assert "takes one mask for all heads" in report.notes[0]
    assert report.rows[0]["peer"] is None


@pytest.mark.parametrize(
    ("name", "type_name"),
    [("f32", "f32"), ("bf16", "f16"), ("kv8", "q8_0"), ("kv4", "q4_0"), ("kivi2", "q4_0")],
)
def test_types_of_llama_caches(name, type_name):
    assert type_of_cache(parse(name)) == type_name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 3}, "3 heads over 2 of keys"),
        ({"contexts": (100,)}, "a context of 100 .accepted: a multiple of 128"),
        ({"kv": ("kivi4",)}, "kivi4 has groups of 32 features of heads of 16"),
        ({"phases": ("shared",)}, r"kv4 of texts that share .accepted: causal; f32, f16, bf16"),
        ({"phases": ("shared",), "kv": ("f32",), "suffix": 100}, "a suffix of 100"),
        ({"masks": ("pages(64,2)",)}, "is chosen anew for each token"),
    ],
)
def test_refuses(changes, said):
    with pytest.raises(NybbleError, match=said):
        options(**changes)


@pytest.mark.parametrize("kv", ["f32", "bf16"])
def test_texts_that_share_a_beginning(kv):
    asked = options(phases=("shared",), kv=(kv,), texts=3)
    (row,) = json.loads(bench_attention(asked).as_json())["rows"]
    assert row["nmse"] < 1e-10
    assert row["over_unshared"] > 0
    assert (row["texts"], row["suffix"]) == (3, 128)


def test_every_text_sees_the_beginning_and_its_own_tokens():
    texts = Texts.random(3, (256, 128), (4, 2, 16))
    shared = SharedAttention(texts, "f32", 2)
    found = shared.result()
    shared.close()
    for number, row in enumerate(found):
        one = OurAttention(texts.alone(number), "f32", "causal", "online", 1)
        np.testing.assert_allclose(row, one.result()[0], atol=1e-5)
        one.close()


def test_caches_of_a_list():
    assert parse_caches("f32, kivi2(32,128,64),kv4(32)") == ("f32", "kivi2", "kv4(32)")
    with pytest.raises(NybbleError, match="',' names nothing"):
        parse_caches(",")
