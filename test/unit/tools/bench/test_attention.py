"""`bench attention`: a small run, and what cannot be asked."""

import json

import pytest

from nybble.dialects.errors import NybbleError
from nybble.tools.bench.attention import AttentionOptions, bench_attention
from nybble.tools.bench.options import parse_caches
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 3}, "3 heads over 2 of keys"),
        ({"contexts": (100,)}, "a context of 100 .accepted: a multiple of 128"),
        ({"kv": ("kivi4",)}, "kivi4 has groups of 32 features of heads of 16"),
        ({"masks": ("pages(64,2)",)}, "is chosen anew for each token"),
    ],
)
def test_refuses(changes, said):
    with pytest.raises(NybbleError, match=said):
        options(**changes)


def test_caches_of_a_list():
    assert parse_caches("f32, kivi2(32,128),kv4(32)") == ("f32", "kivi2", "kv4(32)")
    with pytest.raises(NybbleError, match="',' names nothing"):
        parse_caches(",")
