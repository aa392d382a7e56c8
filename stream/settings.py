"""Settings of a lossless message link in an experiment file, and errors in settings as one line."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stream.link import Policy


class LinkSettings(BaseModel):
    """Behaviour of a message link whose receiver is slower than its sender, or gone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slots: int = Field(64, ge=2, le=65536, description="messages the sender's ring holds")
    credits: int | None = Field(
        None, ge=1, description="messages on their way at a time; half of the slots if left out"
    )
    policy: Policy = Field(
        Policy.BLOCK,
        description="frames for the detector, full ring: block, drop_oldest (unsent) or drop_newest; results are "
        "never dropped",
    )
    patience_s: float = Field(
        3.0, gt=0, description="without a sign of life for so long the other end is flagged"
    )
    give_up_s: float | None = Field(
        30.0,
        gt=0,
        description="block: the sender gives up when its receiver is gone for so long; null: never",
    )

    @model_validator(mode="after")
    def _credits_fit_into_the_ring(self) -> Self:
        if self.credits is not None and self.credits >= self.slots:
            raise ValueError(f"credits ({self.credits}) must be fewer than slots ({self.slots})")
        return self


def describe(error: ValidationError) -> str:
    """All problems that pydantic found, in one line: key, problem, and the value given."""
    findings = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "settings"
        if item["type"] == "extra_forbidden":
            findings.append(f"unknown key {place!r}")
        else:
            message = item["msg"][:1].lower() + item["msg"][1:]
            given = "" if item["type"] == "missing" else f" (given: {item['input']!r})"
            findings.append(f"{place}: {message}{given}")
    return "; ".join(findings)
