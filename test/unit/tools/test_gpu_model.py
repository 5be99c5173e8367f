"""A folder of a model for a GPU, as `nybble run` and `nybble compile` take and refuse it."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.rows.simple import AddSpec, add_kernel
from nybble.backends.gpu.model.plan import Buffer, GpuPlan, Launch
from nybble.tools.gpu_model import GPU_MODEL, WEIGHTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a model whose logits are twice its weight, whatever it is fed."""
    path = tmp_path_factory.mktemp("model")
    image = add_kernel(AddSpec(1, 8)).image(find_arch("sm_80"))
    kinds = {"w": "weight"} | dict.fromkeys(
        ("logits", "ids", "position", "lengths", "next"), "state"
    )
    buffers = {name: Buffer(name, 32, kind) for name, kind in kinds.items()}
    facts = {"context": 4, "vocabulary": 8}
    plan = GpuPlan({"add": image}, buffers, (Launch("add", ("w", "w", "logits")),), facts)
    (path / "add.ptx").write_text(image.ptx)
    (path / GPU_MODEL).write_text(json.dumps(plan.to_json()))
    save_file({"w": np.arange(8, dtype=np.float32).view(np.uint8)}, path / WEIGHTS)
    return path


def test_run_simulates_it(folder, run_nybble):
    outcome = run_nybble("run", str(folder), "--sim", "--ids", "1,2", "--json", "-")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["tokens"], found["launches"]) == (2, 1)
    assert found["likeliest"] == [[7, 14], [6, 12], [5, 10], [4, 8], [3, 6]]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--ids", "1"], 2, "accepted: --sim"),
        (["--sim", "--ids", "8"], 1, "token id 8"),
        (["--sim", "--ids", "x"], 1, "'x' is no list of token ids"),
        (["--sim", "--tokens", "5"], 1, "token 4"),
        (["--sim", "--grid", "4"], 2, "--grid means nothing for a model for a GPU"),
        (["--sim", "--threads", "2"], 2, "--threads means nothing"),
    ],
)
def test_what_run_refuses(folder, run_nybble, options, code, message):
    outcome = run_nybble("run", str(folder), *options)
    assert outcome.code == code
    assert message in outcome.err


def test_a_folder_that_is_not_whole(tmp_path, run_nybble):
    (tmp_path / GPU_MODEL).write_text('{"kernels": {"add": {}}}')
    outcome = run_nybble("run", str(tmp_path), "--sim", "--ids", "1")
    assert outcome.code == 1
    assert "is no whole model for a GPU" in outcome.err
    (tmp_path / "add.ptx").write_text("")
    outcome = run_nybble("run", str(tmp_path), "--sim", "--ids", "1")
    assert outcome.code == 1
