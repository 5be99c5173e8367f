"""The baseline of sequence models: a Conv1D over the tokens of MLIR, on nybble's own measurements.

Run as `python test/bench/cost_tokens.py [DB] [--epochs N] [--folds N]`; it needs torch, and some
minutes on one core. The network is that of "ML-based cost models for MLIR" (arXiv:2302.11405):
an embedding of tokens, stacked convolutions, the maximum over the sequence, and dense layers. The
tokens are those of `costmodel.features.tokens`, sizes of the schedule among them; what is predicted
is the logarithm of the time. Folds are those of `nybble cost eval --split workload`, so that its
figures stand beside that command's.
"""

import json
from collections.abc import Iterator

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nybble.costmodel.data.dataset import groups_of
from nybble.costmodel.learned.evaluation import Judge, Predicted
from nybble.costmodel.learned.split import FOLDS, folds_of
from nybble.costmodel.learned.training import Rows
from nybble.costmodel.targets.reader import target_for_level
from nybble.tools.cost.learning import LEVEL, in_order, measured, tokens_of

I64 = npt.NDArray[np.int64]
UNKNOWN, BATCH, RATE = 1, 128, 2e-3
WIDTH, CHANNELS, LAYERS = 32, 64, 4


class TokenNet(nn.Module):
    """Tokens i64 [rows, length], 0 for none -> one number for each row."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, WIDTH, padding_idx=0)
        layers: list[nn.Module] = []
        for i in range(LAYERS):
            layers += [nn.Conv1d(CHANNELS if i else WIDTH, CHANNELS, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, 1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.dense(self.conv(self.embed(ids).transpose(1, 2)).amax(2)).squeeze(1)


def numbered(sequences: list[list[str]], seen: npt.NDArray[np.bool_]) -> tuple[I64, int]:
    """Sequences as numbers of words, of those that were seen; the rest are UNKNOWN."""
    words = sorted({word for one, own in zip(sequences, seen, strict=True) if own for word in one})
    place = {word: number + 2 for number, word in enumerate(words)}
    found = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    for row, one in enumerate(sequences):
        found[row, : len(one)] = [place.get(word, UNKNOWN) for word in one]
    return found, len(words) + 2


def batches(rows: I64, seed: int) -> Iterator[I64]:
    """The rows in a random order, some at a time."""
    order = np.random.default_rng(seed).permutation(rows)
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]


def fold(ids: I64, words: int, y: npt.NDArray[np.float64], seen: I64, epochs: int) -> TokenNet:
    """A network trained on the rows that were seen; y: standardised."""
    torch.manual_seed(0)
    net, loss = TokenNet(words), nn.SmoothL1Loss()
    steps = epochs * -(-len(seen) // BATCH)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    x, wanted = torch.from_numpy(ids), torch.from_numpy(y.astype(np.float32))
    for epoch in range(epochs):
        for batch in batches(seen, epoch):
            optimizer.zero_grad()
            loss(net(x[batch]), wanted[batch]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@click.command()
@click.argument("db", required=False)
@click.option("--epochs", default=20, show_default=True)
@click.option("--folds", default=FOLDS, show_default=True, help="Of them all, how many to train.")
def main(db: str | None, epochs: int, folds: int) -> None:
    """Print the figures of the baseline as JSON."""
    torch.set_num_threads(1)
    data = measured(db)
    rows = Rows(groups_of(data.records), target_for_level(LEVEL))
    sequences = [tokens_of(one) for one in in_order(data.records, rows)]
    y, own = np.log(rows.seconds), folds_of([group.problem for group in rows.groups])[rows.owner]
    found = np.full(len(y), np.nan)
    for number in range(folds):
        seen = own != number
        ids, words = numbered(sequences, seen)
        mean, spread = y[seen].mean(), y[seen].std()
        net = fold(ids, words, (y - mean) / spread, np.flatnonzero(seen), epochs)
        held = np.flatnonzero(~seen)
        with torch.no_grad():
            parts = [net(torch.from_numpy(ids[p])).numpy() for p in np.array_split(held, 32)]
        found[held] = np.concatenate(parts) * spread + mean
        click.echo(f"fold {number} of {folds}, {words} words, {ids.shape[1]} tokens", err=True)
    known = np.isfinite(found)
    groups = [g for i, g in enumerate(rows.groups) if known[rows.owner == i].all()]
    judge = Judge(Rows(groups, rows.target))
    click.echo(
        json.dumps(
            {
                "data": data.digest,
                "epochs": epochs,
                "folds": folds,
                "tokens_conv1d": judge.figures(Predicted(found[known], np.exp(found[known]))),
            }
        )
    )


if __name__ == "__main__":
    main()
