"""What every block of parameters is made of: a section, strict and frozen, and checks that several sections share."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A block of params.yaml. No key that it does not name, no other type, no NaN; nobody changes it afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def unique(values: list) -> list:
    """Validator: no value twice."""
    if len(set(values)) != len(values):
        raise ValueError("expected each value once")
    return values


def ascending(values: list) -> list:
    """Validator: [low, high]."""
    if values != sorted(values):
        raise ValueError("expected [low, high]")
    return values
