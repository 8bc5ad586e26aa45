"""Files that microscopes write beside the images, in the form of Harmony and of Yokogawa's instruments."""

import numpy as np
import pytest
import tifffile

from pipeline.datasets.files import folder
from pipeline.datasets.files.sidecars import read_sidecar
from pipeline.datasets.files.source_files import SourceFile

HARMONY_IMAGE = """<Image Version="1"><id>0203K1F{field}P1R{channel}</id><State>Ok</State>
<URL>r02c03f0{field}p01-ch{channel}sk1fk1fl1.tiff</URL><Row>2</Row><Col>3</Col><FieldID>{field}</FieldID>
<PlaneID>1</PlaneID><TimepointID>0</TimepointID><ChannelID>{channel}</ChannelID>{described}
<PositionX Unit="m">{x}</PositionX><PositionY Unit="m">0.0002</PositionY></Image>"""
DESCRIBED = """<ChannelName>{name}</ChannelName><ImageResolutionX Unit="m">2.97E-07</ImageResolutionX>
<ImageResolutionY Unit="m">2.96E-07</ImageResolutionY>"""
HARMONY = """<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData Version="1" xmlns="http://www.perkinelmer.com/PEHH/Harmony{version}">
<Plates><Plate><PlateRows>8</PlateRows><PlateColumns>12</PlateColumns></Plate></Plates>{maps}
<Wells><Well><id>0203</id><Row>2</Row><Col>3</Col><Image id="0203K1F1P1R1" /></Well></Wells>
<Images>{images}</Images></EvaluationInputData>"""
NAMESPACE = 'xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"'
DETAIL = f"""<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementDetail bts:Version="1.0" bts:RowCount="16" bts:ColumnCount="24"
 bts:MeasurementSettingFileName="assay.mes" {NAMESPACE}>
<bts:MeasurementSamplePlate bts:Name="" bts:WellPlateName="plate" />
<bts:MeasurementChannel bts:Ch="1" bts:HorizontalPixelDimension="0.325" bts:VerticalPixelDimension="0.325"
 bts:CameraNumber="1" bts:InputBitDepth="16" bts:HorizontalPixels="64" bts:VerticalPixels="64" />
<bts:MeasurementChannel bts:Ch="2" bts:HorizontalPixelDimension="0.325" bts:VerticalPixelDimension="0.325" />
</bts:MeasurementDetail>"""
SETTINGS = f"""<bts:MeasurementSetting {NAMESPACE}><bts:ChannelList>
<bts:Channel bts:Ch="1" bts:Target="DAPI" /><bts:Channel bts:Ch="2" bts:Target="GFP" />
</bts:ChannelList></bts:MeasurementSetting>"""
RECORDS = f"""<bts:MeasurementData bts:Version="1.0" {NAMESPACE}>
<bts:MeasurementRecord bts:Type="ERR" bts:Row="9" bts:Column="9">failed</bts:MeasurementRecord>
<bts:MeasurementRecord bts:Type="IMG" bts:Row="2" bts:Column="3" bts:FieldIndex="1" bts:TimePoint="1" bts:ZIndex="1"
 bts:X="-1.5" bts:Y="20" bts:Z="0" bts:Ch="1">plate_B03_T0001F001L01A01Z01C01.tif</bts:MeasurementRecord>
</bts:MeasurementData>"""


def harmony(version="V5"):
    """An index in which the first image of a channel (V5), or a map (V6), describes the channel."""
    names = {1: "HOECHST 33342", 2: "Alexa 488"}
    maps = ""
    if version == "V6":
        entries = "".join(
            f'<Entry ChannelID="{c}">{DESCRIBED.format(name=n)}</Entry>' for c, n in names.items()
        )
        maps = f"<Maps><Map>{entries}</Map></Maps>"
    images = "".join(
        HARMONY_IMAGE.format(
            field=field, channel=channel, x=0.0001 * field,
            described="" if maps or field > 1 else DESCRIBED.format(name=name),
        )
        for field in (1, 2)
        for channel, name in names.items()
    )  # fmt: skip
    return HARMONY.format(version=version, maps=maps, images=images)


@pytest.fixture
def plate(tmp_path):
    """One well with two fields and two channels, as Operetta names them, with an index beside it."""
    for field in (1, 2):
        for channel in (1, 2):
            name = f"r02c03f0{field}p01-ch{channel}sk1fk1fl1.tiff"
            tifffile.imwrite(tmp_path / name, np.full((6, 7), 10 * field + channel, np.uint16))
    return tmp_path


@pytest.mark.parametrize(("name", "version"), [("Index.idx.xml", "V5"), ("Index.xml", "V6")])
def test_the_index_of_harmony_gives_names_size_and_positions(plate, name, version):
    (plate / name).write_text(harmony(version))
    scan = folder.read(plate)
    assert scan.sidecar == name
    first, second = scan.fields
    assert first.channels == ("HOECHST 33342", "Alexa 488") and first.spacing_um == pytest.approx(
        (0.296, 0.297)
    )
    assert first.position_um == pytest.approx((-200, 100)) and second.position_um == pytest.approx(
        (-200, 200)
    )
    assert second.load()[:, 0, 0].tolist() == [21, 22]


def test_the_files_of_a_cellvoyager_give_names_size_and_positions(tmp_path):
    for channel in (1, 2):
        name = f"plate_B03_T0001F001L01A0{channel}Z01C0{channel}.tif"
        tifffile.imwrite(tmp_path / name, np.full((6, 7), channel, np.uint16))
    (tmp_path / "MeasurementDetail.mrf").write_text(DETAIL)
    (only,) = folder.read(tmp_path).fields
    assert (only.channels, only.spacing_um, only.position_um) == (("C01", "C02"), (0.325, 0.325), None)
    (tmp_path / "assay.mes").write_text(SETTINGS)
    (tmp_path / "MeasurementData.mlf").write_text(RECORDS)
    (only,) = folder.read(tmp_path).fields
    assert (only.channels, only.position_um) == (("DAPI", "GFP"), (-20, -1.5))


def test_the_plate_of_a_cq1_is_that_of_its_measurement(tmp_path):
    tifffile.imwrite(tmp_path / "W0027F0001T0001Z001C1.tif", np.zeros((6, 7), np.uint16))
    assert [field.well for field in folder.read(tmp_path).fields] == [("C", "3")]
    (tmp_path / "MeasurementDetail.mrf").write_text(DETAIL)
    assert [field.well for field in folder.read(tmp_path).fields] == [("B", "3")]


def test_names_that_do_not_tell_channels_apart_are_not_used(plate):
    (plate / "Index.xml").write_text(harmony().replace("Alexa 488", "HOECHST 33342"))
    assert folder.read(plate).fields[0].channels == ("ch1", "ch2")


def test_a_broken_index_is_reported_and_not_used(plate, caplog):
    (plate / "Index.xml").write_text(harmony()[:900])
    (first, _) = folder.read(plate).fields
    assert (first.channels, first.spacing_um) == (("ch1", "ch2"), None)
    assert "Index.xml beside the images cannot be read" in caplog.text


def test_nothing_beside_the_images(tmp_path):
    assert read_sidecar(SourceFile(place=str(tmp_path / "a.tif"), relative="a.tif")).source == ""
