"""What all sections of an experiment file share, those of message links, and errors in settings as one line."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stream.link import Policy


class Section(BaseModel):
    """A section of the experiment file: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LinkSettings(Section):
    """How a message link behaves when its receiver is slower than its sender, or gone."""

    slots: int | None = Field(
        None,
        ge=2,
        le=65536,
        description="frames that the sender's ring buffer holds; left out: 64, with policy live as many of them as "
        "64 MB hold",
    )
    credits: int | None = Field(
        None,
        ge=1,
        description="frames in transit at a time; left out: half of the slots, with policy live all but one",
    )
    policy: Policy | None = Field(
        None,
        description="frames that the detector has no time for: live keeps the newest and drops the others, block "
        "lets them wait, drop_oldest (unsent) and drop_newest drop from a full ring; left out: live with a "
        "microscope, block with a recording; results are never dropped",
    )
    age_limit_ms: float | None = Field(
        None,
        gt=0,
        description="policy live: how old a result may be; a frame that would be older is dropped when the "
        "detector gets it, so that a result is older only where its own detection takes longer "
        "than that of others; left out: three frame periods, at least 100 ms",
    )
    patience_s: float = Field(3.0, gt=0, description="the other end is reported as silent after this long")
    give_up_s: float | None = Field(
        30.0,
        gt=0,
        description="policy block: the sender gives up after its receiver has been gone for this long; in an "
        "experiment the session decides instead",
    )

    @model_validator(mode="after")
    def _credits_fit_into_the_ring(self) -> Self:
        if self.credits is not None and self.slots is not None and self.credits >= self.slots:
            raise ValueError(f"credits ({self.credits}) must be fewer than slots ({self.slots})")
        return self


def describe(error: ValidationError) -> str:
    """All problems that pydantic found, in one line: key, problem, and the value given if it is a single one."""
    findings = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            findings.append(f"unknown key {place!r}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            message = message if item["type"] == "value_error" else message[:1].lower() + message[1:]
            is_about_several = item["type"] == "missing" or isinstance(item["input"], dict | BaseModel)
            given = "" if is_about_several else f" (given: {item['input']!r})"
            findings.append(f"{f'{place}: ' if place else ''}{message}{given}")
    return "; ".join(findings)
