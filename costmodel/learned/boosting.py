"""Gradient-boosted trees by LightGBM, as text that holds what a prediction needs and no more.

A model is never a pickle: what is read from a file is data. Trees are written with six digits, and
without the statistics of training that only further training would read.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nybble.dialects.errors import NybbleError

if TYPE_CHECKING:
    from lightgbm import Booster

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
GRADES = 15
"""The relevance of the best candidate of a workload; of others, that times best / seconds."""
_KEPT = re.compile(r"^(leaf_weight|internal_value|internal_weight|split_gain|shrinkage)=.*\n", re.M)
_SEEN = re.compile(r"^(leaf_count|internal_count)=.*\n", re.M)
_NAMES = re.compile(r"^feature_names=(.*)$", re.M)
_LONG = re.compile(r"^(threshold|leaf_value)=(.*)$", re.M)
_PARAMETERS = re.compile(r"\nparameters:.*?end of parameters\n", re.S)


class ModelFileError(NybbleError):
    """A model file that is damaged, or of another version."""


@dataclass(frozen=True)
class Growth:
    """How trees are grown. trees: how many; leaves: of each, at most; rate: of learning."""

    trees: int = 220
    leaves: int = 24
    rate: float = 0.09
    least: int = 8
    seed: int = 1

    def parameters(self, **more: object) -> dict[str, object]:
        """LightGBM's parameters; one thread, so that equal data give equal trees."""
        return {
            "learning_rate": self.rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.least,
            "feature_fraction": 0.6,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "verbose": -1,
            "num_threads": 1,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            **more,
        }


def regress(
    x: F64,
    y: F64,
    growth: Growth,
    names: Sequence[str],
    weights: F64 | None = None,
    without: Collection[str] = (),
) -> "Booster":
    """Trees that predict y by least absolute error. weights: of the rows. without: names of columns
    that they may not look at."""
    parameters = growth.parameters(
        objective="regression_l1",
        feature_contri=_allowed(names, without),
    )
    return _train(x, y, parameters, growth.trees, names, weights)


def count(x: F64, y: F64, growth: Growth, names: Sequence[str]) -> "Booster":
    """Trees that predict log(1 + y) by least squares, for counts."""
    return _train(x, np.log1p(y), growth.parameters(objective="regression"), growth.trees, names)


def order(
    x: F64,
    seconds: F64,
    sizes: Sequence[int],
    growth: Growth,
    names: Sequence[str],
    without: Collection[str] = (),
) -> "Booster":
    """Trees whose score is greater for faster candidates of a workload (LambdaMART).

    sizes: candidates of each workload, which lie one after the other. without: see `regress`.
    """
    import lightgbm

    grades = np.zeros(len(seconds), np.int32)
    start = 0
    for size in sizes:
        own = seconds[start : start + size]
        grades[start : start + size] = np.round(GRADES * own.min() / own)
        start += size
    parameters = growth.parameters(
        objective="lambdarank",
        label_gain=[2**i - 1 for i in range(GRADES + 1)],
        lambdarank_truncation_level=20,
        feature_contri=_allowed(names, without),
    )
    data = lightgbm.Dataset(x, grades, group=[*sizes], feature_name=[*names], free_raw_data=True)
    return lightgbm.train(parameters, data, growth.trees)


def _allowed(names: Sequence[str], without: Collection[str]) -> list[float]:
    """What a split by each column counts: nothing for those that may not be looked at."""
    return [0.0 if name in without else 1.0 for name in names]


def _train(
    x: F64,
    y: F64,
    parameters: dict[str, object],
    trees: int,
    names: Sequence[str],
    weights: F64 | None = None,
) -> "Booster":
    import lightgbm

    data = lightgbm.Dataset(x, y, weight=weights, feature_name=[*names], free_raw_data=True)
    return lightgbm.train(parameters, data, trees)


def slim(booster: "Booster", *, explained: bool = False) -> str:
    """A model as text, without what predictions do not read.

    explained: whether the shares of features in a prediction are asked for, which takes the rows
    that were seen at each place of a tree.
    """
    text = _PARAMETERS.sub("\n", _KEPT.sub("", booster.model_to_string()))
    text = text.partition("\nfeature_importances:")[0]
    text = re.sub(r"^tree_sizes=.*\n", "", text, flags=re.M)
    text = text if explained else _SEEN.sub("", text)
    text = _NAMES.sub(lambda found: "feature_names=" + _numbers(found[1]), text)
    return _LONG.sub(lambda found: f"{found[1]}={_rounded(found[2])}", text)


def _numbers(names: str) -> str:
    return " ".join(str(number) for number, _ in enumerate(names.split()))


def _rounded(numbers: str) -> str:
    return " ".join(f"{float(one):.6g}" for one in numbers.split())


def said(booster: "Booster", x: F64) -> F64:
    """What trees say of rows of features."""
    return np.asarray(booster.predict(x, num_threads=1), np.float64)


def grown(text: str) -> "Booster":
    """The model of a text; raises ModelFileError."""
    import lightgbm

    try:
        return lightgbm.Booster(model_str=text)
    except (lightgbm.basic.LightGBMError, ValueError, TypeError) as fault:
        raise ModelFileError(f"the trees of a model are damaged ({fault})") from fault
