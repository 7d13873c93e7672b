"""Slots and queue that workers share: which request may start next, and on which box."""

from ollama_proxy.coordination.limits import Allowance, Limiter, LimitRefusal, Remaining, Spent, Subject
from ollama_proxy.coordination.scheduler import Decision, Position, QueueLimits, Refusal, Scheduler
from ollama_proxy.coordination.state import Grant, Outcome, Request

__all__ = [
    "Allowance",
    "Decision",
    "Grant",
    "LimitRefusal",
    "Limiter",
    "Outcome",
    "Position",
    "QueueLimits",
    "Refusal",
    "Remaining",
    "Request",
    "Scheduler",
    "Spent",
    "Subject",
]
