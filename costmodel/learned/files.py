"""Model files: text with a header, a digest and trees; never a pickle.

    nybble-cost-model 2
    {"schema": .., "columns": .., "digest": .., "widths": .., "card": ..}
    == residual
    tree
    ...

What is read is checked first: another version of the file or of the features, and damage, are each
an error that says so.
"""

import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from nybble.costmodel.data.measurement import SCHEMA
from nybble.costmodel.learned.boosting import ModelFileError
from nybble.costmodel.learned.calibration import Calibration
from nybble.costmodel.learned.model import INPUTS, TREES, CostModel
from nybble.costmodel.learned.novelty import Novelty
from nybble.costmodel.learned.points import F64, from_letters, rounded, to_letters

MAGIC = "nybble-cost-model"
VERSION = 2
_SECTION = "== "
SHIPPED = "cpu_x86_64_v3.model"


def columns_digest() -> str:
    """Stands for the names of all features and their order."""
    return sha256("\0".join(INPUTS).encode()).hexdigest()[:16]


def to_text(model: CostModel) -> str:
    """The file of a model."""
    body = "".join(f"{_SECTION}{name}\n{text.rstrip()}\n" for name, text in model.texts.items())
    novelty = model.novelty
    header = {
        "schema": SCHEMA,
        "columns": columns_digest(),
        "digest": sha256(body.encode()).hexdigest(),
        "calibration": dict(model.calibration.factors),
        "widths": dict(model.widths),
        "analytic_widths": dict(model.analytic_widths),
        "novelty": {
            "centre": rounded(novelty.centre),
            "spread": rounded(novelty.spread),
            "seen": to_letters(novelty.seen),
            "unit": float(novelty.unit),
        },
        "card": dict(model.card),
    }
    return f"{MAGIC} {VERSION}\n{json.dumps(header, separators=(',', ':'))}\n{body}"


def from_text(text: str, source: str) -> CostModel:
    """The model of a file; raises ModelFileError."""
    first, _, rest = text.partition("\n")
    if first.split(" ")[0] != MAGIC:
        raise ModelFileError(f"{source} is no cost model", accepted="what cost train writes")
    if first != f"{MAGIC} {VERSION}":
        raise ModelFileError(
            f"{source} is a cost model of version '{first.removeprefix(MAGIC).strip()}'",
            accepted=f"version {VERSION}; train it again",
        )
    line, _, body = rest.partition("\n")
    header = _header(line, source)
    if header["schema"] != SCHEMA or header["columns"] != columns_digest():
        raise ModelFileError(
            f"{source} was trained on other features (schema {header['schema']})",
            accepted=f"schema {SCHEMA} of this version; train it again",
        )
    if header["digest"] != sha256(body.encode()).hexdigest():
        raise ModelFileError(f"{source} is damaged: its trees have another digest")
    texts = _sections(body)
    lacking = [name for name in TREES if name not in texts]
    if lacking:
        raise ModelFileError(
            f"{source} predicts no {', '.join(lacking)}", accepted="what cost train writes"
        )
    novelty = header["novelty"]
    return CostModel(
        texts,
        Calibration({name: tuple(one) for name, one in header["calibration"].items()}),
        header["widths"],
        header["analytic_widths"],
        Novelty(
            np.array(novelty["centre"]),
            np.array(novelty["spread"]),
            _seen(novelty["seen"], source),
            float(novelty["unit"]),
        ),
        header["card"],
    )


def _seen(points: Mapping[str, Any], source: str) -> F64:
    try:
        return from_letters(points)
    except (KeyError, TypeError, ValueError) as fault:
        raise ModelFileError(f"{source} is damaged: what it has seen ({fault})") from fault


def _header(line: str, source: str) -> Mapping[str, Any]:
    wanted = (
        *("schema", "columns", "digest", "calibration", "widths", "analytic_widths", "novelty"),
        "card",
    )
    try:
        header = json.loads(line)
    except ValueError as fault:
        raise ModelFileError(f"{source} is damaged: its header is no JSON") from fault
    missing = [name for name in wanted if not isinstance(header, dict) or name not in header]
    if missing:
        raise ModelFileError(f"{source} is damaged: its header lacks {', '.join(missing)}")
    return header


def _sections(body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in ("\n" + body).split(f"\n{_SECTION}")[1:]:
        name, _, text = part.partition("\n")
        found[name] = text
    return found


def read_model(path: Path) -> CostModel:
    """The model of a file; raises ModelFileError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        raise ModelFileError(f"cannot read {path}: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise ModelFileError(
            f"{path} is no cost model", accepted="what cost train writes"
        ) from fault
    return from_text(text, str(path))


def write_model(model: CostModel, path: Path) -> int:
    """Write a file whole or not at all; its bytes. Raises ModelFileError."""
    data = to_text(model).encode()
    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as fault:
        draft.unlink(missing_ok=True)
        raise ModelFileError(f"cannot write {path}: {fault.strerror}") from fault
    return len(data)


@cache
def shipped() -> CostModel:
    """The model that comes with nybble, of the class of machines that its card names."""
    found = files("nybble.costmodel.learned").joinpath(SHIPPED)
    return from_text(found.read_text(encoding="utf-8"), SHIPPED)
