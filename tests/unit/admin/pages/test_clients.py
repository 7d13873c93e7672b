"""What the page Connect says of clients is what the documentation says, and what tests have run."""

from __future__ import annotations

from ollama_proxy.admin.pages import clients
from ollama_proxy.admin.pages.clients import (
    ADDRESS,
    GROUPS,
    TESTED_PROGRAMS,
    TITLES,
    Client,
    fill_in,
)
from tests.clients.catalog import PAGE, programs, section
from tests.feature_table import features
from tests.rig.tables import each_row

CLIENTS = [client for _, clients in GROUPS for client in clients]
PROGRAMS = {program.name: program for program in programs()}


def test_tested_programs_are_those_that_tests_run_with_their_versions() -> None:
    assert {name: program.version for name, program in PROGRAMS.items()} == TESTED_PROGRAMS


def test_tested_libraries_are_those_that_tests_run() -> None:
    libraries = sorted(name for client in CLIENTS for name in client.libraries)
    assert libraries == sorted({feature.sdk for feature in features()})


def test_each_of_them_is_on_the_page_once() -> None:
    assert sorted(name for client in CLIENTS for name in client.programs) == sorted(TESTED_PROGRAMS)
    assert len({client.key for client in CLIENTS}) == len(CLIENTS)


def test_settings_of_tested_programs_are_those_that_were_tested() -> None:
    wrong = []
    for client in (client for client in CLIENTS if client.programs):
        documented = "\n".join(section(PROGRAMS[name]) for name in client.programs)
        lines = {line.strip().removesuffix(" \\") for line in documented.splitlines()}
        settings = [
            snippet
            for snippet in client.snippets
            if ADDRESS in snippet.text and snippet.title != "VS Code"
        ]
        assert settings, client.key
        wrong += [
            f"{client.key}: {line}"
            for snippet in settings
            for line in snippet.text.splitlines()
            if line.strip() not in lines
        ]
    assert not wrong, "\n".join(wrong)


@each_row("client", [client for client in CLIENTS if client.libraries])
def test_examples_of_python_libraries_are_whole_programs(client: Client) -> None:
    for snippet in client.snippets:
        if "JavaScript" not in client.name and client.name != "Vercel AI SDK":
            compile(snippet.text, client.name, "exec")


def test_every_client_has_its_group_and_its_note() -> None:
    assert len(CLIENTS) == len(clients._DECLARED["client"])
    assert {client.name for client in CLIENTS if client.note} == set(clients._NOTES)
    assert set(TITLES) <= {snippet.title for client in CLIENTS for snippet in client.snippets}


def test_open_webui_is_set_up_as_documented() -> None:
    [client] = [client for client in CLIENTS if client.name == "Open WebUI"]
    documented = PAGE.read_text(encoding="utf-8").replace("http://<gateway>:8080", ADDRESS)
    for snippet in client.snippets:
        assert all(line in documented for line in snippet.text.splitlines())


def test_texts_are_filled_in() -> None:
    text = (
        'base = "http://localhost:8080/v1"; model = "demo", demo/x, COPILOT_MODEL=demo; key '
        "= <token>; democracy"
    )
    filled = fill_in(text, "https://demo.example", r"q\1:14b", "op_demo")
    assert filled == (
        r'base = "https://demo.example/v1"; model = "q\1:14b", q\1:14b/x, COPILOT_MODEL=q\1:14b; '
        "key = op_demo; democracy"
    )
