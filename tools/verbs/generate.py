"""nybble generate: text from a model."""

import json
import re
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from nybble.backends.cpu.session import Sampling, Session
from nybble.dialects.errors import NybbleError
from nybble.frontend.text import Tokenizer
from nybble.frontend.weight_choice import WeightChoice
from nybble.tools.files import write_output
from nybble.tools.model_options import json_option, model_options
from nybble.tools.models import choose


@dataclass(frozen=True)
class Generated:
    """An answer and how long it took."""

    text: str
    prompt_tokens: int
    tokens: int
    prefill_seconds: float
    decode_seconds: float

    def report(self) -> dict[str, str | int | float]:
        """The keys of `--json`."""
        return {
            "text": self.text,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "prefill_tps": round(self.prompt_tokens / self.prefill_seconds, 2),
            "decode_tps": round(max(self.tokens - 1, 0) / max(self.decode_seconds, 1e-9), 2),
            "peak_rss_mb": round(peak_rss_mb(), 1),
        }


def peak_rss_mb() -> float:
    """The most memory that this process had at once, in MB.

    Linux tells it in /proc/self/status. What getrusage tells there includes the process that
    started this one, up to the moment it did.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 1e3 if found else 0.0


def prompt_ids(tokenizer: Tokenizer, prompt: str, raw: bool) -> list[int]:
    """The prompt as tokens: in the model's chat form if it has one, unless `raw`."""
    if not prompt:
        raise NybbleError("the prompt is empty", accepted="-p TEXT")
    if raw or tokenizer.chat_template is None:
        return tokenizer.encode(prompt)
    text = tokenizer.chat([{"role": "user", "content": prompt}])
    return tokenizer.encode(text, add_special_tokens=False)


def check_fits(tokens: int, context: int) -> None:
    """Raise NybbleError for a prompt that is nothing, or longer than the context."""
    if not tokens:
        raise NybbleError("the prompt has no tokens", accepted="-p TEXT with a word in it")
    if tokens > context:
        raise NybbleError(
            f"the prompt has {tokens} tokens",
            accepted=f"up to {context}, the context; --context takes more if the model does",
        )


def generate(
    session: Session,
    tokenizer: Tokenizer,
    ids: list[int],
    limit: int,
    sampling: Sampling,
    show: bool,
) -> Generated:
    """Answer a prompt; `show` prints the text on standard output as it comes."""
    stream = tokenizer.stream()
    pieces: list[str] = []
    times = [time.perf_counter()]
    count = 0
    for token in session.generate(ids, limit, sampling, tokenizer.eos_ids):
        times.append(time.perf_counter())
        count += 1
        pieces.append(stream.push(token))
        if show:
            click.echo(pieces[-1], nl=False)
            sys.stdout.flush()
    pieces.append(stream.finish())
    if show:
        click.echo(pieces[-1])
    first = times[min(1, count)]
    return Generated(
        "".join(pieces), len(ids), count, max(first - times[0], 1e-9), times[-1] - first
    )


@click.command(name="generate")
@click.argument("model")
@click.option("-p", "--prompt", required=True, help="What to answer.")
@click.option("--max-tokens", type=click.IntRange(0), default=128, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=int, default=0, show_default=True, help="0 keeps all tokens.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="1 keeps all tokens.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--raw", is_flag=True, help="Continue the prompt; do not put it in chat form.")
@json_option
@model_options
def command(
    model: str,
    prompt: str,
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    raw: bool,
    json_file: str | None,
    activations: str | None,
    kv: str | None,
    attention: str,
    context: int | None,
    isa: str | None,
    threads: int | None,
    weights: WeightChoice,
) -> None:
    """Generate text from MODEL: an alias (smollm2), a GGUF file, a Hugging Face folder, or a
    directory of `nybble compile`."""
    sampling = Sampling(temperature, top_k, top_p, seed)
    choice = choose(model, activations, kv, context, isa, threads, weights, attention)
    # Whatever is wrong with the prompt is said before the model is compiled.
    tokenizer = choice.tokenizer()
    ids = prompt_ids(tokenizer, prompt, raw)
    check_fits(len(ids), choice.context)
    session = Session.load(choice.artifact(), threads)
    answer = generate(session, tokenizer, ids, max_tokens, sampling, json_file is None)
    used = session.executor.threads
    session.close()
    report = answer.report()
    if json_file is not None:
        write_output(json_file, (json.dumps(report, ensure_ascii=False) + "\n").encode())
        return
    click.echo(
        f"[{answer.tokens} tokens at {report['decode_tps']} tokens/s, prompt of "
        f"{answer.prompt_tokens} at {report['prefill_tps']} tokens/s, {used} threads, "
        f"{report['peak_rss_mb']} MB]",
        err=True,
    )
