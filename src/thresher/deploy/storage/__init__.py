"""Files in which zeros cost (almost) nothing, readable by every safetensors reader."""

from thresher.deploy.storage.about import file_record
from thresher.deploy.storage.encoding import encoded_bytes, encoded_bytes_of_mask
from thresher.deploy.storage.file import FileReport, save
from thresher.deploy.storage.layout import predicted_file_bytes
from thresher.deploy.storage.reading import load, load_state

__all__ = [
    "FileReport",
    "encoded_bytes",
    "encoded_bytes_of_mask",
    "file_record",
    "load",
    "load_state",
    "predicted_file_bytes",
    "save",
]
