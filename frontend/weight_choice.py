"""What shall become of a model's weights between its checkpoint and its artifact."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightChoice:
    """formats: rules of `frontend.weight_rules`, or empty: every weight stays as it is."""

    formats: str = ""

    def describe(self) -> str:
        """In words that name the options; empty if nothing changes."""
        return self.formats


AS_STORED = WeightChoice()
