"""Child processes that do one job after another; one that hangs or dies takes only its job along.

The parent writes a job as a line of JSON; the child answers with lines of JSON: {"at": what it
begins} any number of times, then {"done": result} or {"error": text}. A child that has told of an
error of the GPU itself ends, since nothing works in its context any more; the next job gets a new
one.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FATAL = ("CUDA error", "CUDA_ERROR", "cudaError", "device-side")
_STOP_SECONDS = 10


@dataclass(frozen=True)
class Outcome:
    """A result, or an error and what the child was at when it came."""

    result: Any = None
    error: str = ""
    at: str = ""


class Worker:
    """A child process, started when the first job needs it and again after it was lost."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def do(self, job: dict[str, Any], seconds: float) -> Outcome:
        """The outcome of a job; a child that is silent for `seconds` about its end is killed."""
        child = self._running()
        assert child.stdin is not None
        with suppress(OSError):  # it has died, as is found below
            child.stdin.write(json.dumps(job).encode() + b"\n")
            child.stdin.flush()
        at, deadline = "", time.monotonic() + seconds
        while (line := self._line(child, deadline)) is not None:
            said = json.loads(line)
            if "at" in said:
                at = said["at"]
                continue
            if "error" in said and any(word in said["error"] for word in FATAL):
                self.stop()
            return Outcome(said.get("done"), said.get("error", ""), at)
        late = time.monotonic() >= deadline
        code = child.poll()
        self.stop()
        reason = f"no answer within {seconds:.0f} s" if late else f"the process died ({code})"
        return Outcome(error=reason, at=at)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._buffer = b""
            with self._log.open("ab") as log:
                self._child = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
                )
        return self._child

    def _line(self, child: subprocess.Popen[bytes], deadline: float) -> bytes | None:
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                more = os.read(child.stdout.fileno(), 1 << 16)
                if not more:
                    child.wait()
                    return None
                self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def stop(self) -> None:
        """Ends the child, if there is one."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        with suppress(subprocess.TimeoutExpired):  # one stuck in the driver goes when that lets it
            child.wait(_STOP_SECONDS)
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()


def serve(handle: Callable[[dict[str, Any], Callable[[str], None]], Any]) -> None:
    """The child's loop: answers jobs from standard input until its end.

    What libraries print goes to standard error, so that it cannot garble an answer.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    for line in sys.stdin:
        try:
            say({"done": handle(json.loads(line), lambda what: say({"at": what}))})
        except Exception as error:  # noqa: BLE001  whatever it is, the parent is told
            text = f"{type(error).__name__}: {error}"
            say({"error": text.partition("\nSearch for")[0][:600]})
            if any(word in text for word in FATAL):
                return
