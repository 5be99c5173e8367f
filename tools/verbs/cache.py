"""nybble cache: what was compiled before."""

import shutil
from pathlib import Path

import click
from filelock import FileLock, Timeout

from nybble.tools.graph_cache import clear_graphs, graph_entries
from nybble.tools.models import cache_root, circuit_cache, kernel_cache, models_folder


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def model_entries() -> list[Path]:
    """The folders of compiled models."""
    return sorted(manifest.parent for manifest in models_folder().glob("[!.]*/manifest.json"))


def remove_model(folder: Path) -> bool:
    """Remove a compiled model unless a process is just making it; tells whether it was removed."""
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        return False
    return True


@click.group(name="cache", no_args_is_help=False)
def command() -> None:
    """List or clear what was compiled before. NYBBLE_CACHE names the directory."""


@command.command(name="list")
def list_entries() -> None:
    """Print the folder and what is in it."""
    click.echo(f"folder {cache_root()}")
    cache = kernel_cache()
    click.echo(f"kernels {len(list(cache.entries()))} entries, {cache.size() / 1e6:.1f} MB")
    circuits = circuit_cache()
    click.echo(f"circuits {len(list(circuits.entries()))} entries, {circuits.size() / 1e6:.1f} MB")
    models = model_entries()
    click.echo(f"models {len(models)} entries, {sum(map(folder_bytes, models)) / 1e6:.1f} MB")
    for folder in models:
        click.echo(f"  {folder.name} {folder_bytes(folder) / 1e6:.1f} MB")
    graphs = graph_entries()
    click.echo(f"imports {len(graphs)} entries, {sum(map(folder_bytes, graphs)) / 1e6:.1f} MB")


@command.command(name="clear")
def clear() -> None:
    """Remove everything that was compiled before; a model that is just being made stays."""
    removed = kernel_cache().clear()
    circuits = circuit_cache().clear()
    models = sum(remove_model(folder) for folder in model_entries())
    imports = clear_graphs()
    click.echo(
        f"removed {removed} kernels, {circuits} circuits, {models} models and {imports} imports"
    )
