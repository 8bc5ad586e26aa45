"""Names that no microscope is known to write, read by their parts: ``exp_A01_field3_z02_DAPI``.

A part is read only if it can mean one thing. In a plate every part that differs between files must be understood;
otherwise the names are refused with the part and the files. Names without a well are names of images.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.datasets.files.places import Place
from pipeline.datasets.files.source_files import SourceFile
from pipeline.errors import BadArgument

AXIS_WORDS = {
    "field": ("s", "f", "site", "field", "fov", "fld", "pos", "position", "point", "xy", "tile"),
    "z": ("z", "zstep", "zslice", "zplane", "slice", "plane"),
    "t": ("t", "tp", "time", "timepoint", "frame"),
    "channel": ("c", "ch", "chan", "channel", "w", "wv", "wave", "wavelength"),
}
"""Words that say, with a number after them, what the number counts."""

STAINS = frozenset(
    (
        "dapi", "hoechst", "hoechst33342", "draq5", "gfp", "egfp", "yfp", "eyfp", "cfp", "ecfp", "bfp",
        "rfp", "tagrfp", "dsred", "mcherry", "tdtomato", "mkate", "fitc", "tritc", "rhodamine", "texasred",
        "cy3", "cy5", "cy7", "sytox", "syto", "mitotracker", "mito", "er", "actin", "phalloidin",
        "tubulin", "agp", "rna", "dna", "pi", "bf", "brightfield", "bright", "phase", "phasecontrast",
        "dic", "tl", "trans", "transmitted", "green", "red", "blue", "farred", "nuclei", "cyto", "gfap",
    )
)  # fmt: skip
"""Names of channels, in lower case; ``Alexa488`` and other dyes with a wavelength are known too."""

AMBIGUOUS_ROWS = "CDEFGLMNP"
"""Letters that before one digit often count something else: channel, day, embryo, field, group, mouse, position."""

_SEPARATOR = re.compile(r"[_\-. ,/()\[\]=+]+")
_WELL = re.compile(r"(?:well)?(?P<row>A[A-F]|[A-P]|(?<=well)[Q-Z])(?P<column>\d{1,3})", re.IGNORECASE)
_COUNTED = re.compile(r"([A-Za-z]+)(\d+)")
_DYE = re.compile(r"(?:alexa|af|atto|cf|sir|dy|cy)\d{1,3}[a-z]?", re.IGNORECASE)
_KIND_OF = {word: kind for kind, words in AXIS_WORDS.items() for word in words}
_NAMES_SHOWN = 3

Meaning = Mapping[str, str]
"""Text by kind: ``well``, ``field``, ``z``, ``t``, ``channel``."""


@dataclass(frozen=True)
class Part:
    """A piece of a name between separators, and everything it may mean."""

    text: str
    start: int
    stop: int
    meanings: tuple[Meaning, ...]

    def meaning(self, kinds: frozenset[str]) -> Meaning | None:
        """Return the meaning with exactly these kinds."""
        return next((meaning for meaning in self.meanings if frozenset(meaning) == kinds), None)


def parts_of(name: str) -> list[Part]:
    """Cut a name into parts; a word and the number after it (``field_3``) are one part."""
    spans, start = [], 0
    for match in [*_SEPARATOR.finditer(name), None]:
        stop = match.start() if match else len(name)
        if stop > start:
            spans.append((start, stop))
        start = match.end() if match else stop
    joined: list[tuple[int, int]] = []
    for begin, end in spans:
        word = name[joined[-1][0] : joined[-1][1]].lower() if joined else ""
        if name[begin:end].isdecimal() and word in _KIND_OF:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    pieces = [piece for span in joined for piece in _pieces(name, *span)]
    return [Part(name[a:b], a, b, _meanings(name[a:b])) for a, b in pieces]


def _pieces(name: str, start: int, stop: int) -> list[tuple[int, int]]:
    """Cut ``s1w2`` and ``B03f1`` into what they count; anything else is one piece."""
    text = name[start:stop]
    well = _WELL.match(text)
    for offset in (0, well.end() if well else 0):
        if _counted(text[offset:]):
            begin = start + offset
            counted = [(begin + m.start(), begin + m.end()) for m in _COUNTED.finditer(text[offset:])]
            return [(start, begin), *counted] if offset else counted
    return [(start, stop)]


def _meanings(text: str) -> tuple[Meaning, ...]:
    counted = _counted(re.sub(r"[^A-Za-z0-9]", "", text))
    other = counted or ({"channel": text} if _is_channel(text) else None)
    meanings: list[Meaning] = [other] if other else []
    well = _WELL.fullmatch(text)
    # In lower case f1 is a field and c1 a channel.
    if well and int(well["column"]) > 0 and not (other and well["row"].islower()):
        meanings.append({"well": f"{well['row'].upper()}{int(well['column'])}"})
    return tuple(meanings)


def _counted(text: str) -> dict[str, str] | None:
    """Read words with numbers, each kind at most once, such as ``s1w2``; None where something is left over."""
    kinds: dict[str, str] = {}
    end = 0
    for match in _COUNTED.finditer(text):
        kind = _KIND_OF.get(match[1].lower())
        if kind is None or kind in kinds or match.start() != end:
            return None
        kinds[kind] = match[0] if kind == "channel" else match[2]
        end = match.end()
    return kinds if end == len(text) else None


def _is_channel(text: str) -> bool:
    return text.lower() in STAINS or bool(_DYE.fullmatch(text))


def places_by_parts(files: Sequence[SourceFile]) -> dict[SourceFile, Place] | None:
    """Return the place of every file on a plate; None where the names have no well.

    Raises:
        BadArgument: some names have a well and others do not, or a part that tells files apart is not understood.
    """
    table = {file: parts_of(file.stem) for file in files}
    with_well = [file for file, parts in table.items() if any(_may_be_well(part) for part in parts)]
    if not with_well:
        return None
    without = [file for file in files if file not in set(with_well)]
    if without:
        if 2 * len(without) > len(files):
            return None
        raise _mixed(files, without)
    counts = Counter(len(parts) for parts in table.values())
    usual = counts.most_common(1)[0][0]
    if len(counts) > 1:
        odd = [file for file, parts in table.items() if len(parts) != usual]
        if not _has_strong_well(table, usual):
            return None
        raise BadArgument(
            f"{len(odd)} of {len(files)} names have more or fewer parts than the others: {shown(odd)}; "
            f"leave these files out by a glob, or say what the names mean by --pattern, {EXAMPLE}"
        )
    columns = [[table[file][index] for file in files] for index in range(usual)]
    well = _well_column(columns, files)
    return None if well is None else _places(files, columns, well)


EXAMPLE = r"such as --pattern '(?P<row>[A-P])(?P<column>\d+)_(?P<field>\d+)_(?P<channel>\w+)'"
"""An example of a pattern, for messages."""


def shown(files: Sequence[SourceFile]) -> str:
    """List a few files with their folders."""
    names = ", ".join(str(file) for file in files[:_NAMES_SHOWN])
    return names + (", ..." if len(files) > _NAMES_SHOWN else "")


def _may_be_well(part: Part) -> bool:
    return any("well" in meaning for meaning in part.meanings)


def _mixed(files: Sequence[SourceFile], without: list[SourceFile]) -> BadArgument:
    return BadArgument(
        f"{len(without)} of {len(files)} names have no well: {shown(without)}; leave these files out by a glob, or "
        "name every file as an image of its own by --pattern '(?P<image>.+)'"
    )


def _has_strong_well(table: Mapping[SourceFile, list[Part]], count: int) -> bool:
    files = [file for file, parts in table.items() if len(parts) == count]
    columns = [[table[file][index] for file in files] for index in range(count)]
    return any(_all_wells(column) and not _is_weak(column, columns) for column in columns)


def _all_wells(column: Sequence[Part]) -> bool:
    return all(_may_be_well(part) for part in column)


def _well_text(part: Part) -> str:
    return next(meaning["well"] for meaning in part.meanings if "well" in meaning)


def _is_weak(column: Sequence[Part], columns: Sequence[Sequence[Part]]) -> bool:
    """Whether a part that looks like a well may well be something else."""
    rows = {_well_text(part).rstrip("0123456789") for part in column}
    if any(part.text.lower().startswith("well") for part in column) or len(rows) > 1:
        return False
    if any("well" not in meaning for part in column for meaning in part.meanings):
        return True
    row = next(iter(rows))
    return row == "P" if _is_padded(column) else row in AMBIGUOUS_ROWS and len(columns) > 1


def _is_padded(column: Sequence[Part]) -> bool:
    return all(len(re.sub(r"\D", "", part.text)) > 1 for part in column)


def _cannot_be_else(column: Sequence[Part], columns: Sequence[Sequence[Part]]) -> bool:
    """Whether other parts say already what this one could say if it were no well: ``C01_DAPI``."""
    others = {kind for part in column for m in part.meanings if "well" not in m for kind in m}
    claimed = {kind for other in columns if other is not column for kind in _sole_kinds(other)}
    return bool(others) and others <= claimed and _is_padded(column)


def _sole_kinds(column: Sequence[Part]) -> set[str]:
    """Return what a column of parts means, where it cannot be a well."""
    if any(_may_be_well(part) for part in column):
        return set()
    kinds = [frozenset(m) for m in column[0].meanings]
    return set(kinds[0]) if kinds and all(part.meaning(kinds[0]) for part in column) else set()


def _varies(column: Sequence[Part]) -> bool:
    return len({part.text for part in column}) > 1


def _well_column(columns: Sequence[Sequence[Part]], files: Sequence[SourceFile]) -> int | None:
    candidates = [index for index, column in enumerate(columns) if _all_wells(column)]
    strong = [index for index in candidates if not _is_weak(columns[index], columns)]
    strong = strong or [index for index in candidates if _cannot_be_else(columns[index], columns)]
    if len(strong) > 1:
        strong = [index for index in strong if _varies(columns[index])] or strong
    if len(strong) == 1:
        return strong[0]
    doubtful = strong or [index for index in candidates if _varies(columns[index])]
    if not doubtful:
        return None
    texts = " and ".join(repr(columns[index][0].text) for index in doubtful)
    raise BadArgument(
        f"{shown(files)}: {texts} may be a well or something else; say which by --pattern, {EXAMPLE} for a plate, "
        "or '(?P<image>.+)' for images named after the files"
    )


def _places(
    files: Sequence[SourceFile], columns: Sequence[Sequence[Part]], well: int
) -> dict[SourceFile, Place]:
    kinds = [_kinds(column, is_well=index == well) for index, column in enumerate(columns)]
    for index, (column, chosen) in enumerate(zip(columns, kinds, strict=True)):
        if not chosen and _varies(column):
            raise _not_understood(files, columns, well, index)
    for kind in ("field", "z", "t", "channel"):
        _keep_one(kind, kinds, columns, files)
    return {file: _place([column[row] for column in columns], kinds) for row, file in enumerate(files)}


def _kinds(column: Sequence[Part], *, is_well: bool) -> frozenset[str]:
    """Return what all parts of a column mean; nothing where they do not mean the same."""
    options = [frozenset(m) for m in column[0].meanings if ("well" in m) == is_well]
    common = [kinds for kinds in options if all(part.meaning(kinds) for part in column)]
    return common[0] if common else frozenset()


def _not_understood(
    files: Sequence[SourceFile], columns: Sequence[Sequence[Part]], well: int, index: int
) -> BadArgument:
    column = columns[index]
    texts = list(dict.fromkeys(part.text for part in column))
    two = [next(f for f, part in zip(files, column, strict=True) if part.text == text) for text in texts[:2]]
    names = ", ".join(map(repr, texts[:_NAMES_SHOWN])) + (", ..." if len(texts) > _NAMES_SHOWN else "")
    pattern = _suggestion(files[0].stem, columns, well, index)
    return BadArgument(
        f"the part {names} tells files apart ({shown(two)}) and is not understood; if it is the field: "
        f"--pattern '{pattern}'; a channel, t or z likewise"
    )


def _suggestion(name: str, columns: Sequence[Sequence[Part]], well: int, unknown: int) -> str:
    """Return a pattern of whole names that takes the part that is not understood as the field."""
    pieces, end = ["^"], 0
    for index, column in enumerate(columns):
        part = column[0]
        pieces.append(re.escape(name[end : part.start]).replace(r"\-", "-"))
        end = part.stop
        kind = next((kind for meaning in part.meanings for kind in meaning if kind != "well"), "")
        if index == well:
            pieces.append(r"(?P<row>[A-P]+)(?P<column>\d+)")
        elif index == unknown:
            pieces.append(r"(?P<field>[^\W_]+)")
        elif kind == "channel" and not any("<channel>" in piece for piece in pieces):
            pieces.append(r"(?P<channel>[^\W_]+)")
        elif kind in ("z", "t") and not any(f"<{kind}>" in piece for piece in pieces):
            pieces.append(re.sub(r"\d+", "", part.text) + rf"(?P<{kind}>\d+)")
        else:
            pieces.append(r"[^\W_]+" if _varies(column) else re.escape(part.text))
    return "".join(pieces)


def _keep_one(
    kind: str, kinds: list[frozenset[str]], columns: Sequence[Sequence[Part]], files: Sequence[SourceFile]
) -> None:
    """Keep only one column for a kind: the one that differs between files, else the last."""
    saying = [index for index, options in enumerate(kinds) if kind in options]
    varying = [index for index in saying if _varies(columns[index]) and "well" not in kinds[index]]
    if len(varying) > 1:
        texts = " and ".join(repr(columns[index][0].text) for index in varying)
        raise BadArgument(
            f"{shown(files)}: both {texts} look like the {kind}; say which is which by --pattern, {EXAMPLE}"
        )
    for index in saying:
        if index != (varying or saying)[-1]:
            kinds[index] = kinds[index] - {kind} if "well" in kinds[index] else frozenset()


def _place(parts: Sequence[Part], kinds: Sequence[frozenset[str]]) -> Place:
    values: dict[str, str] = {}
    for part, wanted in zip(parts, kinds, strict=True):
        for meaning in part.meanings:
            if wanted and wanted <= frozenset(meaning) and ("well" in meaning) == ("well" in wanted):
                values |= {kind: text for kind, text in meaning.items() if kind in wanted}
                break
    row = values["well"].rstrip("0123456789")
    return Place(
        well=(row, values["well"].removeprefix(row)),
        field=str(int(values.get("field", "0"))),
        channel=values.get("channel", ""),
        t=int(values.get("t", "0")),
        z=int(values.get("z", "0")),
    )
