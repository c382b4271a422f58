"""Options of other libraries' attacks that make a search of some calls, for tests."""

from __future__ import annotations

from typing import Any

SEARCHES = {"art:fast-gradient", "foolbox:deepfool"}
"""Those that keep the whole contract in every run; the others do with -m slow."""

QUICK: dict[str, dict[str, Any]] = {
    "art:auto-cg": {"max_iter": 10, "nb_random_init": 1},
    "art:auto-pgd": {"max_iter": 10, "nb_random_init": 1},
    "art:basic-iterative": {"max_iter": 5},
    "art:boundary": {"max_iter": 3, "num_trial": 3, "sample_size": 3, "init_size": 20},
    "art:carlini-l0": {"max_iter": 2, "binary_search_steps": 1, "initial_const": 10.0},
    "art:carlini-l2": {"max_iter": 10, "binary_search_steps": 5, "initial_const": 1.0},
    "art:carlini-linf": {
        "learning_rate": 0.1,
        "confidence": 0.02,
        "initial_const": 1.0,
        "const_factor": 100.0,
        "decrease_factor": 0.5,
    },
    "art:deepfool": {"max_iter": 5, "nb_grads": 4},
    "art:elasticnet": {"max_iter": 10, "binary_search_steps": 2, "initial_const": 10.0},
    "art:geoda": {"sub_dim": 4},
    "art:hopskipjump": {"max_iter": 1, "max_eval": 10, "init_eval": 5},
    "art:jsma": {"theta": 1.0},
    "art:momentum-iterative": {"max_iter": 5},
    "art:newtonfool": {"max_iter": 10, "eta": 0.1},
    "art:pgd": {"max_iter": 5},
    "art:pixel": {"max_iter": 3, "th": 16},
    "art:rescaling-auto-cg": {"max_iter": 10, "nb_random_init": 1},
    "art:shadow": {"nb_steps": 2},
    "art:signopt": {"max_iter": 1, "num_trial": 5, "k": 3},
    "art:simba": {"max_iter": 50, "epsilon": 1.0},
    "art:spatial": {"num_translations": 1, "num_rotations": 2},
    "art:square": {"max_iter": 5},
    "art:threshold": {"max_iter": 1, "th": 255},
    "art:universal": {"max_iter": 2},
    "art:virtual-adversarial": {"max_iter": 2},
    "art:wasserstein": {
        "max_iter": 1,
        "conjugate_sinkhorn_max_iter": 2,
        "projected_sinkhorn_max_iter": 2,
    },
    "art:zoo": {"max_iter": 3, "initial_const": 10.0},
    "foolbox:adam-basic-iterative": {"steps": 5},
    "foolbox:adam-pgd": {"steps": 5, "rel_stepsize": 0.2},
    "foolbox:basic-iterative": {"steps": 5},
    "foolbox:blended-uniform-noise": {"directions": 20, "steps": 5},
    "foolbox:boundary": {"steps": 5},
    "foolbox:carlini": {"steps": 40, "binary_search_steps": 3, "initial_const": 10.0},
    "foolbox:contrast-reduction": {"binary_search_steps": 3},
    "foolbox:contrast-reduction-linear": {"steps": 5},
    "foolbox:ddn": {"steps": 50},
    "foolbox:deepfool": {"steps": 5},
    "foolbox:ead": {"steps": 10, "binary_search_steps": 2, "initial_const": 10.0},
    "foolbox:fmn": {"steps": 5, "binary_search_steps": 2},
    "foolbox:gaussian-blur": {"steps": 3},
    "foolbox:gaussian-noise-clipped-repeated": {"repeats": 2},
    "foolbox:gaussian-noise-repeated": {"repeats": 2},
    "foolbox:hopskipjump": {
        "steps": 1,
        "initial_gradient_eval_steps": 5,
        "max_gradient_eval_steps": 5,
    },
    "foolbox:momentum-iterative": {"steps": 5},
    "foolbox:newtonfool": {"steps": 10, "stepsize": 0.1},
    "foolbox:pgd": {"steps": 5, "rel_stepsize": 0.3},
    "foolbox:pointwise": {"l2_binary_search": False},
    "foolbox:salt-and-pepper": {"steps": 5},
    "foolbox:sparse-l1-descent": {"steps": 5},
    "foolbox:spatial": {"num_translations": 1, "num_rotations": 2},
    "foolbox:uniform-noise-clipped-repeated": {"repeats": 2},
    "foolbox:uniform-noise-repeated": {"repeats": 2},
    "foolbox:virtual-adversarial": {"steps": 2},
}

GREY = {"smallest-found": "less contrast leaves the brightest quadrant the brightest"}
FEW = {"smallest-found": "so few steps do not break every point"}
MISSES: dict[str, dict[str, str]] = {
    "art:zoo": FEW,
    "foolbox:contrast-reduction": GREY,
    "foolbox:contrast-reduction-l2": {"targets-respected": "grey is taken for any class"},
    "foolbox:contrast-reduction-linear": GREY,
    "foolbox:fmn": {"smallest-found": "in linf 100 steps do not break every point, either"},
    "foolbox:gaussian-blur": {"smallest-found": "a blur leaves the brightest quadrant so"},
    "foolbox:gaussian-noise-clipped": {"targets-respected": "noise ends in any class"},
}
"""Checks that an attack fails as its library made it, and why; all of these are declared weak."""
