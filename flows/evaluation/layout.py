"""A plate layout from a file: CSV as spreadsheets write it, or Parquet; path or URL."""

import io

import pandas as pd

from pipeline.errors import BadArgument
from pipeline.report.layout import CONDITION, Layout, layout_of
from pipeline.store.places.address import address


def read_layout(place: str, *, column: str = CONDITION) -> Layout:
    """Read the table of conditions at a place.

    Raises:
        BadArgument: there is no such table, or it is not valid; the message names the row.
    """
    data = address(place).read_bytes_or_none()
    if data is None:
        raise BadArgument(f"--layout {place}: there is no such file")
    try:
        table = _table(data, is_parquet=place.endswith(".parquet"))
    except (ValueError, OSError) as error:
        raise BadArgument(f"--layout {place}: expected a CSV or Parquet table ({error})") from None
    return layout_of(table, name=f"--layout {place}", column=column)


def _table(data: bytes, *, is_parquet: bool) -> pd.DataFrame:
    if is_parquet:
        return pd.read_parquet(io.BytesIO(data))
    text = data.decode("utf-8-sig")
    heading = text.splitlines()[0] if text.strip() else ""
    separator = max(",;\t", key=heading.count)
    return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
