"""Generated databases: a line of business in words of its own, tables and rows, all drawn from a number."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from envs.sqlite import Table

T = TypeVar("T")
Difficulty = Literal["easy", "standard", "hard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A line of business, in words of its own; a first word is the one that easy databases use."""

    name: str
    owners: tuple[str, ...]
    """The table of those who come, in the plural."""
    facts: tuple[str, ...]
    """The table of what happens to them."""
    kinds: tuple[tuple[str, str], ...]
    """What there is to happen, in the plural and in the singular; only hard databases have a table of it."""
    amount: tuple[str, ...]
    people: tuple[str, ...]
    things: tuple[str, ...]
    statuses: tuple[str, ...]


def drawn(rng: random.Random, difficulty: Difficulty) -> tuple[dict[str, Any], dict[str, Table]]:
    """The words of a question by their role, and the tables it is about."""
    domain = rng.choice(DOMAINS)
    easy = difficulty == "easy"

    def word(choices: Sequence[T]) -> T:
        return choices[0] if easy else rng.choice(choices)

    kinds, kind = word(domain.kinds)
    roles = {role: word(getattr(domain, role)) for role in ("owners", "facts", "amount")}
    roles |= {"kinds": kinds, "kind": kind}
    columns = {role: word(choices) for role, choices in COLUMNS.items()}
    start = DAY_ONE + datetime.timedelta(days=rng.randrange(20, 120))
    end = start + datetime.timedelta(days=rng.randrange(40, 120))
    words: dict[str, Any] = {"domain": domain.name, "place_is": rng.choice(PLACES)}
    words |= {"status_is": rng.choice(domain.statuses), "kind_is": rng.choice(domain.things)}
    words |= {"start": str(start), "end": str(end), "least": rng.randint(2, 4), "top": rng.randint(2, 4)}
    words |= roles | columns | {"owner_id": f"{roles['owners'].rstrip('s')}_id", "kind_id": f"{roles['kind']}_id"}
    rows = list(_fact_rows(rng, domain, difficulty, [str(start), str(end)]))
    if easy:
        return words, {words["facts"]: _table(EASY_FACTS, words, rows)}
    people = rng.sample(domain.people, 12)
    owners = [{"id": n, "name": person, "place": rng.choice(PLACES)} for n, person in enumerate(people, 1)]
    tables = {words["owners"]: _table(OWNERS, words, owners, rng)}
    facts = FACTS
    if difficulty == "hard":
        happenings = [{"id": n, "name": thing, "rate": rng.randint(2, 9)} for n, thing in enumerate(domain.things, 1)]
        tables[words["kinds"]] = _table(KINDS, words, happenings, rng)
        facts = HARD_FACTS
    tables[words["facts"]] = _table(facts, words, rows, rng)
    names = rng.sample(list(tables), len(tables))
    return words, {name: tables[name] for name in names}


def _fact_rows(
    rng: random.Random, domain: Domain, difficulty: Difficulty, edges: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Rows by role. Some happen on the very days that questions are bounded by, and some hard ones lack an amount."""
    count = {"easy": 30, "standard": 60, "hard": 80}[difficulty] + rng.randrange(15)
    days = [str(DAY_ONE + datetime.timedelta(days=n)) for n in range(240)]
    columns = zip(
        rng.choices(range(1, 13), range(12, 0, -1), k=count),  # some come more often than others
        rng.choices(range(len(domain.things)), k=count),
        rng.choices(domain.statuses, k=count),
        rng.choices([None, *range(5, 100)], [12.0 if difficulty == "hard" else 0.0, *[1.0] * 95], k=count),
        rng.choices([*days, *edges], [1.0] * 240 + [16.0] * len(edges), k=count),
        strict=True,
    )
    for n, (owner, thing, status, amount, day) in enumerate(columns, 1):
        yield {
            "id": n,
            "owner_id": owner,
            "kind": domain.things[thing],
            "kind_id": thing + 1,
            "status": status,
            "amount": amount,
            "day": day,
        }


def _table(
    roles: Mapping[str, str],
    words: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    rng: random.Random | None = None,
) -> Table:
    """A table of these roles (role -> SQL type), its columns after the first shuffled where there is a draw."""
    first, *rest = roles
    order = [first, *(rng.sample(rest, len(rest)) if rng else rest)]
    columns = {words.get(role, role): roles[role] for role in order}
    return Table(columns=columns, rows=[[row[role] for role in order] for row in rows])


DAY_ONE = datetime.date(2024, 1, 1)
EASY_FACTS = {"id": "INTEGER", "kind": "TEXT", "status": "TEXT", "amount": "INTEGER"}
OWNERS = {"id": "INTEGER", "name": "TEXT", "place": "TEXT"}
FACTS = {"id": "INTEGER", "owner_id": "INTEGER", "kind": "TEXT", "status": "TEXT", "amount": "INTEGER", "day": "TEXT"}
HARD_FACTS = {
    "id": "INTEGER",
    "owner_id": "INTEGER",
    "kind_id": "INTEGER",
    "status": "TEXT",
    "amount": "INTEGER",
    "day": "TEXT",
}
KINDS = {"id": "INTEGER", "name": "TEXT", "rate": "INTEGER"}
COLUMNS = {
    "name": ("name", "full_name", "label"),
    "place": ("city", "town", "place"),
    "status": ("status", "state", "stage"),
    "day": ("day", "date", "happened_on"),
    "rate": ("rate", "level", "grade"),
}
PLACES = ("Bern", "Graz", "Lyon", "Oslo", "Riga")
# fmt: off
PEOPLE = (
    "Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kim", "Leo", "Mia", "Nils", "Olga",
    "Pau", "Rosa", "Sami", "Tara", "Udo", "Vera", "Wim", "Yara", "Zoe",
)
# fmt: on
FLEETS = tuple(f"{colour} {animal}" for colour in ("Red", "Blue", "Grey", "White") for animal in ("Fox", "Owl", "Elk"))
DOMAINS = (
    Domain(
        name="Shop",
        owners=("customers", "buyers", "clients"),
        facts=("orders", "purchases", "sales"),
        kinds=(("products", "product"), ("articles", "article")),
        amount=("total", "price"),
        people=PEOPLE,
        things=("lamp", "chair", "mug", "radio", "tent"),
        statuses=("open", "paid", "sent"),
    ),
    Domain(
        name="Clinic",
        owners=("patients", "persons"),
        facts=("visits", "appointments"),
        kinds=(("departments", "department"), ("wards", "ward")),
        amount=("fee", "bill"),
        people=PEOPLE,
        things=("skin", "eyes", "heart", "teeth"),
        statuses=("booked", "done", "missed"),
    ),
    Domain(
        name="Depot",
        owners=("trucks", "vehicles"),
        facts=("deliveries", "trips"),
        kinds=(("cargoes", "cargo"), ("loads", "load")),
        amount=("weight", "tons"),
        people=FLEETS,
        things=("steel", "fruit", "paper", "glass"),
        statuses=("planned", "moving", "arrived", "lost"),
    ),
    Domain(
        name="Library",
        owners=("readers", "members"),
        facts=("loans", "borrowings"),
        kinds=(("shelves", "shelf"), ("sections", "section")),
        amount=("pages", "fine"),
        people=PEOPLE,
        things=("crime", "poems", "travel", "maths", "comics"),
        statuses=("lent", "back", "late"),
    ),
)
