"""A slice of benchmarks/fuzz.py, and what its whole has found."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from dicom_recipes import read, recipe

from anomaly.errors import ScanError
from anomaly.scans.image import _reason

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PIXELS = np.random.default_rng(4).integers(0, 4096, (32, 40)).astype(np.uint16)


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        sys.modules.pop("fuzz_cases", None)
        return importlib.import_module("fuzz_cases")


@pytest.fixture(scope="module")
def corpus(cases: ModuleType) -> dict[str, list[bytes]]:
    return cases.make_corpus()


def test_undamaged_files_are_read(cases: ModuleType, corpus: dict[str, list[bytes]]) -> None:
    assert {kind: len(files) for kind, files in corpus.items() if len(files) < 3} == {}
    for kind, files in corpus.items():
        assert [cases.verdict(kind, data) for data in files] == [("scan", "")] * len(files)


@pytest.mark.parametrize("turn", range(8))
def test_damaged_files_are_a_scan_or_a_sentence(cases: ModuleType, corpus: dict[str, list[bytes]], turn: int) -> None:
    faults = {}
    outcomes = set()
    for number in range(turn, 400, 8):
        outcome, words = cases.verdict(*cases.make_case(number, corpus))
        outcomes.add(outcome)
        if outcome == "fault":
            faults[number] = words
    assert faults == {}
    assert outcomes == {"scan", "refused"}


def test_cases_are_damaged_and_always_the_same(cases: ModuleType, corpus: dict[str, list[bytes]]) -> None:
    made = [cases.make_case(number, corpus) for number in range(64)]
    assert made == [cases.make_case(number, corpus) for number in range(64)]
    assert sum(data in corpus[kind] for kind, data in made) <= 3


# ---- what it has found -----------------------------------------------------------------------------------------------


def test_damaged_run_lengths_are_refused() -> None:
    """pylibjpeg-rle panics here, with what is no Exception."""
    from pydicom.encaps import encapsulate
    from pydicom.uid import RLELossless

    data = recipe(PIXELS, bits=12)
    data.compress(RLELossless, generate_instance_uid=False)
    header = np.array([2, 64, 70] + [0] * 13, "<u4").tobytes()
    data.PixelData = encapsulate([header + bytes([0x81, 7] * 20)])
    with pytest.raises(ScanError, match=r"cannot be decoded \(RLE Lossless\)"):
        read(data)


def test_reasons_are_in_words() -> None:
    """Pillow raises errors that say but a number: the code of a decoder, or the tag that it misses."""
    assert [_reason(error) for error in (OSError("-2"), KeyError(339), ValueError(), OSError("broken\n data"))] == [
        "OSError",
        "KeyError",
        "ValueError",
        "broken data",
    ]
