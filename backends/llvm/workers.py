"""Worker processes that lower modules through the mlir wheel; started when needed and kept.

A worker ends when its pipe closes, so it never outlives this process. One that dies on an input
costs that input a CodegenError, and the next input gets a new worker.
"""

import os
import sys
import tempfile
from subprocess import PIPE, Popen
from threading import Lock
from typing import IO, cast
from weakref import finalize

from nybble.backends.llvm.lowering import place, read_message, write_message
from nybble.backends.llvm.toolchain import CodegenError, last_words, versions
from nybble.dialects.errors import SourceLocation

SERVE = "from nybble.backends.llvm.lowering import serve; serve()"


class Worker:
    """One process; `lower` may be called by one thread at a time.

    ready: whether it can take a module; not after it died, or a call was interrupted.
    """

    def __init__(self) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        command = [sys.executable, "-P", "-c", SERVE]
        self._process = Popen(
            command, stdin=PIPE, stdout=PIPE, stderr=self._log, start_new_session=True
        )
        self.close = finalize(self, _close, self._process, self._log)
        self.ready = True

    def ask(self, request: dict[str, str]) -> str:
        """The worker's answer to a request (see lowering.serve); raises CodegenError."""
        self.ready = False
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise ValueError("a worker without pipes")
        try:
            write_message(process.stdin, request)
            reply = read_message(process.stdout)
        except BrokenPipeError:
            reply = None
        self.ready = reply is not None
        if reply is None:
            reply = self._last_words()
        if "error" in reply:
            found = cast("tuple[str, int, int] | None", reply["location"])
            location = SourceLocation(*found) if found else None
            raise CodegenError(str(reply["error"]), location=location)
        return str(reply["ir"])

    def _last_words(self) -> dict[str, object]:
        code = self._process.wait()
        self._log.seek(0)
        words = last_words(self._log.read(), code)
        message = words.partition("error: ")[2] or f"upstream MLIR ended: {words}"
        return {"error": message, "location": place(words)}


def _close(process: "Popen[bytes]", log: IO[bytes]) -> None:
    process.kill()  # it keeps nothing; and a forked child may hold its pipe open
    process.communicate()
    log.close()


_idle: dict[int, list[Worker]] = {}
_lock = Lock()


def lower(text: str, architecture: str) -> str:
    """The LLVM IR of a module text, from an idle worker of this process or a new one.

    Raises CodegenError with the upstream diagnostic and its place in the text.
    """
    return _ask({"text": text, "architecture": architecture})


def transform(text: str, pipeline: str) -> str:
    """A module text after a pipeline of upstream passes, in generic form; else as `lower`."""
    return _ask({"text": text, "pipeline": pipeline})


def _ask(request: dict[str, str]) -> str:
    versions()
    with _lock:
        idle = _idle.setdefault(os.getpid(), [])  # a forked child must not use its parent's
        worker = idle.pop() if idle else None
    worker = worker or Worker()
    try:
        return worker.ask(request)
    finally:
        if worker.ready:
            with _lock:
                idle.append(worker)
        else:
            worker.close()


def close_idle() -> None:
    """Ends the workers that are waiting: each takes 100 MB that a running model may want."""
    with _lock:
        idle = _idle.pop(os.getpid(), [])
    for worker in idle:
        worker.close()
