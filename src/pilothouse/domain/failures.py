"""Why runs fail, in a few categories that can be counted: the type of an error says which."""

from __future__ import annotations

TIMED_OUT = "timed_out"
LOST = "lost"
CODE = "code"
"""The agent's own code: every error that is not Pilothouse's."""

CATEGORIES = {
    "AttemptTimeout": TIMED_OUT,
    "RunTimeout": TIMED_OUT,
    "TimeoutError": TIMED_OUT,
    "WaitTimeout": TIMED_OUT,
    "AnswerMalformed": "model",
    "ModelError": "model",
    "ModelRefused": "model",
    "ModelUnavailable": "model",
    "OutputInvalid": "model",
    "PromptTooLong": "model",
    "EffectError": "tool",
    "MayHaveHappened": "tool",
    "ToolError": "tool",
    "LimitReached": "limit",
    "UnknownPrice": "limit",
    "ApprovalExpired": "not_approved",
    "ApprovalRejected": "not_approved",
    "NotApproved": "not_approved",
    "PolicyDenied": "not_approved",
    "RevisionRequested": "not_approved",
    "ChildError": "child",
    "IsolationError": "isolation",
}


def category_of(ending: str, error_type: str | None) -> str:
    """The category of a run that failed by how its last attempt ended and the type of its error."""
    if ending == "lost":
        return LOST
    return CATEGORIES.get(error_type or "", CODE)
