"""Questions that take several documents to answer, with a search engine over a small library.

The model searches, opens documents, follows what they say from one to the next, and answers once. Some
questions have no answer in the library: there it is right to say so, and wrong to guess. An answer
counts only where the documents it rests on were read before, in an earlier turn.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

from envs.corpus import SPLITS, UNKNOWN, Difficulty, puzzle
from envs.environment import Environment, tool
from envs.errors import InputError, ToolError
from envs.guard import Guard
from envs.script import Call, script
from envs.types import Message, Task, ToolResult

SYSTEM = (
    "You answer questions from a library. Search it, open the documents you need, and follow what they say from one "
    "to the next; names that look alike are different things. Then answer once, with the name or the year alone, "
    f"or with {UNKNOWN!r} where the documents do not say. Never guess."
)
MOST_HOPS = 4
MOST_FOUND = 10
"""Documents that a search lists."""
MOST_OPENED = 12
"""Different documents that an episode may open, so that reading everything is no way to an answer."""
COUNTS = {"train": 1000, "validation": 200, "test": 200}


class Search(Environment):
    """A library, a search engine and one question.

    The library is the task's `files`, text by document number, its first line the title. Of the item
    it reads `answer` and, where they are known, `evidence`: the documents that have to be read for it.

    Raises:
        InputError: a task without documents or without an answer, or evidence that is not among the documents.
    """

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        super().__init__(task, guard)
        self._evidence: Sequence[str] = task.item.get("evidence", ())
        if not task.files:
            raise InputError(f"task {task.id!r} has no documents to search; give it some under files")
        if not isinstance(task.item.get("answer"), str) or not plain(task.item["answer"]):
            raise InputError(
                f"task {task.id!r} has no answer; give it one as item.answer, {UNKNOWN!r} if there is none"
            )
        if missing := [number for number in self._evidence if number not in task.files]:
            raise InputError(f"task {task.id!r}: evidence {missing[0]!r} is not among its files")
        self._engine: Engine | None = None
        self._listed: set[str] = set()
        self._read: dict[str, str] = {}
        self._read_before: frozenset[str] = frozenset()
        self._reply: dict[str, Any] = {"answer": None, "read": False}

    @classmethod
    def tasks(
        cls,
        split: str,
        *,
        hops: Sequence[int] = (2, 3),
        difficulty: Difficulty = "standard",
        count: int | None = None,
    ) -> list[Task]:
        """The first `count` tasks of a split; the same arguments give the same tasks in every process.

        Args:
            split: "train", "validation" or "test".
            hops: fewest and most facts that have to be put together.
            difficulty: in "easy" no two names look alike and every question has an answer; in "standard"
                names come in threes, and one question in four has none; in "hard" half of the facts stand
                in the document of their object, and documents also tell of what held once.
            count: how many; the default is 1000 of "train", 200 of the others.

        Raises:
            InputError: an option that makes no sense.
        """
        if split not in COUNTS:
            raise InputError(f"search has no split {split!r}; splits are {', '.join(SPLITS)}")
        if len(hops) != 2 or not 1 <= hops[0] <= hops[1] <= MOST_HOPS:
            raise InputError(f"hops must be two numbers, fewest and most, from 1 to {MOST_HOPS}, not {hops!r}")
        if difficulty not in get_args(Difficulty):
            raise InputError(f"difficulty must be one of {', '.join(get_args(Difficulty))}, not {difficulty!r}")
        count = COUNTS[split] if count is None else count
        if count < 0:
            raise InputError(f"count is a number of tasks, 0 or more, not {count!r}")
        return [_task(split, index, (hops[0], hops[1]), difficulty) for index in range(count)]

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        """The assistant messages of a perfect episode: a search and a look for each document, then the answer."""
        calls: list[Call] = []
        for query, document in zip(task.item["queries"], task.item["evidence"], strict=True):
            calls += [("search", {"query": query}), ("open", {"document": document})]
        return script([*calls, ("answer", {"text": task.item["answer"]})])

    async def step(self, message: Message) -> tuple[ToolResult, ...]:
        """Carry out the calls of a turn. What it opens is not yet read when it answers."""
        self._read_before = frozenset(self._read)
        return await super().step(message)

    @tool
    def search(self, query: str) -> list[dict[str, str]] | str:
        """Search the library: numbers and titles of the documents that fit best.

        Args:
            query: a few words, as in "Ada Marsh born".
        """
        if self._engine is None:
            self._engine = Engine(self.task.files)
        found = [] if self.done else self._engine.best(query, MOST_FOUND)
        due = self._due()
        self.steps.note(progress=f"found {due}" if due in found else None)
        self._listed.update(found)
        self._still_open()
        if not query.strip():
            raise ToolError("the query is empty; name whom or what you want to know about.")
        if not found:
            return "no document has any of these words."
        return [{"document": number, "title": self.task.files[number].partition("\n")[0]} for number in found]

    @tool
    def open(self, document: str) -> str:
        """Open a document that a search listed, and read it.

        Args:
            document: its number, as a search gives it.
        """
        there = document in self._listed
        room = document in self._read or len(self._read) < MOST_OPENED
        opens = there and room and not self.done
        self.steps.note(progress=f"read {document}" if opens and document == self._due() else None)
        self._still_open()
        if not there:
            raise ToolError("no such document among those that your searches listed.")
        if not room:
            raise ToolError(f"{MOST_OPENED} documents are opened, and no more may be; answer now.")
        self._read[document] = self.task.files[document]
        return self._read[document]

    @tool
    def answer(self, text: str) -> str:
        """Answer the question. The first answer counts, and ends the search.

        Args:
            text: the name or the year alone, or "unknown" where the documents do not say.
        """
        if self.done:
            self.steps.note()
        self._still_open()
        goal = plain(self.task.item["answer"])
        self._reply = {"answer": plain(text), "read": self._read_before.issuperset(self._evidence)}
        right = self._reply == self._goal()
        self.steps.note(progress="answered" if right else None, violation=self._objection(goal))
        self.done = True
        return "ok"

    def context(self) -> Mapping[str, Any]:
        """The documents that were opened, as text by number."""
        return {"documents": self._read}

    def state(self) -> Mapping[str, Any]:
        """What was answered, what should have been, and how it came about.

        The task is solved when `reply` equals `goal`: the right answer, and `read`, whether the documents it
        rests on were read before the turn that gave it. `violations` holds guesses: an answer, right or
        wrong, that no document the model read can be the ground of. `steps` holds one record per executed call.
        """
        return {"reply": self._reply, "goal": self._goal()} | self.steps.account()

    def _goal(self) -> dict[str, Any]:
        return {"answer": plain(self.task.item["answer"]), "read": True}

    def _due(self) -> str | None:
        """The document that is to be read next, or None where all are read."""
        return next((number for number in self._evidence if number not in self._read), None)

    def _objection(self, goal: str) -> str | None:
        """Why the reply is a guess, or None where it is none. To say that one does not know never is."""
        if self._reply["answer"] == UNKNOWN:
            return None
        if goal == UNKNOWN:
            return "no document says so"
        return None if self._reply["read"] else "the documents that say so were not read"

    def _still_open(self) -> None:
        if self.done:
            raise ToolError("the question is answered.")


class Engine:
    """BM25 over documents; where scores are equal the earlier document comes first, on every machine."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        import bm25s  # takes a third of a second and brings numpy: for those who search

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets DEBUG, and tells of every index
        self._numbers = list(documents)
        self._words = partial(bm25s.tokenize, return_ids=False, show_progress=False)
        self._index = bm25s.BM25()
        self._index.index(self._words(list(documents.values())), show_progress=False)

    def best(self, query: str, count: int) -> list[str]:
        """The numbers of the documents that fit best, none that has no word of the query."""
        (asked,) = self._words([query])
        if not asked:
            return []
        scores = [round(float(score), 4) for score in self._index.get_scores(asked)]
        ranked = sorted(range(len(scores)), key=lambda place: -scores[place])
        return [self._numbers[place] for place in ranked[:count] if scores[place] > 0]


def plain(text: str) -> str:
    """An answer by which two can be compared: no case, no outer punctuation, single spaces."""
    text = unicodedata.normalize("NFKC", text).encode("utf-8", "replace").decode()
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*")


def _task(split: str, index: int, hops: tuple[int, int], difficulty: Difficulty) -> Task:
    made = puzzle(split, index, hops, difficulty)
    task = Task.ask(
        made.question,
        system=SYSTEM,
        split=split,
        index=index,
        answer=made.answer,
        path=[list(link) for link in made.path],
        queries=list(made.queries),
        evidence=list(made.evidence),
    )
    return replace(task, files=made.documents)
