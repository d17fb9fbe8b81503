"""The study's tasks, as its plan states them."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class StudyTask:
    """One task of the study.

    Attributes:
      name: the name of its folders.
      title: the title of its section.
      label: the label of its row in the picture of all comparisons.
      arms: its arms besides `none`.
      margin: the difference in loss that matters to a user.
      start: the loss before training, that of a guess; worse losses count as this one.
      chosen_by: the metric of the sweep by which a rate is chosen.
      target: the metric for which the steps to the target are counted.
    """

    name: str
    title: str
    label: str
    arms: tuple[str, ...]
    margin: float
    start: float
    chosen_by: str = "validation_loss"
    target: str = "validation_loss"


HORSES = {
    "arms": ("gradient",),
    "margin": 0.02,
    "start": math.log(2),
    "chosen_by": "test_loss",  # of fold 0, which confirms nothing
    "target": "train_loss",
}
TASKS = (
    StudyTask(
        "fashion",
        "Fashion-MNIST, ResNet with BatchNorm, SGD with momentum",
        "Fashion-MNIST: ResNet, BatchNorm",
        ("gradient",),
        0.01,
        math.log(10),
    ),
    StudyTask(
        "shakespeare",
        "Shakespeare, decoder with LayerNorm, AdamW",
        "Shakespeare: decoder, LayerNorm",
        ("gradient", "update"),
        0.01,
        math.log(256),
    ),
    StudyTask(
        "horses-sgd",
        "Horses or humans, plain CNN, SGD with momentum",
        "Horses: plain CNN, SGD",
        **HORSES,
    ),
    StudyTask(
        "horses-rmsprop",
        "Horses or humans, plain CNN, RMSprop",
        "Horses: plain CNN, RMSprop",
        **HORSES,
    ),
)
