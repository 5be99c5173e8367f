"""Layers whose caches keep a number of tokens: what a policy makes of each, and their arguments."""

from collections.abc import Sequence
from dataclasses import dataclass

from nybble.dialects.sparse_attn.kv import KvError
from nybble.dialects.sparse_attn.masks import Mask, MaskError, Selected
from nybble.dialects.sparse_attn.retain import ACCUMULATED, LAST, LEARNED
from nybble.frontend.graph import Argument, Role
from nybble.frontend.scorers import scorer_sources
from nybble.passes.quantize_cache import TENSORS
from nybble.passes.retain_tokens import RetainTokens

SCORE_OF = {"heavy": ACCUMULATED, "alisa": LAST, "windowkv": LAST, "locret": LEARNED}
"""Selections that evict what they do not select -> by what score they do."""
SLOTS = 16
"""Tokens that are kept are a multiple of this."""
MASS = "mass"
MOVES = "moves"


@dataclass(frozen=True)
class Variant:
    """What is made of the attention of a layer.

    follows: whether it looks at the tokens that another layer chose.
    """

    mask: Mask
    follows: bool = False


def evicts(mask: Mask) -> bool:
    """Whether a layer with this mask keeps a number of tokens alone."""
    return isinstance(mask, Selected) and mask.name in SCORE_OF


def variants(masks: Sequence[Mask]) -> list[Variant]:
    """Of the masks of all layers: the first of a group chooses for the others with its mask."""
    found: list[Variant] = []
    for layer, mask in enumerate(masks):
        group = mask.layers if isinstance(mask, Selected) and evicts(mask) else 1
        before = masks[layer // group * group : layer]
        found.append(Variant(mask, mask in before))
    return found


def check_retaining(mask: Selected, kv: str, hidden: int) -> None:
    """Raise MaskError for a mask that no layer can have, KvError for a cache that cannot evict.

    hidden: features of the learned scorer, 0 without one.
    """
    choice = pass_of("", Variant(mask), hidden)
    slots = choice.budget + choice.recent
    if slots % SLOTS:
        raise MaskError(f"{mask} keeps {slots} tokens", accepted=f"a multiple of {SLOTS}")
    if choice.recent < choice.size:
        raise MaskError(
            f"{mask} has runs of {choice.size} tokens and {choice.recent} recent ones",
            accepted=f"{choice.size} recent tokens or more",
        )
    if choice.by == LEARNED and not hidden:
        raise MaskError(
            f"{mask} goes by scores of learned heads, and there is no file of these",
            accepted="--retaining FILE, or heavy(..), alisa(..), windowkv(..)",
        )
    if kv not in TENSORS:
        raise KvError(f"a cache of {kv} cannot evict, as {mask} does", accepted=", ".join(TENSORS))


def pass_of(function: str, variant: Variant, hidden: int) -> RetainTokens:
    """The pass that makes a function evict as its variant says."""
    mask = variant.mask
    assert isinstance(mask, Selected)
    by = SCORE_OF[mask.name]
    learned = hidden if by == LEARNED else 0
    budget = (mask.count or 0) * mask.size
    return RetainTokens(
        function, budget, mask.recent, "" if variant.follows else by, mask.size, learned
    )


def arguments_of(variant: Variant, index: int) -> tuple[Argument, ...]:
    """What the pass gives a function as further arguments.

    index: tells its mask from others of the model, with which it shares no state.
    """
    mask = variant.mask
    assert isinstance(mask, Selected)
    moves = Argument(f"{MOVES}_{index}", Role.STATE, shared=mask.layers)
    if variant.follows:
        return (moves,)
    is_learned = SCORE_OF[mask.name] == LEARNED
    weights = scorer_sources() if is_learned else {}
    scorer = (Argument(name, Role.WEIGHT, source) for name, source in weights.items())
    return (*scorer, Argument(f"{MASS}_{index}", Role.STATE), moves)
