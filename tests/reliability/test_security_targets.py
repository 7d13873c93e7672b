"""Where requests go: to the configured upstreams, whatever a client asks for and whatever
stands in the environment."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.reliability.rig import Rig, Row, nginx_decides
from tests.rig.calls import EMBEDDINGS, FACES
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, ScriptedServer
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import bearer, encode_request, raw, request
from tests.rig.programs import require_program
from tests.rig.provider import upstream_entry

KEY = "sk-own-key-of-the-gateway"


#: A listener that nobody may talk to.
canary = module_fixture(FaultUpstream)


#: A provider of OpenAI's API that is called with a key.
provider = module_fixture(FaultUpstream)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedServer, Path]]:
    """An upstream with TLS, and the file of the authority that nothing but
    the environment names."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "server.crt", directory / "server.key"
    command = [
        require_program("openssl"),
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=x",
    ]
    command += [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FaultUpstream(ssl_context=context) as server:
        yield server, certificate


def environment(home: Path, canary: ScriptedServer, authority: Path) -> dict[str, str]:
    """Variables by which other programs can be led elsewhere, or made to trust somebody."""
    (home / ".netrc").write_text(
        "default login evil password evil\nmachine 127.0.0.1 login evil password evil\n"
    )
    (home / ".netrc").chmod(0o600)
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    servers = (
        "OPENAI_BASE_URL",
        "OPENAI_API_BASE",
        "ANTHROPIC_BASE_URL",
        "OLLAMA_HOST",
        "OLLAMA_API_BASE",
    )
    files = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    return {
        **dict.fromkeys((*proxies, *servers), canary.url),
        **dict.fromkeys(files, str(authority)),
        "SSL_CERT_DIR": str(authority.parent),
        "NETRC": str(home / ".netrc"),
        "HOME": str(home),
        "PYTHONHTTPSVERIFY": "0",
        "NO_PROXY": "",
        "no_proxy": "",
        "LAB_KEY": KEY,
    }


@pytest.fixture(scope="module")
def rig(
    canary: ScriptedServer,
    provider: ScriptedServer,
    secure: tuple[ScriptedServer, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Rig]:
    server, authority = secure
    more = [
        upstream_entry(f"{provider.url}/v1", api_key_env="LAB_KEY")
        | {"models": {"gpt-lab": "org/model"}},
        upstream_entry(server.url, name="secure", kind="ollama", models=["behind-tls"]),
    ]
    with Rig(
        more_upstreams=more, env=environment(tmp_path_factory.mktemp("home"), canary, authority)
    ) as rig:
        yield rig


def is_silent(server: ScriptedServer) -> bool:
    """Whether nobody has as much as connected."""
    return server.events == []


# S14

FIELDS = (
    *(
        "base_url",
        "api_base",
        "api_url",
        "url",
        "host",
        "server",
        "server_url",
        "upstream",
        "backend",
        "endpoint",
    ),
    *(
        "target",
        "target_url",
        "proxy",
        "proxies",
        "provider",
        "openai_api_base",
        "ollama_host",
        "ollama_base_url",
    ),
    *(
        "remote_host",
        "remote_model",
        "custom_llm_provider",
        "deployment_url",
        "azure_endpoint",
        "webhook",
        "callback_url",
    ),
)
HEADERS = (
    *(
        "X-Upstream",
        "X-Upstream-Url",
        "X-Base-Url",
        "X-Api-Base",
        "X-Target",
        "X-Target-Url",
        "X-Backend",
        "X-Proxy-To",
    ),
    *(
        "X-Forwarded-Host",
        "X-Forwarded-Server",
        "X-Host",
        "X-Original-Host",
        "X-Original-Url",
        "X-Rewrite-Url",
    ),
    *(
        "X-Forwarded-Uri",
        "X-Http-Host-Override",
        "Forwarded",
        "X-Ollama-Host",
        "X-Ollama-Url",
        "X-OpenAI-Api-Base",
    ),
    *(
        "X-Portkey-Custom-Host",
        "Helicone-Target-Url",
        "X-LiteLLM-Api-Base",
        "Destination",
        "Location",
        "Proxy",
        "Via",
    ),
)


def bodies(address: str) -> list[dict[str, Any]]:
    """Further fields of a body, each naming a server in another way."""
    named: list[dict[str, Any]] = [{field: address} for field in FIELDS]
    named += [
        {"options": dict.fromkeys(FIELDS, address)},
        {"extra_body": dict.fromkeys(FIELDS, address)},
    ]
    named += [
        {"metadata": {"base_url": address}},
        {"model_info": {"api_base": address}},
        {"headers": {"Host": address}},
    ]
    named += [
        {"model": f"{address}/library/m"},
        {"model": f"{address.removeprefix('http://')}/library/m"},
    ]
    return named


@nginx_decides
def test_s14_client_names_an_upstream_of_its_own(row: Row, canary: ScriptedServer) -> None:
    """By field, header, query, Host or target of the request: ignored or refused, and
    nobody there hears of it."""
    row.allow(503)
    canary.clear()
    asked = 0
    for face in (*FACES.values(), *EMBEDDINGS.values()):
        plain = {**face.body, "stream": False}
        for more in bodies(canary.url):
            status = row.ask("POST", face.path, plain | more).status
            # Whether there is a model of this name the server behind TLS alone could
            # tell, if it were trusted.
            assert status in ((200, 400, 403, 404) if "model" not in more else (400, 404, 503)), (
                face.path,
                more,
            )
            asked += 1
        for value in (canary.url, f"127.0.0.1:{canary.port}"):
            assert row.ask("POST", face.path, plain, dict.fromkeys(HEADERS, value)).status == 200
        query = "&".join(f"{name}={quote(canary.url)}" for name in FIELDS)
        assert row.ask("POST", f"{face.path}?{query}", plain).status == 200
        asked += 3
    assert {ask_raw(row, canary, form) for form in range(3)} <= {b"200", b"400", b"404", b"405"}
    paths = {seen.raw_path for seen in row.upstream.requests}
    assert paths <= {
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/show",
        "/api/tags",
        "/api/ps",
        "/api/version",
    }
    hosts = {seen.header("host") for seen in row.upstream.requests}
    assert hosts == {f"127.0.0.1:{row.upstream.port}"}
    assert is_silent(canary)
    row.measured("tried", asked, "ways")


def ask_raw(row: Row, canary: ScriptedServer, form: int) -> bytes:
    """The status of a request that is meant for somebody else by HTTP itself."""
    there = f"127.0.0.1:{canary.port}"
    method, target, host = [
        ("GET", "/api/tags", there),
        ("GET", f"http://{there}/api/tags", there),
        ("CONNECT", there, there),
    ][form]
    headers = {**bearer("team-token-1"), "Host": host, "X-Request-Id": row.new_id(doubtful=True)}
    return raw(row.port, encode_request(host, method, target, None, headers))[9:12]


# S15


def test_s15_environment_has_no_say_on_upstreams(
    row: Row, canary: ScriptedServer, provider: ScriptedServer, secure: tuple[ScriptedServer, Path]
) -> None:
    """Proxies, .netrc, base URLs of libraries and authorities in variables: requests go
    straight to the configured servers with the configured key, and TLS is checked against the
    system's authorities alone."""
    server, authority = secure
    trusting = ssl.create_default_context(cafile=str(authority))
    assert request(server.url, path="/api/version", ssl_context=trusting).status == 200
    server.clear()
    canary.clear()
    provider.clear()
    row.allow(502, 503)
    for face in (*FACES.values(), *EMBEDDINGS.values()):
        assert row.ask("POST", face.path, {**face.body, "stream": False}).status == 200
        row.ask(
            "POST", face.path, {**face.body, "model": "gpt-lab", "stream": False}, dialect="any"
        )
        assert row.ask(
            "POST", face.path, {**face.body, "model": "behind-tls", "stream": False}
        ).status in (502, 503)
    assert {seen.header("authorization") for seen in row.upstream.requests} == {None}
    asked = [seen for seen in provider.requests if seen.method == "POST"]
    assert asked and {seen.header("authorization") for seen in asked} == {f"Bearer {KEY}"}
    wait_until(lambda: any(event.kind == "tls_failed" for event in server.events))
    assert server.requests == []
    assert is_silent(canary)
