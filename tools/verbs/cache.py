"""nybble cache: what was compiled before."""

import shutil
from pathlib import Path

import click

from nybble.tools.models import cache_root, kernel_cache, models_folder


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@click.group(name="cache")
def command() -> None:
    """List or clear what was compiled before."""


@command.command(name="list")
def list_entries() -> None:
    """Print the folder and what is in it."""
    click.echo(f"folder {cache_root()}")
    cache = kernel_cache()
    click.echo(f"kernels {len(list(cache.entries()))} entries, {cache.size() / 1e6:.1f} MB")
    models = sorted(models_folder().glob("*/manifest.json"))
    click.echo(f"models {len(models)} entries, {folder_bytes(models_folder()) / 1e6:.1f} MB")
    for manifest in models:
        click.echo(f"  {manifest.parent.name} {folder_bytes(manifest.parent) / 1e6:.1f} MB")


@command.command(name="clear")
def clear() -> None:
    """Remove everything that was compiled before."""
    removed = kernel_cache().clear()
    models = len(list(models_folder().glob("*/manifest.json")))
    shutil.rmtree(models_folder(), ignore_errors=True)
    click.echo(f"removed {removed} kernels and {models} models")
