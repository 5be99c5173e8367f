"""How formats of key-value caches are spelled.

    kv = "f32" | "f16" | "bf16" | "kvN" [ "(" PAGE ")" ] [ "-i8" ]
       | "kiviN" [ "(" GROUP [ "," RECENT [ "," PINNED ] ] ")" ] [ "-h" ] [ "-i8" ]
       | "gearN" [ "(" RANK [ "," OUTLIERS [ "," GROUP [ "," RECENT [ "," PINNED ] ] ] ] ")" ]
       | "lowrank" [ "(" RANK ")" ]


A number that is left out is one of the constants below, but for PINNED of `kiviN`: it is 0 where
there are others.
"""

import re
from dataclasses import replace
from functools import lru_cache

from nybble.dialects.sparse_attn.kv.errors import KvError
from nybble.dialects.sparse_attn.kv.format import PAGES, KvFormat

PAGE, GROUP, RECENT = 64, 32, 128
"""What is taken where a text names none: KIVI's own group and recent tokens."""
RANK, OUTLIERS = 4, 1
"""GEAR's own rank."""
KEY_RANK, MOST_RANK = 24, 64
PINNED = 64
"""First tokens that are kept as they are where a text names a family of KIVI alone."""
SPREAD = {8: 1.0, 4: 1.0, 2: 0.8}
"""What the ranges of KIVI's keys are multiplied by.

Four levels over all of a group's range are too far apart:
of 32 normally distributed numbers the extremes lie at 2.07 deviations, while the outer levels of
least squared error lie at 1.49 (Max, Quantizing for minimum distortion, 1960). Groups of keys that
are not normally distributed want more of their range than that."""
TURNED_SPREAD = SPREAD | {2: 0.95}
"""The same of keys that a Hadamard transform turned, and so are nearer to normally distributed."""
MOST_RECENT = 1 << 20
TURNED, INTEGERS = "-h", "-i8"
EXACT = ("f32", "f16", "bf16")
LATER = {
    "mla": "one latent of all heads (multi-head latent attention, arXiv:2405.04434)",
    "shared": "the cache of another layer (depth sharing, arXiv:2405.12981)",
}
"""Families that the spelling is reserved for; nothing computes them yet."""
NAMES = (
    "f32, f16, bf16, kv8, kv4, kv2, kvN(page), kivi4, kivi2, kiviN(group,recent,pinned); kvN-i8, "
    "kiviN-h, kiviN-i8, kiviN-h-i8; gear4, gear2, gearN(rank,outliers,group,recent,pinned); "
    "lowrank, lowrank(rank)"
)
_TEXT = re.compile(r"([a-z]+)([0-9]*)(?:\(([0-9, ]+)\))?(-h)?(-i8)?")


@lru_cache(maxsize=64)
def parse(text: str) -> KvFormat:
    """The format that a text spells; raises KvError."""
    found = _TEXT.fullmatch(text.strip())
    name = f"{found[1]}{found[2]}" if found else text
    if found is None:
        raise KvError(f"unknown format of a cache '{text[:60]}'", accepted=NAMES)
    if found[5]:
        return _with_integers(parse(text.strip().removesuffix(INTEGERS)))
    if found[4]:
        return _turned(parse(text.strip().removesuffix(TURNED)))
    if name in EXACT and found[3] is None:
        return KvFormat(name, (name, name), exact=name)
    if found[1] in LATER:
        raise KvError(f"no kernel computes '{text[:60]}', {LATER[found[1]]}", accepted=NAMES)
    numbers = tuple(int(one) for one in found[3].split(",") if one.strip()) if found[3] else ()
    match found[1], found[2]:
        case "kv", "8" | "4" | "2":
            return _paged(name, int(found[2]), numbers)
        case "kivi", "4" | "2":
            return _kivi(name, int(found[2]), numbers)
        case "gear", "4" | "2":
            return _gear(name, int(found[2]), numbers)
        case "lowrank", "":
            return _low_rank(name, numbers)
        case _:
            raise KvError(f"unknown format of a cache '{text[:60]}'", accepted=NAMES)


def _with_integers(kv: KvFormat) -> KvFormat:
    if not kv.is_coded:
        raise KvError(f"{kv} has no codes to multiply as integers", accepted="kvN-i8, kiviN-i8")
    if kv.rank or kv.outliers:
        raise KvError(f"{kv} adds to its codes and is read as floats", accepted="kvN-i8, kiviN-i8")
    return replace(kv, name=f"{kv.name}{INTEGERS}", integers=True)


def _turned(kv: KvFormat) -> KvFormat:
    if not kv.name.startswith("kivi"):
        raise KvError(f"keys of {kv} are not turned", accepted="kiviN-h, kiviN-h-i8")
    return replace(kv, name=f"{kv.name}{TURNED}", turned=True, spread=TURNED_SPREAD[kv.bits])


def _paged(name: str, bits: int, numbers: tuple[int, ...]) -> KvFormat:
    (page,) = _numbers(name, numbers, (PAGE,))
    _check_page(name, page, "a page")
    spelled = name if page == PAGE else f"{name}({page})"
    return KvFormat(spelled, (_codes(bits, f"{page}.rows"), _codes(bits, "row")), page)


def _kivi(name: str, bits: int, numbers: tuple[int, ...]) -> KvFormat:
    group, recent, pinned = _numbers(name, numbers, (GROUP, RECENT, 0 if numbers else PINNED))
    page = max(PAGE, group)
    _check_page(name, group, "a group")
    if recent % group or recent > MOST_RECENT:
        raise KvError(
            f"{recent} recent tokens of {name} with groups of {group}",
            accepted=f"a multiple of {group}",
        )
    if pinned % page or pinned > MOST_RECENT:
        raise KvError(
            f"{pinned} pinned tokens of {name} with pages of {page}",
            accepted=f"a multiple of {page}",
        )
    spelled = f"{name}({group},{recent}{f',{pinned}' if pinned else ''})"
    if (group, recent, pinned) == (GROUP, RECENT, PINNED):
        spelled = name
    specs = _codes(bits, f"{group}.rows"), _codes(bits, str(group))
    return KvFormat(spelled, specs, page, recent, pinned=pinned, spread=SPREAD[bits])


def _gear(name: str, bits: int, numbers: tuple[int, ...]) -> KvFormat:
    rank, outliers, *_ = _numbers(name, numbers[:2], (RANK, OUTLIERS))
    _check_rank(name, rank, 0 if outliers else 1)
    if outliers not in (0, 1):
        raise KvError(f"{outliers} outliers at each end of a line in {name}", accepted="0 or 1")
    kivi = _kivi(name, bits, numbers[2:])
    shown = [rank, outliers]
    if kivi.name != name:
        shown += [kivi.key_group, kivi.recent, *([kivi.pinned] if kivi.pinned else [])]
    elif outliers == OUTLIERS:
        shown = [] if rank == RANK else [rank]
    spelled = f"{name}({','.join(map(str, shown))})" if shown else name
    return replace(kivi, name=spelled, rank=rank, outliers=outliers)


def _low_rank(name: str, numbers: tuple[int, ...]) -> KvFormat:
    (rank,) = _numbers(name, numbers, (KEY_RANK,))
    _check_rank(name, rank, 1)
    spelled = name if rank == KEY_RANK else f"{name}({rank})"
    return KvFormat(spelled, ("f16", _codes(8, "row")), PAGE, rank=rank)


def _check_rank(name: str, rank: int, least: int) -> None:
    if not least <= rank <= MOST_RANK:
        raise KvError(f"a rank of {rank} in {name}", accepted=f"{least} to {MOST_RANK}")


def _codes(bits: int, grouping: str) -> str:
    return f"u{bits}:g={grouping}:s=f16:z=min.f16"


def _numbers(name: str, given: tuple[int, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    if len(given) > len(default):
        raise KvError(f"{name} of {len(given)} numbers", accepted=f"at most {len(default)}")
    return (*given, *default[len(given) :])


def _check_page(name: str, size: int, what: str) -> None:
    if size not in PAGES:
        said = ", ".join(map(str, PAGES))
        raise KvError(f"{what} of {size} in {name}", accepted=f"{what} of {said} tokens")
