"""`import nybble`: names that come when they are used."""

import subprocess
import sys

import pytest

import nybble


def test_all_names_are_there():
    for name in nybble.__all__:
        assert getattr(nybble, name) is not None
        assert name in dir(nybble)
    assert nybble.formats.get("q4_0").bits_per_weight == 4.5
    with pytest.raises(AttributeError, match="module 'nybble' has no attribute 'nothing'"):
        nybble.nothing  # noqa: B018


def test_import_and_formats_bring_in_no_torch():
    code = (
        "import sys, nybble\n"
        "assert not {'torch', 'numpy', 'xdsl'} & set(sys.modules)\n"
        "nybble.formats.get('q4_0')\n"
        "nybble.compile\n"
        "assert 'torch' not in sys.modules\n"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
