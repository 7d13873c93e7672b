"""Dockerfile, .dockerignore and compose.yaml as far as they can be judged
without a Docker engine."""

from __future__ import annotations

import fnmatch
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from ollama_proxy.settings.schema import load_settings

PROJECT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continued lines joined."""
    text = re.sub(
        r"^#.*\n", "", (PROJECT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [
        (name, re.sub(r"\s+", " ", rest))
        for name, _, rest in (line.partition(" ") for line in lines)
    ]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for rest in arguments("ENV") for word in shlex.split(rest))


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def copied() -> list[str]:
    return [source for rest in arguments("COPY") for source in rest.split()[:-1]]


def test_base_image_is_pinned_to_a_version() -> None:
    (base,) = arguments("FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)


def test_copied_files_exist_and_are_in_the_build_context() -> None:
    rules = [
        line
        for line in (PROJECT / ".dockerignore").read_text("utf-8").splitlines()
        if line and line[0] != "#"
    ]
    assert rules[0] == "*"
    assert copied()
    assert [source for source in copied() if not (PROJECT / source).exists()] == []
    assert [source for source in copied() if f"!{source}" not in rules] == []


def test_nothing_enters_the_build_context_that_is_not_copied() -> None:
    rules = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())
    assert any(
        fnmatch.fnmatch("ollama_proxy/__pycache__", rule) for rule in rules if rule.startswith("**")
    )


def test_packages_are_installed_by_hash_and_as_wheels_only() -> None:
    (install,) = [rest for rest in arguments("RUN") if "pip install" in rest]
    assert "--require-hashes --only-binary :all: -r requirements.txt" in install


def test_process_is_not_root() -> None:
    names = [name for name, _ in instructions()]
    (user,) = arguments("USER")
    assert int(user.split(":")[0]) > 0
    assert names.index("USER") < names.index("CMD")
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")


def test_server_is_process_1_and_gets_the_signals() -> None:
    assert arguments("CMD") == ['["gunicorn", "-c", "config/gunicorn.conf.py", "wsgi:app"]']
    assert arguments("EXPOSE") == ["8080"]


def test_health_check_asks_livez_with_what_the_image_has() -> None:
    (check,) = arguments("HEALTHCHECK")
    program, flag, code = yaml.safe_load(check.partition("CMD ")[2])
    assert (program, flag) == ("python", "-c")
    assert "/livez" in code
    compile(code, "HEALTHCHECK", "exec")


def test_what_has_to_survive_is_on_volumes() -> None:
    kept = {environment()["STATE_DIRECTORY"], environment()["LOGS_DIRECTORY"]}
    assert set(yaml.safe_load(arguments("VOLUME")[0])) == kept
    assert kept == {volume.split(":")[1] for volume in compose()["services"]["gateway"]["volumes"]}


def test_configuration_can_be_mounted_and_has_a_default() -> None:
    assert environment()["OLLAMA_PROXY_CONFIG"] == "/app/config.yaml"
    assert arguments("WORKDIR") == ["/app"]
    assert "deploy/docker-config.yaml ./config.yaml" in arguments("COPY")


def test_default_configuration_is_valid_and_leaves_the_network_to_the_container() -> None:
    settings = load_settings(PROJECT / "deploy" / "docker-config.yaml", {})
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 8080)
    assert settings.service is not None
    assert settings.service.base_url == "http://host.docker.internal:11434"


def test_compose_starts_the_gateway_and_nothing_else() -> None:
    (service,) = compose()["services"]
    assert service == "gateway"


def test_compose_builds_from_this_directory() -> None:
    gateway = compose()["services"]["gateway"]
    assert (gateway["build"], gateway["image"]) == (".", "ollama-proxy")
    assert (PROJECT / "Dockerfile").is_file()


def test_compose_takes_the_address_of_ollama_from_outside_only() -> None:
    given = compose()["services"]["gateway"]["environment"]
    assert given["OLLAMA_URL"] is None
    assert given["PORT"] == "8080"
    assert compose()["services"]["gateway"]["ports"] == ["${PORT:-8080}:8080"]
    assert "host.docker.internal:host-gateway" in compose()["services"]["gateway"]["extra_hosts"]


def test_compose_takes_the_trusted_proxy_from_outside_only() -> None:
    name = "OLLAMA_PROXY__SERVER__TRUSTED_PROXIES"
    assert compose()["services"]["gateway"]["environment"][name] is None
    (example,) = re.findall(
        rf"^#{name}=(.*)", (PROJECT / ".env.example").read_text("utf-8"), re.MULTILINE
    )
    config = PROJECT / "deploy" / "docker-config.yaml"
    assert load_settings(config, {name: example}).server.trusted_proxies == ("172.18.0.1",)
    assert load_settings(config, {name: ""}).server.trusted_proxies == ()


def test_compose_waits_for_answers_in_progress() -> None:
    (conf,) = re.findall(
        r'"GRACEFUL_TIMEOUT", (\d+)', (PROJECT / "config/gunicorn.conf.py").read_text("utf-8")
    )
    assert compose()["services"]["gateway"]["stop_grace_period"] == f"{int(conf) + 30}s"


def test_named_volumes_are_declared() -> None:
    used = {volume.split(":")[0] for volume in compose()["services"]["gateway"]["volumes"]}
    assert used == set(compose()["volumes"])


def test_example_environment_holds_no_value_that_is_in_force() -> None:
    lines = (PROJECT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    assert any(line.startswith("#OLLAMA_URL=") for line in lines)


def test_image_runs_the_python_that_the_lock_was_made_for() -> None:
    lock = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
    assert "with Python 3.11" in lock
    assert arguments("FROM")[0].startswith("python:3.11.")
    assert sys.version_info >= (3, 11)


def test_compose_limits_memory_and_processes() -> None:
    gateway = compose()["services"]["gateway"]
    assert (gateway["mem_limit"], gateway["pids_limit"]) == ("2g", 256)
