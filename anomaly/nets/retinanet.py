"""RetinaNet on any convolutional network of the zoo: torchvision's, on images that are all of one size.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017; the pyramid: Lin et al., "Feature Pyramid Networks for
Object Detection", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from anomaly.errors import UsageError
from anomaly.nets.zoo import COUNTER, build
from anomaly.runs import Arrays
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple

Outputs = dict[str, Tensor]
"""What the heads say of every anchor: `cls_logits` (N, A, K) and `bbox_regression` (N, A, 4)."""

_STRIDES = (8, 16, 32)
"""Of the maps that the pyramid stands on: C3, C4 and C5 of both papers."""
_PROBE = 128  # side of the image that shows where those maps are; its own maps have sides that tell them apart
_ASPECTS = (0.5, 1.0, 2.0)
_STEPS = tuple(2 ** (third / 3) for third in range(3))  # three sizes a level, a third of an octave apart
_LEVELS = 5
_MOMENTUM = 0.1  # of norms; the 0.01 of some networks takes more batches than few films give
_NARROWEST = 4.0  # pixels: anchors are rounded to whole ones, and none may come to nothing


class BoxNet(nn.Module):
    """A RetinaNet with random weights, in eval mode.

    Args:
        arch: A convolutional network that torchvision or timm knows; maps of an 8th, a 16th and a 32nd of the side are
            taken from it.
        classes: Kinds of boxes.
        size: Side of the images.
        width: Channels of the pyramid and the heads; 256 in the paper.
        smallest: Side of the smallest anchor as a share of the image's; the others are up to 16 * 2^(2/3) times that.
        floor: Boxes of less confidence are not drawn.
        overlap: Of two boxes of one kind with a larger intersection over union the more confident one stays.
        most: Boxes an image at most.

    Raises:
        UsageError: No such network, or one without such maps, or images of this size do not go through it.
    """

    gain: Tensor
    offset: Tensor

    def __init__(
        self,
        arch: str,
        classes: int,
        *,
        size: int,
        width: int,
        smallest: float,
        floor: float = 0.05,
        overlap: float = 0.5,
        most: int = 100,
    ) -> None:
        super().__init__()
        self.arch = arch
        self.size = size
        body, channels = _body(arch)
        pyramid = FeaturePyramidNetwork(channels, width, extra_blocks=LastLevelP6P7(width, width))
        side = max(size * smallest, _NARROWEST)
        anchors = AnchorGenerator(
            tuple(tuple(side * 2**level * step for step in _STEPS) for level in range(_LEVELS)),
            (_ASPECTS,) * _LEVELS,
        )
        backbone = nn.Sequential(body, pyramid)
        backbone.out_channels = width  # type: ignore[assignment] # RetinaNet asks for it
        self.network = RetinaNet(
            backbone,
            classes,
            anchor_generator=anchors,
            score_thresh=floor,
            nms_thresh=overlap,
            detections_per_img=most,
        )
        _wake(self.network.head)
        # Resizing and normalising by the image are not wanted: images come prepared, all of one size.
        self.network.transform = nn.Identity()
        self._known: set[str] = set()
        for _, norm in self._norms():
            norm.momentum = _MOMENTUM
        self.set_input(IMAGENET_MEAN, IMAGENET_STD)
        self.eval()
        self.activations = 0
        """Numbers that an image leaves behind on its way through the network."""
        with _counted(self) as numbers, torch.no_grad():
            try:
                features = self._features(torch.zeros(1, 1, size, size))
                self.network.head(features)
            except (RuntimeError, ValueError) as error:
                reason = str(error).partition("\n")[0].rstrip(".")
                raise UsageError(
                    f"Images of side {size} do not go through a RetinaNet on {arch!r} ({reason}): set another `size`."
                ) from error
        self.activations = sum(numbers)
        self.levels = [int(level.shape[2] * level.shape[3]) * len(_STEPS) * len(_ASPECTS) for level in features]
        """Anchors of each level of the pyramid."""
        grid = self.network.anchor_generator(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), features)[0]
        self.register_buffer("anchors", grid, persistent=False)

    anchors: Tensor
    """Corners x1, y1, x2, y2 of every anchor, float32 (A, 4), in pixels of the image."""

    @property
    def body(self) -> nn.Module:
        """The network that the maps are taken from."""
        body: nn.Module = self.network.backbone[0]
        return body

    def set_input(self, mean: Triple, std: Triple) -> None:
        """Say what input the weights want: (picture in [0, 1] - mean) / std, by channel."""
        gain = [1 / (2 * s) for s in std]  # an image in [-1, 1] is 2 * picture - 1
        offset = [(0.5 - m) / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("gain", torch.tensor(gain).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(1, 3, 1, 1), persistent=False)

    def take(self, tensors: Arrays) -> list[str]:
        """Take pretrained weights of the network that the maps are taken from; what they lack stays random.

        Returns:
            Names of the parts of that network that stay random.

        Raises:
            ValueError: A tensor has another shape than the network's.
        """
        lacking: dict[str, None] = {}
        for name, tensor in self.body.state_dict().items():
            if name.endswith(COUNTER):
                continue
            if name not in tensors:
                lacking.setdefault(name.split(".")[0])
            elif tensors[name].shape != tuple(tensor.shape):
                raise ValueError(f"{name} has shape {tensors[name].shape}, {self.arch} needs {tuple(tensor.shape)}")
            else:
                tensor.copy_(torch.tensor(tensors[name]))
                self._known.add(name)
        return list(lacking)

    def train(self, mode: bool = True) -> BoxNet:
        """Set the mode; norms whose statistics came with the weights keep them, as is usual where batches are small.

        So norms that came folded into their convolutions, with a mean of 0 and a variance of 1, stay what they are.
        """
        super().train(mode)
        for name, norm in self._norms():
            if f"{name}.running_mean" in self._known:
                norm.eval()
        return self

    def _norms(self) -> list[tuple[str, nn.BatchNorm2d]]:
        return [(name, layer) for name, layer in self.body.named_modules() if isinstance(layer, nn.BatchNorm2d)]

    def _features(self, images: Tensor) -> list[Tensor]:
        wanted = (images * self.gain + self.offset).to(memory_format=torch.channels_last)
        return list(self.network.backbone(wanted).values())

    def forward(self, images: Tensor) -> Outputs:
        """Return what the heads say of images float32 (N, 1 or 3, S, S) in [-1, 1]; grey goes into all channels."""
        outputs: Outputs = self.network.head(self._features(images))
        return outputs

    def losses(self, outputs: Outputs, boxes: Sequence[Tensor], kinds: Sequence[Tensor]) -> Outputs:
        """Return the focal loss of the kinds (`classification`) and the L1 loss of the boxes (`bbox_regression`).

        Both are means over the images, and of an image over its matched anchors (Lin et al., section 4.1).

        Args:
            outputs: Of `forward`, N images.
            boxes: N of float32 (n, 4): x1, y1, x2, y2.
            kinds: N of int64 (n,), in 0..K-1.
        """
        targets = [{"boxes": box, "labels": kind} for box, kind in zip(boxes, kinds, strict=True)]
        losses: Outputs = self.network.compute_loss(targets, outputs, [self.anchors] * len(targets))
        return losses

    def detect(self, outputs: Outputs) -> tuple[Tensor, list[Tensor]]:
        """Return the best confidence of any anchor, float32 (N,), and the boxes of each image.

        Args:
            outputs: Of `forward`, N images, in float32.

        Returns:
            Confidences in [0, 1], below the floor too; N of float32 (n, 5): x1, y1, x2, y2, confidence, best first.
        """
        best = torch.sigmoid(outputs["cls_logits"]).flatten(1).max(dim=1).values
        ends = [sum(self.levels[: level + 1]) for level in range(len(self.levels) - 1)]
        split = {name: list(values.tensor_split(ends, dim=1)) for name, values in outputs.items()}
        count = len(best)
        anchors = [list(self.anchors.tensor_split(ends))] * count
        found = self.network.postprocess_detections(split, anchors, [(self.size, self.size)] * count)
        return best, [torch.cat([one["boxes"], one["scores"][:, None]], dim=1) for one in found]


def _wake(head: nn.Module) -> None:
    """Draw the heads' hidden layers so that what goes in comes out as large (He et al., ICCV 2015).

    The paper's deviation of 0.01 is for 256 channels; with fewer, next to nothing would come through four such layers.
    """
    for part in head.children():
        for layer in part.conv.modules():  # type: ignore[union-attr]
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def _body(arch: str) -> tuple[nn.Module, list[int]]:
    """Return a network cut down to its maps at the strides of the pyramid, and their numbers of channels.

    Raises:
        UsageError: It has no such maps, or cannot be cut.
    """
    network = build(arch)
    places = _places(network, arch)
    wanted = {place: str(level) for level, (place, _) in enumerate(places)}
    try:
        cut = create_feature_extractor(network, return_nodes=wanted, suppress_diff_warning=True)
    except Exception as error:  # whatever a network's own code raises when it is traced symbolically
        raise UsageError(f"{arch!r} cannot be cut into layers ({type(error).__name__}): choose another.") from error
    return cut, [channels for _, channels in places]


def _places(network: nn.Module, arch: str) -> list[tuple[str, int]]:
    """Return the last layer whose maps have a side of 1/8, 1/16 and 1/32 of the image's, and its channels."""
    found: dict[int, tuple[str, int]] = {}

    def note(name: str) -> Any:
        def finished(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]:
                found[output.shape[2]] = (name, output.shape[1])

        return finished

    # blocks, not what is in them: two levels deep
    named = [(name, module) for name, module in network.named_modules() if name and name.count(".") <= 1]
    hooks = [module.register_forward_hook(note(name)) for name, module in named]
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, _PROBE, _PROBE))
    except Exception as error:  # of any network's own code
        raise UsageError(f"{arch!r} cannot carry a pyramid ({type(error).__name__}): choose another.") from error
    finally:
        for hook in hooks:
            hook.remove()
    missing = [stride for stride in _STRIDES if _PROBE // stride not in found]
    if missing:
        raise UsageError(
            f"{arch!r} has no maps of 1/{missing[0]} of the image's side, which a pyramid stands on: choose another, "
            "such as mobilenet_v2 or resnet18."
        )
    return [found[_PROBE // stride] for stride in _STRIDES]


@contextmanager
def _counted(module: nn.Module) -> Iterator[list[int]]:
    """Note how many numbers each layer gives while the block runs."""
    numbers: list[int] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            numbers.append(output.numel())

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if not list(layer.children())]
    try:
        yield numbers
    finally:
        for hook in hooks:
            hook.remove()
