"""What handlers leave behind about a request, for whoever writes it down at the end."""

from typing import Any

from fastapi import Request
from starlette.types import Scope


def act_for(request: Request, project: str, key: str) -> None:
    """Whose request it is, by ids."""
    trail_of(request.scope).update(project=project, key=key)


def about(request: Request, noun: str, subject: str) -> None:
    """What a request made; what its path names is known anyway."""
    trail_of(request.scope)["subject"] = f"{noun}:{subject}"


def decided_by(request: Request, rule: str) -> None:
    """The error's code."""
    trail_of(request.scope)["rule"] = rule


def trail_of(scope: Scope) -> dict[str, str]:
    """The scope is one and the same object on the way down, so what is left in it is found on the way up."""
    state: dict[str, Any] = scope.setdefault("state", {})
    return state.setdefault("audit", {})
