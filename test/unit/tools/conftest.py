"""Runs the commands inside the test process, as users see them: bytes in, bytes and a code out."""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from xdsl.dialects.builtin import UnitAttr
from xdsl.dialects.func import ReturnOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.passes.registry import PASSES
from nybble.tools import driver, opt


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_opt(monkeypatch, capsysbinary):
    """A function (arguments, stdin=b"") -> Outcome."""

    def run(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            opt.main(arguments)
        captured = capsysbinary.readouterr()
        return Outcome(left.value.code, captured.out.decode(), captured.err.decode())

    return run


@dataclass(frozen=True)
class MarkPass(ModulePass):
    """Gives the module an attribute."""

    name = "test-mark"
    label: str = "marked"
    times: int = 1

    def apply(self, ctx, op):
        op.attributes[self.label] = UnitAttr()


@dataclass(frozen=True)
class IdlePass(ModulePass):
    """Changes nothing."""

    name = "test-idle"

    def apply(self, ctx, op):
        pass


@dataclass(frozen=True)
class CrashPass(ModulePass):
    """Raises what no caller expects."""

    name = "test-crash"

    def apply(self, ctx, op):
        raise KeyError("lost")


@dataclass(frozen=True)
class BreakPass(ModulePass):
    """Leaves IR that does not verify."""

    name = "test-break"

    def apply(self, ctx, op):
        op.body.block.add_op(ReturnOp())


@dataclass(frozen=True)
class RejectPass(ModulePass):
    """Finds the first operation wanting."""

    name = "test-reject"

    def apply(self, ctx, op):
        first = op.body.block.first_op
        raise NybbleError(f"'{first.name}' will not do", location=location_of(first))


@dataclass(frozen=True)
class FailPass(ModulePass):
    """Fails in the way xDSL has for it."""

    name = "test-fail"

    def apply(self, ctx, op):
        raise PassFailedException("no way")


@dataclass(frozen=True)
class InterruptPass(ModulePass):
    """Is interrupted from the keyboard."""

    name = "test-interrupt"

    def apply(self, ctx, op):
        raise KeyboardInterrupt


@pytest.fixture
def passes_for_tests(monkeypatch):
    """Registers the passes above under their names."""
    module = ModuleType("passes_for_tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for kind in (MarkPass, IdlePass, CrashPass, BreakPass, RejectPass, FailPass, InterruptPass):
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(PASSES, kind.name, f"{module.__name__}:{kind.__name__}")


@pytest.fixture
def run_nybble(monkeypatch, capsysbinary, cache_folder):
    """A function (arguments, stdin=b"") -> Outcome, with a cache of the tests' own."""
    monkeypatch.setenv("NYBBLE_CACHE", str(cache_folder))

    def run(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            driver.main(arguments)
        captured = capsysbinary.readouterr()
        return Outcome(left.value.code, captured.out.decode(), captured.err.decode())

    return run


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """A cache that starts empty."""
    return tmp_path_factory.mktemp("cache") / "nybble"


TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


def tiny_weights() -> dict[str, np.ndarray]:
    """Random parameters of the model TINY under transformers' names."""
    layer = "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (64, 64),
        "model.norm.weight": (64,),
        f"{layer}.input_layernorm.weight": (64,),
        f"{layer}.post_attention_layernorm.weight": (64,),
        f"{layer}.self_attn.q_proj.weight": (64, 64),
        f"{layer}.self_attn.k_proj.weight": (32, 64),
        f"{layer}.self_attn.v_proj.weight": (32, 64),
        f"{layer}.self_attn.o_proj.weight": (64, 64),
        f"{layer}.mlp.gate_proj.weight": (96, 64),
        f"{layer}.mlp.up_proj.weight": (96, 64),
        f"{layer}.mlp.down_proj.weight": (64, 96),
    }
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def write_tiny():
    """A function (folder, weights=.., config entries) that writes a Hugging Face folder."""

    def write(
        folder: Path, weights: dict[str, np.ndarray] | None = None, **entries: object
    ) -> Path:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(TINY | entries))
        save_file(tiny_weights() if weights is None else weights, folder / "model.safetensors")
        words = {f"w{number}": number for number in range(64)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder

    return write


@pytest.fixture
def tiny_parameters():
    """The parameters of `tiny`, to be changed at will."""
    return tiny_weights()


@pytest.fixture(scope="session")
def tiny(write_tiny, tmp_path_factory):
    """The folder of a small random model, which tokenizes words w0 to w63."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def artifact(tiny, cache_folder, tmp_path_factory):
    """The compiled small model; nobody may change it."""
    for name in ("torch", "torch_mlir", "transformers"):
        pytest.importorskip(name, reason="needs nybble[torch]")
    folder = tmp_path_factory.mktemp("artifacts") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NYBBLE_CACHE", str(cache_folder))
        with pytest.raises(SystemExit) as left:
            driver.main(["compile", str(tiny), "-o", str(folder)])
    assert left.value.code == 0
    return folder
