"""The CNN that sees one slice: any timm backbone with feature maps."""

from __future__ import annotations

from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import nn

from lumbar.cache.errors import InputError


class SliceEncoder(nn.Module):
    """A timm backbone with one input channel, cut at a stride.

    Parameters
    ----------
    backbone
        A name that timm knows, such as ``resnet18`` or ``resnet50``.
    stride
        Input pixels to one feature: 8, 16 or 32. A smaller one keeps discs apart.
    pretrained
        Whether timm loads its weights from its hub.

    Raises
    ------
    InputError
        If timm does not know the backbone, or it has no feature map of that stride.
    """

    def __init__(
        self, backbone: str, *, stride: Literal[8, 16, 32], pretrained: bool = False
    ) -> None:
        super().__init__()
        if not timm.is_model(backbone):
            raise InputError(
                what="unknown backbone",
                where="model.backbone",
                got=repr(backbone),
                expected="a model name of timm, such as resnet18 or resnet50",
                cure=_near_names(backbone),
            )
        reductions = _reductions(backbone)
        if stride not in reductions:
            raise InputError(
                what="the backbone has no feature map of this stride",
                where="model.stride",
                got=stride,
                expected=f"one of {reductions} for {backbone}",
                cure="set model.stride or choose another model.backbone",
            )
        self.features = timm.create_model(
            backbone,
            features_only=True,
            out_indices=(reductions.index(stride),),
            in_chans=1,
            pretrained=pretrained,
        )
        self.channels: int = _feature_info(self.features).channels()[0]
        self._check_maps(backbone, stride)

    @torch.no_grad()
    def _check_maps(self, backbone: str, stride: int) -> None:
        """Try one image: some backbones want one size only, some put the channels last."""
        side = 4 * stride
        self.features.eval()
        try:
            got: object = tuple(self.features(torch.zeros(1, 1, side, side))[0].shape)
        except (AssertionError, RuntimeError, ValueError) as error:
            got = error
        self.features.train()
        if got != (1, self.channels, 4, 4):
            raise InputError(
                what="the backbone gives no feature maps for images of any size",
                where="model.backbone",
                got=f"{backbone}: {got}",
                expected=f"maps of shape {(1, self.channels, 4, 4)} from {side} x {side} pixels",
                cure="choose a convolutional backbone, such as resnet50 or convnext_tiny",
            )

    def forward(self, slices: Float[torch.Tensor, "n 1 h w"]) -> Float[torch.Tensor, "n c fh fw"]:
        """Return one feature map a slice."""
        features: torch.Tensor = self.features(slices)[0]
        return features


def _reductions(backbone: str) -> list[int]:
    """Return the strides of a backbone's feature maps; none where timm has no such maps of it."""
    try:
        reductions: list[int] = _feature_info(
            timm.create_model(backbone, features_only=True)
        ).reduction()
    except (AttributeError, RuntimeError, AssertionError, TypeError):
        return []
    return reductions


def _feature_info(backbone: nn.Module) -> Any:
    """Return what timm says of a backbone's feature maps; torch's types do not know of it."""
    return backbone.feature_info


def _near_names(backbone: str) -> str:
    near = timm.list_models(backbone[:6] + "*")[:5]
    return f"near names: {', '.join(near)}" if near else "timm.list_models() names them all"
