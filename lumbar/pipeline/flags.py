"""What is unusual about a cached series: a name and a sentence for each flag."""

from __future__ import annotations

from enum import StrEnum


class Flag(StrEnum):
    """The flags by their names in ``series.parquet``."""

    NOT_IN_CSV = "not_in_csv"
    PLANE_DISAGREES = "plane_disagrees"
    TYPE_DISAGREES = "type_disagrees"
    ID_DISAGREES = "id_disagrees"
    SHARED_UID = "shared_uid"
    SEVERAL_PATIENTS = "several_patients"
    MIXED_CONTRASTS = "mixed_contrasts"
    SEVERAL_ORIENTATIONS = "several_orientations"
    REPEATED_POSITIONS = "repeated_positions"
    OTHER_PLANES = "other_planes"
    GAP = "gap"
    IRREGULAR_SPACING = "irregular_spacing"
    SHEARED = "sheared"
    UNEVEN_TILT = "uneven_tilt"
    MIXED_SIZES = "mixed_sizes"
    FEW_SLICES = "few_slices"
    SPACING_UNKNOWN = "spacing_unknown"
    SPARSE = "sparse"
    FILES_LEFT_OUT = "files_left_out"
    NUMBER_DISAGREES = "number_disagrees"
    REPEATED_NUMBERS = "repeated_numbers"


SENTENCES: dict[Flag, str] = {
    Flag.NOT_IN_CSV: "The descriptions CSV does not name the series; its type is by the header.",
    Flag.PLANE_DISAGREES: "CSV and header name different planes; type by CSV, axes by header.",
    Flag.TYPE_DISAGREES: "CSV and header name different weightings; the CSV's is taken.",
    Flag.ID_DISAGREES: "The headers name another study or series than the folder.",
    Flag.SHARED_UID: "Several series or patients share its UID; each is cached by itself.",
    Flag.SEVERAL_PATIENTS: "Another series of the study names another patient.",
    Flag.MIXED_CONTRASTS: "Images of different contrast are in one series.",
    Flag.SEVERAL_ORIENTATIONS: "The series holds stacks of different orientation.",
    Flag.REPEATED_POSITIONS: "Several images show the same slice; the first of them is cached.",
    Flag.OTHER_PLANES: "Slices in other planes were left out.",
    Flag.GAP: "Slices are missing inside a stack; it is stored as one stack on each side.",
    Flag.IRREGULAR_SPACING: "Slices do not lie on one line at one step; stored as several stacks.",
    Flag.SHEARED: "The step from slice to slice is not along the normal; the affine has the shear.",
    Flag.UNEVEN_TILT: "Slices of one stack differ a little in direction; its affine has the mean.",
    Flag.MIXED_SIZES: "Slices of different matrix or pixel size, brought to one canvas.",
    Flag.FEW_SLICES: "Fewer slices than the shortest series of the data set has.",
    Flag.SPACING_UNKNOWN: "The distance between slices is unknown; 1 mm is used.",
    Flag.SPARSE: "So few bright pixels that the window runs from the least value to the greatest.",
    Flag.FILES_LEFT_OUT: "Some files of the series are in rejected.parquet.",
    Flag.NUMBER_DISAGREES: "Names of files and InstanceNumber differ; points follow the names.",
    Flag.REPEATED_NUMBERS: "Several slices have one number; no point is placed by such a number.",
}

Notes = dict[Flag, str]
"""The flags of a series in order, each with what was found and where."""
