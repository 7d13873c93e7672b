"""Files that others may read: the gateway starts, and says so in its log, where and what to do."""

from __future__ import annotations

from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway

PLAIN = {"auth": {"generate_tokens": ["sk-team-token-1"]}}


def warnings(upstream: FaultUpstream, *, config: int, state: int) -> list[str]:
    """What a start says of files with these modes; one worker, so each once."""
    settings = PLAIN | {"service": {"base_url": upstream.url}}
    gateway = Gateway(settings, workers=1)
    try:
        gateway.config_path.chmod(config)
        gateway.state_directory.chmod(state)
        gateway.start()
        gateway.stop()
        told = gateway.events("configuration_warning")
        assert {event["level"] for event in told} <= {"WARNING"}
        return [event["warning"].replace(str(gateway.directory), "DIR") for event in told]
    finally:
        gateway.close()


def test_readable_token_list_and_state_are_said_at_the_start(upstream: FaultUpstream) -> None:
    _, file, directory = warnings(upstream, config=0o644, state=0o755)
    assert (
        file
        == "DIR/config.yaml: others may read its plain tokens (mode 0644); chmod o= DIR/config.yaml"
    )
    assert (
        directory
        == "DIR/state contains secrets and is open to others (mode 0755); chmod go= DIR/state"
    )


def test_files_for_the_gateway_alone_are_not_talked_about(upstream: FaultUpstream) -> None:
    assert warnings(upstream, config=0o600, state=0o700) == [
        (
            "DIR/config.yaml: 1 plain token(s) in the file; `ollama-proxy token hash` "
            "makes the sha256 form"
        )
    ]
