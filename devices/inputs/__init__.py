"""What a model is given to compute on: shapes, ways to fill, files."""

from devices.inputs.given import NOTHING, Fill, Given, GivenInput
from devices.inputs.options import given_from
from devices.inputs.reading import FORMS, InputFile, read_input

__all__ = ["FORMS", "NOTHING", "Fill", "Given", "GivenInput", "InputFile", "given_from", "read_input"]
