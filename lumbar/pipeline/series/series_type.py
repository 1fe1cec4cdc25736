"""The type of a series by its header; a type in the descriptions CSV takes precedence."""

from __future__ import annotations

import re

from lumbar.cache.names import SeriesType
from lumbar.pipeline.dicom.header import SeriesHeader
from lumbar.pipeline.geometry.orient import Plane

_TYPES = {
    (Plane.SAGITTAL, "t1"): SeriesType.SAGITTAL_T1,
    (Plane.SAGITTAL, "t2"): SeriesType.SAGITTAL_T2,
    (Plane.AXIAL, "t2"): SeriesType.AXIAL_T2,
}
PLANES: dict[SeriesType, Plane] = {type_: plane for (plane, _), type_ in _TYPES.items()}

# Contrast of spin echoes, after Bushberg et al., The Essential Physics of Medical Imaging, ch. 12:
# T1 has short TE and TR, T2 long ones; in between are proton density and mixed contrasts.
T1_MAX_ECHO_TIME_MS = 30.0
T1_MAX_REPETITION_TIME_MS = 1200.0
T2_MIN_ECHO_TIME_MS = 60.0
T2_MIN_REPETITION_TIME_MS = 1800.0

_NOT_ANATOMY = re.compile(
    # Whole words, apart from eADC and rsfMRI: "headcoil" is no ADC, "different" no diffusion,
    # "bandwidth" no DWI, and ordinary series show myelopathy.
    r"(dti|dwi|adc)(?![a-z])|fmri|field.?map|scout|survey|localizer|t2 ?\*|"
    r"(?<![a-z])(diff(us[a-z]*)?|tracew?|bold|p?c?asl|perf(us[a-z]*)?|myelo(gr[a-z]*)?|swip?|epi|loc)"
    r"(?![a-z])",
    re.IGNORECASE,
)
_T1 = re.compile(r"(?<![a-z0-9])t1", re.IGNORECASE)
_T2 = re.compile(r"(?<![a-z0-9])t2|stir|(?<![a-z])tirm", re.IGNORECASE)


def find_series_type(header: SeriesHeader, plane: Plane) -> SeriesType:
    """Return the type of a series from its plane and its weighting."""
    return _TYPES.get((plane, find_weighting(header)), SeriesType.OTHER)


def find_weighting(header: SeriesHeader) -> str:
    """Return "t1", "t2" or "" by the description, else by echo and repetition times."""
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
