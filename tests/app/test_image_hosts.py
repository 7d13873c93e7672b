"""Who is asked for an image that is given by URL, and who is not, whatever it is called."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from ollama_proxy.settings.schema import Images
from tests.rig.authority import Authority
from tests.rig.fault_upstream import Json, ScriptedServer, Whole
from tests.rig.fixtures import function_fixture
from tests.rig.tables import each_row
from tests.unit.gateway.test_images import HERE, NO_URL, PNG, complaint, fetch, names, settings

NOT_FROM_THERE = "this gateway fetches no images from this host"


class Canary:
    """A listener that nobody may connect to."""

    def __init__(self, address: str, port: int = 0) -> None:
        both = address == "::"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, dualstack_ipv6=both)
        self.port: int = self._listener.getsockname()[1]

    @classmethod
    def everywhere(cls) -> Canary:
        """One that hears every address of this machine."""
        return cls("::" if socket.has_dualstack_ipv6() else "0.0.0.0")

    def is_silent(self) -> bool:
        """A connection that came would wait here for ever: nobody accepts it."""
        return not select.select([self._listener], [], [], 0)[0]

    def close(self) -> None:
        self._listener.close()


#: A listener on every address of this machine.
canary = function_fixture(lambda: contextlib.closing(Canary.everywhere()))


def own_address() -> str:
    """What this machine is called by others, or its loopback where there are none."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return HERE
        return str(probe.getsockname()[0])


#: Hosts that mean this machine, or would if somebody read them so.
SPELLINGS = [
    "127.0.0.2",
    "127.0.0.2.",
    "127.8.9.10",
    "127.2",
    "127.0.2",
    "2130706434",
    "0x7f000002",
    "0x7F.2",
    "0177.0.0.2",
    "017700000002",
    "127.0.0.02",
    "0.0.0.0",
    "0",
    "0x0",
    "①②⑦.⓪.⓪.②",
    "127。0。0。2",
    "%31%32%37.0.0.2",
    "127.0.0.2%00.example.org",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.2]",
    "[::ffff:7f00:2]",
    "[::ffff:0:127.0.0.2]",
    "[::127.0.0.2]",
    "[64:ff9b::127.0.0.2]",
    "[64:ff9b:1::127.0.0.2]",
    "[2002:7f00:2::]",
    "[::1%25lo]",
    "[::1%lo]",
    "user@127.0.0.2",
    "8.8.8.8@127.0.0.2",
    "8.8.8.8:80@127.0.0.2",
    "127.0.0.2\\@8.8.8.8",
    "127.0.0.2 ",
    "127.0.0.2\t",
    "127.0.0.2\r\nHost: x",
    own_address(),
]
NAMES = ["localhost", "LOCALHOST", "localhost.", socket.gethostname()]
#: Where clouds keep what nobody else should read, and nets that are not this one.
ELSEWHERE = [
    "169.254.169.254",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
    "10.0.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
    "[fe80::1]",
]


def is_refused(why: str) -> bool:
    return why.startswith((NOT_FROM_THERE, NO_URL))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_this_machine_is_not_asked_however_it_is_called(canary: Canary, scheme: str) -> None:
    for host in (HERE, *SPELLINGS, *NAMES):
        assert is_refused(complaint(f"{scheme}://{host}:{canary.port}/", images=Images())), host
        assert canary.is_silent(), host


def test_private_networks_are_not_asked() -> None:
    # One that is asked does not answer, and gives another complaint.
    for host in ELSEWHERE:
        why = complaint(f"http://{host}/latest/meta-data/", images=Images())
        assert why.startswith(NOT_FROM_THERE), host


def test_a_redirect_leads_to_nobody_else(pictures: ScriptedServer, canary: Canary) -> None:
    for host in SPELLINGS:
        location = f"http://{host}:{canary.port}/".encode().decode("latin-1").replace("\r\n", " ")
        pictures.script("/a", [Json({}, 302, {"Location": location})])
        assert is_refused(complaint(f"{pictures.url}/a")), host
        assert canary.is_silent(), host


@each_row(
    "url",
    [
        "",
        "x",
        "http://",
        "127.0.0.2",
        "//127.0.0.2/",
        "http:127.0.0.2/",
        "http:///127.0.0.2/",
        "ftp://127.0.0.2/",
        "http://pictures.example/a\r\nX-More: 1",
        "http://pictures.example/\x00",
        "http://pictures.example/\ud800",
        "http://pictures.example:99999/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    assert complaint(url, resolve=names()).startswith(NO_URL)


def test_urls_have_an_end(pictures: ScriptedServer) -> None:
    assert complaint(f"{pictures.url}/" + "a" * 8192).startswith(NO_URL)
    assert pictures.events == []


def is_kept(*url: Any) -> bool:
    """Whether the standard library keeps the parts of a URL, which it was asked
    for in these very words."""
    before = urlsplit.cache_info().hits  # type: ignore[attr-defined]
    urlsplit(*url)
    return bool(urlsplit.cache_info().hits > before)  # type: ignore[attr-defined]


@pytest.mark.parametrize("rest", ["x" * 9000, "图" * 2_000_000, f"{HERE}/" + "x" * 9000])
def test_urls_without_end_are_not_looked_at(rest: str) -> None:
    began = time.process_time()
    assert complaint(f"http://{rest}").startswith(NO_URL)
    assert time.process_time() - began < 0.3
    assert not is_kept(f"http://{rest}")


def test_redirects_without_end_are_not_looked_at(pictures: ScriptedServer) -> None:
    location = "/" + "x" * 9000
    pictures.script("/a", [Json({}, 302, {"Location": location})])
    assert complaint(f"{pictures.url}/a").startswith(NO_URL)
    assert not is_kept(location, "http", True)
    assert not is_kept(f"{pictures.url}{location}")


@pytest.mark.parametrize(
    "known", ["127.0.0.2", "127.0.0.1 127.0.0.2", "127.0.0.2 127.0.0.1", "8.8.8.8 127.0.0.2", "::1"]
)
def test_a_name_with_one_private_address_is_refused(canary: Canary, known: str) -> None:
    resolve = names(pictures_example=known)
    assert complaint(f"http://pictures.example:{canary.port}/", resolve=resolve).startswith(
        NOT_FROM_THERE
    )
    assert canary.is_silent()


def test_a_name_that_means_something_else_by_now_is_asked_where_it_was_checked(
    pictures: ScriptedServer,
) -> None:
    looked_up = []

    def rebinding(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return [HERE] if len(looked_up) == 1 else ["127.0.0.2"]

    pictures.script("/a", [Whole(PNG)])
    pictures.script("/again", [Json({}, 302, {"Location": "/a"})])
    with contextlib.closing(Canary("127.0.0.2", pictures.port)) as canary:
        url = f"http://pictures.example:{pictures.port}"
        assert fetch(f"{url}/a", resolve=rebinding) == [PNG]
        assert looked_up == ["pictures.example"]
        assert pictures.requests[0].header("host") == f"pictures.example:{pictures.port}"
        looked_up.clear()
        assert complaint(f"{url}/again", resolve=rebinding).startswith(NOT_FROM_THERE)
        assert canary.is_silent()


def test_refusals_do_not_say_whether_anything_is_there(canary: Canary) -> None:
    with contextlib.closing(Canary(HERE)) as gone:
        pass
    resolve = names(intern_example="10.0.0.1")
    hosts = [
        f"127.0.0.1:{canary.port}",
        f"127.0.0.1:{gone.port}",
        "intern.example",
        "unknown.example",
        "10.0.0.1",
    ]
    assert (
        len({complaint(f"http://{host}/", images=Images(), resolve=resolve) for host in hosts}) == 1
    )


def test_the_next_address_is_asked_when_the_first_takes_no_connection(
    pictures: ScriptedServer,
) -> None:
    pictures.script("/a", [Whole(PNG)])
    resolve = names(pictures_example="127.0.0.2 127.0.0.1")
    url = f"http://pictures.example:{pictures.port}/a"
    assert fetch(url, images=settings(allow=("pictures.example",)), resolve=resolve) == [PNG]


@pytest.mark.parametrize("allow", ["*.example", "pictures.example", "127.0.0.0/8"])
def test_with_an_allowlist_only_what_is_on_it_is_asked(
    pictures: ScriptedServer, allow: str
) -> None:
    pictures.script("/a", [Whole(PNG)])
    images = settings(fetch="allowlist", allow=(allow,))
    resolve = names(pictures_example=HERE, elsewhere_test="8.8.8.8")
    assert fetch(f"http://pictures.example:{pictures.port}/a", images=images, resolve=resolve) == [
        PNG
    ]
    assert complaint("http://elsewhere.test/", images=images, resolve=resolve).startswith(
        NOT_FROM_THERE
    )


def test_nobody_is_asked_when_fetching_is_off(canary: Canary) -> None:
    why = complaint(f"http://{HERE}:{canary.port}/", images=settings(fetch="off"))
    assert why == "this gateway fetches no images: send the image itself, in base64"
    assert canary.is_silent()


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_tls_is_about_the_name_although_the_connection_goes_to_an_address(
    authority: Authority, pictures: ScriptedServer
) -> None:
    context, asked_for = authority.server("DNS:pictures.example"), []
    context.sni_callback = lambda sock, name, context: asked_for.append(name)
    resolve = names(pictures_example=HERE, elsewhere_example=HERE)
    with ScriptedServer(ssl_context=context) as secure:
        secure.script("/a", [Whole(PNG)])
        options = {"resolve": resolve, "tls": authority.client()}
        pictures.script(
            "/a", [Json({}, 302, {"Location": f"https://pictures.example.:{secure.port}/a"})]
        )
        assert fetch(f"{pictures.url}/a", **options) == [PNG]
        assert asked_for == ["pictures.example"]
        assert secure.requests[0].header("host") == f"pictures.example:{secure.port}"
        assert "can't be reached" in complaint(
            f"https://elsewhere.example:{secure.port}/a", **options
        )
        assert "can't be reached" in complaint(f"https://{HERE}:{secure.port}/a", **options)
        assert len(secure.requests) == 1
