"""The weights folder: where it is, what goes in comes out, and what is damaged is said of that file alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from anomaly.errors import MissingError, ModelError, OutputError, UsageError
from anomaly.runs import Arrays, sha256_of
from anomaly.weights import (
    IMAGENET_MEAN,
    WeightsFacts,
    find_weights,
    list_weights,
    offline,
    store_weights,
    weights_files,
    weights_folder,
    weights_path,
)

TENSORS: Arrays = {"conv1.weight": np.arange(6, dtype=np.float16).reshape(1, 6), "bn1.bias": np.ones(2, np.float32)}
TENSORS["bn1.num_batches_tracked"] = np.array(3)
FACTS = WeightsFacts("resnet18", "a.safetensors", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "ab" * 32, ("layer4", "fc"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a weights folder of the test's own, not made yet."""
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_the_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert weights_folder() == folder
    monkeypatch.setenv("ANOMALY_WEIGHTS", "~/here")
    assert weights_folder() == Path("~/here").expanduser()
    monkeypatch.delenv("ANOMALY_WEIGHTS")
    assert weights_folder().name == "weights"
    assert "anomaly-cxr" in weights_folder().parts


@pytest.mark.parametrize(
    ("value", "forbidden"), [(None, False), ("", False), ("0", False), ("off", False), ("No", False), ("1", True)]
)
def test_offline(value: str | None, forbidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMALY_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("ANOMALY_OFFLINE", value)
    assert offline() is forbidden


def test_what_goes_in_comes_out(folder: Path) -> None:
    stored = store_weights(TENSORS, FACTS)
    assert stored == find_weights("resnet18")
    assert stored.path == folder / "resnet18.safetensors" == weights_path("resnet18")
    assert stored.facts == FACTS
    assert stored.sha256 == sha256_of(stored.path)
    found = stored.tensors()
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_the_same_weights_are_the_same_bytes() -> None:
    first = store_weights(TENSORS, FACTS).sha256
    assert store_weights(dict(reversed(TENSORS.items())), FACTS, overwrite=True).sha256 == first


def test_nothing_is_replaced_unasked() -> None:
    store_weights(TENSORS, FACTS)
    other = WeightsFacts("resnet18", "b.safetensors")
    with pytest.raises(UsageError, match="--overwrite"):
        store_weights(TENSORS, other)
    assert find_weights("resnet18").facts == FACTS
    assert store_weights(TENSORS, other, overwrite=True).facts == other
    assert other.mean == IMAGENET_MEAN


def test_missing_ones_say_how_to_get_them() -> None:
    with pytest.raises(MissingError, match=r"anomaly weights fetch resnet18.*anomaly weights import") as raised:
        find_weights("resnet18")
    assert raised.value.exit_code == 6
    assert list_weights() == ([], {})
    assert weights_files() == []


@pytest.mark.parametrize("name", ["", "../resnet18", "a/b", ".hidden", "a b", "caf\u00e9/"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError, match="no name of an architecture"):
        weights_path(name)


def test_a_name_with_a_tag() -> None:
    store_weights(TENSORS, WeightsFacts("resnet18.a1_in1k", "hub"))
    assert [stored.facts.arch for stored in list_weights()[0]] == ["resnet18.a1_in1k"]


def test_one_damaged_file_does_not_hide_the_others(folder: Path) -> None:
    whole = store_weights(TENSORS, FACTS)
    (folder / "cut.safetensors").write_bytes(whole.path.read_bytes()[:-1])
    (folder / "other.safetensors").write_bytes(whole.path.read_bytes())
    save_file(TENSORS, folder / "foreign.safetensors", {"arch": "resnet18"})
    meta = {"arch": "zero", "origin": "x", "mean": [0, 0, 0], "std": [1, 1, 0]}
    save_file(TENSORS, folder / "zero.safetensors", {"meta": json.dumps(meta)})
    found, damaged = list_weights()
    assert found == [whole]
    assert damaged.keys() == {"cut.safetensors", "foreign.safetensors", "other.safetensors", "zero.safetensors"}
    assert "cannot be read" in damaged["cut.safetensors"]
    assert "anomaly weights import" in damaged["foreign.safetensors"]
    assert "must be resnet18.safetensors" in damaged["other.safetensors"]
    for name in ("cut", "foreign", "other", "zero"):
        with pytest.raises(ModelError, match=name):
            find_weights(name)


def test_a_file_damaged_after_it_was_found() -> None:
    stored = store_weights(TENSORS, FACTS)
    stored.path.write_bytes(b"")
    with pytest.raises(ModelError, match="Remove it"):
        stored.tensors()


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(OutputError, match="ANOMALY_WEIGHTS"):
        store_weights(TENSORS, FACTS)


def test_finding_needs_nothing_heavy() -> None:
    store_weights(TENSORS, FACTS)
    code = "import sys; from anomaly.workflows.weights import describe_weights; describe_weights(); " + (
        "assert not {'torch', 'torchvision', 'timm', 'cv2'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
