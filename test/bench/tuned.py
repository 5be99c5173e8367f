"""Whether a tuned model is faster: two artifacts of one model in turn, in one process.

Made and run as

    nybble compile smollm2 -o default
    nybble tune smollm2 --deterministic -o schedules.json
    nybble compile smollm2 --schedules schedules.json -o tuned
    python test/bench/tuned.py default tuned

on a quiet machine, some minutes. The order of the two changes from round to round, and the least
time of each counts: of a prompt of 128 tokens, of one of 512, and of a token after 128.
"""

import json
import random
import time
from pathlib import Path

import click

from nybble.backends.cpu.session import Session

PROMPTS = (128, 512)
ANSWER = 24


def phases(session: Session, ids: list[int]) -> dict[str, float]:
    """Seconds of each phase."""
    found: dict[str, float] = {}
    for count in PROMPTS:
        session.reset()
        start = time.perf_counter()
        session.prefill(ids[:count])
        found[f"prefill {count}"] = time.perf_counter() - start
    session.reset()
    session.prefill(ids[: PROMPTS[0]])
    start = time.perf_counter()
    for token in ids[:ANSWER]:
        session.decode(token)
    found["decode"] = (time.perf_counter() - start) / ANSWER
    return found


@click.command()
@click.argument("default", type=click.Path(path_type=Path, exists=True))
@click.argument("tuned", type=click.Path(path_type=Path, exists=True))
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=12, show_default=True)
def main(default: Path, tuned: Path, threads: int, rounds: int) -> None:
    """Print the least milliseconds of each phase, and the tuned model's share of the default's."""
    sessions = {
        "default": Session.load(default, threads),
        "tuned": Session.load(tuned, threads),
    }
    order = random.Random(0)
    ids = [order.randrange(1000, 40000) for _ in range(max(PROMPTS))]
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name in order.sample([*sessions], len(sessions)):
            for phase, seconds in phases(sessions[name], ids).items():
                row = best.setdefault(phase, {})
                row[name] = min(row.get(name, float("inf")), seconds)
    for phase, row in best.items():
        shown = {name: round(1e3 * seconds, 3) for name, seconds in row.items()}
        ratio = round(row["tuned"] / row["default"], 3)
        click.echo(json.dumps({"phase": phase, "milliseconds": shown, "ratio": ratio}))


if __name__ == "__main__":
    main()
