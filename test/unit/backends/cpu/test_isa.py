"""Instruction-set levels: detection from flags, and a source for every fact."""

from dataclasses import fields

import pytest

from nybble.backends.cpu.isa import BASELINE, LEVELS, detect, get
from nybble.dialects.errors import UnknownNameError


@pytest.mark.parametrize("isa", LEVELS.values(), ids=lambda isa: isa.name)
def test_every_fact_has_a_source(isa):
    facts = {field.name for field in fields(isa)} - {"name", "sources"}
    assert set(isa.sources) == facts
    assert all(isa.sources.values())


@pytest.mark.parametrize("isa", LEVELS.values(), ids=lambda isa: isa.name)
def test_detects_exactly_what_it_needs(isa):
    assert detect(isa.needs) == isa
    assert detect(isa.needs | {"unheard_of"}) == isa
    for flag in isa.needs:
        assert detect(isa.needs - {flag}) != isa or isa == BASELINE


def test_no_flags_give_the_baseline():
    assert detect(frozenset()) == BASELINE


def test_names():
    assert get("amx").tiles
    with pytest.raises(UnknownNameError, match=r"unknown instruction-set level 'avx9'.*x86-64-v3"):
        get("avx9")
