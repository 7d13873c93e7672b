"""What a status page says of a request that waits, for each cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ollama_proxy.coordination.scheduler import Scheduler
from ollama_proxy.coordination.state import Outcome, Request
from ollama_proxy.texts import Translatable
from tests.rig.tables import each_row
from tests.translations import read_translations

MODEL = "qwen3:8b"


class Scene:
    """A scheduler with boxes of one slot and room for one model."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()

    def box(self, *names: str, slots: int = 1, **options: Any) -> None:
        for name in names:
            self.scheduler.set_box(name, 0, slots=slots, max_loaded=1, **options)

    def ask(
        self, name: str, *boxes: str, model: str = MODEL, now: float = 0, **options: Any
    ) -> None:
        self.scheduler.acquire(
            Request(name, name, tuple((box, model) for box in boxes), **options), now
        )

    def end(self, name: str, now: float, **outcome: float) -> None:
        self.scheduler.release(name, now, Outcome(**outcome))


def all_slots_used(scene: Scene) -> None:
    scene.box("box1")
    scene.ask("running", "box1")
    scene.ask("waits", "box1")
    scene.scheduler.tick(20)


def several_boxes_used(scene: Scene) -> None:
    scene.box("box1", "box2", slots=2)
    for number in range(4):
        scene.ask(str(number), f"box{1 + number % 2}")
    scene.ask("waits", "box1", "box2")
    scene.scheduler.tick(20)


def model_is_being_loaded(scene: Scene) -> None:
    scene.box("box1")
    scene.ask("running", "box1")
    scene.ask("waits", "box1", now=1)


def box_down(scene: Scene) -> None:
    scene.ask("waits", "box1")


def boxes_down(scene: Scene) -> None:
    scene.ask("waits", "box1", "box2", "box3")


def many_boxes_down(scene: Scene) -> None:
    scene.ask("waits", *(f"box{number}" for number in range(10)))


def box_draining(scene: Scene) -> None:
    scene.box("box1", is_draining=True)
    scene.ask("waits", "box1", "box2")


def normal_requests_first(scene: Scene) -> None:
    soon_free_elsewhere(scene)
    scene.ask("normal", "box1", "box2", now=31)
    scene.scheduler.cancel_all(["waits"], 31)
    scene.ask("waits", "box2", model="other", now=31, is_background=True)


def soon_free_elsewhere(scene: Scene) -> None:
    scene.box("box1")
    scene.ask("first", "box1")
    scene.end("first", 30, gpu_s=12, load_s=10)
    scene.ask("second", "box1", now=30)
    scene.box("box2")
    scene.ask("waits", "box1", "box2", now=30)


def no_space_for_the_model(scene: Scene) -> None:
    scene.box("box1", slots=2)
    scene.ask("long", "box1", model="other")
    scene.ask("waits", "box1", now=1)


def other_model_has_its_turn(scene: Scene) -> None:
    scene.scheduler.limits = scene.scheduler.limits.__class__(swap_patience_s=0)
    scene.box("box1", slots=2)
    scene.ask("long", "box1")
    scene.ask("cold", "box1", model="other", now=1)
    scene.ask("waits", "box1", now=20)


@each_row(
    ("scene", "reason"),
    [
        (all_slots_used, "1 request runs on box1, 1 slot"),
        (several_boxes_used, "4 requests run on box1 and box2, 4 slots"),
        (model_is_being_loaded, "qwen3:8b is being loaded on box1"),
        (box_down, "box1 is down"),
        (boxes_down, "box1, box2 and box3 are down"),
        (many_boxes_down, "10 boxes are down"),
        (box_draining, "box1 is draining"),
        (normal_requests_first, "requests of normal priority go first on box2"),
        (soon_free_elsewhere, "qwen3:8b is loaded on box1, which should be free soon"),
        (no_space_for_the_model, "box1 uses all models that fit, so qwen3:8b can't be loaded yet"),
        (other_model_has_its_turn, "another model has its turn on box1"),
    ],
)
def test_reason_says_what_a_request_waits_for(scene: Any, reason: str) -> None:
    made = Scene()
    scene(made)
    position = made.scheduler.locate("waits")
    assert position and position.reason == reason
    messages = {*find_messages(position.reason)}
    assert messages and messages <= {
        message.id for message in read_translations() if message.string
    }


def find_messages(text: Any) -> Iterator[str]:
    """The messages that pages translate of a text."""
    if isinstance(text, Translatable):
        yield text.message
        for value in text.values.values():
            yield from find_messages(value)
