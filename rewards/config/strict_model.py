"""A section of a file of users: unknown keys, wrong types and numbers that are none are faults."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A section read strictly: what it does not name is a fault, and so is a number that is none."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
