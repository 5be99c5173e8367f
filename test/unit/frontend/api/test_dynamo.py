"""`torch.compile(.., backend="nybble")`."""

import pytest

torch = pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

import nybble  # noqa: E402
from nybble.backends.cpu import loader  # noqa: E402
from nybble.frontend.dynamo import backend  # noqa: E402

EXACT = {"activations": "f32"}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    with torch.no_grad():
        yield


@pytest.fixture
def loads(monkeypatch):
    """A list that grows with every library of machine code that is loaded."""
    seen = []
    original = loader.load

    def load(objects, allowed=()):
        seen.append(1)
        return original(objects, allowed)

    monkeypatch.setattr("nybble.frontend.compiled_module.load", load)
    return seen


def test_block(make_attention, loads):
    module = make_attention()
    nybble.quantize(module, "w4g32", skip=["out"])
    x = torch.randn(1, 6, 64)
    fast = torch.compile(module, backend="nybble", options=EXACT)
    torch.testing.assert_close(fast(x), module(x), atol=5e-6, rtol=1e-5)
    fast(x)
    assert len(loads) == 1


def test_other_shapes_and_changed_weights_are_compiled_again(make_mlp, loads):
    module = make_mlp()[:2]
    fast = torch.compile(module, backend="nybble", options=EXACT, dynamic=True)
    for rows in (2, 3, 2):
        x = torch.randn(rows, 64)
        torch.testing.assert_close(fast(x), module(x), atol=2e-6, rtol=1e-5)
    assert len(loads) == 2
    module[0].weight.mul_(2)
    torch.testing.assert_close(fast(x), module(x), atol=2e-6, rtol=1e-5)
    assert len(loads) == 3


def test_functions_without_weights(loads):
    def attend(x, y):
        return torch.softmax(x @ y, -1) @ torch.nn.functional.layer_norm(y.mT, [4])

    x, y = torch.randn(3, 4), torch.randn(4, 5)
    torch.testing.assert_close(torch.compile(attend, backend="nybble")(x, y), attend(x, y))
    assert loads


def test_a_graph_break_is_torchs_own_affair(loads):
    def broken(x):
        y = x * 2
        torch._dynamo.graph_break()
        return y + 1

    x = torch.randn(4)
    torch.testing.assert_close(torch.compile(broken, backend="nybble")(x), x * 2 + 1)
    assert len(loads) == 2


def test_what_cannot_be_compiled_is_an_error():
    with pytest.raises(nybble.NybbleError, match=r"'math.atan'"):
        torch.compile(torch.atan, backend="nybble")(torch.randn(3))


def test_gradients_are_refused(make_mlp):
    with torch.enable_grad(), pytest.raises(nybble.NybbleError, match="computes no gradients"):
        torch.compile(make_mlp(), backend="nybble")(torch.randn(1, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 9}, "unknown option 'speed' of backend nybble"),
        ({"threads": "two"}, "'two' threads"),
        ({"isa": 3}, "names of a mode and of a level"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(nybble.NybbleError, match=message):
        backend(torch.fx.GraphModule({}, torch.fx.Graph()), (), options=options)
