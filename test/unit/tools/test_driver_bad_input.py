"""Every kind of bad input to nybble ends in one short diagnostic and the right exit code."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nybble.tools.diagnostics import EXIT_INPUT, EXIT_USAGE, MAX_LINES

# ---- model files and folders: name -> function (path to write, folder of a good model, writer)


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf(tensors=0, pairs=0, body=b"", magic=b"GGUF", version=3):
    return magic + struct.pack("<IQQ", version, tensors, pairs) + body


ARCHITECTURE = text(b"general.architecture") + struct.pack("<I", 8)
FILES = {
    "empty": b"",
    "random": bytes(range(7, 200)),
    "header-alone": b"GGUF\x03\0\0\0",
    "magic": gguf(magic=b"GGML"),
    "version": gguf(version=9),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "tensor-count": gguf(tensors=(1 << 63) - 1),
    "pair-count": gguf(pairs=(1 << 64) - 1),
    "key-length": gguf(pairs=1, body=struct.pack("<Q", 1 << 62) + bytes(64)),
    "value-type": gguf(pairs=1, body=text(b"a") + struct.pack("<I", 99) + bytes(64)),
    "array-count": gguf(
        pairs=1, body=text(b"a") + struct.pack("<IIQ", 9, 4, (1 << 61) + 1) + bytes(64)
    ),
    "nested-arrays": gguf(
        pairs=1, body=text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000
    ),
    "no-architecture": gguf(),
    "bert": gguf(pairs=1, body=ARCHITECTURE + text(b"bert")),
    "not-utf8": gguf(pairs=1, body=ARCHITECTURE + text(b"\xff\xfe")),
}


def with_weight(name, values):
    def write(folder, tiny, write_tiny):
        import safetensors.numpy

        weights = safetensors.numpy.load_file(tiny / "model.safetensors")
        if values is None:
            del weights[name]
        else:
            weights[name] = values
        return write_tiny(folder, weights)

    return write


def with_config(**entries):
    return lambda folder, tiny, write_tiny: write_tiny(folder, **entries)


def with_file(name, data):
    """A copy of the good model with one file replaced, or removed for None."""

    def write(folder, tiny, write_tiny):
        shutil.copytree(tiny, folder)
        (folder / name).unlink()
        if data is not None:
            (folder / name).write_bytes(data)
        return folder

    return write


FOLDERS = {
    "no-config": with_file("config.json", None),
    "config-json": with_file("config.json", b'{"model_type": '),
    "no-weights": with_file("model.safetensors", None),
    "cut-weights": with_file("model.safetensors", b"\x10\0\0\0\0\0\0\0{"),
    "no-tokenizer": with_file("tokenizer.json", None),
    "tokenizer": with_file("tokenizer.json", b"[]"),
    "architecture": with_config(model_type="bert"),
    "activation": with_config(hidden_act="relu"),
    "rope": with_config(rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
    "heads": with_config(num_attention_heads=5),
    "shape": with_weight("model.norm.weight", np.ones(63, np.float32)),
    "dtype": with_weight("model.norm.weight", np.ones(64, np.int64)),
    "missing": with_weight("model.norm.weight", None),
    "extra": with_weight("model.bogus.weight", np.ones(4, np.float32)),
}

# name of a model above -> part of the message
MODELS = {
    "empty": "is empty",
    "random": "GGUF",
    "header-alone": "truncated?",
    "magic": "GGML",
    "version": "9",
    "big-endian": "big-endian",
    "tensor-count": "9223372036854775807",
    "pair-count": "18446744073709551615",
    "key-length": "4611686018427387904",
    "value-type": "99",
    "array-count": "2305843009213693953",
    "nested-arrays": "array",
    "no-architecture": "general.architecture",
    "bert": "'bert'",
    "not-utf8": "UTF-8",
    "no-config": "config.json",
    "config-json": "config.json",
    "no-weights": "model.safetensors",
    "cut-weights": "model.safetensors",
    "no-tokenizer": "tokenizer.json",
    "tokenizer": "tokenizer",
    "architecture": "'bert'",
    "activation": "relu",
    "rope": "dynamic",
    "heads": "5",
    "shape": "63",
    "dtype": "i64",
    "missing": "model.norm.weight",
    "extra": "model.bogus.weight",
}

# ---- compiled models: name -> (file, what to do to its bytes), and part of the message

DAMAGE = {
    "manifest cut": ("manifest.json", lambda data: data[: len(data) // 2], "manifest.json"),
    "manifest changed": (
        "manifest.json",
        lambda data: data.replace(b'"chunk":', b'"chunk": 1'),
        "damaged",
    ),
    "manifest format": (
        "manifest.json",
        lambda data: data.replace(b'"format":1', b'"format":7'),
        "format 7",
    ),
    "manifest binary": ("manifest.json", lambda data: b"\xff\xfe\0", "damaged"),
    "manifest deep": ("manifest.json", lambda data: b"[" * 100_000, "damaged"),
    "weights cut": ("weights.bin", lambda data: data[:-64], "weights.bin"),
    "weights changed": ("weights.bin", lambda data: bytes([data[0] ^ 1]) + data[1:], "damaged"),
    "weights gone": ("weights.bin", None, "weights.bin"),
    "kernels cut": ("kernels.a", lambda data: data[:100], "kernels.a"),
    "kernels changed": ("kernels.a", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged"),
    "kernels gone": ("kernels.a", None, "kernels.a"),
}

# ---- MLIR: name -> (text on standard input, arguments after `run -`, place, part of the message)

ONE = """func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "{}">) -> tensor<?x8xf32> {{
  %y = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "{}"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}}
"""
GOOD = ONE.format("q4_0", "q4_0")
PAIRS = "u4:g=2:s=f16"
"""A format whose groups are too short for any dataflow."""
ROPE = """func.func @f(%x: tensor<?x32xf32>, %c: tensor<16x16xf32>, %s: tensor<16x16xf32>,
    %p: index) -> tensor<?x32xf32> {
  %y = fused.rope %x, %c, %s at %p : tensor<?x32xf32>, tensor<16x16xf32> -> tensor<?x32xf32>
  func.return %y : tensor<?x32xf32>
}
"""
IDENTITY = "func.func @f(%x: {0}) -> {0} {{ func.return %x : {0} }}"
MLIR = {
    "empty": ("", [], "<stdin>:1:1", "holds no operation"),
    "malformed": ("func.func @f( {", [], "<stdin>:1:15", "Expected argument"),
    "unterminated string": ('"abc', [], "<stdin>:1:1", "unterminated string"),
    "deep": ("(" * 5000, [], "<stdin>:1:101", "nested more than"),
    "unknown operation": ('"no.such"() : () -> ()', [], "<stdin>:1:2", "no.such"),
    "shapes": (GOOD.replace("8x64", "8x32"), [], "<stdin>:2:3", "columns"),
    "group": (GOOD.replace("x64", "x60"), [], "<stdin>:1:", "60 columns"),
    "unknown format": (ONE.format("q4_9", "q4_9"), [], "<stdin>:1:", "unknown format 'q4_9'"),
    "unsupported format": (ONE.format(PAIRS, PAIRS), [], "<stdin>:2:3", f"'{PAIRS}'"),
    "wrong stage": (
        "func.func @f(%x: f32) -> f32 {\n  %y = math.absf %x : f32\n  func.return %y : f32\n}",
        [],
        "<stdin>:2:3",
        "may not exist in stage 'operators'",
    ),
    "no function": ("builtin.module {}", [], "nybble", "no function"),
    "two functions": (GOOD + GOOD.replace("@f", "@g"), [], "nybble", "2 functions"),
    "unknown function": (GOOD, ["--function", "g"], "nybble", "no function 'g'"),
    "no result": ("func.func @f() { func.return }", [], "<stdin>:1:1", "returns nothing"),
    "argument type": (
        IDENTITY.format("tensor<4xi1>"),
        [],
        "<stdin>:1:1",
        "no random value for an argument of type tensor<4xi1>",
    ),
    "call": (
        GOOD + "func.func @g() { func.call @h() : () -> () func.return }\nfunc.func @h() { "
        "func.return }",
        ["--function", "g"],
        "<stdin>:5:1",
        "returns nothing",
    ),
    "position": (ROPE, ["--position", "16"], "nybble", "outside a context of 16"),
    "ids for a file": (GOOD, ["--ids", "1"], "nybble", "--ids"),
}

# ---- command lines: name -> (arguments, exit code, part of the message). {tiny} is the folder of a
# model, {art} its artifact, {work} a folder with a file `file`, a folder `full` and files to read.

BACKWARDS = ["--compile-from", "scheduled", "--compile-to", "operators"]
COMMANDS = {
    "unknown verb": (["frobnicate"], EXIT_USAGE, "frobnicate"),
    "unknown option": (["--frobnicate"], EXIT_USAGE, "--frobnicate"),
    "unknown option of a verb": (["doctor", "--frobnicate"], EXIT_USAGE, "--frobnicate"),
    "extra argument": (["formats", "more"], EXIT_USAGE, "more"),
    "no model": (["generate", "-p", "w1"], EXIT_USAGE, "MODEL"),
    "no prompt": (["generate", "{tiny}"], EXIT_USAGE, "--prompt"),
    "absent model": (["generate", "{work}/none", "-p", "w1"], EXIT_INPUT, "No such file"),
    "model name with a NUL": (["generate", "a\0b", "-p", "w1"], EXIT_INPUT, "a\\x00b"),
    "endless model name": (["generate", "a" * 5000, "-p", "w1"], EXIT_INPUT, "File name too"),
    "model is a device": (["generate", "/dev/null", "-p", "w1"], EXIT_INPUT, "/dev/null"),
    "empty prompt": (["generate", "{tiny}", "-p", ""], EXIT_INPUT, "empty"),
    "prompt of blanks": (["generate", "{tiny}", "-p", " "], EXIT_INPUT, "no tokens"),
    "long prompt": (["generate", "{tiny}", "-p", "w1 " * 129], EXIT_INPUT, "129 tokens"),
    "long prompt for context": (
        ["generate", "{tiny}", "-p", "w1 " * 17, "--context", "16"],
        EXIT_INPUT,
        "17 tokens",
    ),
    "prompt not Unicode": (["generate", "{tiny}", "-p", "\udcff"], EXIT_INPUT, "surrogate"),
    "tokens not a number": (
        ["generate", "{tiny}", "-p", "w1", "--max-tokens", "many"],
        EXIT_USAGE,
        "many",
    ),
    "negative tokens": (["generate", "{tiny}", "-p", "w1", "--max-tokens", "-1"], EXIT_USAGE, "-1"),
    "negative temperature": (
        ["generate", "{tiny}", "-p", "w1", "--temperature", "-1"],
        EXIT_INPUT,
        "temperature -1",
    ),
    "temperature is no number": (
        ["generate", "{tiny}", "-p", "w1", "--temperature", "nan"],
        EXIT_INPUT,
        "temperature nan",
    ),
    "top-p": (["generate", "{tiny}", "-p", "w1", "--top-p", "0"], EXIT_INPUT, "top_p 0"),
    "top-k": (["generate", "{tiny}", "-p", "w1", "--top-k", "-2"], EXIT_INPUT, "top_k -2"),
    "seed": (["generate", "{tiny}", "-p", "w1", "--seed", "-1"], EXIT_INPUT, "seed -1"),
    "context of one": (["generate", "{tiny}", "-p", "w1", "--context", "1"], EXIT_USAGE, "--cont"),
    "context beyond the model": (
        ["generate", "{tiny}", "-p", "w1", "--context", "4096"],
        EXIT_INPUT,
        "context of 4096",
    ),
    "no threads": (["generate", "{tiny}", "-p", "w1", "--threads", "0"], EXIT_USAGE, "--threads"),
    "unknown level": (["generate", "{tiny}", "-p", "w1", "--isa", "z80"], EXIT_USAGE, "z80"),
    "level of another machine": (
        ["generate", "{tiny}", "-p", "w1", "--isa", "aarch64-neon"],
        EXIT_INPUT,
        "asimd",
    ),
    "unknown activations": (
        ["generate", "{tiny}", "-p", "w1", "--activations", "i4"],
        EXIT_USAGE,
        "i4",
    ),
    "unknown cache type": (["generate", "{tiny}", "-p", "w1", "--kv", "q4"], EXIT_USAGE, "q4"),
    "artifact in another mode": (
        ["generate", "{art}", "-p", "w1", "--activations", "f32"],
        EXIT_INPUT,
        "compiled with activations i8",
    ),
    "artifact with another context": (
        ["generate", "{art}", "-p", "w1", "--context", "64"],
        EXIT_INPUT,
        "compiled with context 128",
    ),
    "artifact on more threads": (
        ["generate", "{art}", "-p", "w1", "--threads", "64"],
        EXIT_INPUT,
        "64 threads",
    ),
    "report in no folder": (
        ["generate", "{art}", "-p", "w1", "--max-tokens", "1", "--json", "{work}/no/x.json"],
        EXIT_INPUT,
        "No such file",
    ),
    "report is a folder": (
        ["generate", "{art}", "-p", "w1", "--max-tokens", "1", "--json", "{work}"],
        EXIT_INPUT,
        "directory",
    ),
    "no output": (["compile", "{tiny}"], EXIT_USAGE, "--output"),
    "output is a file": (["compile", "{tiny}", "-o", "{work}/file"], EXIT_INPUT, "is a file"),
    "output below a file": (["compile", "{tiny}", "-o", "{work}/file/x"], EXIT_INPUT, "file"),
    "output holds other files": (
        ["compile", "{tiny}", "-o", "{work}/full"],
        EXIT_INPUT,
        "other files",
    ),
    "output cannot be made": (["compile", "{tiny}", "-o", "/proc/x/y"], EXIT_INPUT, "/proc/x/y"),
    "stages hold other files": (
        ["compile", "{tiny}", "-o", "{work}/out", "--dump-stages", "{work}/full"],
        EXIT_INPUT,
        "other files",
    ),
    "unknown target": (
        ["compile", "{tiny}", "-o", "{work}/o", "--target", "tpu"],
        EXIT_USAGE,
        "tpu",
    ),
    "floats of a GPU for a CPU": (
        ["compile", "{tiny}", "-o", "{work}/o", "--activations", "bf16"],
        EXIT_USAGE,
        "--activations bf16 without a target cuda",
    ),
    "floats of a GPU for a run": (
        ["run", "{work}/good.mlir", "--activations", "f16"],
        EXIT_USAGE,
        "--activations f16 without a target cuda",
    ),
    "isa for a GPU": (
        ["compile", "{tiny}", "-o", "{work}/o", "--target", "cuda", "--isa", "x86-64-v3"],
        EXIT_USAGE,
        "--isa with target cuda:sm_90a",
    ),
    "unknown architecture": (
        ["compile", "{work}/good.mlir", "-o", "{work}/o", "--target", "cuda:sm_70"],
        EXIT_USAGE,
        "cuda:sm_120a",
    ),
    "stage of a GPU": (
        [
            "compile",
            "{work}/good.mlir",
            "-o",
            "{work}/o",
            "--target",
            "cuda",
            "--compile-to",
            "lowered",
        ],
        EXIT_USAGE,
        "stage 'lowered' of target cuda:sm_90a",
    ),
    "option of a CPU for a GPU": (
        [
            "compile",
            "{work}/good.mlir",
            "-o",
            "{work}/o",
            "--target",
            "cuda",
            "--activations",
            "i16",
        ],
        EXIT_USAGE,
        "--activations i16 with target cuda:sm_90a",
    ),
    "model explained for a GPU": (
        ["explain", "{tiny}", "--target", "cuda"],
        EXIT_INPUT,
        "unknown target 'cuda'",
    ),
    "unknown stage": (
        ["compile", "{work}/good.mlir", "-o", "{work}/o", "--compile-to", "soup"],
        EXIT_USAGE,
        "soup",
    ),
    "stages backwards": (
        ["compile", "{work}/good.mlir", "-o", "{work}/o", *BACKWARDS],
        EXIT_USAGE,
        "does not come after",
    ),
    "model from a stage": (
        ["compile", "{tiny}", "-o", "{work}/o", "--compile-to", "fused"],
        EXIT_USAGE,
        "MLIR file",
    ),
    "file not at its stage": (
        ["compile", "{work}/good.mlir", "-o", "{work}/o", "--compile-from", "scheduled"],
        EXIT_INPUT,
        "good.mlir:2:3",
    ),
    "file that cannot be lowered": (
        ["compile", "{work}/pairs.mlir", "-o", "{work}/o"],
        EXIT_INPUT,
        "pairs.mlir:2:3",
    ),
    "absent file": (["compile", "{work}/none.mlir", "-o", "{work}/o"], EXIT_INPUT, "No such file"),
    "binary file": (["compile", "{work}/binary.mlir", "-o", "{work}/o"], EXIT_INPUT, "0xff"),
    "nothing to run": (["run", "{work}"], EXIT_INPUT, "cannot run"),
    "absent thing to run": (["run", "{work}/none"], EXIT_INPUT, "cannot run"),
    "absent file to run": (["run", "{work}/none.mlir"], EXIT_INPUT, "No such file"),
    "ids": (["run", "{art}", "--ids", "1,two"], EXIT_INPUT, "1,two"),
    "no ids": (["run", "{art}", "--ids", ""], EXIT_INPUT, "list of token ids"),
    "id too big": (["run", "{art}", "--ids", "1,64"], EXIT_INPUT, "token id 64"),
    "negative id": (["run", "{art}", "--ids=-1"], EXIT_INPUT, "token id -1"),
    "huge id": (["run", "{art}", "--ids", "9" * 30], EXIT_INPUT, "9999"),
    "too many tokens": (["run", "{art}", "--tokens", "129"], EXIT_INPUT, "129 tokens"),
    "no rows": (["run", "{art}", "--tokens", "0"], EXIT_USAGE, "--tokens"),
    "function of a model": (["run", "{art}", "--function", "f"], EXIT_USAGE, "--function"),
    "run on more threads": (["run", "{art}", "--threads", "64"], EXIT_INPUT, "64 threads"),
    "no text": (["eval", "{tiny}"], EXIT_USAGE, "--text"),
    "absent text": (["eval", "{tiny}", "--text", "{work}/none"], EXIT_INPUT, "No such file"),
    "text is a folder": (["eval", "{tiny}", "--text", "{work}"], EXIT_INPUT, "directory"),
    "text not UTF-8": (["eval", "{tiny}", "--text", "{work}/binary.mlir"], EXIT_INPUT, "0xff"),
    "short text": (
        ["eval", "{tiny}", "--text", "{work}/words", "--window", "16"],
        EXIT_INPUT,
        "the text has 8 tokens",
    ),
    "window beyond the context": (
        ["eval", "{tiny}", "--text", "{work}/words"],
        EXIT_INPUT,
        "window of 512",
    ),
    "window of three": (
        ["eval", "{tiny}", "--text", "{work}/words", "--window", "3"],
        EXIT_USAGE,
        "--window",
    ),
    "explain nothing": (["explain"], EXIT_USAGE, "MODEL or --op"),
    "explain two things": (["explain", "{tiny}", "--op", "mpgemm.matmul"], EXIT_USAGE, "either"),
    "unknown operator": (["explain", "--op", "mpgemm.lut"], EXIT_USAGE, "mpgemm.lut"),
    "unknown format": (
        ["explain", "--op", "mpgemm.matmul", "--format", "q4_9"],
        EXIT_USAGE,
        "'q4_9'",
    ),
    "malformed shape": (
        ["explain", "--op", "mpgemm.matmul", "--shape", "64"],
        EXIT_USAGE,
        "'64' is no shape",
    ),
    "shape of nothing": (
        ["explain", "--op", "mpgemm.matmul", "--shape", "0x64"],
        EXIT_USAGE,
        "'0x64' is no shape",
    ),
    "explain an artifact": (["explain", "{art}"], EXIT_INPUT, "holds no IR"),
    "cache without a verb": (["cache"], EXIT_USAGE, "Missing command"),
    "unknown verb of cache": (["cache", "burn"], EXIT_USAGE, "burn"),
    "formats into no folder": (["formats", "--json", "{work}/no/f"], EXIT_INPUT, "No such file"),
    "unknown benchmark": (["bench", "frobnicate"], EXIT_USAGE, "frobnicate"),
}


@pytest.fixture
def work(tmp_path):
    """A folder of files to read, and one full of other things."""
    folder = tmp_path / "work"
    (folder / "full").mkdir(parents=True)
    files = {
        "file": b"",
        "full/other": b"",
        "words": b"w1 w2 w3 w4 w5 w6 w7 w8",
        "good.mlir": GOOD.encode(),
        "pairs.mlir": ONE.format(PAIRS, PAIRS).encode(),
        "binary.mlir": b"\xff\xfe\0",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def clean(work):
    """Fails a test that leaves anything new behind in `work`."""
    before = sorted(work.rglob("*"))
    yield
    assert sorted(work.rglob("*")) == before


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("case", COMMANDS)
def test_command(case, run_nybble, work, tiny, request):
    arguments, code, message = COMMANDS[case]
    places = {"work": str(work), "tiny": str(tiny)}
    if any("{art}" in item for item in arguments):
        places["art"] = str(request.getfixturevalue("artifact"))
    filled = [fill(item, places) for item in arguments]
    check(lambda: run_nybble(*filled), code, message)


def fill(item, places):
    for name, value in places.items():
        item = item.replace("{" + name + "}", value)
    return item


@pytest.mark.parametrize("case", MODELS)
def test_model(case, run_nybble, tmp_path, tiny, write_tiny):
    path = tmp_path / "model"
    if case in FILES:
        path.write_bytes(FILES[case])
    else:
        FOLDERS[case](path, tiny, write_tiny)
    outcome = check(lambda: run_nybble("generate", str(path), "-p", "w1"), EXIT_INPUT, MODELS[case])
    assert str(path) in outcome.err


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_artifact(case, run_nybble, tmp_path, artifact):
    name, change, message = DAMAGE[case]
    folder = tmp_path / "artifact"
    shutil.copytree(artifact, folder)
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if change is not None:
        assert change(data) != data
        (folder / name).write_bytes(change(data))
    check(lambda: run_nybble("run", str(folder)), EXIT_INPUT, message)


@pytest.mark.parametrize("case", MLIR)
def test_mlir(case, run_nybble):
    source, options, place, message = MLIR[case]
    code = EXIT_USAGE if "--ids" in options else EXIT_INPUT
    outcome = check(lambda: run_nybble("run", "-", *options, stdin=source.encode()), code, message)
    assert re.match(rf"{re.escape(place)}.*: error: ", outcome.err), outcome.err


def check(run, code, message):
    """Run it: one short diagnostic with `message` in it, nothing else printed, soon over."""
    begun = time.perf_counter()
    outcome = run()
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert message in outcome.err
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) < 600
    assert sum(": error: " in line for line in lines) == 1
    assert "Traceback" not in outcome.err
    assert "internal error" not in outcome.err
    # Not a timing test: this bound is a promise that a hang or a compilation would break.
    assert time.perf_counter() - begun < 20
    return outcome


@pytest.mark.parametrize("place", ["/dev/null/cache", "/proc/none/cache"])
@pytest.mark.parametrize("verb", [["generate", "{tiny}", "-p", "w1"], ["cache", "clear"]])
def test_cache_that_cannot_be_written(place, verb, run_nybble, tiny, monkeypatch):
    monkeypatch.setenv("NYBBLE_CACHE", place)
    arguments = [item.replace("{tiny}", str(tiny)) for item in verb]
    check(lambda: run_nybble(*arguments), EXIT_INPUT, "set NYBBLE_CACHE to a directory")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["generate", "no-such-model", "-p", "x"], EXIT_INPUT, "no-such-model"),
        (["frobnicate"], EXIT_USAGE, "frobnicate"),
        (["run", "-"], EXIT_INPUT, "<stdin>:1:15: error: "),
    ],
)
def test_the_installed_program(arguments, code, message, tmp_path):
    program = Path(sys.executable).with_name("nybble")
    ran = subprocess.run(
        [program, *arguments],
        input="func.func @f( {",
        capture_output=True,
        text=True,
        env=os.environ | {"NYBBLE_CACHE": str(tmp_path)},
        cwd=tmp_path,
    )
    assert ran.returncode == code
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_there_are_enough_cases():
    assert len(COMMANDS) + len(MODELS) + len(DAMAGE) + len(MLIR) >= 60
    assert json.dumps(sorted(MODELS)) == json.dumps(sorted({**FILES, **FOLDERS}))
