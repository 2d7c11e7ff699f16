"""A parser that takes its process along when it sees a magenta person, as a crash inside a net's library would."""

import os

from pipeline.stages import Crop
from tests.support.figures import ColourParser


class DeadlyParser(ColourParser):
    name = "deadly-1"

    def parse(self, crops):
        maps = super().parse(crops)
        if any(((crop[..., 2] > 150) & (crop[..., 0] > 180) & (crop[..., 1] < 90)).mean() > 0.01 for crop in crops):
            os.abort()
        return maps


class DeadlyCrop(Crop):
    """The crop stage with this parser."""

    def open(self):
        return DeadlyParser()
