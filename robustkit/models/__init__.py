"""Architectures with normalisation inside, and models as files."""

from robustkit.models.common import Classifier, Normalise
from robustkit.models.files import LoadedModel, load_model, save_model

__all__ = ["Classifier", "LoadedModel", "Normalise", "load_model", "save_model"]
