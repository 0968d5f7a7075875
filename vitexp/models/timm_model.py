"""Any classifier of timm (https://github.com/huggingface/pytorch-image-models)."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from vitexp.errors import one_line, require
from vitexp.options import Checkpointing, Doc, Words

_OURS = ("num_classes", "in_chans", "img_size", "pretrained", "checkpoint_path", "features_only")


class TimmModel(nn.Module):
    """A network of timm, `net`: float images (B, in_channels, image_size, image_size) -> logits (B, num_classes).

    Weights are random; `load_published` replaces them. A network for a fixed image size is made for `image_size`.

    Raises ConfigError without timm, and ValueError if timm has no such network or it does not take such images.
    """

    has_attention: ClassVar[bool] = False
    has_patches: ClassVar[bool] = False
    accepts_weights: ClassVar[bool] = False
    has_published_weights: ClassVar[bool] = True

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        in_channels: int = 3,
        timm_name: Annotated[str, Doc("name of the network in timm, such as convnextv2_atto")],
        timm_kwargs: Annotated[
            dict[str, Any] | None,
            Words("a mapping, such as {drop_path_rate:0.1}"),
            Doc("further arguments of the network"),
        ] = None,
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        require("timm", needed_by="model=timm")
        super().__init__()
        if wrong := next((key for key in timm_kwargs or {} if key in _OURS), None):
            raise ValueError(f"timm_kwargs contains {wrong!r}, which vitexp sets; remove it.")
        self.timm_name, self.image_size = timm_name, image_size
        self.arguments = {**(timm_kwargs or {}), "num_classes": num_classes, "in_chans": in_channels}
        if getattr(published_config(timm_name), "fixed_input_size", False):
            self.arguments["img_size"] = image_size
        self.net = self._create()
        if gradient_checkpointing:
            self.net.set_grad_checkpointing()
        self._refuse_image_size(image_size, in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, C, H, W)."""
        return self.net(x)  # type: ignore[no-any-return]

    def load_published(self) -> None:
        """Load the weights that timm publishes, downloaded if necessary, except the classifier.

        Raises whatever the download or the reading of the file raises.
        """
        weights = self._create(pretrained=True).state_dict()
        mine = self.net.state_dict()
        heads = self.net.pretrained_cfg["classifier"]
        prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
        self.net.load_state_dict({name: mine[name] if name.startswith(prefixes) else weights[name] for name in mine})

    def timm_config(self) -> dict[str, Any]:
        """Return what config.json tells timm about the network."""
        kept = ("fixed_input_size", "first_conv", "classifier")
        return {
            "architecture": self.timm_name.partition(".")[0],
            "num_features": self.net.num_features,
            "model_args": {
                key: value for key, value in self.arguments.items() if key not in ("num_classes", "in_chans")
            },
            "pretrained_cfg": {key: self.net.pretrained_cfg.get(key) for key in kept},
        }

    def layers_of_parameters(self) -> dict[str, int]:
        """Return the layer of each parameter as timm counts them: 0 for the stem, the highest for the classifier."""
        from timm.models import group_parameters

        return {
            f"net.{name}": layer
            for name, layer in group_parameters(self.net, self.net.group_matcher(), reverse=True).items()
        }

    def _create(self, *, pretrained: bool = False) -> Any:
        import timm

        try:
            return timm.create_model(self.timm_name, pretrained=pretrained, **self.arguments)
        except (TypeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"timm's {self.timm_name} cannot be made with {self.arguments} ({one_line(str(error))}); change "
                "timm_kwargs."
            ) from error

    @torch.no_grad()
    def _refuse_image_size(self, size: int, channels: int, num_classes: int) -> None:
        training = self.training
        try:
            made = self.eval()(torch.zeros(1, channels, size, size))
        except Exception as error:  # each network fails in its own way
            raise ValueError(
                f"timm's {self.timm_name} does not take images of {size}x{size} pixels ({one_line(str(error))}); use "
                "another data.image_size, such as 224."
            ) from error
        self.train(training)
        if not isinstance(made, Tensor) or made.shape != (1, num_classes):
            raise ValueError(f"timm's {self.timm_name} is not a classifier of images; choose another network.")


def published_config(name: str) -> Any:
    """Return timm's configuration of a network and its weights (mean, std, has_weights, ...); None if it has none.

    Raises ValueError if timm has no such network.
    """
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists all."
        raise ValueError(f"timm {timm.__version__} has no network {name!r}; {hint}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise ValueError(f"timm {timm.__version__} has no weights {name!r}; it has {known or 'none'}.") from error
