"""Work handed out to the devices of a Ray cluster: one actor for each, which nobody shares.

A node says how many devices it has when it joins: `ray start --resources '{"nybble_device": 1}'`.
An item goes to one device at a time. Where an actor dies its item goes to another one, and what it
had measured before is in the log already, whose keys take nothing twice.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from nybble.dialects.errors import NybbleError

DEVICE = "nybble_device"
ATTEMPTS = 3
"""How often an item is handed out before its device's death is taken for its own fault."""
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


class FanOutError(NybbleError):
    """A cluster that cannot be used, or that loses everything it is given."""


@dataclass(frozen=True)
class FanOut:
    """address: of the cluster; "local" for one on this machine, with `devices` devices."""

    address: str
    devices: int = 1

    def run(
        self, items: Iterable[I], work: Callable[[I], R], collected: Callable[[R], bool]
    ) -> int:
        """Have every item worked on once; how many devices took part.

        collected: is given each result, in this process; False ends it, and what is being worked on
        is dropped. Raises FanOutError.
        """
        ray = _ray()
        self._connect(ray)
        try:
            count = int(ray.cluster_resources().get(DEVICE, 0))
            if count < 1:
                raise FanOutError(
                    f"the cluster at {self.address} has no device to measure on",
                    accepted=f"ray start --resources '{{\"{DEVICE}\": 1}}' on each machine",
                )
            _Crew(ray, work, count).run(iter(items), collected)
            return count
        finally:
            ray.shutdown()

    def _connect(self, ray: Any) -> None:
        quiet = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
        try:
            if self.address == "local":
                ray.init(num_cpus=self.devices, resources={DEVICE: self.devices}, **quiet)
            else:
                ray.init(address=self.address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as fault:
            raise FanOutError(f"no Ray cluster at '{self.address}': {fault}") from fault


class _Crew:
    """One actor for each device. waiting: items whose device died, and how often."""

    def __init__(self, ray: Any, work: Callable[[Any], Any], count: int) -> None:
        self.ray = ray
        self.kind = ray.remote(num_cpus=0, resources={DEVICE: 1}, max_restarts=0)(_Device)
        self.work = work
        self.idle = [self.kind.remote(work) for _ in range(count)]
        self.busy: dict[Any, tuple[Any, Any, int]] = {}
        self.waiting: deque[tuple[Any, int]] = deque()

    def run(self, items: Any, collected: Callable[[Any], bool]) -> None:
        """See FanOut.run."""
        while True:
            self._hand_out(items)
            if not self.busy:
                return
            (done, *_), _ = self.ray.wait([*self.busy], num_returns=1)
            actor, item, attempt = self.busy.pop(done)
            try:
                result = self.ray.get(done)
            except self.ray.exceptions.RayActorError:
                self.idle.append(self.kind.remote(self.work))
                self._again(item, attempt)
                continue
            self.idle.append(actor)
            if not collected(result):
                return

    def _again(self, item: Any, attempt: int) -> None:
        if attempt >= ATTEMPTS:
            raise FanOutError(f"{attempt} devices died of the same work, {item!r:.120}")
        self.waiting.append((item, attempt + 1))

    def _hand_out(self, items: Any) -> None:
        while self.idle:
            if self.waiting:
                item, attempt = self.waiting.popleft()
            else:
                item, attempt = next(items, None), 1
                if item is None:
                    return
            actor = self.idle.pop()
            self.busy[actor.run.remote(item)] = (actor, item, attempt)


class _Device:
    """The actor: does one piece of work at a time."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def run(self, item: Any) -> Any:
        """The result of an item."""
        return self.work(item)


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as fault:
        raise FanOutError("fanning out needs Ray", accepted="pip install 'nybble[ray]'") from fault
    return ray
