"""Networks by name, with weights from safetensors files."""

from thresher.apps.models.registry import build_model, model_names
from thresher.apps.models.weights import Normalisation, load_weights, normalisation_of

__all__ = ["Normalisation", "build_model", "load_weights", "model_names", "normalisation_of"]
