"""Correctness and speed of the GPU kernels beside other libraries, unattended, in one table.

    python test/bench/gpu.py --json F                 build, check, time (nybble and a GPU needed)
    python test/bench/gpu.py --build DIR              the kernels and all else a GPU machine needs
    python DIR/gpu.py --run DIR --json F              there: only Python, torch and cuda-bindings

Each case runs in a child process with a time limit; F is complete after each of them. --quick takes
the most important cases (2 minutes); all take less than 8.
"""

import argparse
import sys
import tempfile
from pathlib import Path

SECONDS = {True: 110.0, False: 440.0}
"""After how long no new case begins, by --quick."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", type=Path, metavar="DIR", help="only build, into this folder")
    parser.add_argument("--run", type=Path, metavar="DIR", help="only run what --build made")
    parser.add_argument("--json", type=Path, metavar="F", default=Path("gpu.json"))
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this text")
    parser.add_argument("--limit", type=float, metavar="SECONDS")
    parser.add_argument("--sim", action="store_true", help="tiny shapes in the simulator, untimed")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--builder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _build(folder: Path, options: argparse.Namespace) -> None:
    from gpu_parts.build import build
    from gpu_parts.cases import every, tiny

    cases = tiny() if options.sim else every()
    cases = [case for case in cases if options.only in case.id]
    command = [sys.executable, str(Path(__file__).resolve()), "--builder"]
    for refusal in build(folder, cases, options.arch, command):
        print("left out:", refusal)  # noqa: T201
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"built {folder}: {size / 1e6:.1f} MB")  # noqa: T201


def _run(options: argparse.Namespace, folder: Path) -> int:
    from gpu_parts.parent import Plan, failures, run_all

    limit = options.limit or SECONDS[options.quick]
    plan = Plan(folder.resolve(), options.json, options.quick, limit, options.only)
    plan.peers = not (options.no_peers or options.sim)
    plan.simulated = options.sim
    report = run_all(plan, Path(__file__).resolve())
    bad = failures(report["cases"])
    print(f"{len(report['cases'])} cases, {len(bad)} failed: {' '.join(bad)}")  # noqa: T201
    return 1 if bad else 0


def main() -> int:
    """Runs the options' half, or both."""
    options = _options()
    if options.builder:
        from gpu_parts.build import build_one
        from gpu_parts.workers import serve

        serve(lambda job, _: build_one(options.builder, job))
        return 0
    if options.worker:
        from gpu_parts.work import handle
        from gpu_parts.workers import serve

        serve(lambda job, say: handle(options.worker, job, say, simulated=options.sim))
        return 0
    if options.build:
        _build(options.build, options)
        return 0
    if options.run:
        return _run(options, options.run)
    with tempfile.TemporaryDirectory() as folder:
        _build(Path(folder), options)
        return _run(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
