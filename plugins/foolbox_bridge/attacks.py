"""Foolbox's attacks as ours: `boundary`, `ddn`, ... are attributes, made when asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from inspect import signature
from typing import Any, ClassVar

from torch import Tensor

from robustkit import Asked, BadValueError, Foreign, borrow

from .table import TABLE, Row

try:
    import foolbox
    from foolbox.attacks.base import FixedEpsilonAttack, MinimizationAttack
    from foolbox.criteria import Criterion, Misclassification, TargetedMisclassification
    from foolbox.models.pytorch import PyTorchModel
except ModuleNotFoundError as error:
    raise BadValueError(
        f"attacks 'foolbox:...' need an extra ({error.name} is missing):"
        " pip install 'robustkit[foolbox]'"
    ) from None

OURS = {"distance", "init_attack", "tensorboard", "channel_axis", "constraint", "abs_stepsize"}
"""Options that follow from threat and images, or are for other uses."""
DISTANCES = {"linf": foolbox.distances.linf, "l2": foolbox.distances.l2, "l1": foolbox.distances.l1}
NO_START = "init_attack failed"
"""How Foolbox's searches begin to say that they found nothing to start from."""


class FoolboxAttack(Foreign):
    """An attack of Foolbox."""

    row: ClassVar[Row]
    originals: ClassVar[Mapping[str, type]]

    def find(self, asked: Asked) -> Tensor:
        attack = self._made(asked.threat.norm)
        model = PyTorchModel(asked, bounds=asked.bounds, device=asked.x.device)
        criterion: Criterion = Misclassification(asked.label)
        if asked.target is not None:
            criterion = TargetedMisclassification(asked.target)
        bounded = isinstance(attack, FixedEpsilonAttack)
        limit = {"epsilon": asked.threat.eps} if bounded else {}
        try:
            found: Tensor = attack.run(model, asked.x, criterion, **limit)
        except ValueError as error:
            if not str(error).startswith(NO_START):
                raise
            return asked.x
        return found

    def _made(self, norm: str) -> Any:
        """Construct Foolbox's attack from our options and the norm's."""
        original = self.originals[norm]
        known = signature(original).parameters
        own = {
            option: getattr(self, option) for option in known if option in type(self).model_fields
        }
        ours = {"distance": DISTANCES.get(norm), "constraint": norm, "channel_axis": 1}
        given = {**{k: v for k, v in ours.items() if k in known}, **self.row.given}
        return original(**{k: v for k, v in own.items() if v is not None}, **given)


@cache
def attack_class(name: str) -> type[Foreign]:
    """Make the class of a row of the table."""
    row = TABLE[name]
    originals = {norm: getattr(foolbox.attacks, c) for norm, c in row.classes.items()}
    first = next(iter(originals.values()))
    return borrow(
        FoolboxAttack,
        __name__,
        name,
        list(originals.values()),
        OURS | row.given.keys(),
        {
            "name": f"foolbox:{name}",
            "norms": row.norms,
            "minimal": issubclass(first, MinimizationAttack),
            "weak": row.weak,
            "targeted": row.targeted,
            "row": row,
            "originals": originals,
        },
        row.defaults,
        absent="Foolbox's own for the norm",
    )


def __getattr__(name: str) -> type[Foreign]:
    if name not in TABLE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return attack_class(name)
