"""The baseline of sequence models: a Conv1D over the tokens of MLIR, on nybble's own measurements.

Run as `python test/bench/cost_tokens.py [DB] [--epochs N] [--folds N]`; it needs torch, and seven
minutes of processor time for 15,646 rows. What a network makes of its held-out fold is printed
after each epoch, so that an interrupted run tells something; no epoch is chosen by it. The network
is that of "ML-based cost models for MLIR" (arXiv:2302.11405): an embedding of tokens, stacked
convolutions, the maximum over the sequence, and dense layers. The tokens are those of
`costmodel.features.tokens`, sizes of the schedule among them; what is predicted is the logarithm of
the time. Folds are those of `nybble cost eval --split workload`, so that its figures stand beside
that command's.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nybble.costmodel.data.dataset import Record, groups_of
from nybble.costmodel.features.tokens import tokens
from nybble.costmodel.learned.evaluation import Judge, Predicted
from nybble.costmodel.learned.split import FOLDS, folds_of
from nybble.costmodel.learned.training import Rows
from nybble.tools.cost.learning import in_order, measured, tokens_of

I64 = npt.NDArray[np.int64]
UNKNOWN, BATCH, ALIKE, RATE = 1, 128, 16, 2e-3
WIDTH, CHANNELS, LAYERS = 32, 64, 4


class TokenNet(nn.Module):
    """Tokens of texts and of what follows them -> one number for each row.

    The rows of a text differ in their last tokens alone, so what convolutions say of the others is
    worked out once for all of them: the numbers are those of whole sequences.
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, WIDTH, padding_idx=0)
        layers: list[nn.Module] = []
        for i in range(LAYERS):
            layers += [nn.Conv1d(CHANNELS if i else WIDTH, CHANNELS, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, 1))

    def forward(self, texts: torch.Tensor, ends: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        """texts: i64 [texts, length], 0 for none at the left. ends: i64 [rows, tokens that differ],
        0 for none at the right. owner: i64 [rows], the text of each row."""
        shared = self.conv(self.embed(texts).transpose(1, 2))[:, :, :-LAYERS].amax(2)
        whole = torch.cat([texts[owner, -2 * LAYERS :], ends], 1)
        own = self.conv(self.embed(whole).transpose(1, 2))[:, :, LAYERS:].amax(2)
        return self.dense(torch.maximum(shared[owner], own)).squeeze(1)


@dataclass(frozen=True)
class Sequences:
    """Tokens as numbers of words. texts, ends, owner: see TokenNet."""

    texts: I64
    ends: I64
    owner: I64
    words: int

    def said(self, net: TokenNet, rows: I64) -> torch.Tensor:
        """What a network says of some rows."""
        used, owner = np.unique(self.owner[rows], return_inverse=True)
        parts = self.texts[used], self.ends[rows], owner
        return net(*(torch.from_numpy(one) for one in parts))


def numbered(records: list[Record], seen: npt.NDArray[np.bool_]) -> Sequences:
    """The tokens of records as numbers, of words that were seen; the rest are UNKNOWN."""
    texts = [*dict.fromkeys(one.text for one in records)]
    starts = [tokens(text, {}, {}) for text in texts]
    place = {text: number for number, text in enumerate(texts)}
    owner = np.array([place[one.text] for one in records], np.int64)
    ends = [
        tokens_of(one)[len(starts[number]) :] for one, number in zip(records, owner, strict=True)
    ]
    known = {word for number in set(owner[seen].tolist()) for word in starts[number]}
    known |= {word for one, own in zip(ends, seen, strict=True) if own for word in one}
    words = {word: number + 2 for number, word in enumerate(sorted(known))}
    return Sequences(
        np.flip(_padded([one[::-1] for one in starts], words), 1).copy(),
        _padded(ends, words),
        owner,
        len(words) + 2,
    )


def _padded(sequences: list[list[str]], words: dict[str, int]) -> I64:
    found = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    for row, one in enumerate(sequences):
        found[row, : len(one)] = [words.get(word, UNKNOWN) for word in one]
    return found


def batches(owner: I64, rows: I64, seed: int) -> Iterator[I64]:
    """The rows in a random order, some at a time, ALIKE of one text each."""
    source = np.random.default_rng(seed)
    shuffled = source.permutation(rows)
    shuffled = shuffled[np.argsort(owner[shuffled], kind="stable")]
    pieces = [
        piece
        for part in np.split(shuffled, np.flatnonzero(np.diff(owner[shuffled])) + 1)
        for piece in np.array_split(part, -(-len(part) // ALIKE))
    ]
    order = source.permutation(len(pieces))
    for start in range(0, len(order), BATCH // ALIKE):
        yield np.concatenate([pieces[one] for one in order[start : start + BATCH // ALIKE]])


def trained(
    found: Sequences, y: npt.NDArray[np.float64], seen: I64, epochs: int
) -> Iterator[TokenNet]:
    """A network after each epoch on the rows that were seen; y: standardised."""
    torch.manual_seed(0)
    net, loss = TokenNet(found.words), nn.SmoothL1Loss()
    order = [[*batches(found.owner, seen, epoch)] for epoch in range(epochs)]
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    steps = sum(map(len, order))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    wanted = torch.from_numpy(y.astype(np.float32))
    for epoch in order:
        for batch in epoch:
            optimizer.zero_grad()
            loss(found.said(net, batch), wanted[batch]).backward()
            optimizer.step()
            schedule.step()
        yield net


def answers(found: Sequences, net: TokenNet, rows: I64) -> npt.NDArray[np.float64]:
    """What a network says of many rows."""
    with torch.no_grad():
        parts = [found.said(net, some).numpy() for some in np.array_split(rows, 32)]
    return np.concatenate(parts).astype(np.float64)


def judged(rows: Rows, found: npt.NDArray[np.float64]) -> dict[str, float]:
    """The figures of logarithms of times, of the groups that have them; NaN: has none."""
    known = np.isfinite(found)
    groups = [g for i, g in enumerate(rows.groups) if known[rows.owner == i].all()]
    some = found[known]
    return Judge(Rows(groups, rows.target)).figures(Predicted(some, np.exp(some)))


@click.command()
@click.argument("db", required=False)
@click.option("--epochs", default=20, show_default=True)
@click.option("--folds", default=FOLDS, show_default=True, help="Of them all, how many to train.")
def main(db: str | None, epochs: int, folds: int) -> None:
    """Print the figures of the baseline as JSON."""
    torch.set_num_threads(1)
    data = measured(db)
    rows = Rows(groups_of(data.records), data.target)
    records = in_order(data.records, rows)
    y, own = np.log(rows.seconds), folds_of([group.problem for group in rows.groups])[rows.owner]
    found = np.full(len(y), np.nan)
    for number in range(folds):
        seen = own != number
        held = np.flatnonzero(~seen)
        sequences = numbered(records, seen)
        mean, spread = y[seen].mean(), y[seen].std()
        steps = trained(sequences, (y - mean) / spread, np.flatnonzero(seen), epochs)
        for epoch, net in enumerate(steps, 1):
            found[held] = answers(sequences, net, held) * spread + mean
            alone = np.where(seen, np.nan, found)
            so_far = {"fold": number, "epoch": epoch, "seconds": round(time.process_time())}
            click.echo(json.dumps(so_far | judged(rows, alone)), err=True)
    figures = judged(rows, found)
    head = {"data": data.digest, "epochs": epochs, "folds": folds}
    click.echo(json.dumps(head | {"tokens_conv1d": figures}))


if __name__ == "__main__":
    main()
