"""The encoder of one slice: any timm backbone with feature maps."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.layers.format import Format
from torch import nn

from lumbar.cache.errors import InputError
from lumbar.train.model.backbone_weights import load_backbone
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.hub import hub_or_cache

LAST_STRIDE = 32
"""The stride of the last feature map of most backbones."""


class SliceEncoder(nn.Module):
    """A timm backbone with one input channel, cut at a stride.

    Parameters
    ----------
    config
        Names the backbone, its stride, its weights and how much of it is frozen.
    size
        Height and width of the images in pixels; a backbone of fixed size is built for it.

    Raises
    ------
    InputError
        If timm does not know the backbone, cannot build it or fetch its weights, or if it has no
        feature map of that stride or image size, or fewer stages than are to be frozen.
    """

    def __init__(self, config: ModelConfig, *, size: tuple[int, int]) -> None:
        super().__init__()
        self.features = _backbone(config, size)
        info = _feature_info(self.features)
        self.channels: int = info.channels()[0]
        self.memory_format = (
            torch.channels_last if config.channels_last else torch.contiguous_format
        )
        # Feature maps of transformers often have their channels last.
        self.permuted = getattr(self.features, "output_fmt", None) == Format.NHWC
        self._check_maps(config, size)
        if config.weights:
            load_backbone(self.features, config.weights)
        if config.checkpointing:
            _checkpoint(self.features, config.backbone)
        self.names_of_stage = _names_of_stage(self.features)
        self.frozen_stages = config.frozen_stages
        self._freeze(config)

    def forward(self, slices: Float[torch.Tensor, "n 1 h w"]) -> Float[torch.Tensor, "n c fh fw"]:
        """Return one feature map per slice."""
        slices = slices.contiguous(memory_format=self.memory_format)
        features: torch.Tensor = self.features(slices)[0]
        return features.permute(0, 3, 1, 2) if self.permuted else features

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the weights, each once, from the image to the features."""
        return [
            [weight for module in modules for weight in _own_weights(module)]
            for modules in self._stage_modules()
        ]

    # The signature is torch's.
    def train(self, mode: bool = True) -> SliceEncoder:  # noqa: FBT001, FBT002
        """Set the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for modules in self._stage_modules()[: self.frozen_stages]:
            for module in modules:
                module.training = False
        return self

    def _stage_modules(self) -> list[list[nn.Module]]:
        # By name: with several processes batch norms are replaced by synchronised ones.
        modules = dict(self.features.named_modules())
        return [[modules[n] for n in names if n in modules] for names in self.names_of_stage]

    def _freeze(self, config: ModelConfig) -> None:
        stages = self.stages()
        if self.frozen_stages > len(stages):
            raise InputError(
                what="the backbone has fewer stages",
                where="model.frozen_stages",
                got=self.frozen_stages,
                expected=f"at most {len(stages)} for {config.backbone} at stride {config.stride}",
                cure="freeze fewer",
            )
        for stage in stages[: self.frozen_stages]:
            for weight in stage:
                weight.requires_grad = False
        self.train()

    @torch.no_grad()
    def _check_maps(self, config: ModelConfig, size: tuple[int, int]) -> None:
        """Encode one blank image: some backbones accept only certain sizes."""
        self.features.eval()
        try:
            got: object = tuple(self(torch.zeros(1, 1, *size)).shape)
        except (AssertionError, RuntimeError, ValueError, IndexError) as error:
            got = error
        stride = config.stride
        heights, widths = ((-(-side // stride), side // stride) for side in size)
        expected = [(1, self.channels, h, w) for h in heights for w in widths]
        if got not in expected:
            raise InputError(
                what="the backbone gives no feature maps for images of this size",
                where="model.backbone",
                got=f"{config.backbone}: {got}",
                expected=f"maps of shape {expected[0]} from {size[0]} x {size[1]} pixels",
                cure=f"set crop.height and crop.width to multiples of {LAST_STRIDE}, or choose a "
                "convolutional backbone, such as resnet50 or convnext_tiny",
            )


def _backbone(config: ModelConfig, size: tuple[int, int]) -> nn.Module:
    """Return the backbone up to the last of its feature maps that has the stride."""
    name = config.backbone
    if not timm.is_model(name):
        raise InputError(
            what="unknown backbone",
            where="model.backbone",
            got=repr(name),
            expected="a model name of timm, such as resnet18 or resnet50",
            cure=_near_names(name),
        )
    # Counted from the last map, the place is the same in almost all backbones.
    place = 1 + (LAST_STRIDE // config.stride).bit_length() - 1
    features = _create(config, size, place)
    reductions: list[int] = [stage["reduction"] for stage in _feature_info(features).info]
    if config.stride not in reductions:
        raise _no_stride(config, reductions)
    from_last = 1 + reductions[::-1].index(config.stride)
    if from_last != place:
        features = _create(config, size, from_last)
    return _cut(features)


def _cut(features: nn.Module) -> nn.Module:
    """Remove the blocks behind the last map, which timm keeps in EfficientNets and others."""
    info, blocks = _feature_info(features), getattr(features, "blocks", None)
    if isinstance(blocks, nn.Sequential):
        last = int(info.get("module")[0].removeprefix("blocks."))
        features.blocks = blocks[: last + 1]
    return features


def _create(config: ModelConfig, size: tuple[int, int], from_last: int) -> nn.Module:
    """Build the backbone up to a feature map, counted from its last."""
    known = timm.get_pretrained_cfg(config.backbone)
    of_size: dict[str, Any] = (
        {"img_size": size} if known is not None and known.fixed_input_size else {}
    )
    answers = True
    try:
        with hub_or_cache() if config.pretrained else nullcontext(enter_result=True) as answers:
            made: nn.Module = timm.create_model(
                config.backbone,
                features_only=True,
                out_indices=(-from_last,),
                in_chans=1,
                pretrained=config.pretrained,
                **of_size,
            )
            return made
    except Exception as error:  # timm, its models and its hub raise whatever they happen to call
        if not answers and isinstance(error, OSError):
            raise _no_hub(config) from error
        raise _not_built(config, error) from error


def _no_hub(config: ModelConfig) -> InputError:
    return InputError(
        what="the weights of the backbone cannot be fetched",
        where="model.pretrained",
        got=f"no answer from timm's hub, and no weights of {config.backbone} in its local cache",
        expected="a network, or weights that were fetched before",
        cure=f"set model.weights=FILE, a .safetensors or .pt file of {config.backbone}, and "
        "model.pretrained=false",
    )


def _not_built(config: ModelConfig, error: Exception) -> InputError:
    return InputError(
        what="timm cannot build the backbone" + (" with its weights" if config.pretrained else ""),
        where="model.backbone",
        got=f"{config.backbone}: {error}",
        expected="a model with feature maps" + (", and its hub" if config.pretrained else ""),
        cure="choose a convolutional backbone, such as resnet50 or convnext_tiny"
        + ("; model.weights takes a file where the hub is out of reach" * config.pretrained),
    )


def _no_stride(config: ModelConfig, reductions: list[int]) -> InputError:
    return InputError(
        what="the backbone has no feature map of this stride",
        where="model.stride",
        got=config.stride,
        expected=f"one of {sorted(set(reductions))} for {config.backbone}",
        cure="set model.stride or choose another model.backbone",
    )


def _checkpoint(features: nn.Module, backbone: str) -> None:
    """Switch on gradient checkpointing."""
    switch = getattr(getattr(features, "model", features), "set_grad_checkpointing", None)
    try:
        assert switch is not None, "timm has no switch for it"
        switch(enable=True)
    except AssertionError as error:  # timm's own, where a model has a switch and no more
        raise InputError(
            what="the backbone has no gradient checkpointing",
            where="model.checkpointing",
            got=f"{backbone}: {error}",
            expected="a backbone that can compute its features twice",
            cure="leave it off, or choose another model.backbone",
        ) from error


def _names_of_stage(features: nn.Module) -> list[list[str]]:
    """Return the names of the modules of each stage: the stem, then one stage per feature map.

    A stage without weights is left out.
    """
    modules = dict(features.named_modules())
    names, cuts = list(modules), list[int]()
    for stage in _feature_info(features).info:
        wanted = stage["module"].replace(".", "_")
        inside = [at for at, name in enumerate(names) if _within(name, wanted)]
        if inside:
            cuts += [inside[-1] + 1] if cuts else [inside[0], inside[-1] + 1]
    parts = [names[i:j] for i, j in pairwise([0, *cuts[:-1], len(names)])]
    return [part for part in parts if any(_own_weights(modules[name]) for name in part)]


def _own_weights(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _within(name: str, stage: str) -> bool:
    """Return whether a stage contains a module; timm joins names by dots or underscores."""
    flat = name.removeprefix("model.").replace(".", "_")
    return flat == stage or flat.startswith(f"{stage}_")


def _feature_info(backbone: nn.Module) -> Any:
    """Return timm's description of the feature maps, which torch's types do not have."""
    return backbone.feature_info


def _near_names(backbone: str) -> str:
    near = timm.list_models(backbone[:6] + "*")[:5]
    return f"near names: {', '.join(near)}" if near else "timm.list_models() names them all"
