"""Colours that colour-blind readers can distinguish (Okabe and Ito 2008), and their meaning in reports.

Colour is never the only sign: truth is dashed, kinds are named in legends and titles.
"""

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
WHITE = "#FFFFFF"
GREY = "#8A949E"

LAYER_COLOURS = (SKY, ORANGE, YELLOW, PURPLE, GREEN, VERMILLION, WHITE)
"""Outline colour per output layer, used in turn: two objects that overlap are on different layers."""

RUN_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, BLACK)
"""Line colour per compared run."""

KIND_COLOURS = {
    "match": GREEN,
    "missed": VERMILLION,
    "merged": ORANGE,
    "split": PURPLE,
    "inaccurate": YELLOW,
    "overlap": SKY,
    "spurious": WHITE,
}
"""Outline colour per kind of error, on a darkened picture."""

KIND_MEANINGS = {
    "match": "truth and prediction are matched, IoU at least 0.5",
    "missed": "no prediction overlaps it, or only a small part of it",
    "merged": "one prediction covers several truth objects",
    "split": "several predictions cover one truth object",
    "inaccurate": "overlaps its partner, but with an IoU below 0.5",
    "overlap": "its shared pixels were given to another object",
    "spurious": "a prediction that overlaps no truth object, or only a small part of one",
}
"""Labels of the kinds of error, in reading order."""


def layer_colour(layer: int) -> str:
    """Outline colour of an output layer."""
    return LAYER_COLOURS[layer % len(LAYER_COLOURS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """Turn ``#rrggbb`` into three bytes."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
