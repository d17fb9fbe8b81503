"""What a run's record says about its data."""

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
      sizes: the size of each split, by its name in the record.
      text: the same in one line, with the shape of an example.
      checks: what else is recorded and must be the same when a run is resumed, such as
        a checksum.
      remedy: what to do if it is not.
    """

    name: str
    reason: str
    unit: str
    sizes: Mapping[str, int]
    text: str
    checks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remedy: str = "Give the run's own with --dataset and --data-dir."

    @property
    def record(self) -> dict[str, Any]:
        """The entry "dataset" of config.json."""
        return {"name": self.name, "reason": self.reason, **self.sizes, **self.checks}

    def check_same(self, theirs: Mapping[str, Any]) -> None:
        """Raises a `UsageError` unless a run continues with the data it began with."""
        ours = {"name": self.name, **self.sizes, **self.checks}
        differences = [
            f"{name} was {theirs[name]}, now {value}"
            for name, value in ours.items()
            if theirs[name] != value
        ]
        if differences:
            raise UsageError(
                f"the run used other {self.unit}: {'; '.join(differences)}. "
                f"{self.remedy}"
            )
