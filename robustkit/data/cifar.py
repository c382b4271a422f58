"""CIFAR-10 and CIFAR-100, from any of the forms that they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robustkit.data.cifar_files import ARCHIVES, Read, read_binary, read_copy, read_python
from robustkit.data.images import ArrayImages, check_labels
from robustkit.data.rooted import Remote, Rooted

Part = Literal["train", "test"]
Labels = NDArray[Any]
GROUPS = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
"""CIFAR-100's coarse classes, in the order of their labels, and the fine ones of each."""
COARSE = {name: label for label, names in enumerate(GROUPS.values()) for name in names.split()}


class CIFAR10(Rooted):
    """50,000 and 10,000 photographs of ten classes, of 32x32 pixels in colour.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. Reads, below
    the root, the first that is there: cifar-10-batches-bin, cifar-10-batches-py (no pickle runs),
    each as a folder or its .tar.gz, and cifar10-png or cifar10-jpg, a folder or a tar archive with
    {train,test}/<class>/<image>; fetches the published ones when all are missing.
    """

    name: ClassVar[str] = "cifar10"
    wanted: ClassVar[str] = (
        "cifar-10-python.tar.gz, cifar-10-binary.tar.gz, or a copy as cifar10-jpg.tar.xz"
    )
    class_names: ClassVar[tuple[str, ...]] = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    publisher: ClassVar[str] = "CIFAR10"
    """The class of torchvision that knows address and checksum."""
    binary: ClassVar[tuple[str, ...]] = ("cifar-10-batches-bin", "cifar-10-binary.tar.gz")
    python: ClassVar[tuple[str, ...]] = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
    batches: ClassVar[dict[Part, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    }
    label_bytes: ClassVar[int] = 1
    label_key: ClassVar[str] = "labels"

    def split(self, part: Part) -> ArrayImages:
        """Load one part. Raises BadValueError where it is damaged, or missing and out of reach."""
        place = self.found()
        if place is None:
            self.fetch([self._remote()])
            place = self.place / self.python[1]
        (pixels, labels), remark = self._read(place, part)
        check_labels(labels, len(pixels), len(self.class_names), f"'{place}'")
        return ArrayImages(pixels, *self.named(labels), f"'{place}'", remark)

    def named(self, labels: Labels) -> tuple[Labels, tuple[str, ...]]:
        """Give labels (N,) and the names of their classes."""
        return labels, self.class_names

    def found(self) -> Path | None:
        """Give the folder or archive to read: the published ones come before copies."""
        copies = [f"{self.name}-{kind}{end}" for kind in ("png", "jpg") for end in ARCHIVES]
        for name in (*self.binary, *self.python, *copies):
            for path in (self.place / name, self.place):
                if path.name == name and path.exists():
                    return path
        return None

    def _read(self, place: Path, part: Part) -> tuple[Read, str]:
        """Read fine labels and pixels, and say in what these are not the published ones."""
        if place.name in self.binary:
            return read_binary(place, self.batches[part], self.label_bytes), ""
        if place.name in self.python:
            return read_python(place, self.batches[part], self.label_key), ""
        kind = "jpg" if f"{self.name}-jpg" in place.name else "png"
        lossy = f"{self.name} is a JPEG copy, '{place.name}', not the published pixels"
        return read_copy(place, part, self.class_names, kind), lossy if kind == "jpg" else ""

    def _remote(self) -> Remote:
        from torchvision import datasets

        known = getattr(datasets, self.publisher)
        return Remote((known.url,), known.filename, known.tgz_md5)


class CIFAR100(CIFAR10):
    """50,000 and 10,000 photographs of a hundred classes, of 32x32 pixels in colour.

    Source and forms are those of `cifar10`: cifar-100-binary, cifar-100-python, each as a folder or
    its .tar.gz, and cifar100-png or cifar100-jpg.
    """

    name: ClassVar[str] = "cifar100"
    wanted: ClassVar[str] = (
        "cifar-100-python.tar.gz, cifar-100-binary.tar.gz, or a copy as cifar100-jpg.tar.xz"
    )
    class_names: ClassVar[tuple[str, ...]] = tuple(sorted(COARSE))
    publisher: ClassVar[str] = "CIFAR100"
    binary: ClassVar[tuple[str, ...]] = ("cifar-100-binary", "cifar-100-binary.tar.gz")
    python: ClassVar[tuple[str, ...]] = ("cifar-100-python", "cifar-100-python.tar.gz")
    batches: ClassVar[dict[Part, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    label_bytes: ClassVar[int] = 2
    label_key: ClassVar[str] = "fine_labels"
    labels: Literal["fine", "coarse"] = Field(
        default="fine", description="the 100 classes, or the 20 groups of five of them"
    )

    def named(self, labels: Labels) -> tuple[Labels, tuple[str, ...]]:
        """Give the labels that are wanted for fine ones (N,), and their classes' names."""
        if self.labels == "fine":
            return super().named(labels)
        return np.array([COARSE[name] for name in self.class_names])[labels], tuple(GROUPS)
