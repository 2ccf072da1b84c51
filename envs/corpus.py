"""Small worlds written down as documents, and questions that take several of them to answer.

A world has people, towns, companies and works, and facts that link them: who wrote what, who was born
where. Every fact that holds stands in one document. Which names there are decides the split: a name
grows from a stem, and a stem belongs to exactly one split, by a hash of its letters. Facts are drawn
anew for every world, so that nothing about a name can be learnt by heart.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from envs.tasks import split_of

Kind = Literal["person", "town", "company", "work"]
Difficulty = Literal["easy", "standard", "hard"]

SPLITS = {"train": 0.6, "validation": 0.2, "test": 0.2}
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A kind of fact: each entity of one kind has one value of it."""

    name: str
    of: Kind
    to: Kind | range
    """The kind of the value, or the years it is drawn from."""
    phrase: str
    """The value by its subject, to be asked about further."""
    question: str
    sentences: Sequence[str]
    query: str
    """Words that find it."""
    past: str = ""
    """A sentence about a value that held once and does no longer, where there can be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What makes a world hard; all but `alike` are probabilities."""

    alike: int
    """How many names grow from one stem."""
    gap: float
    """That a fact the question needs stands nowhere."""
    elsewhere: float
    """That a fact which links two entities stands in the document of the second."""
    former: float
    """That an entity's document tells of a value it had once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """A question, its answer, and the documents that have it between them."""

    documents: Mapping[str, str]
    """Text by number. The first line is the title."""
    question: str
    answer: str
    """`UNKNOWN` where the documents do not say."""
    path: tuple[tuple[str, str], ...]
    """The links of the question, as subject and relation; the value of each is the subject of the next."""
    queries: tuple[str, ...]
    """A search for each document in `evidence`."""
    evidence: tuple[str, ...]
    """The documents to read, in the order in which one leads to the next, each once.

    The last is the one that answers, or that of the subject about whom nothing is said.
    """
    facts: Mapping[tuple[str, str], str]
    """Every value of the world by subject and relation, stated or not."""


def puzzle(split: str, index: int, hops: tuple[int, int], difficulty: Difficulty) -> Puzzle:
    """The puzzle of that number, the same in every process.

    Args:
        split: one of `SPLITS`.
        index: which, from 0.
        hops: fewest and most links between what is named and what is asked.
        difficulty: a key of `LEVELS`.
    """
    rng = random.Random(f"search/{split}/{index}")
    level = LEVELS[difficulty]
    length = rng.randint(*hops)
    names = _names(rng, split, level.alike)
    facts = _facts(rng, names)
    path = _path(rng, names, facts, length)
    # The first link of several is always there: else a glance at what the question names would settle it.
    gap = rng.randrange(min(1, length - 1), length) if rng.random() < level.gap else None
    needed = path if gap is None else path[: gap + 1]
    stated = {link: value for link, value in facts.items() if gap is None or link != path[gap]}
    everybody = [name for group in names.values() for name in group]
    numbers = dict(zip(everybody, map(str, rng.sample(range(1000, 10000), len(everybody))), strict=True))
    homes = {}
    for link, value in stated.items():
        # What leads to a gap stands with its subject: else one document could be all there is to read.
        moves = rng.random() < level.elsewhere and value in numbers and not (gap is not None and link in needed)
        homes[link] = value if moves else link[0]
    evidence: dict[str, str] = {}
    for link in needed:
        evidence.setdefault(numbers[homes.get(link, link[0])], RELATIONS[link[1]].query.format(x=link[0]))
    texts = _texts(rng, names, stated, homes, level)
    phrase = path[0][0]
    for _, relation in path[:-1]:
        phrase = RELATIONS[relation].phrase.format(x=phrase)
    return Puzzle(
        documents={numbers[name]: texts[name] for name in rng.sample(everybody, len(everybody))},
        question=RELATIONS[path[-1][1]].question.format(x=phrase),
        answer=facts[path[-1]] if gap is None else UNKNOWN,
        path=path,
        queries=tuple(evidence.values()),
        evidence=tuple(evidence),
        facts=facts,
    )


def _names(rng: random.Random, split: str, alike: int) -> dict[Kind, list[str]]:
    """The names of a world by kind, `alike` of them from each stem."""
    first = rng.sample(FIRST.split(), 7 * alike)
    surnames = rng.sample(stems(split, "surname"), 7)
    return {
        "person": [f"{first.pop()} {stem}" for stem in surnames for _ in range(alike)],
        "town": [
            form.format(stem)
            for stem in rng.sample(stems(split, "place"), 4)
            for form in ("{}", *rng.sample(TOWNS, 2))[:alike]
        ],
        "company": [form.format(stem) for stem in surnames[:4] for form in rng.sample(COMPANIES, alike)],
        "work": [
            f"The {stem} {noun}"
            for stem in rng.sample(stems(split, "title"), 4)
            for noun in rng.sample(NOUNS.split(), alike)
        ],
    }


@cache
def stems(split: str, of: str) -> Sequence[str]:
    """The stems that belong to a split, of surnames, places or titles."""
    return [stem for stem in STEMS[of] if split_of(stem, SPLITS) == split]


def _facts(rng: random.Random, names: Mapping[Kind, Sequence[str]]) -> dict[tuple[str, str], str]:
    """A value for every relation of every entity."""
    return {
        (name, relation.name): str(rng.choice(_values(relation, names)))
        for relation in RELATIONS.values()
        for name in names[relation.of]
    }


def _values(relation: Relation, names: Mapping[Kind, Sequence[str]]) -> Sequence[str] | range:
    return relation.to if isinstance(relation.to, range) else names[relation.to]


def _path(
    rng: random.Random, names: Mapping[Kind, Sequence[str]], facts: Mapping[tuple[str, str], str], length: int
) -> tuple[tuple[str, str], ...]:
    """A walk along the facts that comes by no entity twice, its last value included."""
    while True:
        kind = rng.choice(list(names))
        at = rng.choice(names[kind])
        path: list[tuple[str, str]] = []
        while len(path) < length:
            here = [relation for relation in RELATIONS.values() if relation.of == kind]
            relation = rng.choice(here if len(path) == length - 1 else [r for r in here if not isinstance(r.to, range)])
            path.append((at, relation.name))
            at = facts[at, relation.name]
            kind = kind if isinstance(relation.to, range) else relation.to
        if len({at, *(subject for subject, _ in path)}) == length + 1:
            return tuple(path)


def _texts(
    rng: random.Random,
    names: Mapping[Kind, Sequence[str]],
    stated: Mapping[tuple[str, str], str],
    homes: Mapping[tuple[str, str], str],
    level: Level,
) -> dict[str, str]:
    """A document about each entity: its name as a title, then what is said there in no order."""
    told: dict[str, list[str]] = {name: [] for group in names.values() for name in group}
    for (subject, name), value in stated.items():
        sentence = rng.choice(RELATIONS[name].sentences)
        told[homes[subject, name]].append(sentence.format(x=subject, y=value))
    for relation in RELATIONS.values():
        for subject in names[relation.of] if relation.past else ():
            if rng.random() < level.former:
                others = [value for value in _values(relation, names) if value != stated.get((subject, relation.name))]
                told[subject].append(relation.past.format(x=subject, y=rng.choice(others), year=rng.choice(RECENT)))
    texts = {}
    for kind, group in names.items():
        for name in group:
            about = rng.choice(ABOUT[kind]).format(x=name)
            texts[name] = f"{name}\n\n{' '.join([about, *rng.sample(told[name], len(told[name]))])}"
    return texts


def _relations(*relations: Relation) -> dict[str, Relation]:
    return {relation.name: relation for relation in relations}


RECENT = range(1960, 2000)
RELATIONS = _relations(
    Relation(
        name="birthplace",
        of="person",
        to="town",
        phrase="the birthplace of {x}",
        question="Which town is the birthplace of {x}?",
        sentences=("{x} was born in {y}.", "{y} is where {x} was born."),
        query="{x} born",
    ),
    Relation(
        name="birth",
        of="person",
        to=range(1900, 1950),
        phrase="the year in which {x} was born",
        question="In which year was {x} born?",
        sentences=("The year of birth of {x} is {y}.", "{x} came into the world, born in the winter of {y}."),
        query="{x} year born birth",
    ),
    Relation(
        name="employer",
        of="person",
        to="company",
        phrase="the company that employs {x}",
        question="Which company employs {x}?",
        sentences=("{x} is employed by {y}.", "{y} has {x} employed."),
        query="{x} employed",
        past="{x} was employed by {y} until {year}.",
    ),
    Relation(
        name="founder",
        of="company",
        to="person",
        phrase="the founder of {x}",
        question="Who is the founder of {x}?",
        sentences=("The founder of {x} is {y}.", "{x} has {y} for a founder."),
        query="{x} founder",
    ),
    Relation(
        name="seat",
        of="company",
        to="town",
        phrase="the seat of {x}",
        question="Which town is the seat of {x}?",
        sentences=("{x} has its seat in {y}.", "{y} is the seat of {x}."),
        query="{x} seat",
        past="{x} had its seat in {y} until {year}.",
    ),
    Relation(
        name="founding",
        of="company",
        to=range(1950, 2000),
        phrase="the year in which {x} was founded",
        question="In which year was {x} founded?",
        sentences=("{x} dates from {y}, the year it was founded.", "It was in {y} that {x} was founded."),
        query="{x} year founded",
    ),
    Relation(
        name="author",
        of="work",
        to="person",
        phrase="the author of {x}",
        question="Who is the author of {x}?",
        sentences=("The author of {x} is {y}.", "{y} is the author of {x}."),
        query="{x} author",
    ),
    Relation(
        name="publisher",
        of="work",
        to="company",
        phrase="the publisher of {x}",
        question="Which company is the publisher of {x}?",
        sentences=("{y} is the publisher of {x}.", "The publisher of {x} is {y}."),
        query="{x} publisher",
        past="The publisher of {x} was {y} until {year}.",
    ),
    Relation(
        name="appearance",
        of="work",
        to=range(1970, 2010),
        phrase="the year in which {x} appeared",
        question="In which year did {x} appear?",
        sentences=("{x} appeared in {y}.", "{y} is the year in which {x} appeared."),
        query="{x} appeared year",
    ),
    Relation(
        name="mayor",
        of="town",
        to="person",
        phrase="the mayor of {x}",
        question="Who is the mayor of {x}?",
        sentences=("The mayor of {x} is {y}.", "{x} has {y} for a mayor."),
        query="{x} mayor",
        past="The mayor of {x} was {y} until {year}.",
    ),
    Relation(
        name="charter",
        of="town",
        to=range(1150, 1800),
        phrase="the year of the charter of {x}",
        question="In which year was {x} given its charter?",
        sentences=("{x} was given its charter in {y}.", "The charter of {x} is of {y}."),
        query="{x} charter",
    ),
)
LEVELS: Mapping[Difficulty, Level] = {
    "easy": Level(alike=1, gap=0.0, elsewhere=0.0, former=0.0),
    "standard": Level(alike=3, gap=0.25, elsewhere=0.0, former=0.0),
    "hard": Level(alike=3, gap=0.25, elsewhere=0.5, former=0.5),
}
ABOUT: Mapping[Kind, Sequence[str]] = {
    "person": (
        "{x} plays the cello.",
        "{x} keeps bees.",
        "{x} is seldom seen in public.",
        "{x} speaks five languages.",
    ),
    "town": ("{x} lies on a river.", "{x} is known for its market.", "{x} has two bridges.", "{x} is a quiet town."),
    "company": ("{x} makes paper.", "{x} trades in tea.", "{x} is a family business.", "{x} owns three warehouses."),
    "work": ("{x} is a novel.", "{x} is a play in five acts.", "{x} is a book of poems.", "{x} was made into a film."),
}
HEADS = ("Bar", "Cal", "Dor", "Fen", "Hal", "Kel", "Lor", "Mar", "Nor", "Pel", "Ros", "Sel", "Tam", "Ul", "Ver", "Wen")
MIDDLES = ("a", "e", "i", "o", "an", "en", "in", "or")
TITLES = (
    "Ancient Bitter Blue Broken Burning Crooked Distant Double Eastern Empty Faithful Final First Frozen Gentle Golden "
    "Green Hidden Hollow Hungry Idle Iron Late Little Lonely Lost Lucky Narrow New Northern Open Pale Patient Perfect "
    "Plain Quiet Red Restless Sacred Second Secret Severed Silent Silver Simple Sleeping Small Southern Stolen Strange "
    "Sudden Sunken Tender Third Thirsty Twisted Unseen Velvet Western White Wild Winter"
)
STEMS = {
    "surname": [
        "".join(parts) for parts in itertools.product(HEADS, MIDDLES, ("by", "der", "man", "ric", "sen", "vey"))
    ],
    "place": ["".join(parts) for parts in itertools.product(HEADS, MIDDLES, ("dale", "ford", "gate", "ham", "wick"))],
    "title": TITLES.split(),
}
TOWNS = ("North {}", "South {}", "Upper {}", "{} Bay", "{} Cross", "New {}")
COMPANIES = ("{} Brothers", "{} Works", "{} Trading", "{} Mills", "{} Press", "{} Lines")
FIRST = (
    "Ada Amos Bella Ben Carla Cyril Dan Edith Finn Greta Hugo Ines Jonas Kira Leo Mina Nils Olga Paul Rita Sam Tilda "
    "Uwe Vera Walter Xenia Yann Zoe"
)
NOUNS = "Bridge Candle Field Garden Harbour Hour House Island Key Lantern Letter Mirror Orchard River Road Tower"
