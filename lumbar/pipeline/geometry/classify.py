"""What a series shows, by its header: where the descriptions CSV names the type, the CSV wins."""

from __future__ import annotations

import re

from lumbar.cache.names import SeriesType
from lumbar.pipeline.dicom.header import SeriesHeader
from lumbar.pipeline.geometry.orient import Plane

PLANES: dict[SeriesType, Plane] = {
    SeriesType.SAGITTAL_T1: Plane.SAGITTAL,
    SeriesType.SAGITTAL_T2: Plane.SAGITTAL,
    SeriesType.AXIAL_T2: Plane.AXIAL,
}

# Contrast of spin echoes, after Bushberg et al., The Essential Physics of Medical Imaging, ch. 12:
# T1 has short TE and TR, T2 long ones; what lies between is proton density or mixed.
T1_MAX_ECHO_TIME_MS = 30.0
T1_MAX_REPETITION_TIME_MS = 1200.0
T2_MIN_ECHO_TIME_MS = 60.0
T2_MIN_REPETITION_TIME_MS = 1800.0

_NOT_ANATOMY = re.compile(
    # Whole words, but eADC and rsfMRI are written as one: "headcoil" is no ADC, "different" no
    # diffusion, "bandwidth" no DWI, and myelopathy is seen on ordinary series.
    r"(dti|dwi|adc)(?![a-z])|fmri|field.?map|scout|survey|localizer|t2 ?\*|"
    r"(?<![a-z])(diff(us[a-z]*)?|tracew?|bold|p?c?asl|perf(us[a-z]*)?|myelo(gr[a-z]*)?|swip?|epi|loc)"
    r"(?![a-z])",
    re.IGNORECASE,
)
_T1 = re.compile(r"(?<![a-z0-9])t1", re.IGNORECASE)
_T2 = re.compile(r"(?<![a-z0-9])t2|stir|(?<![a-z])tirm", re.IGNORECASE)


def classify(header: SeriesHeader, plane: Plane) -> SeriesType:
    """Return the type of a series from its plane and its weighting."""
    weighting = find_weighting(header)
    if plane is Plane.SAGITTAL and weighting == "t1":
        return SeriesType.SAGITTAL_T1
    if plane is Plane.SAGITTAL and weighting == "t2":
        return SeriesType.SAGITTAL_T2
    if plane is Plane.AXIAL and weighting == "t2":
        return SeriesType.AXIAL_T2
    return SeriesType.OTHER


def find_weighting(header: SeriesHeader) -> str:
    """Return "t1", "t2" or "" from the description, else from echo and repetition times."""
    is_echo_planar = "EP" in header.scanning_sequence
    if header.is_diffusion or is_echo_planar or _NOT_ANATOMY.search(header.description):
        return ""
    named = {"t1": _T1.search(header.description), "t2": _T2.search(header.description)}
    found = [weighting for weighting, match in named.items() if match]
    if found:
        return found[0] if len(found) == 1 else ""
    echo_time_ms, repetition_time_ms = header.echo_time_ms, header.repetition_time_ms
    if echo_time_ms is None or repetition_time_ms is None or "GR" in header.scanning_sequence:
        return ""
    if echo_time_ms <= T1_MAX_ECHO_TIME_MS and repetition_time_ms <= T1_MAX_REPETITION_TIME_MS:
        return "t1"
    if echo_time_ms >= T2_MIN_ECHO_TIME_MS and repetition_time_ms >= T2_MIN_REPETITION_TIME_MS:
        return "t2"
    return ""
