"""A fixed adversarial set as an attack: so that its images are judged as any proposals are."""

from __future__ import annotations

from typing import Any, ClassVar, Self, cast

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from robustkit.engine.rng import PointRng
from robustkit.errors import BadValueError
from robustkit.interfaces import Attack, Images, Rng, Victim
from robustkit.records import FIXED
from robustkit.sets import AdversarialSet
from robustkit.threat import NORMS, ThreatModel


class Fixed(Attack):
    """Proposes the images of a set, made beforehand on some model.

    It stands in no catalogue, for its options only describe the images: it is made by `of`.
    """

    name = FIXED
    norms: ClassVar[tuple[str, ...]] = NORMS
    minimal: ClassVar[bool] = True
    digest: str = Field(description="of ids and images, 8 hexadecimal digits")
    attack: dict[str, Any] | None = Field(default=None, description="what made them")
    model: str | None = Field(default=None, description="what they were made on")
    model_hash: str | None = Field(default=None, description="of that model")
    threat: str | None = Field(default=None, description="that they were made under")
    _ids: Tensor = PrivateAttr()
    _order: Tensor = PrivateAttr()
    _x_adv: Tensor = PrivateAttr()

    @classmethod
    def of(cls, made: AdversarialSet, images: Images) -> Self:
        """Make the attack that shows a set, whose points are of `images`.

        Raises BadValueError where ids, labels or the images' shape are not of that data.
        """
        require_same_data(made, images)
        known: dict[str, Any] = {}
        if record := made.record:
            known = {"attack": record.attack, "model": record.model}
            known |= {"model_hash": record.model_hash, "threat": str(record.threat.model())}
        fixed = cls(digest=made.digest, **known)
        fixed._ids, fixed._order = torch.from_numpy(made.ids).sort()
        fixed._x_adv = torch.from_numpy(made.x_adv)
        return fixed

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        # The engine alone runs this attack, and its random numbers know which points they are for.
        ids = cast(PointRng, rng).ids.cpu()
        places = torch.searchsorted(self._ids, ids).clamp(max=len(self._ids) - 1)
        if not torch.equal(self._ids[places], ids):
            raise BadValueError(f"set {self.digest} holds no image of some of these points")
        return self._x_adv[self._order[places]].to(x)

    def remark(self, model_hash: str) -> str:
        """Say what a number on the model of this hash is worth."""
        if self.attack is None:
            return "images are of a file that does not say on which model they were made, or how"
        on = "this very model" if self.model_hash == model_hash else f"'{self.model}'"
        whose = "" if self.model_hash == model_hash else ", not on this model"
        return f"images were made on {on} by {self.attack.get('name', '?')} ({self.threat}){whose}"


def require_same_data(made: AdversarialSet, images: Images) -> None:
    """Raise BadValueError where a set is not of these images, as far as one can see."""
    shape = made.x_adv.shape[1:]
    if shape != tuple(images.shape):
        its, theirs = ("x".join(map(str, s)) for s in (shape, images.shape))
        raise BadValueError(f"the set has images of {its}, the data set of {theirs}")
    if (last := int(made.ids.max())) >= len(images):
        raise BadValueError(f"the set shows point {last}, the data set has only {len(images)}")
    if made.labels is None:
        return
    labels = images.labels.cpu().numpy()[made.ids]
    if (differ := made.labels != labels).any():
        first = differ.argmax()
        raise BadValueError(
            f"the set is of other data: {differ.sum()} of its {len(made)} labels differ, first that"
            f" of point {made.ids[first]}, {made.labels[first]} and not {labels[first]}"
        )
