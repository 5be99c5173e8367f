"""Where kernels run: on a GPU, or, to test this program, in the simulator on tiny shapes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nybble.backends.gpu.image import KernelImage

Launch = Callable[[dict[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Machine:
    """Either of them. device: torch's name of it; l2: bytes of its second-level cache."""

    device: str
    l2: int

    def load(
        self, image: KernelImage, code: bytes | None = None
    ) -> tuple[Launch, dict[str, object]]:
        """What launches the kernel on the current stream, and what the driver says of it."""
        if self.device == "cpu":
            return _simulated(image)
        from nybble.backends.gpu.launch import Kernel

        kernel = Kernel(image, code=code, clear=False)
        loaded = kernel.loaded
        facts: dict[str, object] = {"registers": loaded.registers, "local": loaded.local}
        facts |= {"shared": loaded.shared, "grid": image.grid, "block": image.block}

        def launch(arguments: dict[str, torch.Tensor]) -> None:
            kernel.on(torch.cuda.current_stream().cuda_stream, arguments)

        return launch, facts

    def scratch(self, image: KernelImage, given: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Zeros for the parameters that are not given."""
        types = {"f32": torch.float32, "i32": torch.int32}
        return {
            one.name: torch.zeros(one.bytes // 4, dtype=types[one.dtype], device=self.device)
            for one in image.parameters
            if one.name not in given
        }

    def wait(self) -> None:
        """Until everything launched is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def random(self, seed: int) -> torch.Generator:
        """A generator of its own."""
        return torch.Generator(device=self.device).manual_seed(seed)


def gpu() -> Machine:
    """The GPU of this machine."""
    return Machine("cuda", torch.cuda.get_device_properties(0).L2_cache_size)


def simulator() -> Machine:
    """The simulator; its cache is so small that two copies of everything are enough."""
    return Machine("cpu", 1)


def _simulated(image: KernelImage) -> tuple[Launch, dict[str, object]]:
    from nybble.backends.gpu.sim.simulate import simulate

    def launch(arguments: dict[str, torch.Tensor]) -> None:
        raw = {name: one.view(torch.uint8).numpy() for name, one in arguments.items()}
        simulate(image, {one.name: raw[one.name] for one in image.parameters}).check()

    return launch, {"grid": image.grid, "block": image.block}
