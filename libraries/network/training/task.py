"""What a network is trained on, and how: the same whether one process trains it or several."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from libraries.data.dataset import read_examples
from libraries.data.division import Division, divide
from libraries.data.images import ResizeRule
from libraries.network.backbones import EmbeddingNetwork
from libraries.network.devices import Device
from libraries.network.training.recipe import RefineOptions
from libraries.network.training.refine import Epoch, Refined, refine
from libraries.network.training.training_sets import TrainingSets, load
from libraries.network.training.world import ALONE, World


@dataclass(frozen=True)
class Trained:
    """A trained network, and what its calibration needs.

    Attributes:
        names: of the classes.
        groups: number of groups of validation images, per class.
        left_out: what is wrong with the images that could not be decoded, by this process.
    """

    refined: Refined
    names: list[str]
    groups: list[int]
    left_out: list[str]


@dataclass(frozen=True)
class Task:
    """What to train on, and how.

    Attributes:
        examples: examples.csv.
        images: folder of the data set.
        validation_fraction, most, seed: of `division.divide`.
        rule: how images are fitted.
        checkpoint, key: of `refine.refine`.
    """

    examples: Path
    images: Path
    validation_fraction: float
    most: int | None
    seed: int
    rule: ResizeRule
    options: RefineOptions
    checkpoint: Path
    key: str

    def on(self, device: Device) -> "Task":
        """The same on a device."""
        return replace(self, options=replace(self.options, device=device))

    def division(self) -> Division:
        """The examples for training, validation and test."""
        return divide(
            read_examples(self.examples), validation_fraction=self.validation_fraction, most=self.most, seed=self.seed
        )

    def load(
        self,
        division: Division,
        *,
        scratch: Path,
        world: World = ALONE,
        on_image: Callable[[], None] | None = None,
    ) -> TrainingSets:
        """This process's share of the images, decoded; see `training_sets.load`."""
        return load(division, folder=self.images, rule=self.rule, scratch=scratch, on_image=on_image, world=world)

    def train(
        self,
        network: EmbeddingNetwork,
        sets: TrainingSets,
        *,
        world: World = ALONE,
        on_epoch: Callable[[Epoch], None] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Trained:
        """Train on them; see `refine.refine`."""
        refined = refine(
            network,
            train=sets.train,
            validation=sets.validation,
            test=sets.test,
            classes=len(sets.names),
            options=self.options,
            checkpoint=self.checkpoint,
            key=self.key,
            world=world,
            on_epoch=on_epoch,
            on_step=on_step,
        )
        return Trained(refined, sets.names, sets.groups, [str(error) for error in sets.left_out])
