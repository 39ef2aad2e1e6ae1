"""`anomaly attention`: shares by hand, which mask goes with which scan, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from running import Ran, anomaly

from anomaly.calibrate import Calibration
from anomaly.errors import DataError
from anomaly.prepare.geometry import crop_geometry, resize_geometry
from anomaly.records import Float32, Geometry, ResultRow
from anomaly.runs import write_json
from anomaly.scans.borders import Box
from anomaly.scans.phantom import make_phantom
from anomaly.workflows.attention import attention, attention_on_page
from anomaly.workflows.journal import Journal
from anomaly.workflows.lung_masks import match_masks, on_film, read_mask
from anomaly.workflows.panels import Panel, save_panel
from anomaly.workflows.results import write_scores

SIDE = 16
WRITTEN = ("attention.csv", "attention.json", "attention_worst.png", "figures/attention.png")
QUANTILES = {"0.5": 0.0, "0.95": 0.5, "0.99": 1.0, "0.999": 2.0, "1.0": 3.0}


@dataclass(frozen=True)
class Film:
    """A scored film of 16 x 16 pixels; `size` (H, W) is what the journal says of it."""

    heat: Float32
    label: int | None = None
    patient: str | None = None
    geometry: Geometry = resize_geometry((SIDE, SIDE), SIDE)  # noqa: RUF009 (never changed)
    size: tuple[int, int] | None = (SIDE, SIDE)
    panel: bool = True


def heat(**at: float) -> Float32:
    """Return a map, hot on the left (inside the lungs of `left`) and on the right."""
    values = np.zeros((SIDE, SIDE), np.float32)
    values[4, 4], values[4, 12] = at.get("left", 0.0), at.get("right", 0.0)
    return values


def left(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    return mask


def results(out: Path, films: Mapping[str, Film]) -> Path:
    """Write a results folder by hand."""
    rows, entries = [], []
    for number, (path, film) in enumerate(films.items()):
        scan_id = f"scan-{number}"
        row = ResultRow(scan_id, path, "scored", film.patient, film.label, score=-float(number), p_value=0.5)
        rows.append(row)
        trivial = None if film.size is None else {"height": float(film.size[0]), "width": float(film.size[1])}
        entries.append({"scan_id": scan_id, "score": row.score, "class_name": "ill", "trivial": trivial})
        if film.panel:
            grey = np.full(film.geometry.film_shape, 90, np.uint8)
            prepared = np.full((SIDE, SIDE), 90, np.uint8)
            save_panel(out / "panels" / f"{scan_id}.npz", Panel(grey, prepared, None, film.heat, film.geometry))
    write_scores(out, rows, alpha=0.05)
    write_json(out / "receipt.json", {"command": "score", "alpha": 0.05, "heat_unit": "", "hashed_paths": False})
    Calibration(np.arange(8.0), QUANTILES).save(out)
    Journal(out).append(entries)
    return out


def masks(folder: Path, pictures: Mapping[str, np.ndarray]) -> Path:
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), picture)
    return folder


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "attention.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_shares_by_hand(tmp_path: Path) -> None:
    films = {
        "n/a.png": Film(heat(left=3, right=1), 0, "p"),
        "n/b.png": Film(heat(left=1, right=3), 0, "q"),
        "i/c.png": Film(heat(left=1, right=1), 1, "r"),
        "i/d.png": Film(heat(), 1, "s"),
    }
    out = results(tmp_path / "out", films)
    found = attention(out, masks(tmp_path / "m", {name: left() for name in films}), n_boot=50)
    rows = table(out)
    assert list(rows) == ["n/b.png", "i/c.png", "n/a.png", "i/d.png"], "worst first, without heat last"
    assert [row["share"] for row in rows.values()] == ["0.250000", "0.500000", "0.750000", ""]
    assert {row["lung_area"] for row in rows.values()} == {"0.500000"}
    worst = ["scan-1", "n/b.png", "0", "ill", "-1", "0.250000", "0.500000"]
    assert list(rows["n/b.png"].values()) == worst
    assert [(row.name, row.n, row.no_heat, row.median, row.below) for row in found.rows] == [
        ("all", 3, 1, 0.5, pytest.approx(1 / 3)),
        ("labelled normal", 2, 0, 0.5, 0.5),
        ("labelled abnormal", 1, 1, 0.5, 0.0),
    ]
    assert found.rows[0].interval is not None
    assert found.rows[2].interval is None
    told = json.loads((out / "attention.json").read_text())
    assert (told["scored"], told["panels"], told["measured"]) == (4, 4, 4)
    assert told["rows"][0]["mean"] == pytest.approx(0.5)
    assert told["notes"] == ["1 maps have no heat at all and count in nothing."]


def test_the_same_again_gives_the_same_bytes_and_no_gallery_where_none_is_asked_for(tmp_path: Path) -> None:
    out = results(tmp_path / "out", {"a.png": Film(heat(left=1, right=1), 0), "b.png": Film(heat(right=9), 1)})
    folder = masks(tmp_path / "m", {"a.png": left(), "b.png": left()})
    first = []
    for _ in range(2):
        attention(out, folder, n_boot=50)
        first.append([(out / name).read_bytes() for name in WRITTEN])
    assert first[0] == first[1]
    attention(out, folder, top=0, n_boot=50)
    assert not (out / "attention_worst.png").exists()
    shown = attention_on_page(out)
    assert shown is not None
    assert shown["worst"] is None


def test_the_gallery_shows_the_worst_with_their_lungs_outlined(tmp_path: Path) -> None:
    films = {f"{n}.png": Film(heat(left=n, right=5)) for n in range(8)}
    out = results(tmp_path / "out", films)
    folder = masks(tmp_path / "m", {name: left() for name in films})
    attention(out, folder, top=1, n_boot=50)
    one = cv2.imread(str(out / "attention_worst.png"))[..., ::-1].astype(int)
    attention(out, folder, top=7, n_boot=50)
    seven = cv2.imread(str(out / "attention_worst.png"))[..., ::-1].astype(int)
    assert seven.shape[0] > one.shape[0] + 256
    tile = one[58 : 58 + 256, 8 : 8 + 256]
    blue = np.argwhere(np.abs(tile - (64, 224, 255)).max(axis=2) < 60)
    assert len(blue) > 256
    assert blue[:, 1].max() in range(120, 137), "the lungs' edge is the middle of the film"
    hot = tile[..., 0] - tile[..., 2] > 40
    assert hot[40:100, 180:230].any()
    assert not hot[:, :110].any()


def test_what_was_cropped_away_counts_in_neither(tmp_path: Path) -> None:
    right_half = crop_geometry((SIDE, SIDE), Box(0, SIDE, SIDE // 2, SIDE), SIDE)
    inner = np.zeros((SIDE, SIDE), np.uint8)
    inner[:, 8:12] = 255
    halves = [np.zeros((SIDE, SIDE), np.float32) for _ in range(2)]
    halves[0][:, :8], halves[1][:, 8:] = 1.0, 1.0  # of the square: columns 8 to 11 and 12 to 15 of the film
    maps = {"even.png": np.ones((SIDE, SIDE), np.float32), "in.png": halves[0], "out.png": halves[1]}
    out = results(tmp_path / "out", {name: Film(own, geometry=right_half) for name, own in maps.items()})
    attention(out, masks(tmp_path / "m", dict.fromkeys(maps, inner)), n_boot=50)
    rows = table(out)
    assert {row["lung_area"] for row in rows.values()} == {"0.500000"}, "half of what was seen, a quarter of the film"
    assert rows["even.png"]["share"] == "0.500000"
    assert float(rows["in.png"]["share"]) > 0.95
    assert float(rows["out.png"]["share"]) < 0.05


def test_a_shifted_map_is_looked_at_where_it_lies_on_the_film(tmp_path: Path) -> None:
    matrix = np.array([[1.0, 0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    moved = Film(
        heat(left=1), geometry=Geometry(matrix, (SIDE, SIDE), SIDE)
    )  # column 4 of the square is 10 of the film
    out = results(tmp_path / "out", {"a.png": moved, "b.png": Film(heat(left=1))})
    attention(out, masks(tmp_path / "m", {"a.png": left(), "b.png": left()}), n_boot=50)
    rows = table(out)
    assert (rows["a.png"]["share"], rows["b.png"]["share"]) == ("0.000000", "1.000000")
    assert rows["a.png"]["lung_area"] == "0.200000", "columns 6 and 7 of the ten that were seen"


def test_a_large_film_is_measured_on_its_small_copy(tmp_path: Path) -> None:
    geometry = resize_geometry((512, 256), SIDE)
    films = {"a.png": Film(heat(left=1), geometry=geometry, size=(2048, 1024))}
    out = results(tmp_path / "out", films)
    found = attention(out, masks(tmp_path / "m", {"a.png": left(2048, 1024)}), n_boot=50)
    assert found.scans[0].share == pytest.approx(1.0, abs=0.01)
    assert found.scans[0].lung_area == 0.5


# Which mask goes with which scan


def test_scans_of_one_name_in_different_folders_go_with_their_own_masks(tmp_path: Path) -> None:
    films = {"x/a.png": Film(heat(left=1)), "y/a.png": Film(heat(right=1))}
    out = results(tmp_path / "out", films)
    right = 255 - left()
    attention(out, masks(tmp_path / "m", {"x/a.png": left(), "y/a.png": right}), n_boot=50)
    assert {row["share"] for row in table(out).values()} == {"1.000000"}
    attention(out, masks(tmp_path / "swapped", {"x/a.png": right, "y/a.png": left()}), n_boot=50)
    assert {row["share"] for row in table(out).values()} == {"0.000000"}
    with pytest.raises(DataError, match="1 fit several by name: lay them out in the scans' folders"):
        attention(out, masks(tmp_path / "flat", {"a.png": left()}))


def ids(**paths: str) -> dict[str, str]:
    return paths


def files(*names: str) -> dict[str, Path]:
    return {name: Path(name) for name in names}


@pytest.mark.parametrize(
    ("names", "scans", "of"),
    [
        (["n/a.png"], ids(one="n/a.jpeg"), {"one": "n/a.png"}),
        (["deep/down/a.png"], ids(one="n/a.jpeg"), {"one": "deep/down/a.png"}),
        (["n/a_mask.png"], ids(one="n/a.dcm", two="m/a.dcm"), {"one": "n/a_mask.png"}),
        (["mask-a.png"], ids(one="n/a.dcm"), {"one": "mask-a.png"}),
        (["a_mask.png"], ids(one="n/a_mask.png", two="n/a.png"), {"one": "a_mask.png"}),
        (["1.2.840.1.png"], ids(one="1.2.840.1"), {"one": "1.2.840.1.png"}),
        (["1.2.840.png"], ids(one="1.2.840.1"), {}),
        (["n/a.png"], ids(one="n/a.jpeg", two="n/a.dcm"), {"one": "n/a.png", "two": "n/a.png"}),
        (["far/a.png", "n/a.png"], ids(one="n/a.jpeg"), {"one": "n/a.png"}),
        (["a.png"], ids(one="n/a.png", two="m/a.png"), {}),
        (["b.png"], ids(one="n/a.png"), {}),
    ],
)
def test_masks_find_their_scans(names: list[str], scans: dict[str, str], of: dict[str, str]) -> None:
    matched = match_masks(files(*names), scans)
    assert {scan_id: str(path) for scan_id, path in matched.of.items()} == of


def test_masks_that_fit_nothing_are_counted(tmp_path: Path) -> None:
    matched = match_masks(
        files("a.png", "b.png", "far/b.png", "c.png"), ids(one="b.png", two="n/c.png", three="m/c.png")
    )
    assert (matched.of, matched.strangers, matched.unclear) == ({"one": Path("b.png")}, 2, 1)


@pytest.mark.parametrize("names", [["x/a.png", "y/a.png"], ["n/a.png", "n/a_mask.png"]])
def test_two_masks_of_one_scan_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError, match="keep one a film"):
        match_masks(files(*names), ids(one="n/a.png"))


# Masks as they come


def test_masks_of_many_kinds_are_read(tmp_path: Path) -> None:
    sides = left()
    sides[:, 12:] = 255
    expected = sides > 0
    ramp = cv2.GaussianBlur(np.kron(sides, np.ones((8, 8), np.uint8)), (0, 0), 1.0)
    named = np.where(np.arange(SIDE) < 8, 1, 2).astype(np.uint8) * (sides > 0)
    halves = np.where(np.arange(SIDE) < 8, 127, 255).astype(np.uint8) * (sides > 0)
    masks(tmp_path, {"halves.png": halves, "third.png": named * 2 - (named > 0)})  # the latter 1 and 3
    masks(tmp_path, {"ones.png": sides // 255, "named.png": named, "deep.png": sides.astype(np.uint16) * 257})
    masks(tmp_path, {"colour.png": cv2.merge([0 * sides, sides, 0 * sides]), "soft.png": ramp, "lossy.jpg": ramp})
    for name in ("ones.png", "named.png", "halves.png", "third.png", "deep.png", "colour.png"):
        assert np.array_equal(read_mask(tmp_path / name), expected), name
    for name in ("soft.png", "lossy.jpg"):
        assert np.mean(read_mask(tmp_path / name) != np.kron(expected, np.ones((8, 8), bool))) < 0.01, name


def test_masks_are_brought_to_the_small_film() -> None:
    mask = np.zeros((64, 32), bool)
    mask[:30, :16] = True
    small = on_film(mask, (16, 8), (64, 32), (Path("m"), "s"))
    assert small.dtype == np.bool_
    assert (small.sum(), small[:8, :4].all()) == (32, True), "row 7 is covered by half"
    grown = on_film(small, (64, 32), None, (Path("m"), "s"))
    assert grown.sum() == 16 * 32
    assert on_film(mask[:, :31], (64, 32), None, (Path("m"), "s")).shape == (64, 32), "to one pixel of the small film"


FILM = Film(heat(left=1, right=1))


@pytest.mark.parametrize(
    ("films", "pictures", "said"),
    [
        (
            {"a.png": FILM},
            {"a.png": left(SIDE, 20)},
            r"mask .*a\.png is 20 x 16 pixels and its film a\.png is 16 x 16:",
        ),
        ({"a.png": FILM}, {"a.png": left(32, 32)}, r"32 x 32 pixels and its film a\.png is 16 x 16: .*stretch them"),
        ({"a.png": Film(FILM.heat, size=None)}, {"a.png": left(32, 40)}, r"40 x 32 .* 16 x 16, which is another shape"),
        ({"a.png": FILM}, {"a.png": 0 * left()}, r"a\.png is empty"),
        ({"a.png": FILM}, {"a.png": 0 * left() + 255}, r"covers the whole film"),
        ({"a.png": FILM}, {"a.png": np.arange(256, dtype=np.uint8).reshape(16, 16)}, r"many greys and no mask"),
        ({"a.png": FILM}, {"b.png": left()}, r"No mask in .* fits a scan of .*: name them as the scans\."),
        ({"a.png": Film(FILM.heat, panel=False)}, {"a.png": left()}, r"No panel of the 1 scans .*--panels all"),
        (
            {"a.png": Film(FILM.heat, panel=False), "b.png": FILM},
            {"a.png": left()},
            r"fit 1 scans .*, none of them among the 1 whose panel was kept: score again with --panels all",
        ),
        ({"a.png": Film(heat())}, {"a.png": left()}, r"none of the 1 maps has any heat"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(
    films: dict[str, Film], pictures: dict[str, np.ndarray], said: str, tmp_path: Path
) -> None:
    out = results(tmp_path / "out", films)
    ran = anomaly("attention", out, "--masks", masks(tmp_path / "m", pictures))
    assert ran.code == 4
    assert re.search(said, ran.err), ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert not any((out / name).exists() for name in WRITTEN)


def test_what_is_no_mask_at_all_is_refused(tmp_path: Path) -> None:
    out = results(tmp_path / "out", {"a.png": FILM})
    folder = tmp_path / "m"
    assert "not a folder of masks" in anomaly("attention", out, "--masks", folder).err
    folder.mkdir()
    assert "holds no picture" in anomaly("attention", out, "--masks", folder).err
    (folder / "a.png").write_bytes(b"no picture")
    assert "is no PNG, JPEG, TIFF or BMP" in anomaly("attention", out, "--masks", folder).err
    cv2.imwrite(str(folder / "a.png"), left())
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:50])
    assert "truncated or damaged" in anomaly("attention", out, "--masks", folder).err
    assert "holds no scores.csv" in anomaly("attention", folder, "--masks", folder).err
    write_json(out / "receipt.json", {"heat_unit": "", "hashed_paths": True})
    cv2.imwrite(str(folder / "b.png"), left())
    (folder / "a.png").unlink()
    assert "score without --hash-paths" in anomaly("attention", out, "--masks", folder).err


def test_a_mask_too_small_for_the_small_film_is_refused() -> None:
    speck = np.zeros((64, 64), bool)
    speck[3, 3] = True
    with pytest.raises(DataError, match="too small to be seen"):
        on_film(speck, (16, 16), (64, 64), (Path("m"), "s"))


# On phantoms


@pytest.fixture
def lung_masks(phantoms: Path, tmp_path: Path) -> Path:
    """Return the lungs of eight of the phantoms, four of them ill."""
    folder = tmp_path / "lungs"
    for kind in ("normal", "abnormal"):
        for film in sorted((phantoms / kind).iterdir())[:4]:
            lungs = make_phantom(int(film.stem.split("-")[1])).lung_mask.astype(np.uint8) * 255
            masks(folder, {f"{kind}/{film.stem}_mask.png": lungs})
    return folder


def run(out: Path, folder: Path, *more: Any) -> Ran:
    ran = anomaly("attention", out, "--masks", folder, *more)
    assert ran.code == 0, ran.err
    return ran


def test_phantoms_from_command_to_report(scored: Path, lung_masks: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(scored, tmp_path / "results"))
    assert "Where it looks" not in report(out)
    ran = run(out, lung_masks)
    assert ran.out.startswith("8 maps with a lung mask, of 48 with a panel kept, of 48 scored\n")
    assert "40 scans have no mask and are left out." in ran.err
    rows = table(out)
    assert len(rows) == 8
    assert {row["class"] for row in rows.values()} > {"normal"}
    for row in rows.values():
        assert 0.2 < float(row["lung_area"]) < 0.6
        assert 0.0 < float(row["share"]) < 1.0
    told = json.loads(run(out, lung_masks, "--json", "-q").out)
    assert told == json.loads((out / "attention.json").read_text())
    page = report(out)
    assert page.count("Where it looks") == 1
    assert "8 maps with a lung mask, of 48 with a panel kept, of 48 scored." in page
    assert "the maps with the least heat inside the lungs" in page
    (out / "figures/attention.png").unlink()
    assert "run `anomaly attention` again" in anomaly("report", out).err


def report(out: Path) -> str:
    ran = anomaly("report", out, "--top", "1")
    assert ran.code == 0, ran.err
    return (out / "report.html").read_text(encoding="utf-8")


def test_only_kept_panels_are_looked_at_and_that_is_said(scored: Path, lung_masks: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(scored, tmp_path / "results"))
    for panel in sorted((out / "panels").iterdir())[::2]:
        panel.unlink()
    ran = run(out, lung_masks)
    assert "Only 24 of the 48 scans scored have their panel kept" in ran.err
    assert "--panels all" in ran.err


@pytest.mark.real
def test_real_films_and_masks(shared_data: Path, model: Path, tmp_path: Path) -> None:
    films, lungs = tmp_path / "dev", shared_data / "data/kermany_lung_masks/dev"
    for kind in ("NORMAL", "PNEUMONIA"):
        (films / kind).mkdir(parents=True)
        for film in sorted((shared_data / "data/kermany/dev" / kind).iterdir())[:6]:
            shutil.copy(film, films / kind)
    out = tmp_path / "out"
    assert anomaly("score", films, "-m", model, "-o", out, "-j", "1").code == 0
    ran = run(out, lungs)
    assert "336 masks fit no scan" in ran.err
    rows = table(out)
    assert len(rows) == 12
    for path, row in rows.items():
        mask = cv2.imread(str((lungs / path).with_suffix(".png")), cv2.IMREAD_GRAYSCALE) > 0
        assert float(row["lung_area"]) == pytest.approx(mask.mean(), abs=1e-6), "these films are their own small copy"
        assert 0.0 < float(row["share"]) < 1.0
