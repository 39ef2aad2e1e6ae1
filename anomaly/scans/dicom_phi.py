"""The header text that names a person or a place; read only for someone who asked for it (`inspect --include-phi`)."""

from __future__ import annotations

from anomaly.scans.dicom_header import parse
from anomaly.scans.hush import hushed

_KEYWORDS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyDate",
    "AccessionNumber",
    "InstitutionName",
    "Manufacturer",
    "ManufacturerModelName",
    "StationName",
    "StudyDescription",
    "SeriesDescription",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)


def read_phi(data: bytes) -> dict[str, str]:
    """Return the identifying and device text of a DICOM header.

    Args:
        data: The whole file.

    Returns:
        Keyword -> text on one line, printable characters only, elements without a value left out; {} for what is no
        DICOM or is damaged.
    """
    with hushed():
        try:
            dataset = parse(data, header_only=True)
            told = {keyword: _one_line(str(dataset.get(keyword) or "")) for keyword in _KEYWORDS}
        except MemoryError:
            raise
        except Exception:  # a header may hold anything, and a file that is no DICOM names nobody
            return {}
    return {keyword: text for keyword, text in told.items() if text}


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
