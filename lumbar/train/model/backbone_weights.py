"""Weights of a backbone from a local file, as timm or torch saves them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lumbar.cache.errors import InputError, MissingError

WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_ema")
"""Keys under which training programs save the weights."""
COUNTED = "num_batches_tracked"
"""A counter that old files lack and no result depends on."""


def load_backbone(features: nn.Module, file: str) -> None:
    """Put the weights of a file into a backbone.

    Names are timm's, of the whole model or of its feature maps. A first convolution of several
    input channels is summed over them, which gives the same for a grey image. Weights behind the
    last feature map are not used.

    Raises
    ------
    MissingError, InputError
        If the file is absent or holds no weights, or lacks one of the backbone's.
    """
    given = {_flat(name): value for name, value in _read(Path(file)).items()}
    taken: dict[str, torch.Tensor] = {}
    for name, own in features.state_dict().items():
        found = given.get(_flat(name), own if name.endswith(COUNTED) else None)
        if found is not None and found.shape != own.shape and _is_stem(own, found):
            found = found.sum(dim=1, keepdim=True)
        if found is None or found.shape != own.shape:
            raise InputError(
                what="weights of another backbone",
                where=file,
                got=f"{name} {'absent' if found is None else tuple(found.shape)}",
                expected=f"{tuple(own.shape)}",
                cure="set model.backbone to the file's, and the crop to its size where that counts",
            )
        taken[name] = found
    features.load_state_dict(taken)


def _is_stem(own: torch.Tensor, found: torch.Tensor) -> bool:
    """Return whether a weight is the same convolution with several input channels."""
    return (
        own.ndim == found.ndim == 4
        and own.shape[1] == 1
        and own.shape[0] == found.shape[0]
        and own.shape[2:] == found.shape[2:]
    )


def _flat(name: str) -> str:
    """Return a name without the prefixes of wrappers around the model."""
    for wrapper in ("module.", "model.", "encoder.features."):
        name = name.removeprefix(wrapper)
    return name.replace(".", "_")


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise MissingError(
            what="no such file of weights",
            where=path,
            got="nothing",
            expected="a .safetensors or .pt file of the backbone's weights",
            cure="correct model.weights, or leave it out",
        )
    try:
        document: object = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except SafetensorError as error:
        raise _no_weights(path, error) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to call
        raise _no_weights(
            path, f"a file that torch cannot read ({type(error).__name__})"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(document, dict) and isinstance(document.get(wrapper), dict):
            document = document[wrapper]
    if not isinstance(document, dict):
        raise _no_weights(path, type(document).__name__)
    weights = {k: v for k, v in document.items() if isinstance(v, torch.Tensor)}
    if not weights:
        raise _no_weights(path, "no tensors")
    return weights


def _no_weights(path: Path, got: object) -> InputError:
    return InputError(
        what="a file without weights",
        where=path,
        got=got,
        expected="tensors by name, as timm or torch saves them",
        cure="correct model.weights, or leave it out",
    )
