"""What a run's record says of its data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from train.faults import UsageError


@dataclasses.dataclass(frozen=True)
class About:
    """The data of a run.

    Attributes:
      name: the data set's name and version.
      reason: why it was chosen, as a clause.
      unit: what an example is called, in the plural, such as "images".
      sizes: how much there is of each split, under the names that the record has.
      text: the same in a line, with the shape of an example.
    """

    name: str
    reason: str
    unit: str
    sizes: Mapping[str, int]
    text: str

    @property
    def record(self) -> dict[str, Any]:
        """What config.json has under "dataset"."""
        return {"name": self.name, "reason": self.reason, **self.sizes}

    def check_same(self, theirs: Mapping[str, Any]) -> None:
        """Raises a `UsageError` unless a run goes on with the data it began with."""
        ours = {"name": self.name, **self.sizes}
        differences = [
            f"{name} was {theirs[name]}, now {value}"
            for name, value in ours.items()
            if theirs[name] != value
        ]
        if differences:
            raise UsageError(
                f"the run was on other {self.unit}: {'; '.join(differences)}. "
                "Name theirs with --dataset and --data-dir."
            )
