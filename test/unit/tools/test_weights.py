"""`--weights`: a model in other formats computes what a model of the rounded weights does."""

import json

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

from nybble.dialects.lowbit import formats
from nybble.tools import models

RULES = "w4g32,down_proj=w3g32z,head=q8_0"


@pytest.fixture
def rounded(write_tiny, tiny_parameters, tmp_path):
    """The small model with weights that were rounded as RULES says before they were written."""
    weights = tiny_parameters
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    for name, values in weights.items():
        if values.ndim == 2 and "embed" not in name:
            spec = {"down": "w3g32z", "lm_h": "q8_0"}.get(name.split(".")[-2][:4], "w4g32")
            weights[name] = formats.get(spec).quantize(values).dequantize()
    return write_tiny(tmp_path / "rounded", weights, tie_word_embeddings=False)


@pytest.fixture
def evaluate(run_nybble, tmp_path):
    """A function (model, options) -> outcome of `eval` in f32 on a short text."""
    text = tmp_path / "text"
    text.write_text(" ".join(f"w{(7 * i * i + i) % 64}" for i in range(40)))

    def run(model, *options):
        given = ("--text", str(text), "--window", "20", "--activations", "f32", "--json", "-")
        return run_nybble("eval", str(model), *given, *options)

    return run


def test_a_requantized_model_is_the_model_of_rounded_weights(tiny, rounded, evaluate):
    found = evaluate(tiny, "--weights", RULES)
    assert (found.code, found.err) == (0, "")
    wanted = json.loads(evaluate(rounded).out)
    assert json.loads(found.out)["perplexity"] == pytest.approx(wanted["perplexity"], rel=1e-5)
    plain = json.loads(evaluate(tiny).out)
    assert plain["perplexity"] != pytest.approx(wanted["perplexity"], rel=1e-3)


def test_an_artifact_says_what_its_weights_are(tiny, run_nybble, evaluate, tmp_path):
    folder = tmp_path / "out"
    assert run_nybble("compile", str(tiny), "--weights", "w2g32", "-o", str(folder)).code == 0
    assert models.open_artifact(folder).plan.config.extra["weights"] == "w2g32"
    refused = run_nybble("generate", str(folder), "-p", "w1", "--weights", "w4g32")
    assert refused.code == 1
    assert "was compiled with weights w2g32, not w4g32" in refused.err
    assert run_nybble("generate", str(folder), "-p", "w1", "--weights", "w2g32").code == 0


def test_explain_shows_the_formats(tiny, run_nybble):
    outcome = run_nybble("explain", str(tiny), "--weights", RULES)
    assert '"w4g32"' in outcome.out
    assert '"w3g32z"' in outcome.out


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("w4g64", "tensor 'model.layers.0.mlp.down_proj.weight' cannot be rounded to 'w4g64'"),
        ("w99", "w99"),
        ("nose=w4g32", "no weight has 'nose' in its name"),
        ("w4g32,", "'' is no rule for weights"),
    ],
)
def test_bad_rules_are_refused_before_the_work(tiny, run_nybble, tmp_path, rules, message):
    outcome = run_nybble("compile", str(tiny), "--weights", rules, "-o", str(tmp_path / "out"))
    assert outcome.code == 1
    assert message in outcome.err
    assert "accepted: " in outcome.err
    assert not (tmp_path / "out").exists()


def test_the_key_of_a_model_has_its_weights(tiny):
    keys = {
        models.choose(str(tiny), None, None, None, None, weights=models.WeightChoice(rules))._key()
        for rules in ("", "w4g32", "w2g32")
    }
    assert len(keys) == 3


def test_rotation_and_smoothing_change_nothing_where_nothing_is_rounded(tiny, evaluate, tmp_path):
    text = tmp_path / "calibration"
    text.write_text(" ".join(f"w{i % 64}" for i in range(50)))
    exact = ("--weights", "f32,embed=f32,head=f32")
    found = evaluate(tiny, *exact, "--rotate", "stream", "--smooth", "--calibrate", str(text))
    assert (found.code, found.err) == (0, "")
    plain = json.loads(evaluate(tiny).out)
    assert json.loads(found.out)["perplexity"] == pytest.approx(plain["perplexity"], rel=1e-5)


def test_explain_shows_the_transform_of_a_rotated_model(tiny, run_nybble):
    rules = "w4g32,up_proj=w4g16"
    outcome = run_nybble("explain", str(tiny), "--weights", rules, "--rotate", "inputs", "--smooth")
    assert outcome.code == 0
    assert "operations fused.hadamard" in outcome.out
    assert '"a16g16"' in outcome.out


def test_compensation_changes_how_a_model_is_rounded(tiny, evaluate, tmp_path):
    text = tmp_path / "calibration"
    text.write_text(" ".join(f"w{(7 * i * i + i) % 64}" for i in range(90)))
    given = ("--weights", "w3g16", "--calibrate", str(text), "--quantizer", "gptq")
    found = [evaluate(tiny, *given, *more) for more in ((), ("--smooth",))]
    assert [(one.code, one.err) for one in found] == [(0, "")] * 2
    plain, exact = evaluate(tiny, "--weights", "w3g16"), evaluate(tiny)
    results = [json.loads(one.out)["perplexity"] for one in (*found, plain, exact)]
    assert len(set(results)) == 4
    losses = np.log(results)
    assert losses[0] == pytest.approx(losses[3], rel=0.1)


def test_what_compensation_cannot_round_is_refused_before_the_work(tiny, run_nybble, tmp_path):
    rules = ("--weights", "i4:g=32:s=f16:fix=hadamard.32", "--quantizer", "gptq")
    outcome = run_nybble("compile", str(tiny), *rules, "-o", str(tmp_path / "out"))
    assert outcome.code == 1
    assert "with compensation" in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rotate", "stream"), "--rotate is for weights that are rounded anew"),
        (("--smooth",), "--smooth is for weights that are rounded anew"),
        (("--quantizer", "search"), "--quantizer is for weights that are rounded anew"),
        (
            ("--weights", "w4g32", "--calibrate", "x"),
            "--calibrate is for --smooth and --quantizer gptq",
        ),
        (("--weights", ""), "--weights is empty"),
    ],
)
def test_options_that_need_others(tiny, run_nybble, options, message):
    outcome = run_nybble("explain", str(tiny), *options)
    assert (outcome.code, message in outcome.err) == (2, True)


def test_a_calibration_needs_a_text(tiny, run_nybble, tmp_path):
    given = ("explain", str(tiny), "--weights", "w4g32", "--smooth", "--calibrate")
    outcome = run_nybble(*given, str(tmp_path / "none"))
    assert (outcome.code, "none" in outcome.err) == (1, True)
    (tmp_path / "empty").touch()
    outcome = run_nybble(*given, str(tmp_path / "empty"))
    assert (outcome.code, "is empty" in outcome.err) == (1, True)
