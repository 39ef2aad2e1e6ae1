"""`anomaly weights`: anyone's files go into the folder or are refused, with the reason; none is unpickled."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import install_opener

import numpy as np
import pytest
import torch
from huggingface_hub import close_session, constants
from running import Ran, anomaly
from safetensors.numpy import load_file, save_file

from anomaly.errors import MissingError, ModelError
from anomaly.nets.zoo import build
from anomaly.runs import Arrays, sha256_of
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, StoredWeights, find_weights
from anomaly.workflows.weights import ensure_weights

HALVES = (0.5, 0.5, 0.5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a weights folder of the test's own; torch's cache is empty and every connection refused."""
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("ANOMALY_OFFLINE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    close_session()  # what was opened earlier has read other proxies
    install_opener(None)
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def state() -> Arrays:
    """Return random weights of resnet18, half precision."""
    named = build("resnet18").state_dict().items()
    return {name: (tensor.half() if tensor.is_floating_point() else tensor).numpy() for name, tensor in named}


def write(path: Path, tensors: Arrays, **header: str) -> Path:
    save_file({name: np.asarray(array, order="C") for name, array in tensors.items()}, path, header or None)
    return path


def first(state: Arrays, *parts: str) -> Arrays:
    return {name: array for name, array in state.items() if name.split(".")[0] in parts}


def take(*args: object) -> Ran:
    return anomaly("weights", "import", *args)


def taken(*args: object, arch: str = "resnet18") -> StoredWeights:
    ran = take(*args)
    assert ran.code == 0, ran.err
    return find_weights(arch)


def assert_same(stored: StoredWeights, tensors: Arrays) -> None:
    found = stored.tensors()
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


# what is imported


def test_a_foreign_file_that_says_what_it_is(tmp_path: Path, state: Arrays, folder: Path) -> None:
    file = write(tmp_path / "in.safetensors", state, arch="resnet18", input="ImageNet mean/std")
    ran = take(file)
    stored = find_weights("resnet18")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{folder / 'resnet18.safetensors'}: resnet18, complete; input ImageNet mean/std; sha256")
    assert (stored.facts.origin, stored.facts.origin_sha256) == ("in.safetensors", sha256_of(file))
    assert stored.sha256 == sha256_of(stored.path)
    assert_same(stored, state)


@pytest.mark.parametrize(
    ("header", "mean", "note"),
    [
        ("ImageNet mean/std", IMAGENET_MEAN, ""),
        ("x/127.5-1", HALVES, ""),
        ("x / 127.5 - 1", HALVES, ""),
        ("0..255, BGR", IMAGENET_MEAN, "'0..255, BGR'"),
        ("", IMAGENET_MEAN, "taken to be normalised by ImageNet's mean and std"),
    ],
)
def test_input_is_read_from_the_header_or_said_to_be_assumed(
    header: str, mean: tuple[float, ...], note: str, tmp_path: Path, state: Arrays
) -> None:
    file = write(
        tmp_path / "a.safetensors", first(state, "conv1"), arch="resnet18", **{"input": header} if header else {}
    )
    ran = take(file)
    facts = find_weights("resnet18").facts
    assert (facts.mean, facts.std) == (mean, HALVES if mean == HALVES else IMAGENET_STD)
    assert note in ran.err
    assert bool(note) == ("say --mean and --std" in ran.err)


def test_input_given_by_hand(tmp_path: Path, state: Arrays) -> None:
    file = write(tmp_path / "a.safetensors", first(state, "conv1"), arch="resnet18")
    ran = take(file, "--mean", "0.5, .4,0.3", "--std", "1,0.25,0.125")
    assert ran.err == ""
    assert "input mean 0.5,0.4,0.3, std 1,0.25,0.125" in ran.out
    facts = find_weights("resnet18").facts
    assert (facts.mean, facts.std) == ((0.5, 0.4, 0.3), (1.0, 0.25, 0.125))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--mean", "0.5,0.5,0.5"), "go together"),
        (("--mean", "0.5,0.5", "--std", "1,1,1"), "three numbers"),
        (("--mean", "a,b,c", "--std", "1,1,1"), "three numbers"),
        (("--mean", "0,0,0", "--std", "1,0,1"), "above 0"),
        (("--mean", "nan,0,0", "--std", "1,1,1"), "finite"),
        (("--mean", "123.7,116.3,103.5", "--std", "58,57,57"), "divide both by 255"),
    ],
)
def test_input_that_makes_no_sense(flags: tuple[str, ...], said: str, tmp_path: Path, state: Arrays) -> None:
    ran = take(write(tmp_path / "a.safetensors", first(state, "conv1")), "--as", "resnet18", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize(
    ("parts", "lacks", "there"),
    [
        (("conv1", "bn1", "layer1", "layer2", "layer3"), ("layer4", "fc"), "complete up to layer3; lacks layer4, fc"),
        (("conv1",), ("bn1", "layer1", "layer2", "layer3", "layer4", "fc"), "lacks bn1, layer1, layer2, layer3 and 2"),
    ],
)
def test_the_first_layers_are_enough(
    parts: tuple[str, ...], lacks: tuple[str, ...], there: str, tmp_path: Path, state: Arrays
) -> None:
    ran = take(write(tmp_path / "a.safetensors", first(state, *parts)), "--as", "resnet18")
    assert there in ran.out
    assert find_weights("resnet18").facts.lacks == lacks


def test_a_network_without_names_for_its_stages(tmp_path: Path) -> None:
    named = build("mobilenet_v2").state_dict().items()
    some = {name: tensor.numpy() for name, tensor in named if re.match(r"features\.\d\.", name)}
    ran = take(write(tmp_path / "a.safetensors", some), "--as", "mobilenet_v2")
    assert "complete up to features.9; lacks features.10, features.11, features.12, features.13 and 6 more" in ran.out
    cut = {name: array for name, array in some.items() if not name.startswith("features.9.conv.3")}
    ran = take(write(tmp_path / "b.safetensors", cut), "--as", "mobilenet_v2", "--overwrite")
    assert "complete up to features.9.conv.2; lacks features.9.conv.3, features.10" in ran.out


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.", "encoder.", "module.model.backbone."])
def test_prefixes_are_taken_off(prefix: str, tmp_path: Path, state: Arrays) -> None:
    some = first(state, "conv1", "bn1", "layer1")
    ran = take(write(tmp_path / "a.safetensors", {prefix + k: v for k, v in some.items()}), "--as", "resnet18")
    assert f"note: names were read without the '{prefix}' in front of them." in ran.err
    assert_same(find_weights("resnet18"), some)


def test_modules_by_number_as_radimagenet_has_them(tmp_path: Path, state: Arrays) -> None:
    order = [name for name, _ in build("resnet18").named_children()]
    some = {name: array for name, array in state.items() if not name.startswith("fc")}
    numbered = {
        f"backbone.{order.index(name.split('.')[0])}.{name.split('.', 1)[1]}": array for name, array in some.items()
    }
    ran = take(write(tmp_path / "a.safetensors", numbered), "--as", "resnet18")
    assert "0 is conv1, 1 is bn1" in ran.err
    assert_same(find_weights("resnet18"), some)


def test_old_names_of_densenet(tmp_path: Path) -> None:
    named = build("densenet121").state_dict().items()
    some = {
        name: tensor.numpy() for name, tensor in named if name.startswith(("features.conv0", "features.denseblock1"))
    }
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", name): array for name, array in some.items()}
    assert old.keys() != some.keys()
    file = write(tmp_path / "a.safetensors", {**old, "features.norm0.weight": np.ones(64, np.float32)})
    ran = take(file, "--as", "densenet121")
    assert ran.code == 5  # norm0 is there only in part
    more = {name: tensor.numpy() for name, tensor in named if name.startswith("features.norm0")}
    assert_same(taken(write(file, {**old, **more}), "--as", "densenet121", arch="densenet121"), {**some, **more})


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"fc.weight": (3, 512), "fc.bias": (3,)}, "fc.weight has shape 3 x 512, resnet18 wants 1000 x 512"),
        ({"fc.1.weight": (3, 512), "fc.1.bias": (3,)}, "fc.1.weight (3 x 512) is none of its tensors"),
    ],
)
def test_a_classifier_of_other_classes_is_left_out(
    head: dict[str, tuple[int, ...]], said: str, tmp_path: Path, state: Arrays
) -> None:
    body = {name: array for name, array in state.items() if not name.startswith("fc.")}
    file = write(tmp_path / "a.safetensors", {**body, **{name: np.zeros(size, "f4") for name, size in head.items()}})
    ran = take(file, "--as", "resnet18")
    assert ran.err.count("note: the classifier, fc, is left out") == 1
    assert said in ran.err
    assert "complete up to layer4; lacks fc" in ran.out
    assert_same(find_weights("resnet18"), body)


def test_counters_need_not_be_there(tmp_path: Path, state: Arrays) -> None:
    some = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    assert taken(write(tmp_path / "a.safetensors", some), "--as", "resnet18").facts.lacks == ()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_types_are_kept(kind: type, tmp_path: Path, state: Arrays) -> None:
    some = {name: array.astype(kind) for name, array in first(state, "conv1").items()}
    assert_same(taken(write(tmp_path / "a.safetensors", some), "--as", "resnet18"), some)


# what is not


def refused(file: Path, *flags: str) -> str:
    ran = take(file, *(flags or ("--as", "resnet18")))
    assert (ran.code, ran.out) == (5, ""), ran.err
    with pytest.raises(MissingError):
        find_weights("resnet18")
    return ran.err


def test_another_network(tmp_path: Path, state: Arrays) -> None:
    file = write(tmp_path / "a.safetensors", state)
    said = refused(file, "--as", "resnet50")
    assert (
        "layer1.0.conv1.weight has shape 64 x 64 x 3 x 3, resnet50 wants 64 x 64 x 1 x 1. Are these weights of" in said
    )
    assert "it lacks layer1.2, but not what comes after" in refused(file, "--as", "resnet34")
    assert "is none of its tensors" in refused(file, "--as", "mobilenet_v2")


def test_a_tensor_too_many(tmp_path: Path, state: Arrays) -> None:
    file = write(tmp_path / "a.safetensors", {**state, "projection.weight": np.zeros((2, 3), np.float32)})
    assert "projection.weight (2 x 3) is none of its tensors" in refused(file)


def test_two_for_one(tmp_path: Path, state: Arrays) -> None:
    some = first(state, "conv1", "bn1", "layer1")
    file = write(tmp_path / "a.safetensors", {**some, **{f"teacher.{name}": array for name, array in some.items()}})
    assert "teacher.bn1.bias stands for bn1.bias, and so does another" in refused(file)


def test_no_first_layer(tmp_path: Path, state: Arrays) -> None:
    file = write(tmp_path / "a.safetensors", first(state, "bn1", "layer1"))
    assert "lacks conv1.weight, the first layer of resnet18" in refused(file)


def test_images_of_one_channel(tmp_path: Path, state: Arrays) -> None:
    file = write(tmp_path / "a.safetensors", {**state, "conv1.weight": np.zeros((64, 1, 7, 7), np.float32)})
    assert "is for images of one channel" in refused(file)


def test_values_that_are_no_weights(tmp_path: Path, state: Arrays) -> None:
    endless = {**state, "bn1.running_var": np.full(64, np.inf, np.float16)}
    assert "bn1.running_var that are not finite" in refused(write(tmp_path / "a.safetensors", endless))
    whole = {**state, "conv1.weight": np.zeros((64, 3, 7, 7), np.int8)}
    assert "conv1.weight holds int8" in refused(write(tmp_path / "b.safetensors", whole))


def test_bfloat16(tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    save_torch({"conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert "conv1.weight as BF16" in refused(tmp_path / "a.safetensors")


def test_files_that_are_no_safetensors(tmp_path: Path, state: Arrays) -> None:
    whole = write(tmp_path / "a.safetensors", state).read_bytes()
    for name, data in {
        "empty": b"",
        "cut": whole[:-1],
        "text": b"hello, these are weights",
        "h5": b"\x89HDF\r\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        assert "is no whole safetensors file" in refused(tmp_path / name)
    save_file({}, tmp_path / "none")
    assert "holds no tensors" in refused(tmp_path / "none")


@pytest.mark.parametrize(("name", "old"), [("w.pth", False), ('it\'s a \t"$w".bin', True)])
def test_a_pickle_stays_closed_and_the_command_that_converts_it_works(
    name: str, old: bool, tmp_path: Path, state: Arrays
) -> None:
    some = {name: torch.from_numpy(array) for name, array in first(state, "conv1", "bn1").items()}
    file = tmp_path / name
    torch.save({"state_dict": some, "epoch": 3}, file, _use_new_zipfile_serialization=not old)
    said = refused(file)
    assert "can run code when it is opened" in said
    assert said.count("\n") == 2
    words = shlex.split(said.splitlines()[1])
    assert words[:2] == ["python", "-c"]
    subprocess.run([sys.executable, *words[1:]], check=True)
    assert_same(taken(file.with_suffix(".safetensors"), "--as", "resnet18"), first(state, "conv1", "bn1"))


def test_what_is_asked_for_wrongly(tmp_path: Path, state: Arrays) -> None:
    file = write(tmp_path / "a.safetensors", first(state, "conv1"))
    for args, said in (
        ((tmp_path / "nowhere",), "does not exist"),
        ((tmp_path,), "is a folder"),
        ((file,), "add --as NAME"),
        ((file, "--as", "resnt18"), "did you mean 'resnet18'?"),
        ((file, "--as", "../resnet18"), "no name of an architecture"),
    ):
        ran = take(*args)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err


def test_nothing_is_replaced_unasked(tmp_path: Path, state: Arrays) -> None:
    before = taken(write(tmp_path / "a.safetensors", first(state, "conv1")), "--as", "resnet18")
    file = write(tmp_path / "b.safetensors", first(state, "conv1", "bn1"))
    ran = take(file, "--as", "resnet18")
    assert ran.code == 2
    assert "--overwrite" in ran.err
    assert find_weights("resnet18") == before
    assert taken(file, "--as", "resnet18", "--overwrite").facts.origin == "b.safetensors"


# list and export


def test_an_empty_folder_says_how_to_fill_it(folder: Path) -> None:
    ran = anomaly("weights", "list")
    assert ran.code == 0
    assert str(folder) in ran.out
    assert "anomaly weights fetch" in ran.out
    assert "anomaly weights import" in ran.out
    assert json.loads(anomaly("weights", "list", "--json").out) == {"folder": str(folder), "weights": [], "damaged": {}}
    ran = anomaly("weights", "export", folder.parent / "out")
    assert ran.code == 6
    assert not (folder.parent / "out").exists()


def test_list(tmp_path: Path, state: Arrays, folder: Path) -> None:
    stored = taken(write(tmp_path / "a.safetensors", first(state, "conv1", "bn1")), "--as", "resnet18")
    (folder / "vgg16.safetensors").write_bytes(b"damaged")
    ran = anomaly("weights", "list")
    assert ran.code == 0
    assert stored.sha256[:12] in ran.out
    assert re.search(
        r"resnet18 +0\.0 +lacks layer1, layer2, layer3, layer4 and 1 more +ImageNet mean/std +a\.safe", ran.out
    )
    assert f"not usable: {folder / 'vgg16.safetensors'} cannot be read" in ran.out
    facts = json.loads(anomaly("weights", "list", "--json").out)
    assert facts["damaged"].keys() == {"vgg16.safetensors"}
    [row] = facts["weights"]
    assert row["name"] == "resnet18"
    assert row["lacks"] == ["layer1", "layer2", "layer3", "layer4", "fc"]
    assert (row["mean"], row["std"]) == (list(IMAGENET_MEAN), list(IMAGENET_STD))
    assert (row["sha256"], row["bytes"]) == (stored.sha256, stored.path.stat().st_size)


def test_what_is_exported_is_the_same_where_it_is_imported(
    tmp_path: Path, state: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.safetensors", first(state, "conv1"), input="x/127.5-1")
    here = taken(file, "--as", "resnet18")
    ran = anomaly("weights", "export", tmp_path / "out")
    assert ran.code == 0
    assert "anomaly weights import out/resnet18.safetensors" in ran.out
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "there"))
    there = taken(tmp_path / "out" / "resnet18.safetensors")
    assert (there.sha256, there.facts) == (here.sha256, here.facts)
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "out"))
    assert find_weights("resnet18").sha256 == here.sha256


def test_export_of_some_and_over_others(tmp_path: Path, state: Arrays, folder: Path) -> None:
    taken(write(tmp_path / "a.safetensors", first(state, "conv1")), "--as", "resnet18")
    taken(write(tmp_path / "a.safetensors", first(state, "conv1")), "--as", "resnet34", arch="resnet34")
    out = tmp_path / "out"
    assert anomaly("weights", "export", out, "--only", "resnet34").code == 0
    assert [path.name for path in out.iterdir()] == ["resnet34.safetensors"]
    ran = anomaly("weights", "export", out)
    assert ran.code == 2
    assert "--overwrite" in ran.err
    assert [path.name for path in out.iterdir()] == ["resnet34.safetensors"]
    assert anomaly("weights", "export", out, "--overwrite").code == 0
    assert len(list(out.iterdir())) == 2
    ran = anomaly("weights", "export", out, "--only", "vgg16", "--overwrite")
    assert ran.code == 6
    assert "anomaly weights fetch vgg16" in ran.err
    assert anomaly("weights", "export", tmp_path / "a.safetensors").code == 2
    (folder / "vgg16.safetensors").write_bytes(b"damaged")
    assert anomaly("weights", "export", tmp_path / "other").code == 5
    assert anomaly("weights", "export", tmp_path / "other", "--only", "resnet18").code == 0


def test_doctor_says_where_they_are(tmp_path: Path, state: Arrays, folder: Path) -> None:
    assert f"{folder}: 0 files" in anomaly("doctor").out
    taken(write(tmp_path / "a.safetensors", first(state, "conv1")), "--as", "resnet18")
    assert f"{folder}: 1 file\n" in anomaly("doctor").out
    assert json.loads(anomaly("doctor", "--json").out)["weights"] == {"folder": str(folder), "files": 1}


# fetch


@pytest.fixture
def published(tmp_path: Path, state: Arrays) -> Arrays:
    """Put weights of resnet18 where torch keeps what it has downloaded, so that they come without a network."""
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save(tensors, folder / "resnet18-f37072fd.pth")
    return state


def test_fetch(published: Arrays, folder: Path) -> None:
    ran = anomaly("weights", "fetch", "resnet18")
    assert ran.code == 0, ran.err
    address = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    file = folder / "resnet18.safetensors"
    assert ran.err == (
        f"Downloading the weights of resnet18 from {address} into {file} (once); --offline forbids it.\n"
    )
    assert ran.out.startswith(f"{file}: resnet18, complete; input ImageNet mean/std; sha256 ")
    stored = find_weights("resnet18")
    assert stored.facts.origin == address
    assert (stored.facts.mean, stored.facts.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert_same(stored, published)
    again = anomaly("weights", "fetch", "resnet18")
    assert again.code == 2
    assert "--overwrite" in again.err
    assert anomaly("weights", "fetch", "resnet18", "--overwrite").code == 0
    assert find_weights("resnet18") == stored


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_fetch_offline(how: str, published: Arrays, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "variable":
        monkeypatch.setenv("ANOMALY_OFFLINE", "1")
    ran = anomaly("weights", "fetch", "resnet18", *(["--offline"] if how == "flag" else []))
    assert (ran.code, ran.out) == (6, "")
    assert "the network is forbidden (--offline or ANOMALY_OFFLINE)" in ran.err
    assert "Downloading" not in ran.err
    assert not folder.exists()


@pytest.mark.parametrize("arch", ["resnet18", "resnet10t"])
def test_fetch_without_a_network(arch: str, folder: Path, tmp_path: Path) -> None:
    ran = anomaly("weights", "fetch", arch)
    assert (ran.code, ran.out) == (6, "")
    downloading, error = ran.err.splitlines()
    assert downloading.startswith("Downloading")
    assert "refused" in error
    assert "anomaly weights export DIR" in error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_fetch_of_what_there_is_not() -> None:
    for arch, said in (("resnt18", "did you mean"), ("botnet50ts_256", "are published"), ("../x", "no name")):
        ran = anomaly("weights", "fetch", arch)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert "Downloading" not in ran.err


def test_what_is_published_must_fit_too(tmp_path: Path, published: Arrays, folder: Path) -> None:
    file = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    torch.save({name: torch.from_numpy(array) for name, array in published.items() if name != "conv1.weight"}, file)
    ran = anomaly("weights", "fetch", "resnet18")
    assert ran.code == 5
    assert "lacks conv1.weight" in ran.err
    assert not folder.exists()


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def take_them() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take_them, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


@pytest.mark.parametrize("arch", ["resnet18", "resnet10t"])
def test_fetch_from_a_server_that_says_nothing(arch: str, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, silent)
    install_opener(None)
    monkeypatch.setattr("anomaly.nets.zoo._PATIENCE", 0.2)
    ran = anomaly("weights", "fetch", arch)
    assert ran.code == 6
    assert "timed out" in ran.err, ran.err
    assert socket.getdefaulttimeout() is None


# what fit calls


def test_ensure_weights(published: Arrays, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    said: list[str] = []
    with pytest.raises(MissingError, match=r"network is forbidden.*anomaly weights fetch resnet18"):
        ensure_weights("resnet18", offline=True, say=said.append)
    assert said == []
    stored = ensure_weights("resnet18", offline=False, say=said.append)
    assert len(said) == 1
    assert "Downloading the weights of resnet18 from https://download.pytorch.org" in said[0]
    assert str(folder / "resnet18.safetensors") in said[0]
    monkeypatch.setenv("ANOMALY_OFFLINE", "1")
    assert ensure_weights("resnet18", offline=True, say=said.append) == stored
    assert len(said) == 1
    stored.path.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="remove it"):
        ensure_weights("resnet18", offline=False, say=said.append)
    assert stored.path.read_bytes() == b"damaged"


def test_ensure_weights_tells_before_it_downloads() -> None:
    said: list[str] = []
    with pytest.raises(MissingError, match="could not be fetched"):
        ensure_weights("resnet18", offline=False, say=said.append)
    assert len(said) == 1


# real files


@pytest.mark.real
def test_the_shared_files(shared_data: Path, folder: Path) -> None:
    ran = take(shared_data / "weights" / "resnet18_imagenet_conv1-layer3.safetensors")
    assert ran.err == ""
    assert "resnet18, complete up to layer3; lacks layer4, fc; input ImageNet mean/std" in ran.out
    ran = take(shared_data / "weights" / "mobilenet_v2_imagenet.safetensors")
    assert ran.err == ""
    assert "mobilenet_v2, complete; input x/127.5-1" in ran.out
    assert find_weights("mobilenet_v2").facts.mean == HALVES
    assert load_file(find_weights("mobilenet_v2").path)["classifier.1.bias"].dtype == np.float16
    listed = anomaly("weights", "list").out
    assert "lacks layer4, fc" in listed
    assert "complete" in listed
