"""What runbooks look like."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class RunbookLine(BaseModel):
    name: str
    title: str
    when: str
    severity: Literal["critical", "warning", "routine"]
    steps: int


class RunbookList(BaseModel):
    items: list[RunbookLine]
    next: None = None


class StepCommand(BaseModel):
    command: str
    places: list[str] = Field(description="What it needs to be told, such as `agent` for {agent}.")


class RunbookStep(BaseModel):
    number: int
    title: str
    text: str = Field(description="Markdown.")
    commands: list[StepCommand]


class Runbook(BaseModel):
    name: str
    title: str
    when: str
    severity: Literal["critical", "warning", "routine"]
    places: list[str]
    body: str = Field(description="The whole of it, as Markdown.")
    steps: list[RunbookStep]
