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
      checks: what else is on record and has to be the same when a run goes on, such as
        a checksum.
      remedy: what to do if it is not.
    """

    name: str
    reason: str
    unit: str
    sizes: Mapping[str, int]
    text: str
    checks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remedy: str = "Name theirs with --dataset and --data-dir."

    @property
    def record(self) -> dict[str, Any]:
        """What config.json has under "dataset"."""
        return {"name": self.name, "reason": self.reason, **self.sizes, **self.checks}

    def check_same(self, theirs: Mapping[str, Any]) -> None:
        """Raises a `UsageError` unless a run goes on with the data it began with."""
        ours = {"name": self.name, **self.sizes, **self.checks}
        differences = [
            f"{name} was {theirs[name]}, now {value}"
            for name, value in ours.items()
            if theirs[name] != value
        ]
        if differences:
            raise UsageError(
                f"the run was on other {self.unit}: {'; '.join(differences)}. "
                f"{self.remedy}"
            )
