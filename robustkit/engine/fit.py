"""From a recipe to a run folder."""

from __future__ import annotations

import math

from robustkit import recipe as recipes
from robustkit.engine.fitting import Fitting
from robustkit.engine.journal import claimed, finished
from robustkit.engine.loop import Progress, Silent, Work, prepare, run
from robustkit.engine.processes import Processes, launch
from robustkit.engine.resolve import build
from robustkit.engine.synthesise import Synthesis
from robustkit.errors import BadValueError
from robustkit.recipe import Fit, Recipe
from robustkit.records import RunFolder, RunRecord

FOR_TRAINERS = ("augment", "label_smoothing", "mixup", "channels_last", "compile")
"""Keys of a recipe's `fit` that generators know nothing of."""


def fit(
    recipe: Recipe,
    folder: RunFolder,
    *,
    resume: bool = False,
    device: str = "auto",
    processes: int = 1,
    progress: Progress | None = None,
) -> RunRecord:
    """Train what a resolved recipe says, and leave a run folder.

    Killed at any moment and resumed, it ends with the same bits as an unbroken run in as many
    processes. Raises BadValueError where the folder holds another run, another process trains
    there, or the recipe does not fit data or device, TrainingStoppedError where training diverges
    or collapses.
    """
    if not math.isfinite(recipe.threat.model().eps):
        raise BadValueError("threat.eps 'inf' is for evaluation; training needs a finite size")
    plain = Fit()
    for key in FOR_TRAINERS if recipe.generator else ():
        if (value := getattr(recipe.fit, key)) != getattr(plain, key):
            raise BadValueError(f"fit.{key} is {value!r}, but generators are trained without it")
    if recipe.trainer and recipe.fit.labelled_share:
        share = recipe.fit.labelled_share
        raise BadValueError(
            f"fit.labelled_share is {share:g}, but trainers are trained on labelled points alone"
        )
    if recipe.generator and recipe.generated:
        raise BadValueError("[generated] is for trainers; generators are trained on real points")
    with claimed(folder):
        return launch(
            _work,
            (recipes.write(recipe), folder, resume, progress or Silent()),
            processes=processes,
            device=device,
            precision=recipe.fit.precision,
            deterministic=recipe.fit.deterministic,
        )


def _work(
    processes: Processes, text: str, folder: RunFolder, resume: bool, progress: Progress
) -> RunRecord:
    recipe = recipes.validate(recipes.parse(text, str(folder.recipe)))
    done = prepare(processes, recipe, folder, resume)
    if done and (record := finished(folder)):
        return record
    components = build(recipe)
    work: Work
    if components.trainer:
        work = Fitting(processes, recipe, components, folder, progress)
    else:
        work = Synthesis(processes, recipe, components, folder)
    return run(work, processes, recipe, folder, done, progress)
