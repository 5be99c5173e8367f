"""Caches as Linux describes them, and what fits them."""

from nybble.tools.bench.machine import Cache, Host, describe_host, read_caches


def cache_folder(root, index, **fields):
    """One `index*` folder of a processor."""
    folder = root / f"index{index}"
    folder.mkdir()
    for name, value in fields.items():
        (folder / name).write_text(f"{value}\n")


def test_data_caches_nearest_first(tmp_path):
    cache_folder(tmp_path, 3, type="Unified", level=3, size="32M", shared_cpu_list="0-7")
    cache_folder(tmp_path, 0, type="Data", level=1, size="48K", shared_cpu_list="0")
    cache_folder(tmp_path, 1, type="Instruction", level=1, size="32K", shared_cpu_list="0")
    cache_folder(tmp_path, 2, type="Unified", level=2, size="2048K", shared_cpu_list="0")
    cache_folder(tmp_path, 4, type="Unified", level=4, size="odd", shared_cpu_list="0")
    cache_folder(tmp_path, 5, type="Unified")
    assert read_caches(tmp_path) == (
        Cache(1, 48 << 10, False),
        Cache(2, 2 << 20, False),
        Cache(3, 32 << 20, True),
    )


def test_no_folder_no_caches(tmp_path):
    assert read_caches(tmp_path / "none") == ()


def test_level_counts_the_private_caches_of_all_threads():
    caches = (Cache(1, 32 << 10, False), Cache(2, 2 << 20, False), Cache(3, 16 << 20, True))
    host = Host("cpu", 2, "v3", caches, "Linux", {})
    assert [host.level(3 << 20, threads) for threads in (1, 2)] == ["l3", "l2"]
    assert host.level(17 << 20, 2) == "dram"
    assert host.level(1000, 1) == "l1"


def test_this_host_has_a_name_and_processors():
    host = describe_host()
    assert host.cpu
    assert host.threads >= 1
    assert host.as_json()["isa"] == host.isa
