"""Pictures of the admin pages for the documents: `python -m tests.browser.screenshots`
writes them to docs/images/.

They show a gateway with three boxes, two weeks of usage, requests that run, and one that waits. The
link to the Chinese pages needs a font, such as Debian's `fonts-wqy-microhei`.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser.pages import PAGES
from tests.browser.stage import MEMBER, OPERATOR, USER_HEADER, Stage, open_stage
from tests.rig import SeenRequest
from tests.rig.boxes import Box, row
from tests.rig.browser import NARROW, WIDE, Browser
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Json, Script, WaitForPeerClose
from tests.rig.gateway import PROJECT
from tests.rig.http_client import bearer, open_stream
from tests.rig.worker_spool import WorkerSpool

DIRECTORY = PROJECT / "docs" / "images"
#: Most bytes of a picture, its colours (fewer until it is so small), and the height at which a
#: page is cut, in pixels.
MAX_BYTES, COLOURS, MAX_HEIGHT = 80_000, (64, 32, 16), 1200

#: Models with their size in GB, and the boxes that have them.
MODELS = {
    "qwen3:32b": (20.2, ("north", "south")),
    "llama3.3:70b": (42.5, ("north",)),
    "gemma3:27b": (17.4, ("south", "attic")),
    "nomic-embed-text:latest": (0.27, ("attic",)),
    "qwen3:8b": (5.2, ("attic", "south")),
}
LOADED = {
    "north": ["llama3.3:70b"],
    "south": ["qwen3:32b", "gemma3:27b"],
    "attic": ["nomic-embed-text:latest"],
}
KEYS = {
    "chat-page": "Open WebUI, all of the team",
    "ada-notebook": "analysis",
    "ci-review": "reviews of changes",
}
DAYS = 14

#: What the pictures say instead of where the gateway of the pictures runs.
ADDRESS = "https://ollama.example.org"
_RENAME = """(names) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) for (const [from, to] of names) {
    const text = texts.currentNode;
    if (text.data.includes(from)) text.data = text.data.replaceAll(from, to);
  }
}"""


class DemoBox(Box):
    """A box whose models have sizes; whoever asks for `llama3.3:70b` or `qwen3:32b` waits."""

    def __init__(self, name: str, slots: int) -> None:
        models = [model for model, (_, boxes) in MODELS.items() if name in boxes]
        super().__init__(name, models, loaded=LOADED[name], version="0.32.15")
        self._slots = slots

    @property
    def declared(self) -> dict[str, Any]:
        """Its entry in the configuration of a gateway."""
        return super().declared | {"concurrency": self._slots, "gpu_hour_price": 0.9}

    def answer(self, request: SeenRequest) -> Script:
        """As Ollama would."""
        if request.path == "/api/tags":
            return [Json({"models": [describe(name) for name in self.models]})]
        if request.path == "/api/ps":
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1500))
            return [Json({"models": [self._describe_loaded(name, until) for name in self.loaded]})]
        if request.path == "/api/chat":
            return [WaitForPeerClose(120)]
        return super().answer(request)

    def _describe_loaded(self, name: str, until: str) -> dict[str, Any]:
        return describe(name) | {
            "expires_at": until,
            "size_vram": describe(name)["size"],
            "context_length": 32768,
        }


def describe(name: str) -> dict[str, Any]:
    """A model in a list of Ollama's."""
    family, _, size = name.partition(":")
    details = {
        "format": "gguf",
        "family": family,
        "parameter_size": size,
        "quantization_level": "Q4_K_M",
    }
    digest = random.Random(name).randbytes(32).hex()
    return row(name) | {"size": int(MODELS[name][0] * 1e9), "digest": digest, "details": details}


def record_usage(stage: Stage) -> int:
    """Two weeks of usage, always the same; how many rows that are."""
    dice, spool, count = random.Random(7), WorkerSpool(stage.gateway.state_directory, "demo"), 0
    now = time.time()
    for day in range(DAYS, -1, -1):
        for _ in range(dice.randint(8, 26) if (int(now / 86400) - day) % 7 not in (2, 3) else 4):
            count += 1
            write_row(
                spool, dice, count, now - 86400 * day - dice.random() * (86400 if day else 7200)
            )
    spool.close()
    return count


def write_row(spool: WorkerSpool, dice: random.Random, number: int, started_at: float) -> None:
    model = dice.choice(list(MODELS))
    state, status = dice.choice(
        [("ok", 200)] * 18 + [("upstream_error", 502), ("client_gone", 200)]
    )
    box, took_ms = dice.choice(MODELS[model][1]), dice.uniform(900, 24_000)
    queue_ms, load_ms = dice.choice([0.0, 0.0, 420.0, 3800.0]), dice.choice([0.0, 0.0, 0.0, 2900.0])
    attempt = {
        "upstream": box,
        "state": state,
        "error": "",
        "started_ms": queue_ms,
        "total_ms": load_ms + took_ms,
    }
    spool.end(
        number,
        row_id=f"{int(started_at * 1000):012x}demo{number:06x}",
        started_at=started_at,
        token=dice.choice(list(KEYS)),
        user=dice.choice(["ada@example.org", "grace@example.org", "alan@example.org"]),
        model=model,
        target=model,
        upstream=box,
        attempts=[attempt | {"gpu_ms": load_ms + took_ms, "load_ms": load_ms}],
        status=status,
        state=state,
        prompt_tokens=dice.randint(80, 6000),
        cached_tokens=dice.randint(0, 80),
        completion_tokens=dice.randint(20, 900),
        queue_ms=queue_ms,
        load_ms=load_ms,
        first_byte_ms=queue_ms + load_ms + dice.uniform(200, 900),
        total_ms=queue_ms + load_ms + took_ms,
        gpu_ms=load_ms + took_ms,
        cost=took_ms / 3_600_000 * 0.9,
    )


@contextmanager
def open_demo(browser: Browser) -> Iterator[Stage]:
    """The gateway of the pictures."""
    boxes = [DemoBox("north", 1), DemoBox("south", 4), DemoBox("attic", 2)]
    models = {"house": {"target": "qwen3:32b"}}
    with open_stage(browser, *boxes, models=models) as stage, ExitStack() as running:
        for name, note in KEYS.items():
            asked = {
                "name": name,
                "note": note,
                "scopes": ["read", "generate"],
                "limits": {"requests_per_minute": 60},
            }
            assert stage.gateway.ask("/admin/api/tokens", asked, token=OPERATOR).status == 201
        count = record_usage(stage)
        for number, model in enumerate(["llama3.3:70b", "qwen3:32b", "qwen3:32b", "llama3.3:70b"]):
            headers = bearer(MEMBER) | {
                USER_HEADER: ["ada@example.org", "grace@example.org"][number % 2]
            }
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            running.enter_context(
                open_stream(
                    stage.gateway.url, "POST", "/api/chat", body, headers, wait_for_head=False
                )
            )
        wait_until(lambda: is_ready(stage, count), 60, "the gateway of the pictures is never ready")
        yield stage


def is_ready(stage: Stage, count: int) -> bool:
    """Whether everything is there that the pictures show."""
    status = stage.gateway.ask("/admin/api/status", token=OPERATOR).json()
    usage = stage.gateway.ask("/admin/api/usage?by=month&from=2020-01-01", token=OPERATOR).json()
    is_loaded = all(box["loaded"] for box in status["boxes"])
    return bool(
        len(status["running"]) == 3
        and status["waiting"]
        and is_loaded
        and usage["total"]["requests"] >= count
    )


def take(stage: Stage, path: str, *, width: int, dark: bool) -> bytes:
    """The picture of a page, as a PNG of few colours."""
    visit = stage.tab(width=width, dark=dark, timezone_id="UTC")
    assert visit.go(stage.url(path)) == 200, visit.page.inner_text("main")
    # Charts and live parts are there, and nothing says so for all pages.
    visit.page.wait_for_timeout(1200)
    visit.page.evaluate(
        _RENAME, [[str(stage.gateway.directory), "/etc/ollama-proxy"], [stage.gateway.url, ADDRESS]]
    )
    shot = visit.page.screenshot(full_page=True, animations="disabled")
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, MAX_HEIGHT)))
    sizes = (encode(image, colours) for colours in COLOURS)
    return next((data for data in sizes if len(data) <= MAX_BYTES), encode(image, COLOURS[-1]))


def encode(image: Image.Image, colours: int) -> bytes:
    """A PNG of so many colours."""
    out = io.BytesIO()
    image.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main(directory: Path = DIRECTORY) -> None:
    """Writes all pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    with Browser() as browser, open_demo(browser) as stage:
        for path in PAGES:
            for width in (WIDE, NARROW):
                for dark in (False, True):
                    name = path.removeprefix("/admin").strip("/") or "overview"
                    picture = directory / f"{name}-{'dark' if dark else 'light'}-{width}.png"
                    picture.write_bytes(take(stage, path, width=width, dark=dark))


if __name__ == "__main__":
    main()
