"""Slots, queue and limits that workers share: which request may start next, and on which box."""

from ollama_proxy.coordination.admissions import Admission, Flow, Ticket
from ollama_proxy.coordination.client import BoxSettings, CoordinatorClient
from ollama_proxy.coordination.limits import Allowance, Remaining, Spent, Subject
from ollama_proxy.coordination.recording import make_records_frame
from ollama_proxy.coordination.scheduler import QueueLimits, Scheduler
from ollama_proxy.coordination.service import LOCK_NAME, run_coordinator, start_coordinator
from ollama_proxy.coordination.state import Decision, Grant, Outcome, Position, Refusal, Request

__all__ = [
    "Admission",
    "Allowance",
    "BoxSettings",
    "CoordinatorClient",
    "Decision",
    "Flow",
    "Grant",
    "LOCK_NAME",
    "Outcome",
    "Position",
    "QueueLimits",
    "Refusal",
    "Remaining",
    "Request",
    "Scheduler",
    "Spent",
    "Subject",
    "Ticket",
    "make_records_frame",
    "run_coordinator",
    "start_coordinator",
]
