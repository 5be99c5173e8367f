"""Which number format each weight of a model shall have: `w2g128,head=q8_0,layers.0=w4g32`.

Rules are separated by commas. A bare format is for every matrix of the decoder's layers, and
`PATTERN=FORMAT` for the matrices with that pattern among the parts of their names: `down_proj`,
`layers.0`, `layers.*.mlp`, `layers.1[0-9]`, and `head` and `embed` for the two ends. The last rule
that names a matrix counts; the format `keep` leaves it as the checkpoint has it, and so does having
no rule.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats

KEEP = "keep"
LAYERS = "layers"
SHORT = {"head": "lm_head", "embed": "embed_tokens"}
_COMMA = re.compile(r",(?![^\[]*\])")
_RULE = re.compile(r"(?:([^=:]*)=)?(.*)", re.DOTALL)


class WeightRuleError(NybbleError):
    """A rule that cannot be read, or that names no weight."""


@dataclass(frozen=True)
class WeightRule:
    """Matrices with `pattern` among the parts of their names have format `spec`, or are kept."""

    pattern: str
    spec: str

    def names(self, tensor: str) -> bool:
        """Whether this rule is for a tensor."""
        return fnmatchcase(f".{tensor}.", f"*.{SHORT.get(self.pattern, self.pattern)}.*")


def parse_rules(text: str) -> tuple[WeightRule, ...]:
    """The rules of a spelling; WeightRuleError for one that cannot be read, FormatError for an
    unknown format."""
    return tuple(_parse_rule(part.strip()) for part in _COMMA.split(text))


def _parse_rule(part: str) -> WeightRule:
    found = _RULE.fullmatch(part)
    assert found is not None, "every part of it is optional"
    pattern, spec = found[1], found[2]
    if not spec or pattern == "":
        raise WeightRuleError(
            f"'{part[:60]}' is no rule for weights", accepted="FORMAT or PATTERN=FORMAT"
        )
    return WeightRule(pattern or LAYERS, spec if spec == KEEP else formats.get(spec).spec)


def spell(rules: Iterable[WeightRule]) -> str:
    """The canonical spelling, which reads back as the same rules."""
    return ",".join(f"{rule.pattern}={rule.spec}" for rule in rules)


def choose_formats(rules: Iterable[WeightRule], names: Iterable[str]) -> Mapping[str, str]:
    """Matrix -> its new format, for those that shall have one.

    names: the model's matrices. WeightRuleError for a rule that names none of them.
    """
    matrices = list(names)
    chosen: dict[str, str] = {}
    for rule in rules:
        named = [name for name in matrices if rule.names(name)]
        if not named:
            parts = sorted({part for name in matrices for part in name.split(".")[-2:-1]})
            raise WeightRuleError(
                f"no weight has '{rule.pattern}' in its name",
                accepted=f"{', '.join([*SHORT, LAYERS, *parts])}, with * and ? in them",
            )
        chosen |= dict.fromkeys(named, rule.spec)
    return {name: spec for name, spec in chosen.items() if spec != KEEP}
