r"""Names that microscopes give to their files: one pattern and one example per instrument.

A pattern describes a whole name (relative path without suffix). What it does not name by a group is the same in
all files of a plate. Named groups:

- ``row``, ``column``: as letters or numbers from 1; ``row0``, ``column0``: numbers from 0;
  ``well_number``: number from 1 along the rows;
- ``field``; ``field_x`` and ``field_y`` where the field is given by two indices;
- ``channel``, ``t``, ``z``; ``image``: name of an image that is in no well;
- ``unique...``: differs from file to file and says nothing (random ids, sequence numbers).
"""

import re
from dataclasses import dataclass
from functools import cached_property

_ANY_FOLDERS = r"(?:[^/]+/)*?"
_ID = r"[0-9A-F]{8}(?:-[0-9A-F]{4}){0,3}(?:-[0-9A-F]{12})?"


@dataclass(frozen=True, kw_only=True)
class NamePattern:
    """How one kind of instrument names its files."""

    title: str
    """Instrument or program."""
    name: str
    """Regular expression of the name without suffix."""
    folders: str = _ANY_FOLDERS
    """Regular expression of the folders before the name."""
    example: str
    """A name the pattern reads."""

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern; upper and lower case are the same."""
        return re.compile(self.folders + self.name, re.IGNORECASE)


PATTERNS = (
    NamePattern(
        title="Opera Phenix, Operetta",
        name=(
            r"r(?P<row>\d+)c(?P<column>\d+)f(?P<field>\d+)(?:p(?P<z>\d+))?-(?P<channel>ch\d+)"
            r"(?:sk(?P<t>\d+))?(?:fk\d+)?(?:fl\d+)?"
        ),
        example="r02c03f04p01-ch1sk1fk1fl1",
    ),
    NamePattern(
        title="CellVoyager",
        name=(
            r"(?:[^/]*_)?(?P<row>[A-Z]{1,2})(?P<column>\d{2,3})_T(?P<t>\d+)F(?P<field>\d+)L\d+A(?P<unique>\d+)"
            r"Z(?P<z>\d+)(?P<channel>C\d+)"
        ),
        example="plate_B03_T0001F002L01A01Z01C01",
    ),
    NamePattern(
        title="CQ1",
        name=r"W(?P<well_number>\d+)F(?P<field>\d+)T(?P<t>\d+)Z(?P<z>\d+)(?P<channel>C\d+)",
        example="W0027F0001T0001Z001C1",
    ),
    NamePattern(
        title="ImageXpress",
        folders=_ANY_FOLDERS + r"(?:TimePoint_(?P<t>\d+)/)?(?:ZStep_(?P<z>\d+)/)?",
        name=(
            # A row S, T or W of a plate of 1536 wells must not be taken from a site, time or wavelength.
            r"(?:[^/]*?_)?(?P<row>A[A-F]|[A-RUVX-Z]|[STW](?=\d\d_))(?P<column>\d{1,3})"
            r"(?:_s(?P<field>\d+))?(?:_(?P<channel>w\d))?_?"
            rf"(?P<unique>{_ID})"
        ),
        example="exp_B03_s1_w2B71AE91C-75E6-45E4-AD2C-96A5D2C8B7A1",
    ),
    NamePattern(
        title="InCell",
        name=(
            r"(?:[^/]*[_ ])?(?P<row>[A-Z]{1,2}) - (?P<column>\d+)\(fld (?P<field>\d+)(?: wv (?P<channel>[^/]+?))?"
            r"(?: z (?P<z>\d+))?(?: time (?P<t>\d+)(?: - (?P<unique>\d+) ms)?)?\)"
        ),
        example="B - 03(fld 1 wv DAPI - DAPI)",
    ),
    NamePattern(
        title="InCell, short form",
        name=(
            r"(?:[^/]*_)?(?P<row>[A-P])_(?P<column>\d{2,3})_f(?P<field>\d+)_c(?P<unique>\d+)_"
            r"(?P<channel>x[^/]+_m[^/]+)_z(?P<z>\d+)_t(?P<t>\d+)"
        ),
        example="A_01_f1_c1_xUV_mDAPI_z1_t1",
    ),
    NamePattern(
        title="Micro-Manager, wells",
        folders=_ANY_FOLDERS + r"(?P<row>[A-Z]{1,2})(?P<column>\d{1,3})-Site_(?P<field>\d+)/",
        name=r"img_(?P<channel>channel\d+)_position(?P<unique>\d+)_time(?P<t>\d+)_z(?P<z>\d+)",
        example="B3-Site_1/img_channel000_position000_time000000000_z000",
    ),
    NamePattern(
        title="Micro-Manager",
        name=r"img_(?P<channel>channel\d+)_(?P<image>position\d+)_time(?P<t>\d+)_z(?P<z>\d+)",
        example="img_channel000_position000_time000000000_z000",
    ),
    NamePattern(
        title="Micro-Manager 1.4",
        folders=_ANY_FOLDERS + r"(?:(?P<image>[^/]+)/)?",
        name=r"img_(?P<t>\d{9})_(?P<channel>[^/]+)_(?P<z>\d{3})",
        example="Pos0/img_000000000_DAPI_000",
    ),
    NamePattern(
        title="NIS-Elements",
        name=(
            r"(?:[^/]*_)?Well(?P<row>[A-Z]{1,2})(?P<column>\d{1,3})_Point(?P<unique_well>[A-Z]{1,2}\d{1,3})_"
            r"(?P<field>\d+)(?:_T(?P<t>\d+))?(?:_Z(?P<z>\d+))?_Channel(?P<channel>[^_/]+)_Seq(?P<unique>\d+)"
        ),
        example="WellB03_PointB03_0000_ChannelDAPI_Seq0000",
    ),
    NamePattern(
        title="ArrayScan, EVOS",
        name=r"(?:[^/]*_)?(?P<row>[A-P])(?P<column>\d{2,3})f(?P<field>\d+)(?P<channel>d\d+)",
        example="scan_Plate_R_p00_0_B03f00d1",
    ),
    NamePattern(
        title="Leica matrix",
        folders=_ANY_FOLDERS + r"(?P<unique_folders>(?:(?:slide|chamber|field)--[^/]+/)*)",
        name=(
            r"image--L\d+--S\d+--U(?P<column0>\d+)--V(?P<row0>\d+)--J\d+--E\d+--O\d+--X(?P<field_x>\d+)"
            r"--Y(?P<field_y>\d+)--T(?P<t>\d+)--Z(?P<z>\d+)--(?P<channel>C\d+)"
        ),
        example="image--L0000--S00--U01--V02--J08--E00--O00--X00--Y00--T0000--Z00--C00",
    ),
    NamePattern(
        title="Cytation",
        name=(
            r"(?P<row>[A-Z]{1,2})(?P<column>\d{1,3})_(?P<unique_step>\d{2})_(?P<unique_order>\d+)_"
            r"(?P<field>\d+)(?:Z(?P<z>\d+))?_(?P<channel>[^_/]+)_(?P<t>\d{3})"
        ),
        example="B3_01_1_1_DAPI_001",
    ),
    NamePattern(
        title="Incucyte",
        name=(
            r"(?:[^/]*_)?(?P<row>[A-P])(?P<column>\d{1,2})_(?P<field>\d+)_"
            r"(?P<t>\d+d\d\dh\d\dm|\d{4}y\d\dm\d\dd_\d\dh\d\dm)"
        ),
        example="VID1_B3_1_00d04h00m",
    ),
)
"""Patterns in the order in which they are tried; the first that fits most names is taken."""
