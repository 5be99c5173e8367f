"""Plans that do not fit together are refused, and come back from JSON as they were."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.image import Boxes
from nybble.backends.gpu.kernels.rows.simple import AddSpec, add_kernel
from nybble.backends.gpu.model.plan import Buffer, GpuPlan, Launch, PlanError, from_json
from nybble.backends.gpu.model.simulated import SimulatedModel


@pytest.fixture(scope="module")
def plan():
    image = add_kernel(AddSpec(1, 8)).image(find_arch("sm_80"))
    kinds = {"w": "weight", "logits": "state", "ids": "state"}
    kinds |= {"position": "state", "lengths": "state", "next": "state"}
    buffers = {name: Buffer(name, 32, kind) for name, kind in kinds.items()}
    launches = (Launch("add", ("w", "w", "logits")), Launch("add", ("w", "logits", "logits")))
    return GpuPlan({"add": image}, buffers, launches, {"context": 2, "vocabulary": 8})


def test_launches_run_in_order_on_named_buffers(plan):
    weight = np.arange(8, dtype=np.float32)
    model = SimulatedModel(plan, {"w": weight.view(np.uint8)})
    assert model.feed(5).tolist() == (3 * weight).tolist()
    assert model.memory["ids"].view(np.int32)[0] == 5
    model.feed(1)
    assert [model.memory[one].view(np.int32)[0] for one in ("position", "lengths")] == [1, 2]
    with pytest.raises(PlanError, match=r"token 2 \(accepted: 2 tokens at most\)"):
        model.feed(1)


def test_json_gives_tensor_maps_back(plan):
    image = plan.images["add"]
    boxed = replace(image.parameters[0], boxes=Boxes((8, 1), (8, 1), 128))
    image = replace(image, parameters=(boxed, *image.parameters[1:]))
    mapped = replace(plan, images={"add": image})
    assert from_json(json.loads(json.dumps(mapped.to_json())), {"add": image.ptx}) == mapped


def test_json_gives_the_plan_back(plan):
    text = json.dumps(plan.to_json())
    assert from_json(json.loads(text), {"add": plan.images["add"].ptx}) == plan
    with pytest.raises(PlanError, match="cannot be read"):
        from_json({"kernels": {}}, {})
    with pytest.raises(PlanError, match="cannot be read: KeyError"):
        from_json(json.loads(text), {})


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (Launch("sub", ()), "launch 0 names kernel 'sub'"),
        (Launch("add", ("w",)), r"gives 1 buffers to 'add' \(accepted: 3\)"),
        (Launch("add", ("w", "x", "logits")), "names buffer 'x'"),
        (Launch("add", ("w", "w", "w")), "would write 'w', a weight"),
        (Launch("add", ("w", "small", "logits")), "needs 32 bytes, and 'small' has 4"),
    ],
)
def test_what_does_not_fit_is_refused(plan, launch, message):
    buffers = {**plan.buffers, "small": Buffer("small", 4, "scratch")}
    with pytest.raises(PlanError, match=message):
        replace(plan, buffers=buffers, launches=(launch,))


def test_buffers_and_weights_are_checked(plan):
    with pytest.raises(PlanError, match="buffer 'w' is 0 bytes 'weight'"):
        replace(plan, buffers={**plan.buffers, "w": Buffer("w", 0, "weight")})
    with pytest.raises(PlanError, match="weight 'w' has none bytes"):
        SimulatedModel(plan, {})
    with pytest.raises(PlanError, match=r"weight 'w' has 4 bytes \(accepted: 32\)"):
        SimulatedModel(plan, {"w": np.zeros(4, np.uint8)})
