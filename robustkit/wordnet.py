"""Label metrics from WordNet: how far apart the things lie that classes are named after."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Literal

from robustkit.errors import BadValueError, UnknownNameError
from robustkit.metric import LabelMetric

Kind = Literal["lca", "path"]
Hierarchy = Mapping[str, Sequence[str]]
"""Synsets, each with its hypernyms: what it is a kind or an instance of."""


class WordNet:
    """WordNet's nouns, read from its `dict` folder (index.noun, data.noun; versions 3.0 and 3.1).

    A synset is named by its offset, the eight digits that its line in data.noun begins with. Raises
    BadValueError where the files are missing or are not WordNet's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = _read(folder / "data.noun")
        lines = map(str.split, _read(folder / "index.noun").decode("utf-8", "replace").split("\n"))
        try:
            self._senses = {w[0]: w[-int(w[2]) :] for w in lines if len(w) > 6 and w[1] == "n"}
        except ValueError:
            raise BadValueError(f"'{folder / 'index.noun'}' is not WordNet's") from None

    @property
    def version(self) -> str:
        """The number that the licence at the head of data.noun gives, as "3.0"."""
        found = re.search(rb"WordNet (\d\.\d) Copyright", self._data[:2000])
        return found[1].decode() if found else "of unknown version"

    def synset(self, sense: str) -> str:
        """Find the synset of "crab" (the first one listed), "crab#5" (the fifth), or "n01976957".

        The last form, ImageNet's, is an offset of WordNet 3.0. Raises UnknownNameError for a noun
        that WordNet lacks, and BadValueError for a sense.
        """
        if re.fullmatch("n[0-9]{8}", sense):
            self._line(sense[1:])
            return sense[1:]
        noun, hash_, number = sense.partition("#")
        senses = self._senses.get(noun.strip().lower().replace(" ", "_"))
        if not senses:
            hint = f"write {noun}=NOUN to name another for it"
            raise UnknownNameError("noun", noun, self._like(noun), hint)
        if hash_ and number not in map(str, range(1, len(senses) + 1)):
            raise BadValueError(f"'{noun}' has no sense '{number}': they are 1 to {len(senses)}")
        return senses[int(number or 1) - 1]

    def hypernyms(self, synset: str) -> list[str]:
        """Give what a synset is a kind (@) or an instance (@i) of."""
        words = self._line(synset).split("|")[0].split()
        try:
            pointers = words[5 + 2 * int(words[3], 16) :]
        except (IndexError, ValueError):
            raise self._damaged(synset) from None
        return [at for kind, at in pairwise(pointers) if kind in ("@", "@i")]

    def gloss(self, synset: str) -> str:
        """Give what a synset means, without examples."""
        return self._line(synset).partition("|")[2].split('; "')[0].strip()

    def _line(self, synset: str) -> str:
        start = int(synset) if re.fullmatch("[0-9]{8}", synset) else len(self._data)
        line = self._data[start : self._data.find(b"\n", start)].decode("utf-8", "replace")
        if not line.startswith(f"{synset} "):
            raise self._damaged(synset)
        return line

    def _damaged(self, synset: str) -> BadValueError:
        return BadValueError(
            f"'{self.folder / 'data.noun'}' (WordNet {self.version}) has no synset at {synset};"
            " ids such as n01443537 are of WordNet 3.0"
        )

    def _like(self, noun: str) -> Iterable[str]:
        return [known for known in self._senses if known[:1] == noun[:1].lower()]


def wordnet_metric(wordnet: WordNet, senses: Mapping[str, str], kind: Kind) -> LabelMetric:
    """Make the metric of classes, given the sense of each as `WordNet.synset` takes it.

    Both kinds look at the classes' synsets and everything that these are kinds of, up to "entity".
    `lca` is the height of two classes' lowest common hypernym, where the height of a synset is the
    longest way down from it to a class, in links, and the lowest is that of the smallest height.
    `path` is the length of the shortest way between two classes, in links, up and down; it obeys
    the triangle inequality. A class is a common hypernym of itself and of its kinds; two names of
    one synset are 0 apart.

    Terzi et al., 2020, take distances from WordNet without saying which; `lca` is the cost of
    Deng et al., What Does Classifying More Than 10,000 Image Categories Tell Us?, ECCV 2010.
    Raises BadValueError where the classes have nothing in common.
    """
    import numpy as np

    synsets = [wordnet.synset(sense) for sense in senses.values()]
    distances = np.array(KINDS[kind](hierarchy(wordnet.hypernyms, synsets), synsets), np.float64)
    words = {"lca": "height of the lowest common hypernym", "path": "shortest path"}
    source = f"WordNet {wordnet.version}, {kind}: {words[kind]}"
    return LabelMetric(tuple(senses), distances, source)


def hierarchy(hypernyms: Callable[[str], Sequence[str]], synsets: Iterable[str]) -> Hierarchy:
    """Give these synsets and everything above them."""
    above: dict[str, Sequence[str]] = {}
    waiting = list(synsets)
    while waiting:
        synset = waiting.pop()
        if synset not in above:
            above[synset] = hypernyms(synset)
            waiting.extend(above[synset])
    return above


def lca_heights(above: Hierarchy, synsets: Sequence[str]) -> list[list[int]]:
    """Give the height of each two synsets' lowest common hypernym: K rows of K."""
    heights, every = dict.fromkeys(above, 0), dict[str, set[str]]()
    try:
        order = list(TopologicalSorter(above).static_order())
    except CycleError:
        raise BadValueError("WordNet is damaged: a synset is a kind of itself") from None
    for synset in order:
        every[synset] = {synset}.union(*(every[upper] for upper in above[synset]))
    for synset in reversed(order):
        for upper in above[synset]:
            heights[upper] = max(heights[upper], heights[synset] + 1)

    def height(a: str, b: str) -> int:
        common = [heights[synset] for synset in every[a] & every[b]]
        if not common:
            raise _apart(a, b)
        return 0 if a == b else min(common)

    return [[height(a, b) for b in synsets] for a in synsets]


def path_lengths(above: Hierarchy, synsets: Sequence[str]) -> list[list[int]]:
    """Give the number of links on the shortest way between each two synsets: K rows of K."""
    beside: dict[str, set[str]] = {synset: set(uppers) for synset, uppers in above.items()}
    for synset, uppers in above.items():
        for upper in uppers:
            beside[upper].add(synset)

    def lengths(start: str) -> list[int]:
        found, edge = {start: 0}, [start]
        while edge:
            edge = list({near for at in edge for near in beside[at]} - found.keys())
            found |= dict.fromkeys(edge, max(found.values()) + 1)
        for synset in synsets:
            if synset not in found:
                raise _apart(start, synset)
        return [found[synset] for synset in synsets]

    return [lengths(start) for start in synsets]


KINDS = {"lca": lca_heights, "path": path_lengths}


def _apart(a: str, b: str) -> BadValueError:
    return BadValueError(f"WordNet's synsets {a} and {b} have no hypernym in common")


def known_senses(dataset: str) -> dict[str, str]:
    """Give the sense of each class of a data set that we know: cifar10, cifar100, tiny-imagenet.

    Those of Tiny-ImageNet are its own ids. Those of CIFAR are our choice, made by reading every
    gloss: the first sense, but where the images show another (`crab` stays an animal, `seal` is
    not a stamp), and a goldfish for `aquarium_fish`, which is no noun of WordNet. Empty for others.
    """
    path = Path(str(files("robustkit"))) / "metrics" / "senses.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["class"]: row["sense"] for row in rows if row["dataset"] == dataset}


def parse_senses(classes: Iterable[str]) -> dict[str, str]:
    """Read what a user says of classes: "cat", "crab#5", or "aquarium_fish=goldfish#1".

    Raises BadValueError for a class that is named twice.
    """
    senses: dict[str, str] = {}
    for text in classes:
        name, equals, sense = text.partition("=")
        name = (name if equals else name.partition("#")[0]).strip()
        if name in senses:
            raise BadValueError(f"class '{name}' is named twice")
        senses[name] = sense.strip() or text.strip()
    return senses


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadValueError(
            f"'{path}' cannot be read: {error.strerror}; name WordNet's folder of index.noun and"
            " data.noun (dict)"
        ) from None
