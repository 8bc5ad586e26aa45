"""Files that microscopes write beside the images: pixel size, channel names and positions of the fields.

Read are ``Index.xml`` and ``Index.idx.xml`` of Opera Phenix and Operetta, and ``MeasurementDetail.mrf`` of
CellVoyager and CQ1 with the ``.mes`` and ``.mlf`` files next to it. What they do not say stays unknown; what cannot
be read is reported and left out.
"""

import io
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pipeline.datasets.files.places import PLATE_COLUMNS, row_name
from pipeline.datasets.files.source_files import SourceFile
from pipeline.datasets.files.tiff_metadata import Spacing, micrometres

_log = logging.getLogger(__name__)

HARMONY_FILES = ("Index.xml", "Index.idx.xml", "Index.ref.xml")
"""Names of the index that Harmony writes."""

YOKOGAWA_DETAIL, YOKOGAWA_DATA = "MeasurementDetail.mrf", "MeasurementData.mlf"
"""Files of Yokogawa's instruments: pixel size and plate; the position of every image."""

FieldKey = tuple[tuple[str, str] | None, str]
"""Well and field."""

_Element = ElementTree.Element


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Metadata from the files beside the images."""

    source: str = ""
    """Name of the file that was read; empty where there is none."""
    spacing_um: Spacing | None = None
    """Size of a pixel along y and x."""
    channels: Mapping[str, str] = field(default_factory=dict)
    """Names of channels by their number."""
    positions_um: Mapping[FieldKey, tuple[float, float]] = field(default_factory=dict)
    """Positions of fields (y, x): down and to the right, as pixels count."""
    plate_wells: int | None = None
    """Wells of the plate."""

    def channel(self, name: str) -> str:
        """Return the name of a channel that file names call ``ch1`` or ``C01``; the same name where it has none."""
        digits = "".join(letter for letter in name if letter.isdecimal())
        return self.channels.get(str(int(digits)), name) if digits else name


def read_sidecar(beside: SourceFile) -> Sidecar:
    """Read the metadata files in the folder of an image; an empty `Sidecar` where there are none."""
    for name in HARMONY_FILES:
        data = beside.neighbour(name).read_or_none()
        if data is not None:
            return _guarded(name, data, _harmony)
    data = beside.neighbour(YOKOGAWA_DETAIL).read_or_none()
    if data is None:
        return Sidecar()
    sidecar = _guarded(
        YOKOGAWA_DETAIL, data, lambda detail: _with_settings(_yokogawa(detail), detail, beside)
    )
    records = beside.neighbour(YOKOGAWA_DATA).read_or_none()
    if records is None or not sidecar.source:
        return sidecar
    return replace(sidecar, positions_um=_guarded(YOKOGAWA_DATA, records, _yokogawa_positions).positions_um)


def _guarded(name: str, data: bytes, read: Callable[[bytes], Sidecar]) -> Sidecar:
    try:
        return replace(read(data), source=name)
    except (ElementTree.ParseError, ValueError) as error:
        _log.warning("%s beside the images cannot be read (%s): pixel size, channel names and positions in it are "
                     "not used", name, error)  # fmt: skip
        return Sidecar()


def _elements(data: bytes) -> Iterator[tuple[str, _Element]]:
    """Yield the elements of XML with their names without namespace, each when it ends; memory stays small."""
    for _, node in ElementTree.iterparse(io.BytesIO(data)):
        name = node.tag.rpartition("}")[2]
        yield name, node
        if name in ("Image", "Well", "MeasurementRecord"):
            node.clear()


def _texts(node: _Element) -> dict[str, str]:
    return {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in node}


def _attributes(node: _Element) -> dict[str, str]:
    return {name.rpartition("}")[2]: value for name, value in node.attrib.items()}


def _harmony(data: bytes) -> Sidecar:
    """Read Harmony's index; channels are described in each image, or once per channel in ``Entry``."""
    channels: dict[str, str] = {}
    positions: dict[FieldKey, tuple[float, float]] = {}
    spacing: Spacing | None = None
    for name, node in _elements(data):
        if name not in ("Image", "Entry"):
            continue
        texts = _texts(node)
        number = node.get("ChannelID") or texts.get("ChannelID", "")
        if number and texts.get("ChannelName"):
            channels.setdefault(number, texts["ChannelName"])
        spacing = spacing or _pair(_metres(node, "ImageResolutionY"), _metres(node, "ImageResolutionX"))
        y, x = (_metres(node, f"Position{axis}", signed=True) for axis in "YX")
        if y is not None and x is not None and texts.get("Row", "").isdecimal():
            well = row_name(int(texts["Row"])), str(int(texts["Col"]))
            # Stages count upwards, images downwards.
            positions.setdefault((well, str(int(texts["FieldID"]))), (-y, x))
    return Sidecar(spacing_um=spacing, channels=_distinct(channels), positions_um=positions)


def _metres(node: _Element, name: str, *, signed: bool = False) -> float | None:
    """Return a length in micrometres from an element whose attribute ``Unit`` says its unit."""
    child = next((child for child in node if child.tag.rpartition("}")[2] == name), None)
    if child is None or not (child.text or "").strip():
        return None
    value = float(child.text or 0)
    if signed and value <= 0:
        size = micrometres(-value, child.get("Unit", "m"))
        return -size if size else 0.0
    return micrometres(value, child.get("Unit", "m"))


def _pair(y: float | None, x: float | None) -> Spacing | None:
    return (y, x) if y and x else None


def _distinct(channels: Mapping[str, str]) -> dict[str, str]:
    """Return the channel names if they are distinct; else none."""
    return dict(channels) if len(set(channels.values())) == len(channels) else {}


def _yokogawa(detail: bytes) -> Sidecar:
    spacing: Spacing | None = None
    wells: int | None = None
    for name, node in _elements(detail):
        attributes = _attributes(node)
        if name == "MeasurementChannel" and spacing is None:
            spacing = _pair(
                micrometres(attributes.get("VerticalPixelDimension"), "um"),
                micrometres(attributes.get("HorizontalPixelDimension"), "um"),
            )
        if name == "MeasurementDetail" and attributes.get("RowCount"):
            count = int(attributes["RowCount"]) * int(attributes.get("ColumnCount", "0"))
            wells = count if count in PLATE_COLUMNS else None
    return Sidecar(spacing_um=spacing, plate_wells=wells)


def _with_settings(sidecar: Sidecar, detail: bytes, beside: SourceFile) -> Sidecar:
    """Add the names of channels from the settings that the detail file names."""
    named = next((_attributes(node) for name, node in _elements(detail) if name == "MeasurementDetail"), {})
    settings = named.get("MeasurementSettingFileName", "")
    data = beside.neighbour(settings).read_or_none() if settings and "/" not in settings else None
    if data is None:
        return sidecar
    channels: dict[str, str] = {}
    for name, node in _elements(data):
        said = _attributes(node)
        target = said.get("Target") or said.get("Fluorophore")
        if name == "Channel" and said.get("Ch", "").isdecimal() and target:
            channels.setdefault(str(int(said["Ch"])), target)
    return replace(sidecar, channels=_distinct(channels))


def _yokogawa_positions(records: bytes) -> Sidecar:
    positions: dict[FieldKey, tuple[float, float]] = {}
    for name, node in _elements(records):
        attributes = _attributes(node)
        if name == "MeasurementRecord" and attributes.get("Type") == "IMG" and "X" in attributes:
            well = row_name(int(attributes["Row"])), str(int(attributes["Column"]))
            # Stages count upwards, images downwards.
            position = (-float(attributes["Y"]), float(attributes["X"]))
            positions.setdefault((well, str(int(attributes["FieldIndex"]))), position)
    return Sidecar(positions_um=positions)
