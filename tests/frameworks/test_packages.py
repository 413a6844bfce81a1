"""Real installations are found by the names that they are installed by."""

from __future__ import annotations

import importlib.metadata

import google.protobuf
import PIL.Image
import sklearn
import torch
import yaml

from keepsake.capture.packages import imported_packages


def test_imported_distributions_are_found_with_their_versions() -> None:
    found = {name.lower(): version for name, version in imported_packages().items()}
    assert found["scikit-learn"] == sklearn.__version__
    assert found["pyyaml"] == yaml.__version__
    assert found["pillow"] == PIL.__version__
    assert found["protobuf"] == google.protobuf.__version__
    assert found["torch"] == torch.__version__
    assert "numpy" in found


def test_names_are_those_of_the_installations() -> None:
    found = imported_packages()
    installed = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    assert set(found) <= installed
    assert list(found) == sorted(found, key=str.casefold)
