"""The traces: who sends what when. Seeded, so every run has the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from benchmarks.queueing.simulation import Job, Trace

LOAD_S = {"small": 6.0, "coder": 12.0, "large": 20.0}
BOXES = ("box1", "box2")
EVERYWHERE = dict.fromkeys(LOAD_S, BOXES)


def send(
    user: str,
    random: Random,
    *,
    models: str,
    every_s: float,
    service_s: float,
    until_s: float,
    start_s: float = 0.0,
) -> Iterator[Job]:
    """Requests at random times, `every_s` apart on average, with answers that take
    `service_s` on average."""
    now = start_s
    while (now := now + random.expovariate(1 / every_s)) < until_s:
        # Most answers are short, some are long.
        seconds = service_s * random.lognormvariate(-0.32, 0.8)
        yield Job(f"{user}-{now:.3f}", user, random.choice(models.split()), now, seconds)


def burst(
    user: str, random: Random, *, model: str, size: int, at_s: float, service_s: float
) -> list[Job]:
    """A script that sends everything at once."""
    return [
        Job(f"{user}-{at_s}-{number}", user, model, at_s, service_s * random.uniform(0.7, 1.3))
        for number in range(size)
    ]


def people(number: int, random: Random, *, every_s: float, until_s: float) -> list[Job]:
    """Chats of so many people, who use all models."""
    each = (
        send(
            f"person{one + 1}",
            random,
            models="small coder large",
            every_s=every_s,
            service_s=5,
            until_s=until_s,
        )
        for one in range(number)
    )
    return [job for jobs in each for job in jobs]


def office_day() -> Trace:
    jobs = people(8, Random(1), every_s=150, until_s=8 * 3600)
    title = (
        "Office day: eight people, two boxes with two slots and room for one of three models each"
    )
    return Trace("office day", title, jobs, EVERYWHERE, 2, 1, LOAD_S)


def greedy_script() -> Trace:
    """The script picks a model at random for every request."""
    random = Random(2)
    jobs = people(4, random, every_s=90, until_s=3600)
    for at_s in (300, 1200, 2100):
        for job in burst("script", random, model="coder", size=200, at_s=at_s, service_s=4):
            job.model = random.choice(list(LOAD_S))
            jobs.append(job)
    title = (
        "Greedy script: four people, and a script that sends 200 requests for all three models "
        "at once, three times"
    )
    return Trace("greedy script", title, jobs, EVERYWHERE, 2, 1, LOAD_S)


def script_with_one_model() -> Trace:
    random = Random(2)
    jobs = people(4, random, every_s=90, until_s=3600)
    for at_s in (300, 1200, 2100):
        jobs += burst("script", random, model="coder", size=200, at_s=at_s, service_s=4)
    title = "The same with a script that uses one model"
    return Trace("script, one model", title, jobs, EVERYWHERE, 2, 1, LOAD_S)


def batch_night() -> Trace:
    random = Random(3)
    jobs = people(2, random, every_s=180, until_s=4 * 3600)
    for model in LOAD_S:
        batch = burst(f"batch-{model}", random, model=model, size=600, at_s=60, service_s=8)
        for job in batch:
            job.is_background = True
        jobs += batch
    title = "Batch night: two people, and three batches of 600 requests with background priority"
    return Trace("batch night", title, jobs, EVERYWHERE, 2, 1, LOAD_S)


def ping_pong() -> Trace:
    random, now, jobs = Random(4), 0.0, []
    for number in range(600):
        now += random.expovariate(1 / 6)
        user, model = (("person1", "small"), ("person2", "coder"))[number % 2]
        jobs.append(Job(str(number), user, model, now, 3 * random.lognormvariate(-0.32, 0.8)))
    title = (
        "Ping-pong: two people with a model each take turns; one box with one slot "
        "and room for one model"
    )
    return Trace("ping-pong", title, jobs, dict.fromkeys(LOAD_S, BOXES[:1]), 1, 1, LOAD_S)


def two_models() -> Trace:
    random = Random(4)
    jobs: list[Job] = []
    for user, model in (("person1", "small"), ("person2", "coder")):
        jobs += send(user, random, models=model, every_s=12, service_s=3, until_s=3600)
    title = (
        "The same with two people who send at random times, so that half of the requests "
        "find their model loaded"
    )
    return Trace("two models", title, jobs, dict.fromkeys(LOAD_S, BOXES[:1]), 1, 1, LOAD_S)


def box_loss() -> Trace:
    jobs = people(6, Random(5), every_s=30, until_s=3600)
    title = (
        "Box loss: six people, three boxes, one of which is lost every three "
        "minutes and back after two"
    )
    boxes = dict.fromkeys(LOAD_S, (*BOXES, "box3"))
    outages = tuple(
        (f"box{1 + start_s // 180 % 3}", float(start_s), start_s + 120.0)
        for start_s in range(180, 3600, 180)
    )
    return Trace("box loss", title, jobs, boxes, 2, 1, LOAD_S, outages)


def large_fleet() -> Trace:
    """10,000 users, 500 boxes, 50 models on 20 boxes each; for ten minutes more is
    sent than can be served."""
    random = Random(6)
    models = [f"model{number}" for number in range(50)]
    boxes = {
        model: tuple(f"box{(10 * number + each) % 500}" for each in range(20))
        for number, model in enumerate(models)
    }
    jobs = [
        Job(
            f"r{number}",
            f"user{random.randrange(10_000)}",
            random.choice(models),
            random.uniform(0, 600),
            seconds,
        )
        for number, seconds in enumerate(random.uniform(4, 26) for _ in range(30_000))
    ]
    title = "500 boxes and 10,000 users"
    return Trace("500 boxes", title, jobs, boxes, 1, 2, dict.fromkeys(models, 10.0))


TRACES = (
    office_day,
    greedy_script,
    script_with_one_model,
    batch_night,
    ping_pong,
    two_models,
    box_loss,
    large_fleet,
)
