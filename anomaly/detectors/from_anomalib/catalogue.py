"""What there is to know of anomalib's image models without importing them: which can be had here, and what they need.

The table speaks of anomalib 2.7. It is closed: a model it does not name is not offered, for nobody has looked at
whether its fit would go to the network.

None of those that can be had here scores by a squared difference of pixels, which an ensemble refuses
(`Detector.raw_squared_error`): Ganomaly compares latent vectors, and its map is an absolute difference; Draem redraws
films too, but scores by a segmentation; the others look at features of a backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from anomaly.config import did_you_mean
from anomaly.errors import AnomalyError, MissingError, UsageError

Status = Literal["tested", "tried", "refused"]
"""Held by the tests; tried once by hand, small, with random weights and where its backbone is large with a smaller one
(fitted, scored, saved, loaded: the same bits); not to be had here."""

_CAIT = ("cait_m48_448", "cait_s24_224")
_DINO = {f"dinov2_vit_{size}_14": (f"vit_{size}_patch14_dinov2.lvd142m",) for size in ("small", "base", "large")} | {
    f"dinov3_vit_{size}_16": (f"vit_{size}_patch16_dinov3.lvd1689m",) for size in ("small", "base", "large")
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of `anomalib.models.image`.

    `option` is the constructor's argument that names its backbone, `default` what that is when left out (or the one
    backbone it can have, where there is no such argument), `archs` what names of its own stand for in timm.
    `needs` is in words; for one that is refused it is the reason.
    """

    name: str
    status: Status
    needs: str = ""
    option: str | None = None
    default: str | None = None
    archs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: type[AnomalyError] | None = None

    def backbones(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """Return the architectures whose pretrained weights it takes, with these options of its constructor."""
        if self.default is None:
            return ()
        chosen = str(options.get(self.option, self.default)) if self.option else self.default
        return self.archs.get(chosen, (chosen,))


def _with(name: str, default: str, words: str = "", *, option: str = "backbone", status: Status = "tried") -> Entry:
    return Entry(name, status, words, option, default)


def _refused(name: str, why: str, kind: type[AnomalyError] = MissingError) -> Entry:
    return Entry(name, "refused", why, refused=kind)


_GPU = "a GPU advisable"
_GPU_14, _GPU_16 = f"a size that 14 divides; {_GPU}", f"a size that 16 divides; {_GPU}"

_TABLE = (
    _with("AnomalyDINO", "vit_small_patch14_dinov2", _GPU_14, option="encoder_name"),
    _refused("AnomalyVFM", "it is made of weights that it downloads, and learns nothing from normals"),
    _with("Cfa", "wide_resnet50_2"),
    _with("Cflow", "wide_resnet50_2", f"batch x (size / 32) squared of fiber_batch_size (64) at least; {_GPU}"),
    _refused("CFM", "it compares pictures with 3D point clouds, which films do not have", UsageError),
    Entry("Csflow", "tried", f"a size that 128 divides; {_GPU}", default="efficientnet_b5"),
    _refused("Dfkde", "it draws no map, which scores are calibrated and shown with", UsageError),
    _with("Dfm", "resnet50", "a size of 64 at least"),
    _with("Dinomaly", "vit_base_patch14_reg4_dinov2", _GPU_14, option="encoder_name"),
    Entry(
        "Draem",
        "tried",
        f"a size that 32 divides; {_GPU}; its textures are noise unless dtd_dir names a folder of pictures",
    ),
    _refused("Dsr", "it downloads a vector-quantised autoencoder and unpickles it"),
    _refused("EfficientAd", "it downloads its own teacher's weights and the pictures of ImageNette"),
    _with("Fastflow", "resnet18", "a size that 16 divides", status="tested"),
    Entry("FoundAD", "tried", _GPU_14, "encoder_name", "dinov2_vit_base_14", _DINO),
    _with("Fre", "resnet50", "input_dim = 1024 x (size / 32) squared"),
    Entry("Ganomaly", "tested", "nothing to import; its map is the difference to its twin"),
    _with("GeneralAD", "vit_large_patch14_dinov2.lvd142m", _GPU_14),
    _with("Glass", "wide_resnet50_2", _GPU),
    _with("InpFormer", "vit_base_patch14_reg4_dinov2", _GPU_14, option="encoder_name"),
    Entry("L2BT", "tried", _GPU_14, default="vit_base_patch14_reg4_dinov2"),
    _with("MHPatchcore", "wide_resnet50_2.tv2_in1k"),
    _with("Padim", "resnet18"),
    _with("Patchcore", "wide_resnet50_2"),
    _with("Patchflow", "tf_efficientnet_b5", _GPU),
    _with("Rad", "vit_base_patch16_dinov3", _GPU_16),
    _with("ReverseDistillation", "wide_resnet50_2", f"a size that 32 divides; {_GPU}"),
    _with("Stfpm", "resnet18", status="tested"),
    _with("SuperADD", "vit_huge_plus_patch16_dinov3", f"a size of patch_size (448) at least; {_GPU}"),
    _with("Supersimplenet", "wide_resnet50_2.tv_in1k", f"a size of 128 at least; {_GPU}"),
    Entry(
        "Uflow",
        "tried",
        f"a size of 448, or with another backbone one that 16 divides; {_GPU}",
        "backbone",
        "mcait",
        {"mcait": _CAIT},
    ),
    _with("UniNet", "wide_resnet50_2", _GPU, option="teacher_backbone"),
    _refused("VlmAd", "it asks a language model over the network, and learns nothing from normals"),
    _refused("WinClip", "it downloads CLIP, and learns nothing from normals"),
)

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _TABLE}
"""By the name anomalib gives it."""


def find_entry(name: str) -> Entry:
    """Return what is known of a model; upper and lower case are alike.

    Raises:
        UsageError: anomalib has none of that name, or films are not what it takes.
        MissingError: It needs what only a download would bring.
    """
    entry = next((entry for entry in _TABLE if entry.name.lower() == name.lower()), None)
    if entry is None:
        near = did_you_mean(name.lower(), [known.lower() for known in ENTRIES])
        for known in ENTRIES:  # hints in anomalib's own spelling
            near = near.replace(f"{known.lower()!r}", f"{known!r}")
        raise UsageError(
            f"anomalib has no image model called {name!r}{near if 'did you mean' in near else '; Stfpm is one.'}"
        )
    if entry.refused is not None:
        raise entry.refused(f"anomalib's {entry.name} cannot be had here: {entry.needs}. Choose another model.")
    return entry


def catalogue() -> list[dict[str, str]]:
    """Return every image model of anomalib, in alphabetical order: its name, needs (in words) and status."""
    return [{"name": entry.name, "needs": _in_words(entry), "status": entry.status} for entry in _TABLE]


def _in_words(entry: Entry) -> str:
    archs = " and ".join(entry.backbones({}))
    return "; ".join(part for part in (f"weights of {archs}" if archs else "", entry.needs) if part)
