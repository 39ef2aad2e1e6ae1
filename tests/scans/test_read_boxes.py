"""Tables of boxes: every form they come in, every way they can be wrong, and which film a line speaks of."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.records import ScanFile
from anomaly.scans.boxes import find_boxes, read_boxes, within_film
from anomaly.scans.walk import list_scans

FORMS = {
    "phantoms": "path,x,y,w,h\nabnormal/a.png,1,2,3,4\nabnormal/a.png,5.5,6,7,8\n",
    "rsna": "patientId,x,y,width,height,Target\na,1,2,3,4,1\na,5.5,6,7,8,1\nb,,,,,0\n",
    "corners": "\ufefffile;x_min;y_min;x_max;y_max\na.png;1;2;4;6\na.png;5.5;6;12.5;14\n\n",
    "nih": 'Image Index,Finding Label,"Bbox [x",y,w,h],,,\na.png,Mass,1,2,3,4,,,\na.png,Mass,5.5,6,7,8,,,\n',
    "named twice": "Filename\tX\tY\tW\tH\na.png\t1\t2\t3\t4\na.png\t1\t2\t3\t4\na.png\t5.5\t6\t7\t8\n",
}


def table(folder: Path, text: str) -> Path:
    path = folder / "boxes.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str, tmp_path: Path) -> None:
    found = read_boxes(table(tmp_path, FORMS[form]))
    first = next(iter(found.values()))
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first, [[1, 2, 3, 4], [5.5, 6, 7, 8]])
    if form == "rsna":
        assert found["b"].shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs the columns path"),
        ("path,x,y,w\na,1,2,3\n", "needs the columns path"),
        ("scan,x,y,w,h\na,1,2,3,4\n", "it has: scan, x, y, w, h"),
        ("path,x,y,w,h\na,1,2,0,4\n", "line 2: the box 1, 2, 0, 4 has no area"),
        ("path,x,y,w,h\na,1,2,3,4\nb,1,2,3,-4\n", "line 3: .*has no area"),
        ("path,x_min,y_min,x_max,y_max\na,5,2,3,4\n", "has no area .it is -2 wide"),
        ("path,x,y,w,h\na,1,nan,3,4\n", "is not finite"),
        ("path,x,y,w,h\na,1,2,inf,4\n", "is not finite"),
        ("path,x,y,w,h\na,1,,3,4\n", "is not made of four numbers"),
        ("path,x,y,w,h\na,1,2\n", "has 3 cells, too few"),
    ],
)
def test_what_is_no_table_of_boxes_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_boxes(table(tmp_path, text))
    assert "boxes.csv" in str(caught.value)
    assert re.search(r"mend|remove|needs", str(caught.value)), "says what to do"


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_boxes(tmp_path / "boxes.csv")


def scan(root: Path, relative: str, boxes: Path | None) -> ScanFile:
    return ScanFile(relative, root / relative, relative, boxes=boxes)


@pytest.mark.parametrize("name", ["sick/A.png", "a.PNG", "a", "./sick/a.png"])
def test_a_film_is_found_by_path_or_name(name: str, tmp_path: Path) -> None:
    boxes = table(tmp_path, f"path,x,y,w,h\n{name},1,2,3,4\n")
    found = find_boxes([scan(tmp_path, "sick/a.png", boxes), scan(tmp_path, "sick/b.png", boxes)])
    assert list(found) == ["sick/a.png"]


def test_a_table_elsewhere_names_films_relative_to_itself_or_to_scans(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    boxes = table(tmp_path / "tables", "path,x,y,w,h\n../films/sick/a.png,1,2,3,4\nsick/b.png,1,2,3,4\n")
    films = [scan(tmp_path / "films", name, boxes) for name in ("sick/a.png", "sick/b.png")]
    assert len(find_boxes(films)) == 2


def test_films_that_are_not_there_are_named_up_to_three(tmp_path: Path) -> None:
    lines = "".join(f"sick/{name}.png,1,2,3,4\n" for name in "abcde")
    boxes = table(tmp_path, f"path,x,y,w,h\n{lines}")
    films = [scan(tmp_path, "sick/a.png", boxes)]
    with pytest.raises(DataError, match=r"4 films that SCANS does not hold \(sick/b.png, sick/c.png, sick/d.png, …\)"):
        find_boxes(films)
    assert list(find_boxes(films, strict=False)) == ["sick/a.png"]
    without = table(tmp_path, "path,x,y,w,h\nsick/a.png,1,2,3,4\nsick/z.png,,,,\n")
    assert list(find_boxes([scan(tmp_path, "sick/a.png", without)])) == ["sick/a.png"], "no box, nothing lost"


def test_a_name_that_two_films_have_is_refused(tmp_path: Path) -> None:
    boxes = table(tmp_path, "path,x,y,w,h\na.png,1,2,3,4\n")
    films = [scan(tmp_path, name, boxes) for name in ("one/a.png", "two/a.png")]
    with pytest.raises(DataError, match=r"may be one/a.png or two/a.png; name films by their path"):
        find_boxes(films)


def test_boxes_are_cut_to_the_film_and_refused_more_than_a_pixel_outside() -> None:
    boxes = np.array([[-0.5, 2.0, 3.0, 4.0], [17.0, 5.0, 4.0, 5.8]])
    np.testing.assert_allclose(within_film(boxes, (10, 20), "a.png"), [[0, 2, 2.5, 4], [17, 5, 3, 5]])
    for wrong in ([-1.5, 0, 3, 3], [18, 0, 3.5, 3], [0, 8, 3, 3.5]):
        with pytest.raises(DataError, match=r"a.png: the box .*20 wide and 10 high"):
            within_film(np.array([wrong], float), (10, 20), "a.png")
    assert within_film(np.zeros((0, 4)), (10, 20), "a.png").shape == (0, 4)


@pytest.mark.real
def test_the_boxes_of_rsna_adult_are_all_found(shared_data: Path) -> None:
    listing = list_scans(shared_data / "data" / "rsna_adult")
    found = find_boxes(listing.files)
    assert len(found) == 58
    for file in listing.files:
        if file.scan_id in found:
            within_film(found[file.scan_id], (224, 224), file.relative)
