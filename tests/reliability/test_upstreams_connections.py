"""Connections to upstreams: in small packets, with certificates that prove nothing, or
open to anybody else."""

from __future__ import annotations

import json
import ssl
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.reliability.asked import CHAT, OPENAI_CHAT, STREAMS, ask, ask_all, encoded, script_all
from tests.reliability.rig import MODEL, TOKEN, Rig, Row
from tests.rig import NDJSON
from tests.rig.authority import REFUSED, Authority
from tests.rig.calls import NATIVE_FACES, Face, is_well_ended
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head, Json, Lines, Script, Wait
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.keys import run_command
from tests.rig.leaks import worker_details
from tests.rig.plain_ollama import network_address, plain_ollama

DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


rig = module_fixture(lambda: Rig(relayed=True))


TEXT = "你好 🌍 \u2028 é"


def lines_of(face: Face) -> list[dict[str, object]]:
    """An answer with letters of every length."""
    return [
        json.loads(encoded(face.line).replace(b"Hel", part.encode())) for part in (TEXT, "a", "")
    ] + [{**face.line, **DONE}]


PACKETS = {
    "one byte each": (1,),
    "one to seven bytes": (1, 2, 3, 4, 5, 6, 7),
    "all at once": (1 << 20,),
}


@pytest.mark.parametrize("packets", PACKETS)
def test_u21_lines_across_packets(row: Row, packets: str) -> None:
    """Lines in many packets, and many lines in one: native clients get the same bytes, all get the
    same text, and the counts are found."""
    relay = row.relay("upstream")
    relay.to_client.slices = PACKETS[packets]

    def script(face: Face) -> Script:
        if packets == "all at once":
            return [Head(200, NDJSON), Chunk(b"".join(map(encoded, lines_of(face))))]
        return [Lines(lines_of(face))]

    script_all(row.upstream, script)
    for call in ask_all(row, STREAMS):
        if call.way.face in NATIVE_FACES.values():
            assert call.answer.body == b"".join(map(encoded, lines_of(call.way.face)))
        # Some clients take the character itself for the end of a line: it may come escaped.
        assert TEXT in call.answer.text.replace("\\u2028", "\u2028")
        assert is_well_ended(call.answer.body, call.way.face)
        line = row.record(call.id)
        assert (line["prompt_eval_count"], line["eval_count"], line["state"]) == (7, 3, "ok")


#: What switches the checks off elsewhere, or has other authorities trusted.
SWITCHES = {
    "PYTHONHTTPSVERIFY": "0",
    "NODE_TLS_REJECT_UNAUTHORIZED": "0",
    "CURL_CA_BUNDLE": "",
    "SSL_VERIFY": "false",
}
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class Certificates(NamedTuple):
    """Servers' contexts by what is wrong with them, the authority to trust, and the
    certificate of the self-signed."""

    contexts: dict[str, ssl.SSLContext]
    trusted: Path
    own: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    contexts, own = {}, authority.directory / "own.crt"
    for name, certificate in [("good", {"names": "IP:127.0.0.1"}), *REFUSED.items()]:
        contexts[name] = authority.server(**certificate)
        if not certificate.get("signed", True):
            own.write_bytes((authority.directory / "server.crt").read_bytes())
    return Certificates(contexts, authority.certificate, own)


def test_u27_certificate_that_proves_nothing(door: str, certificates: Certificates) -> None:
    """It is refused before anything is sent, beside one of the same authority that is taken; the
    environment has no say in it, and the configuration no switch."""
    trusted = dict.fromkeys(TRUST, str(certificates.own))
    env = {"TRUSTED_AUTHORITY": str(certificates.trusted), **SWITCHES, **trusted}
    with ExitStack() as stack:
        servers = {
            name.replace(" ", "-"): stack.enter_context(FaultUpstream(ssl_context=context))
            for name, context in certificates.contexts.items()
        }
        more = [{"name": name, "base_url": server.url} for name, server in servers.items()]
        # What watches over waits starts with the first one for an upstream, and
        # is no leak of the row.
        servers["good"].script("/api/version", [Wait(0.2), Json({"version": "0.24.0"})])
        rig = stack.enter_context(
            Rig(more_upstreams=more, env=env, app="tests.rig.trusting_app:app")
        )
        workers = partial(worker_details, rig.gateway, TOKEN)
        wait_until(lambda: all(each["upstreams"]["good"]["usable"] for each in workers().values()))
        with rig.row(door) as row:
            row.allow(503)
            for name, server in servers.items():
                calls = [ask(row, way, model=f"{name}/{MODEL}") for way in (CHAT, OPENAI_CHAT)]
                assert {call.status for call in calls} == {200 if name == "good" else 503}, name
                if name != "good":
                    assert {row.record(call.id)["error"] for call in calls} == {
                        "upstream_unreachable"
                    }
                    server.wait_event("tls_failed")
                    assert server.requests == []


def test_no_setting_switches_certificates_off() -> None:
    """Each of the names that others have for it ends the start, and is named."""
    switches = {name: False for name in ("verify", "verify_tls", "ssl_verify", "check_hostname")}
    switches |= {name: True for name in ("insecure", "insecure_skip_verify", "tls_skip_verify")}
    upstream = {"name": "box1", "base_url": "https://127.0.0.1:1", **switches}
    failed = Gateway.start_expecting_failure(
        {"auth": {"generate_tokens": [TOKEN]}, "upstreams": [upstream]}
    )
    assert failed.exit_code != 0
    assert not [name for name in switches if name not in failed.output]


@pytest.mark.door("gateway")
def test_u30_upstream_without_the_gateway(row: Row) -> None:
    """The check that comes with the gateway says whether anybody in the network could go past it.
    It asks upstreams and makes no request of the gateway, so there is no other door."""
    row.allow_no_probe_p99("starting the command takes as much of the machine as it can get")
    closed = check_exposure(row)
    assert (closed.returncode, "box1" in closed.stdout, "OPEN" in closed.stdout) == (0, True, False)
    with plain_ollama("0.0.0.0") as port, plain_ollama() as hidden:
        opened = check_exposure(
            row, f"http://127.0.0.1:{port}", f"http://{network_address()}:{port}"
        )
        assert (opened.returncode, opened.stdout.count("OPEN")) == (1, 2), opened
        assert check_exposure(row, f"http://127.0.0.1:{hidden}").returncode == 0
        try:
            row.gateway.write_config(
                row.rig.configured(
                    upstreams=[{"name": "box1", "base_url": f"http://127.0.0.1:{port}"}]
                )
            )
            opened = check_exposure(row)
        finally:
            row.rig.restore_configuration()
        assert (opened.returncode, "OLLAMA_HOST=127.0.0.1" in opened.stdout) == (1, True), opened
    assert check_exposure(row, f"http://127.0.0.1:{hidden}").returncode == 3


def check_exposure(row: Row, *urls: str) -> subprocess.CompletedProcess[str]:
    """What the command says of the gateway's configuration, or of these addresses."""
    return run_command(row.gateway, "check-exposure", *urls)
