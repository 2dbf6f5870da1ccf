"""The fields that keys, teams and organisations share in the admin API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=200)]
_Number = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]


class Limited(BaseModel):
    """How much; what is left out is not limited, or stays as it is. Null takes a limit away."""

    model_config = ConfigDict(extra="forbid")

    rpm: _Number | None = Field(None, description="Requests a minute")
    tpm: _Number | None = Field(None, description="Tokens a minute")
    concurrency: _Number | None = Field(None, description="Calls at once")
    rpd: _Number | None = Field(None, description="Requests a day, UTC")
    tpd: _Number | None = Field(None, description="Tokens a day, UTC")
    max_budget: float | None = Field(None, strict=True, gt=0, le=9 * 10**6, description="USD that may be spent")
    budget_duration: str | None = Field(
        None, max_length=8, description="In which they may: 15m, 1h, 1d, 1w, 30d, 1mo; null for ever", examples=["1mo"]
    )
    window: Literal["sliding", "fixed"] = Field(
        "sliding", description="Whether a minute is the last 60 s before each call, or the clock's"
    )


class Allowed(Limited):
    """What may be called, and how much."""

    routes: list[str] | None = Field(None, description="Routes that may be called, `*` for anything; null for all")
    denied_routes: list[str] = Field([], description="Routes that may not be called all the same")
    soft_budget: float | None = Field(
        None, strict=True, gt=0, le=9 * 10**6, description="USD that refuse nothing; `alerts` tell of it"
    )
    user_limits: Limited | None = Field(None, description="What each end user may use; null for all there is")


def given(model: BaseModel) -> dict[str, Any]:
    """The fields that a caller gave, nulls too."""
    return model.model_dump(exclude_unset=True)
