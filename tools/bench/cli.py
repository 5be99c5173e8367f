"""The command line of `nybble bench`: attention, fpga, kernels, model and spgemm."""

import click

from nybble.dialects.sparse_attn.ops import SOFTMAX
from nybble.frontend.weight_choice import WeightChoice
from nybble.tools.bench.fpga_cli import fpga_command
from nybble.tools.bench.options import (
    CACHES,
    COLD_BYTES,
    KERNEL_SCHEDULE,
    MODEL_SCHEDULE,
    KernelOptions,
    ModelOptions,
    parse_caches,
    parse_choices,
    parse_counts,
    parse_names,
    parse_shapes,
)
from nybble.tools.bench.peers.llama_bench import parse_external
from nybble.tools.bench.publish import keeper, publish
from nybble.tools.bench.rounds import Schedule
from nybble.tools.model_options import MODES, WEIGHT_OPTIONS, kv_option, with_weights
from nybble.tools.models import cache_root, shown_progress

NO_PEERS = "none"
SPARSE_ROUNDS = 7


def _value(name: str, default: str, metavar: str, help: str) -> click.Option:
    return click.Option([name], default=default, show_default=True, metavar=metavar, help=help)


def _count(name: str, default: int, help: str) -> click.Option:
    return click.Option(
        [name], type=click.IntRange(1), default=default, show_default=True, help=help
    )


def _shared(rounds: int) -> list[click.Parameter]:
    return [
        _value("--threads", "1", "N,..", "Numbers of threads."),
        _value("--peers", "llama.cpp", "NAME,..", "Systems to compare with, or none."),
        _count("--rounds", rounds, "Turns that each contestant has."),
        click.Option(["--seed"], type=int, default=0, help="Of the order of the turns."),
        click.Option(["--json", "json_file"], metavar="FILE", help="Write the report as JSON."),
    ]


def _kernels(
    formats: str,
    shapes: str,
    n: str,
    cache: str,
    cold_bytes: int,
    activations: str,
    threads: str,
    peers: str,
    rounds: int,
    seed: int,
    json_file: str | None,
) -> None:
    options = KernelOptions(
        parse_names(formats),
        parse_shapes(shapes),
        parse_counts(n),
        parse_choices(cache, CACHES),
        parse_counts(threads),
        _peers(peers),
        cold_bytes,
        parse_choices(activations, MODES),
        Schedule(rounds=rounds, seed=seed),
    )
    # Imported here, as below: code generation and the model's frontend take their time to load.
    from nybble.tools.bench.kernels import COLUMNS, bench_kernels

    with shown_progress() as progress:
        report = bench_kernels(options, progress)
    publish(report, COLUMNS, json_file)


def _model(
    model: str,
    peer_types: str,
    prompt_tokens: int,
    decode_tokens: int,
    depths: str,
    activations: str,
    kv: str | None,
    llama_bench: tuple[str, ...],
    perplexity: bool,
    weights: WeightChoice,
    threads: str,
    peers: str,
    rounds: int,
    seed: int,
    json_file: str | None,
) -> None:
    options = ModelOptions(
        model,
        cache_root() / "bench",
        _peers(peers),
        parse_names(peer_types),
        parse_counts(threads),
        prompt_tokens,
        decode_tokens,
        parse_counts(depths, 0),
        activations,
        kv,
        tuple(parse_external(one) for one in llama_bench),
        perplexity,
        Schedule(rounds=rounds, seed=seed),
        weights,
    )
    from nybble.tools.bench.model import COLUMNS, bench_model

    with shown_progress() as progress:
        report = bench_model(options, progress)
    publish(report, COLUMNS, json_file)


def _attention(
    phases: str,
    masks: tuple[str, ...],
    softmax: str,
    kv: str,
    contexts: str,
    heads: int,
    kv_heads: int,
    d: int,
    texts: int,
    suffix: int,
    threads: int,
    peers: str,
    rounds: int,
    seed: int,
    json_file: str | None,
) -> None:
    from nybble.tools.bench.attention import (
        COLUMNS,
        PEERS,
        PHASES,
        AttentionOptions,
        bench_attention,
    )

    options = AttentionOptions(
        parse_choices(phases, PHASES),
        masks or ("causal",),
        parse_choices(softmax, SOFTMAX),
        parse_caches(kv),
        parse_counts(contexts),
        heads,
        kv_heads,
        d,
        threads,
        () if peers == NO_PEERS else parse_choices(peers, tuple(PEERS)),
        Schedule(rounds=rounds, seed=seed),
        texts,
        suffix,
    )
    with shown_progress() as progress:
        report = bench_attention(options, progress)
    publish(report, COLUMNS, json_file)


def _spgemm(
    workloads: str,
    size: str,
    matrix_seed: int,
    threads: str,
    peers: str,
    rounds: int,
    seed: int,
    json_file: str | None,
) -> None:
    from nybble.tools.bench.sparse.measure import COLUMNS, SparseOptions, bench_sparse
    from nybble.tools.bench.sparse.peers import PEERS
    from nybble.tools.bench.sparse.workloads import workloads as known

    options = SparseOptions(
        () if workloads == "all" else parse_choices(workloads, tuple(known(size))),
        parse_counts(threads),
        () if peers == NO_PEERS else parse_choices(peers, tuple(PEERS)),
        size,
        matrix_seed,
        Schedule(rounds=rounds, seed=seed),
        cache_root() / "kernels",
    )
    with shown_progress() as progress:
        report = bench_sparse(options, progress, keeper(json_file))
    publish(report, COLUMNS, json_file)


def _peers(names: str) -> tuple[str, ...]:
    return () if names.strip() == NO_PEERS else parse_names(names)


_KERNEL_PARAMETERS: list[click.Parameter] = [
    _value("--formats", "q4_0,q4_1,q8_0", "NAME,..", "Number formats of the weights."),
    _value("--shapes", "4096x4096", "ROWSxCOLS,..", "Shapes of the weights."),
    _value("--n", "1,128", "N,..", "Numbers of token rows."),
    _value("--cache", "hot", "hot,cold", "Whether the weights were just used, or long ago."),
    _count("--cold-bytes", COLD_BYTES, "Weights that a cold product goes through in turn."),
    _value("--activations", "i8", "MODE,..", "Of ours: i8, i8-only, i8-lut, i16, f32."),
    *_shared(KERNEL_SCHEDULE.rounds),
]
_MODEL_PARAMETERS: list[click.Parameter] = [
    click.Argument(["model"]),
    _value("--peer-types", "auto", "TYPE,..", "File types the peers run: same, auto, q4_0, .."),
    _count("--prompt-tokens", 512, "Tokens of the prompt."),
    _count("--decode-tokens", 64, "Tokens decoded in a turn."),
    _value("--depths", "0,512", "N,..", "Positions that decoding starts from."),
    click.Option(
        ["--activations"],
        type=click.Choice(MODES),
        default="i8",
        show_default=True,
        help="Of ours.",
    ),
    click.Option(
        ["--llama-bench"],
        multiple=True,
        metavar="NAME=PATH",
        help="A program like llama-bench to compare with; 'NAME=PATH OPTIONS' gives it options.",
    ),
    click.Option(
        ["--perplexity/--no-perplexity"], default=True, help="Measure it (default) or not."
    ),
    *_shared(MODEL_SCHEDULE.rounds),
]

kernels_command = click.Command(
    "kernels",
    params=_KERNEL_PARAMETERS,
    callback=_kernels,
    help="Measure products of low-bit weights with token rows against other systems.",
)
model_command = click.Command(
    "model",
    params=_MODEL_PARAMETERS,
    callback=with_weights(_model),
    help="Measure prompts and decoding of a MODEL (path or alias) against other systems.",
)
for _option in (kv_option, *WEIGHT_OPTIONS):
    _option(model_command)
_ATTENTION_PARAMETERS: list[click.Parameter] = [
    _value(
        "--phases",
        "decode,prefill",
        "PHASE,..",
        "decode: one token on a full cache; prefill: all tokens; shared: one token of each of "
        "some texts with a common beginning.",
    ),
    click.Option(["--mask", "masks"], multiple=True, help="A mask; may be repeated. [causal]"),
    _value("--softmax", "online", "KIND,..", "online, two_pass, unified."),
    _value("--kv", "f32", "TYPE,..", "Of the cache: f32, f16, bf16, kv8, kv4, kivi2."),
    _value("--contexts", "4096", "N,..", "Tokens."),
    _count("--heads", 32, "Heads of queries."),
    _count("--kv-heads", 8, "Heads of keys and values."),
    _count("--d", 128, "Features of a head."),
    _count("--texts", 32, "Of phase shared."),
    _count("--suffix", 128, "Tokens of each text after the context, of phase shared."),
    _count("--threads", 1, "Threads."),
    _value("--peers", "torch,llama.cpp", "NAME,..", "torch, llama.cpp, or none."),
    *_shared(KERNEL_SCHEDULE.rounds)[2:],
]
attention_command = click.Command(
    "attention",
    params=_ATTENTION_PARAMETERS,
    callback=_attention,
    help="Measure attention under masks against torch and llama.cpp.",
)
_SPGEMM_PARAMETERS: list[click.Parameter] = [
    _value("--workloads", "all", "NAME,..", "Which; an unknown name lists them."),
    click.Option(
        ["--size"],
        type=click.Choice(["full", "small"]),
        default="full",
        show_default=True,
        help="Of the matrices.",
    ),
    click.Option(["--matrix-seed"], type=int, default=1, help="Of the matrices."),
    _value("--threads", "1", "N,..", "Numbers of threads."),
    _value("--peers", "scipy,mkl,graphblas,torch", "NAME,..", "Libraries, or none."),
    *_shared(SPARSE_ROUNDS)[2:],
]
spgemm_command = click.Command(
    "spgemm",
    params=_SPGEMM_PARAMETERS,
    callback=_spgemm,
    help="Measure products of sparse matrices against sparse libraries.",
)
bench = click.Group(
    "bench",
    commands=[attention_command, fpga_command, kernels_command, model_command, spgemm_command],
    help="Measure kernels, a model or circuits against what else there is, in turn.",
)
