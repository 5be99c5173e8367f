"""A checkpoint in other formats: what is read, what stays, what is shared and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.frontend.checkpoint import Checkpoint, TensorEntry
from nybble.frontend.requantize import nearest, note, refusal, requantized, values_of
from nybble.frontend.weight_choice import WeightChoice

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UP, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


class Stored:
    """Random tensors in a format; `reads` counts how often each was read."""

    def __init__(self, spec):
        self.spec = spec
        self.reads = []
        self.random = np.random.default_rng(0)

    def entry(self, name, shape, stored_as=None):
        spec = self.spec if len(shape) == 2 else "f32"
        values = self.random.standard_normal(shape, np.float32)
        form = formats.get(spec)
        raw = form.pack(form.quantize(values.reshape(-1, shape[-1])))

        def read():
            self.reads.append(name)
            return raw

        return TensorEntry(name, spec, shape, stored_as or name, read)

    def checkpoint(self):
        entries = [
            self.entry(EMBED, (40, 192)),
            self.entry(HEAD, (40, 192), EMBED),
            self.entry(UP, (32, 192)),
            self.entry(NORM, (192,)),
        ]
        tensors = {entry.name: entry for entry in entries}
        return Checkpoint(Path("x"), "llama", {"tie_word_embeddings": True}, tensors)


@pytest.fixture
def stored():
    return Stored("q4_1")


TARGETS = ["w4g32", "w3g64z", "w2g64m", "w1g32", "q8_0", "nf4", "f16", "df11", "nvfp4_scaled"]


@pytest.mark.parametrize("source", ["f32", "bf16", "q4_1", "nf4", "i4:g=32:s=f16:sparse=2of4"])
@pytest.mark.parametrize("target", [*TARGETS, "i4:g=32:s=f16:sparse=csr.200", "spqr3"])
def test_a_weight_is_the_rounded_weight_of_the_checkpoint(source, target):
    before = Stored(source).checkpoint()
    after = requantized(before, WeightChoice(target))
    entry, form = after.tensors[UP], formats.get(target)
    assert (entry.format, entry.shape) == (form.spec, (32, 192))
    wanted = form.quantize(values_of(before.tensors[UP])).dequantize()
    np.testing.assert_array_equal(values_of(entry), wanted)


def test_what_no_rule_names_stays(stored):
    before = stored.checkpoint()
    after = requantized(before, WeightChoice("w2g64"))
    assert [after.tensors[name] for name in (EMBED, HEAD, NORM)] == [
        before.tensors[name] for name in (EMBED, HEAD, NORM)
    ]
    assert after.config["tie_word_embeddings"]
    assert requantized(before, WeightChoice()) is before


def test_nothing_is_read_before_it_is_asked_for(stored):
    after = requantized(stored.checkpoint(), WeightChoice("w2g64,head=q8_0"))
    assert stored.reads == []
    after.tensors[UP].raw()
    assert stored.reads == [UP]


def test_a_format_that_a_weight_has_is_no_second_rounding(stored):
    before = stored.checkpoint()
    after = requantized(before, WeightChoice("q4_1"))
    assert after.tensors[UP] == before.tensors[UP]
    assert note(after.tensors, WeightChoice("q4_1")) == ""
    assert "q4_1 to q4_1" in note(after.tensors, WeightChoice("q4_1", rotate="inputs"))


@pytest.mark.parametrize(
    ("rules", "tied"),
    [("w2g64", True), ("head=q8_0", False), ("head=q8_0,embed=q8_0", True), ("embed=f16", False)],
)
def test_ends_are_tied_while_they_have_one_format(stored, rules, tied):
    after = requantized(stored.checkpoint(), WeightChoice(rules))
    assert after.config["tie_word_embeddings"] is tied
    assert (after.tensors[EMBED].stored_as == after.tensors[HEAD].stored_as) is tied


def test_rounding_twice_is_said(stored):
    choice = WeightChoice("w2g64")
    assert note(requantized(stored.checkpoint(), choice).tensors, choice) == (
        "weights that were rounded before are rounded again: q4_1 to w2g64"
    )
    assert note(requantized(Stored("bf16").checkpoint(), choice).tensors, choice) == ""


@pytest.mark.parametrize(
    ("rules", "message", "accepted"),
    [
        ("w2g128", f"tensor '{UP}' cannot be rounded to 'w2g128': 192 columns", "w2g64"),
        ("head=q4_k", f"tensor '{HEAD}' cannot be rounded to 'q4_k': 192 columns", "q4_0"),
        ("iq2_xs", f"tensor '{UP}' cannot be rounded to 'iq2_xs'", "w2g"),
        ("iq1_m", f"tensor '{UP}' cannot be rounded to 'iq1_m'", "w1g"),
    ],
)
def test_what_cannot_be_rounded_is_refused_with_the_nearest(stored, rules, message, accepted):
    with pytest.raises(NybbleError) as caught:
        requantized(stored.checkpoint(), WeightChoice(rules))
    assert message in caught.value.message
    assert accepted in caught.value.accepted
    assert stored.reads == []


def test_the_nearest_formats_take_the_shape():
    found = nearest(formats.get("w4g256z"), (8, 96))
    assert found == ["w4g32z", "w4g16z", *found[2:]]
    assert len(found) == 3
    assert all(refusal(formats.get(spec), (8, 96)) is None for spec in found)
