"""Models for other programs: ONNX, torch.export and Hugging Face folders, checked before they are handed over."""

from thresher.deploy.export.folding import fold_batch_norms
from thresher.deploy.export.huggingface import export_huggingface
from thresher.deploy.export.onnx import export_onnx
from thresher.deploy.export.outcome import Exported
from thresher.deploy.export.torch_export import export_torch

__all__ = ["Exported", "export_huggingface", "export_onnx", "export_torch", "fold_batch_norms"]
