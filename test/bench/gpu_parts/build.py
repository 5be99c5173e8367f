"""The build half: every kernel of every case as PTX in a folder that can be run elsewhere.

cases.json        the cases, each with the keys of its kernels
prepare.json      jobs that may run at once, before anything is timed
kernels/KEY.json  a kernel: what KernelImage holds; KEY.cubin its machine code
layouts/KEY.pkl   how its weights are packed
gpu.py, gpu_parts, nybble    the program itself, and what it needs of nybble
"""

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

from gpu_parts.cases import Case, bits_of
from gpu_parts.workers import Worker
from nybble.backends.gpu import ptxas
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.image import KernelImage

BUILD_SECONDS = 90.0
HERE = Path(__file__).resolve().parent
NEEDED = ("backends/gpu", "backends/__init__.py", "dialects", "__init__.py")


def build(folder: Path, cases: Iterable[Case], arch: str, command: list[str]) -> list[str]:
    """Writes the folder; returns what was left out, with the reason.

    command: starts a child that answers `build_one` jobs: a kernel that takes too long to compile
    costs only itself.
    """
    for part in ("kernels", "layouts"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    _copy_program(folder)
    rows = [case.as_json() | {"kernels": {}, "arch": arch} for case in cases]
    jobs = [
        {"do": "build", "case": row, "variant": variant, "change": change, "arch": arch}
        for row in rows
        for variant, change in _ways(row)
    ]
    refused: list[str] = []
    workers = Queue[Worker]()
    for _ in range(os.cpu_count() or 1):
        workers.put(Worker([*command, str(folder)], folder / "build.log"))

    def one(job: dict[str, Any]) -> None:
        worker = workers.get()
        outcome = worker.do(job, BUILD_SECONDS)
        workers.put(worker)
        if outcome.error:
            refused.append(f"{job['case']['id']} {job['variant']}: {outcome.error}")
        else:
            job["case"]["kernels"][job["variant"]] = outcome.result

    with ThreadPoolExecutor(workers.qsize()) as pool:
        list(pool.map(one, jobs))
    while not workers.empty():
        workers.get().stop()
    rows = [row for row in rows if row["kernels"]]
    (folder / "cases.json").write_text(json.dumps(rows, indent=1))
    (folder / "prepare.json").write_text(json.dumps(_preparations(folder, rows), indent=1))
    (folder / "refused.txt").write_text("\n".join(refused))
    return refused


def _ways(row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Variants of a case; but for decode, also as it is by default."""
    usual = [] if row["kind"] == "decode" else [("", dict[str, Any]())]
    return [*usual, *row["variants"].items()]


def build_one(folder: Path, job: dict[str, Any]) -> str:
    """Builds a kernel; returns its key. Raises NybbleError."""
    return _BUILDERS[job["case"]["kind"]](folder, job["case"], job["change"], job["arch"])


def _copy_program(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copy(HERE.parent / "gpu.py", folder / "gpu.py")
    shutil.copytree(HERE, folder / "gpu_parts", dirs_exist_ok=True, ignore=ignored)
    import nybble

    root = Path(str(nybble.__file__)).parent
    for name in NEEDED:
        source, target = root / name, folder / "nybble" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy(source, target)


def _write(folder: Path, key: str, image: KernelImage) -> str:
    fields = dataclasses.asdict(image)
    (folder / "kernels" / f"{key}.json").write_text(json.dumps(fields, default=str))
    with suppress(GpuError):  # without ptxas the driver compiles the PTX
        made = ptxas.assemble(image.ptx, image.arch)
        (folder / "kernels" / f"{key}.cubin").write_bytes(made.cubin)
    return key


def _product(folder: Path, case: dict[str, Any], change: dict[str, Any], arch: str) -> str:
    from nybble.backends.gpu.kernels.matmul.spec import Tuning
    from nybble.backends.gpu.products import compile_product

    spec, tuning = case["spec"], dict(change)
    warpgroups = bool(tuning.pop("warpgroups", False))
    made = compile_product(
        spec["format"], spec["rows"], spec["cols"], spec["tokens"], arch, spec["activations"],
        tuning=Tuning(**tuning) if tuning else None, warpgroups=warpgroups,
    )  # fmt: skip
    key = f"{case['id']}_{'_'.join(f'{k}{v}' for k, v in change.items())}".replace("/", "_").rstrip(
        "_"
    )
    layout = {"layout": made.spec.layout, "kind": made.spec.kind}
    (folder / "layouts" / f"{key}.pkl").write_bytes(pickle.dumps(layout))
    return _write(folder, key, made.image)


def _decode(folder: Path, case: dict[str, Any], change: dict[str, Any], arch: str) -> str:
    from nybble.backends.gpu.arch import find_arch
    from nybble.backends.gpu.kernels.attention.decode import decode_image
    from nybble.backends.gpu.kernels.attention.spec import DecodeSpec

    fields = {name: one for name, one in case["spec"].items() if name != "density"}
    group = fields.pop("key_group", None)
    if group is not None:
        fields["cache"] = f"{fields['cache']}({group})"
    spec = DecodeSpec(**fields | change)
    shape = f"{spec.softmax}_s{spec.splits}w{spec.warps}b{spec.blocks}"
    key = f"{case['id']}_{shape}".replace("/", "_")
    return _write(folder, key, decode_image(spec, find_arch(arch)))


def _prefill(folder: Path, case: dict[str, Any], change: dict[str, Any], arch: str) -> str:
    from nybble.backends.gpu.arch import find_arch
    from nybble.backends.gpu.kernels.attention.prefill import PrefillSpec, prefill_image

    fields = {name: one for name, one in case["spec"].items() if name != "density"}
    image = prefill_image(PrefillSpec(**fields | change), find_arch(arch))
    return _write(folder, case["id"].replace("/", "_"), image)


_BUILDERS = {"product": _product, "decode": _decode, "prefill": _prefill}


def _preparations(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One job for each weight to pack, and one for each format that a compiling peer has."""
    jobs: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["kind"] != "product":
            continue
        spec = row["spec"]
        shape = f"{spec['format']}/{spec['rows']}x{spec['cols']}"
        for key in row["kernels"].values():
            layout = (folder / "layouts" / f"{key}.pkl").read_bytes()
            name = f"pack {shape}/{hashlib.sha256(layout).hexdigest()[:8]}"
            pack = {"do": "pack", "id": name, "spec": spec, "key": key, "quick": row["quick"]}
            known = jobs.setdefault(name, pack)
            known["quick"] = known["quick"] or row["quick"]
        shape = f"w{bits_of(spec['format'])}/{spec['rows']}x{spec['cols']}"
        peer = {"do": "warm", "id": f"compile {shape}", "spec": spec, "tokens": [], "quick": False}
        known = jobs.setdefault(peer["id"], peer)
        known["tokens"].append(spec["tokens"])
        known["quick"] = known["quick"] or row["quick"]
    return [*jobs.values()]


def read_image(folder: Path, key: str) -> KernelImage:
    """The kernel of that key."""
    from nybble.backends.gpu.image import Access, Boxes, Parameter

    fields = json.loads((folder / "kernels" / f"{key}.json").read_text())
    fields["parameters"] = tuple(
        Parameter(one["name"], one["dtype"], Access(one["access"]), one["bytes"], boxes)
        for one in fields["parameters"]
        for given in [one["boxes"]]
        for boxes in [given and Boxes(tuple(given["shape"]), tuple(given["box"]), given["swizzle"])]
    )
    for name in ("grid", "block", "cluster", "zeroed"):
        fields[name] = tuple(fields[name])
    return KernelImage(**fields)


def read_cubin(folder: Path, key: str) -> bytes | None:
    """Its machine code, if it was assembled."""
    path = folder / "kernels" / f"{key}.cubin"
    return path.read_bytes() if path.is_file() else None
