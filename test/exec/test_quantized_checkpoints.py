"""Checkpoints of other libraries as machine code, against transformers on the weights they hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nybble.backends.cpu.session import Session
from nybble.frontend.checkpoint import open_checkpoint

pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

WRITTEN = Path(__file__).parents[1] / "unit/frontend/checkpoint/quantized/written"
IDS = [(7 * index + 3) % 64 for index in range(9)]


@pytest.fixture(params=["awq4", "gptq3", "gptq4", "torchao"])
def folder(request, tmp_path):
    """A written checkpoint with a tokenizer."""
    from tokenizers import Tokenizer, models

    copy = shutil.copytree(WRITTEN / request.param, tmp_path / request.param)
    words = {f"w{number}": number for number in range(64)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(copy / "tokenizer.json"))
    return copy


def test_logits(folder, compile_checkpoint, reference, logits_of):
    checkpoint = open_checkpoint(folder)
    wanted = logits_of(reference(checkpoint), IDS)
    known = json.loads((folder / "expected.json").read_text()).get("logits")
    if known is not None:
        assert np.allclose(wanted, known, rtol=1e-4, atol=1e-4)
    artifact = compile_checkpoint(checkpoint, activations="f32", context=128, chunk=16)
    session = Session.load(artifact, 1)
    found = np.empty_like(wanted)

    def keep(start, logits):
        found[start : start + len(logits)] = logits

    session.score(IDS, keep)
    session.close()
    assert np.linalg.norm(found - wanted) <= 1e-4 * np.linalg.norm(wanted)
