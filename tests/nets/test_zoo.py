"""Networks by name, and their published weights: from torch's and the hub's caches here, never from a network."""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from pathlib import Path
from urllib.request import install_opener

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import save_file

from anomaly.errors import MissingError, ModelError, UsageError
from anomaly.nets.zoo import address_of, blueprint, build, download, library_of, shapes_of
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD

RESNET18 = "https://download.pytorch.org/models/resnet18-f37072fd.pth"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lead every connection to a closed port, and every cache to an empty folder."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    close_session()  # what was opened earlier has read other proxies
    install_opener(None)


def keep_for_torch(tmp_path: Path, file: str, data: object) -> Path:
    """Put a file where torch keeps what it has downloaded."""
    path = tmp_path / "torch" / "hub" / "checkpoints" / file
    path.parent.mkdir(parents=True)
    torch.save(data, path)
    return path


def test_which_library() -> None:
    assert library_of("resnet18") == library_of("mobilenet_v2") == library_of("wide_resnet50_2") == "torchvision"
    assert library_of("test_resnet") == library_of("resnet18.a1_in1k") == "timm"


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("resnet19", r"did you mean 'resnet10[a-z]*'|did you mean 'resnet1\d+'"),
        ("wide_resnet50", "did you mean 'wide_resnet50_2'"),
        ("zzz", "resnet18, wide_resnet50_2 and mobilenet_v2 are such names"),
        ("resnet18.nonsense", "Invalid pretrained tag"),
    ],
)
def test_names_that_are_none(arch: str, said: str) -> None:
    for ask in (library_of, build, address_of, download):
        with pytest.raises(UsageError, match=said) as raised:
            ask(arch)
        assert len(str(raised.value)) < 200


@pytest.mark.parametrize("arch", ["resnet18", "test_resnet"])
def test_what_is_built_is_random_and_in_eval_mode(arch: str) -> None:
    torch.manual_seed(0)
    one, other = build(arch), build(arch)
    assert not one.training
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_blueprint() -> None:
    plan = blueprint("resnet18")
    assert plan.shapes["conv1.weight"] == (64, 3, 7, 7)
    assert list(plan.shapes)[-1] == "fc.bias"
    assert plan.modules[:5] == ("conv1", "bn1", "relu", "maxpool", "layer1")
    counters = {name for name in plan.shapes if name.endswith("num_batches_tracked")}
    assert plan.whole == counters
    assert shapes_of(build("resnet18")) == {name: size for name, size in plan.shapes.items() if name not in counters}


def test_addresses() -> None:
    assert address_of("resnet18") == RESNET18
    assert address_of("resnet10t") == "https://huggingface.co/timm/resnet10t.c3_in1k"
    assert address_of("botnet50ts_256") is None


def test_what_torch_keeps_needs_no_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = build("resnet18")
    file = keep_for_torch(tmp_path, "resnet18-f37072fd.pth", network.state_dict())
    tensors, facts = download("resnet18")
    assert (facts.arch, facts.origin, facts.mean, facts.std) == ("resnet18", RESNET18, IMAGENET_MEAN, IMAGENET_STD)
    assert facts.origin_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert tensors.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arch", "file", "mean"),
    [
        (
            "googlenet",
            "googlenet-1378be20.pth",
            0.5,
        ),  # torchvision turns ImageNet's into halves inside: we build without
        ("efficientnet_v2_l", "efficientnet_v2_l-59c71312.pth", 0.5),
        ("alexnet", "alexnet-owt-7be5be79.pth", 0.485),
    ],
)
def test_input_is_what_those_weights_want(arch: str, file: str, mean: float, tmp_path: Path) -> None:
    keep_for_torch(tmp_path, file, {"one": torch.zeros(1)})
    assert download(arch)[1].mean[0] == mean


class _Harmful:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.mkdir, (self._mark,)  # type: ignore[return-value]


def test_what_torch_keeps_runs_no_code(tmp_path: Path) -> None:
    file = keep_for_torch(tmp_path, "resnet18-f37072fd.pth", {"conv1.weight": _Harmful(tmp_path / "mark")})
    with pytest.raises(ModelError, match="is damaged: remove it") as raised:
        download("resnet18")
    assert str(file) in str(raised.value)
    assert not (tmp_path / "mark").exists()


def test_what_torch_keeps_in_part_is_named(tmp_path: Path) -> None:
    file = keep_for_torch(tmp_path, "resnet18-f37072fd.pth", build("resnet18").state_dict())
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="is damaged: remove it"):
        download("resnet18")


def test_what_the_hub_keeps_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # its client would try for half a minute
    network = timm.create_model("resnet10t", pretrained=False)
    kept, revision = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k", "a" * 40
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(revision)
    (kept / "snapshots" / revision).mkdir(parents=True)
    save_file(network.state_dict(), kept / "snapshots" / revision / "model.safetensors")
    tensors, facts = download("resnet10t")
    assert facts.origin == "https://huggingface.co/timm/resnet10t.c3_in1k"
    assert (facts.mean, facts.std) == (IMAGENET_MEAN, IMAGENET_STD)
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


@pytest.mark.parametrize("arch", ["resnet18", "resnet10t"])
def test_without_a_network_it_says_so_at_once(arch: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    library_of(arch)  # imports what takes time
    started = time.monotonic()
    with pytest.raises(
        MissingError, match=r"could not be fetched from https://.*refused.*anomaly weights export DIR"
    ) as e:
        download(arch)
    assert time.monotonic() - started < 10
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nothing_is_published() -> None:
    with pytest.raises(UsageError, match="No pretrained weights of 'botnet50ts_256' are published"):
        download("botnet50ts_256")


def test_the_process_is_as_before() -> None:
    filters, out = list(warnings.filters), sys.stdout
    with pytest.raises(MissingError):
        download("resnet18")
    assert (list(warnings.filters), sys.stdout) == (filters, out)
