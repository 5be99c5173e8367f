"""Models at the import stage, kept between runs: an import takes torch and many seconds."""

import json
import shutil
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

from nybble.dialects.errors import NybbleError
from nybble.frontend.compile_model import ModelCompiler
from nybble.frontend.graph import ModelGraph
from nybble.tools.import_child import NEEDED
from nybble.tools.models import ModelChoice, cache_root, file_facts, source_digest


def graphs_folder() -> Path:
    """Where imported models are kept."""
    return cache_root() / "graphs"


def imported(choice: ModelChoice, compiler: ModelCompiler) -> ModelGraph:
    """The model at the import stage, from the cache where its files have not changed."""
    folder = graphs_folder() / _key(choice)
    if folder.is_dir():
        try:
            return ModelGraph.load(folder)
        except NybbleError:
            shutil.rmtree(folder, ignore_errors=True)
    graph = compiler.graph()
    draft = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        graph.save(draft)
        draft.rename(folder)
    except OSError:
        pass  # nothing but time is lost where the cache cannot be written
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return graph


def clear_graphs() -> int:
    """Remove all of them; how many there were."""
    found = graph_entries()
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return len(found)


def graph_entries() -> list[Path]:
    """The folders of imported models."""
    return sorted(graphs_folder().glob("[!.]*/"))


def _key(choice: ModelChoice) -> str:
    path = choice.checkpoint.path
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    options = choice.options
    parts = [
        [file_facts(file) for file in files],
        [choice.context, options.kv_format, options.attention, str(options.weights)],
        [_version(package) for package in ("nybble", *NEEDED)],
        source_digest(),
    ]
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
