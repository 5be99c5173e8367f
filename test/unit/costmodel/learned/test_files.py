"""Model files: what was written comes back, and whatever is wrong with one is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nybble.costmodel.features.facts import ProductSketch
from nybble.costmodel.features.table import Call
from nybble.costmodel.learned import files
from nybble.costmodel.learned.boosting import Growth, ModelFileError, grown, regress, slim
from nybble.costmodel.learned.files import from_text, read_model, shipped, to_text, write_model
from nybble.costmodel.learned.model import TRUST, inputs
from nybble.costmodel.targets.reader import find_target, target_for_level

TARGET = find_target("cpu-avx2")
KNOWN = ProductSketch("int_dot", "q8_0", (576,), 576, 2, 32).facts()
STRANGE = ProductSketch("bitserial", "w1g128", (64,), 8192, 4, 128).facts()
GEMV = [
    {"steps": 4, "subtiles": 2, "runs": 1, "prefetch": 8192},
    {"steps": 1, "subtiles": 1, "runs": 1, "prefetch": 0},
]


def test_the_shipped_model_is_small_and_has_a_card():
    path = Path(files.__file__).with_name(files.SHIPPED)
    assert path.stat().st_size <= 500 * 1024
    assert set(shipped().card) >= {"target", "compiler", "data", "date", "measurements"}


def test_a_prediction_is_learned_and_in_its_interval():
    found = shipped().predict(KNOWN, Call(1), GEMV, TARGET)
    assert found.source == "learned"
    assert (found.low < found.seconds).all()
    assert (found.seconds < found.high).all()
    assert found.seconds[0] < found.seconds[1]


def test_a_model_of_another_level_says_so():
    model, call = shipped(), Call(1)
    assert model.level == "x86-64-v3"
    found = model.predict(KNOWN, call, GEMV, target_for_level("avx512-vbmi"))
    assert found.source == "learned for x86-64-v3"
    assert not found.decides
    assert model.predict(KNOWN, call, GEMV, target_for_level("x86-64-v3")).decides
    assert model.predict(STRANGE, call, GEMV, target_for_level("amx")).source == "analytic"
    untold = replace(model, card={})
    assert not untold.predict(KNOWN, call, GEMV, TARGET).decides


def test_what_is_strange_is_analytic():
    found = shipped().predict(STRANGE, Call(1), GEMV, TARGET)
    assert found.source == "analytic"
    assert found.novelty > 1


def test_what_is_strange_is_ordered_by_trees_that_know_no_family():
    model, call = shipped(), Call(1)
    sizes = [{"unroll": size, "prefetch": ahead} for size in (1, 2, 4, 8) for ahead in (0, 4096)]
    found = model.predict(STRANGE, call, sizes, TARGET)
    x, parts = inputs(STRANGE, call, sizes, TARGET)
    guess = parts.total() * np.exp(TRUST * model.raw("strange", x))
    assert found.order.tolist() == np.argsort(guess, kind="stable").tolist()
    assert len(set(found.seconds.tolist())) < len(set(guess.tolist()))


def test_reasons_add_up_to_the_correction():
    model = shipped()
    factors = model.factors(KNOWN, Call(1), GEMV[0], TARGET)
    assert abs(factors[0][1]) >= abs(factors[-1][1])
    counts = model.counts(KNOWN, Call(1), GEMV, TARGET)
    assert set(counts) == {"instructions", "spills", "registers"}
    assert (counts["instructions"] > 0).all()


def test_a_file_comes_back(tmp_path: Path):
    path = tmp_path / "m.model"
    assert write_model(shipped(), path) == path.stat().st_size
    again = read_model(path)
    one = shipped().predict(KNOWN, Call(1), GEMV, TARGET).seconds
    assert np.allclose(again.predict(KNOWN, Call(1), GEMV, TARGET).seconds, one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "hello\n" + text, "is no cost model"),
        (lambda text: text.replace("model 2\n", "model 7\n", 1), "of version '7'"),
        (lambda text: text.replace('"schema":1', '"schema":0', 1), "trained on other features"),
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: text.replace("leaf_value=", "leaf_valve=", 1), "is damaged"),
        (lambda text: text.replace('"card"', '"cart"', 1), "its header lacks card"),
        (lambda text: text.partition("\n")[0] + "\n{oops\n", "its header is no JSON"),
        (lambda text: text.replace('"points":["', '"points":["0', 1), "damaged: what it has seen"),
    ],
)
def test_a_bad_file(change, said: str):
    with pytest.raises(ModelFileError, match=said):
        from_text(change(to_text(shipped())), "m.model")


def test_a_file_that_does_not_predict_all():
    texts = {name: text for name, text in shipped().texts.items() if name != "spills"}
    with pytest.raises(ModelFileError, match="predicts no spills"):
        from_text(to_text(replace(shipped(), texts=texts)), "m.model")


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path):
    with pytest.raises(ModelFileError, match="cannot read"):
        read_model(tmp_path / "none.model")
    (tmp_path / "bytes.model").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelFileError, match="is no cost model"):
        read_model(tmp_path / "bytes.model")
    with pytest.raises(ModelFileError, match="cannot write"):
        write_model(shipped(), tmp_path / "none" / "m.model")


def test_trees_do_not_look_at_what_they_may_not():
    source = np.random.default_rng(0)
    x = source.uniform(0, 1, (200, 2))
    growth = Growth(trees=5)
    free = regress(x, x[:, 0], growth, ("a", "b"))
    bound = regress(x, x[:, 0], growth, ("a", "b"), np.ones(200), {"a"})
    assert free.feature_importance()[0] > 0
    assert bound.feature_importance()[0] == 0


def test_what_explains_is_kept_where_it_is_asked_for():
    x = np.random.default_rng(0).uniform(0, 1, (200, 2))
    trees = regress(x, x[:, 0], Growth(trees=5), ("a", "b"))
    plain, explained = grown(slim(trees)), grown(slim(trees, explained=True))
    assert len(slim(trees)) < len(slim(trees, explained=True))
    assert np.allclose(plain.predict(x), explained.predict(x))
    shares = np.asarray(explained.predict(x, pred_contrib=True))
    assert np.allclose(shares, trees.predict(x, pred_contrib=True), atol=1e-5)
