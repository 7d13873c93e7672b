"""The playground: any model and dialect, from the browser, with the rights of
whoever has signed in."""

from __future__ import annotations

from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.language import N_, gettext
from ollama_proxy.admin.pages.page import Page, render
from ollama_proxy.policy import ANY_TOKEN, CALL_PATH

PAGE = Page("playground", scope=ANY_TOKEN)

#: As the script names them, with their titles.
DIALECTS = (
    ("ollama-chat", N_("Ollama chat")),
    ("ollama-generate", N_("Ollama generate")),
    ("openai-chat", N_("OpenAI chat completions")),
    ("openai-responses", N_("OpenAI Responses")),
    ("anthropic-messages", N_("Anthropic Messages")),
)

THINKING = (
    ("", N_("default")),
    ("off", N_("off")),
    ("on", N_("on")),
    ("low", N_("low")),
    ("medium", N_("medium")),
    ("high", N_("high")),
)

#: What the script says, by the names that it has for them. Braces are filled in by it.
_TEXTS = {
    "you": N_("You"),
    "results": N_("Results of tools"),
    "thinking": N_("Thinking"),
    "image": N_("Image: {name}"),
    "remove": N_("Remove {name}"),
    "notAnImage": N_("{name} is not an image."),
    "otherModel": N_("Another name …"),
    "noModels": N_("There is no model here that you may use."),
    "modelsFailed": N_("The models can't be listed: {message}"),
    "noModel": N_("Choose a model first."),
    "badTools": N_("The tools are not a JSON list of functions with names."),
    "badNumber": N_("{name} is not a number."),
    "result": N_("Result of {name}"),
    "sendResults": N_("Send results"),
    "again": N_("Try again"),
    "sent": N_("Sent, {seconds} s"),
    "answering": N_("Answering, {seconds} s"),
    "waiting": N_("Waiting for a free place, {seconds} s"),
    "waitingAt": N_("Waiting: number {place} of {of}, about {wait} s more"),
    "loading": N_("Loading {model} on {box}, {seconds} s"),
    "stopped": N_("Stopped."),
    "refused": N_("Refused: {status}"),
    "failed": N_("The answer failed."),
    "cut": N_("The stream ended before the answer did."),
    "unreachable": N_("The gateway can't be reached, or the connection was lost."),
    "retryAfter": N_("Try again in {seconds} s."),
    "requestId": N_("Request {id}"),
    "promptTokens": N_("{count} tokens in"),
    "completionTokens": N_("{count} tokens out"),
    "firstByte": N_("first byte after {seconds} s"),
    "total": N_("{seconds} s in all"),
    "rate": N_("{rate} tokens/s"),
    "reason": N_("ended: {reason}"),
    "waited": N_("waited in the queue: {text}"),
    "ignored": N_("without effect here: {fields}"),
    "approximated": N_("not exactly as asked: {fields}"),
    "truncated": N_("shortened: {text}"),
}


@PAGE.get()
def show_playground() -> ResponseReturnValue:
    """The form and the conversation; the script asks for the models, which may take a while."""
    return render(
        "playground.html",
        dialects=[(name, gettext(title)) for name, title in DIALECTS],
        thinking=[(name, gettext(title)) for name, title in THINKING],
        texts={name: gettext(text) for name, text in _TEXTS.items()},
        call_path=CALL_PATH,
    )
