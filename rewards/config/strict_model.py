"""The base of everything that is read from a YAML file: recipes, specs, rule sets, curricula.

Left out: facts and dialogues, which are columns of rows, read from JSON by pydantic's own rules.
"""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """An unknown key is an error, a value of another type is never converted, numbers are finite; nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
