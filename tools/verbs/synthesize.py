"""nybble synthesize: a model file with the shape of a published model and random weights."""

from dataclasses import replace
from pathlib import Path

import click

from nybble.tools.shape_model import ShapeModelError, find_shape, write_model

SMALLEST_VOCABULARY = 258  # the bytes, one merge and the end of text
LARGEST = 1 << 20


@click.command(name="synthesize")
@click.argument("shape", metavar="SHAPE")
@click.option("-o", "--output", required=True, metavar="FILE", help="The GGUF file to write.")
@click.option(
    "--type", "spec", default="q4_0", show_default=True, metavar="FORMAT", help="Of all matrices."
)
@click.option("--layers", type=click.IntRange(1, 1024), help="Fewer or more layers.")
@click.option(
    "--vocabulary",
    type=click.IntRange(SMALLEST_VOCABULARY, LARGEST),
    help="A smaller or bigger vocabulary.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the weights."
)
def command(
    shape: str, output: str, spec: str, layers: int | None, vocabulary: int | None, seed: int
) -> None:
    """Write a GGUF model of SHAPE with random weights, for measurements."""
    sizes = find_shape(shape)
    if layers is not None:
        sizes = replace(sizes, layers=layers)
    if vocabulary is not None:
        sizes = replace(sizes, vocabulary=vocabulary)
    path = Path(output)
    try:
        write_model(sizes, spec, path, seed)
    except OSError as fault:
        reason = fault.strerror or "it cannot be written"
        raise ShapeModelError(f"cannot write {path}: {reason}") from fault
    click.echo(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB")
