"""Models compiled for the tests that execute them, and transformers' models to compare with."""

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder for kernels compiled in this session: equal ones are compiled once."""
    from nybble.backends.cache import Cache

    return Cache(tmp_path_factory.mktemp("cache") / "kernels")


@pytest.fixture(scope="session")
def compile_checkpoint(cache, tmp_path_factory):
    """A function (checkpoint, **options) -> artifact; the import runs in this very process."""
    from nybble.backends.llvm.workers import close_idle
    from nybble.frontend.compile_model import CompileOptions, ModelCompiler
    from nybble.frontend.pytorch.import_model import import_model

    def compile_one(checkpoint, **options):
        folder = tmp_path_factory.mktemp("artifact") / "model"
        ModelCompiler(checkpoint, CompileOptions(**options), import_model, cache).write(folder)
        return folder

    yield compile_one
    close_idle()


@pytest.fixture(scope="session")
def reference():
    """A function checkpoint -> transformers' model on the decoded weights, in f32."""
    import torch

    from nybble.dialects.lowbit import formats
    from nybble.frontend.pytorch.architectures import find_architecture, make_config

    def build(checkpoint):
        family = find_architecture(checkpoint.architecture)
        config = make_config(family, checkpoint.config)
        config._attn_implementation = "eager"
        model = getattr(family.modeling, f"{family.prefix}ForCausalLM")(config).eval()
        state = {}
        for name, tensor in checkpoint.tensors.items():
            weight = formats.get(tensor.format).unpack(tensor.raw(), tensor.shape[-1])
            state[name] = torch.from_numpy(weight.dequantize().reshape(tensor.shape))
        model.load_state_dict(state)
        return model

    return build


@pytest.fixture(scope="session")
def logits_of():
    """A function (transformers model, ids) -> logits f32 [len(ids), vocab]."""
    import torch

    def forward(model, ids):
        with torch.no_grad():
            return model(torch.tensor([list(ids)]), use_cache=False).logits[0].numpy()

    return forward
