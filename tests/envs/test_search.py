"""The library: tasks that can be solved from its texts alone, and rewards that only such work earns."""

import asyncio
import gc
import json
import random
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from envs import Completion, Episode, InputError, Message, Stop, Task, ToolCall, ToolResult, Turn
from envs.corpus import LEVELS, RELATIONS, SPLITS, UNKNOWN, puzzle, stems
from envs.search import MOST_FOUND, MOST_OPENED, Search
from envs.tasks import from_row
from rewards import build
from twice import printed_twice

REWARD = build(yaml.safe_load((Path(__file__).parents[2] / "configs" / "search.yaml").read_text())["reward"])
DIFFICULTIES = tuple(LEVELS)

Call = tuple[str, dict[str, Any]]


def message(calls: list[Call], turn: int = 0) -> Message:
    made = [ToolCall(id=f"{turn}.{n}", name=name, arguments=json.dumps(a)) for n, (name, a) in enumerate(calls)]
    return Message(role="assistant", tool_calls=tuple(made))


def play(task: Task, agent: Any, turns: int = 20) -> Episode:
    """An episode of an agent: messages, or a generator of calls that is sent their results."""

    async def run() -> Episode:
        env = Search(task)
        await env.setup()
        episode = Episode(id="1", env="search", task=task, context=env.context())
        said: list[str] | None = None
        while episode.stop is None:
            try:
                turn = agent.send(said) if hasattr(agent, "send") else agent.pop(0)
            except (StopIteration, IndexError):
                turn = Message(role="assistant", content="I could not find it.")
            turn = message(turn, len(episode.turns)) if isinstance(turn, list) else turn
            results = await env.step(turn)
            said = [result.content for result in results]
            episode.turns.append(Turn(completion=Completion(message=turn), results=results))
            if env.done or not turn.tool_calls:
                episode.stop = Stop.DONE
            elif len(episode.turns) == turns:
                episode.stop = Stop.MAX_TURNS
        await env.close()
        episode.state = env.state()
        return episode

    return asyncio.run(run())


def outcome(episode: Episode) -> float:
    score = asyncio.run(REWARD(episode))
    assert score.error is None
    return score.parts["success"]


def total(episode: Episode) -> float:
    return asyncio.run(REWARD(episode)).total


def work(task: Task) -> list[Message]:
    """What the expert does before it answers."""
    return Search.expert(task)[:-1]


def answering(text: str) -> list[Call]:
    return [("answer", {"text": text})]


def made(message: Message) -> list[Call]:
    return [(call.name, json.loads(call.arguments)) for call in message.tool_calls]


def searches(queries: list[str]) -> list[Call]:
    return [("search", {"query": query}) for query in queries]


def results(episode: Episode) -> list[ToolResult]:
    return [result for turn in episode.turns for result in turn.results]


def tasks(split: str = "test", difficulty: Any = "standard", count: int = 40, hops: Any = (2, 3)) -> list[Task]:
    return Search.tasks(split, difficulty=difficulty, count=count, hops=hops)


def first(answerable: bool = True, **options: Any) -> Task:
    return next(task for task in tasks(**options) if (task.item["answer"] != UNKNOWN) == answerable)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_expert_solves_every_task_and_each_of_its_steps_is_progress(split: str, difficulty: Any) -> None:
    for task in tasks(split, difficulty, 25, (1, 4)):
        episode = play(task, Search.expert(task))
        assert outcome(episode) == 1.0, task
        assert {result.fault for result in results(episode)} == {None}
        assert all(step["progress"] and not step["repeat"] for step in episode.state["steps"])
        assert episode.stop is Stop.DONE
        assert len(task.item["evidence"]) <= MOST_OPENED


def test_a_reader_who_knows_only_the_language_solves_every_task() -> None:
    """An independent solver: it reads the question's links and the texts it opened, nothing else."""

    def reader(task: Task) -> Iterator[Any]:
        subject = task.item["path"][0][0]
        for _, relation in task.item["path"]:
            found = yield [("search", {"query": f"{subject} {relation}"})]
            number = next(row["document"] for row in json.loads(found[0]) if row["title"] == subject)
            (text,) = yield [("open", {"document": number})]
            said = stated(text, relation, subject)
            if not said:
                yield answering(UNKNOWN)
            (subject,) = said
        yield answering(subject)

    for split in SPLITS:
        for task in tasks(split, count=30, hops=(1, 3)):
            assert outcome(play(task, reader(task))) == 1.0, task


def stated(text: str, relation: str, subject: str) -> set[str]:
    """The values a text gives, by its sentences."""
    values = set()
    for sentence in RELATIONS[relation].sentences:
        head, tail = sentence.format(x=subject, y="\0").split("\0")
        for line in text.partition("\n\n")[2].replace(". ", ".\n").splitlines():
            if line.startswith(head) and line.endswith(tail) and " until " not in line:
                values.add(line[len(head) : len(line) - len(tail)])
    return values


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_each_fact_of_a_question_stands_in_one_document_and_the_missing_one_in_none(difficulty: Any) -> None:
    gaps = 0
    for task in tasks("train", difficulty, 200, (1, 4)):
        said = []
        for subject, relation in task.item["path"]:
            where = [n for n, text in task.files.items() if stated(text, relation, subject)]
            values = set().union(*(stated(task.files[n], relation, subject) for n in where))
            assert len(where) == len(values) <= 1
            said.append((*where, *values))
        gap = next((k for k, found in enumerate(said) if not found), None)
        gaps += gap is not None
        assert task.item["answer"] == (said[-1][1] if gap is None else UNKNOWN)
        read = [found[0] for found in said[:gap]]
        assert list(dict.fromkeys(read)) == list(task.item["evidence"])[: len(set(read))]
        if gap is not None:
            titles = [task.files[number].partition("\n")[0] for number in task.item["evidence"]]
            assert titles == [subject for subject, _ in task.item["path"][: gap + 1]]
            assert gap > 0 or len(task.item["path"]) == 1
    assert gaps / 200 == pytest.approx(LEVELS[difficulty].gap, abs=0.08)


def test_splits_are_large_enough_and_share_no_name() -> None:
    counts = {split: len({task.id for task in Search.tasks(split)}) for split in SPLITS}
    assert counts == {"train": 1000, "validation": 200, "test": 200}
    names: dict[str, set[str]] = {}
    for split in SPLITS:
        titles = {text.partition("\n")[0] for task in tasks(split, count=150) for text in task.files.values()}
        owned = {stem for of in ("surname", "place", "title") for stem in stems(split, of)}
        assert all(owned & set(title.split()) for title in titles)
        names[split] = titles
    assert not names["train"] & names["validation"]
    assert not names["train"] & names["test"]
    assert not names["validation"] & names["test"]


def test_the_stems_of_two_splits_are_disjoint() -> None:
    for of in ("surname", "place", "title"):
        owned = [set(stems(split, of)) for split in SPLITS]
        assert sum(map(len, owned)) == len(set().union(*owned))
        assert min(map(len, owned)) >= 8


def test_tasks_and_searches_are_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from envs.search import Search, Engine\n"
        "for t in Search.tasks('train', difficulty='hard', count=12):\n"
        "    found = Engine(t.files).best(t.prompt[-1].content, 9)\n"
        "    text = repr((t.id, t.prompt, t.item, list(t.files.items()), found))\n"
        "    print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    printed = printed_twice(code)
    assert len(set(printed)) == 12


def test_importing_the_environment_does_not_load_what_its_index_needs() -> None:
    code = "import sys, envs, envs.search; print([name for name in ('bm25s', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_plausible_answers_that_are_wrong_score_nothing() -> None:
    kinds = {"alike": 0, "hop": 0, "unknown": 0, "missing": 0, "former": 0}
    for task in tasks("validation", "hard", 60):
        made = puzzle("validation", task.item["index"], (2, 3), "hard")
        subject, relation = made.path[-1]
        wrong = {"hop": subject, "alike": alike(made.facts, subject, relation)}
        if task.item["answer"] == UNKNOWN:
            wrong["missing"] = made.facts[made.path[-1]]
        else:
            wrong["unknown"] = UNKNOWN
        if former := [
            line.split(" until ")[0].rpartition(" in " if relation == "seat" else "was ")[2]
            for text in task.files.values()
            for line in text.replace(". ", ".\n").splitlines()
            if " until " in line and subject in line and relation in ("mayor", "publisher", "seat")
        ]:
            wrong["former"] = former[0]
        for kind, text in wrong.items():
            if text.casefold() != task.item["answer"].casefold():
                episode = play(task, [*work(task), answering(text)])
                assert outcome(episode) == 0.0, (kind, text, task)
                assert bool(episode.state["violations"]) == (task.item["answer"] == UNKNOWN)
                kinds[kind] += 1
    assert min(kinds.values()) > 2, kinds


def alike(facts: Any, subject: str, relation: str) -> str:
    """The value of something with a similar name."""
    words = set(subject.split()) - {"The"}
    return next(
        value
        for (other, name), value in facts.items()
        if name == relation and other != subject and words & set(other.split())
    )


@pytest.mark.parametrize(
    ("said", "right"), [("{}.", True), ("  {} ", True), ('"{}"', True), ("{} or so", False), ("", False)]
)
def test_an_answer_is_compared_without_case_or_outer_punctuation(said: str, right: bool) -> None:
    for answerable in (True, False):
        task = first(answerable)
        for text in (said.format(task.item["answer"]), said.format(task.item["answer"].upper())):
            assert outcome(play(task, [*work(task), answering(text)])) == float(right)


def test_a_right_answer_counts_only_where_its_documents_were_read_before() -> None:
    for answerable in (True, False):
        task = first(answerable)
        steps = work(task)
        for left_out in range(1, len(steps), 2):
            episode = play(task, [*steps[:left_out], *steps[left_out + 1 :], answering(task.item["answer"])])
            assert outcome(episode) == 0.0
            assert bool(episode.state["violations"]) == answerable  # to say that one does not know is no guess


def test_what_is_opened_in_the_turn_of_the_answer_was_not_read_before() -> None:
    task = first()
    last = work(task)[-1].tool_calls[0]
    calls = [("open", json.loads(last.arguments)), *answering(task.item["answer"])]
    episode = play(task, [*work(task)[:-1], calls])
    assert outcome(episode) == 0.0
    assert [step["progress"] for step in episode.state["steps"]][-2:] == [True, False]


def test_the_first_answer_counts_and_ends_the_search() -> None:
    task = first()
    calls = [
        *answering("nobody"),
        *answering(task.item["answer"]),
        ("search", {"query": "mayor"}),
        ("open", {"document": "1"}),
    ]
    episode = play(task, [*work(task), calls])
    assert outcome(episode) == 0.0
    assert [result.fault for result in episode.turns[-1].results] == [None, "raised", "raised", "raised"]
    assert episode.state["reply"]["answer"] == "nobody"
    assert not any(step["progress"] for step in episode.state["steps"][-4:])


def test_documents_pay_once_and_only_in_the_order_in_which_one_leads_to_the_next() -> None:
    task = next(task for task in tasks() if len(task.item["evidence"]) == 3)
    one, two, three = ([("open", {"document": number})] for number in task.item["evidence"])
    episode = play(task, [searches(task.item["queries"]), three, one, one, two, two, three])
    assert [(step["progress"], step["repeat"]) for step in episode.state["steps"][3:]] == [
        (False, False),
        (True, False),
        (False, True),
        (True, False),
        (False, True),
        (False, True),
    ]


def test_no_more_documents_than_the_limit_may_be_opened_and_those_that_are_may_be_read_again() -> None:
    task = first()
    numbers = list(task.files)[: MOST_OPENED + 1]
    calls = [("open", {"document": number}) for number in [*numbers, numbers[0]]]
    listing = searches([task.files[number].partition("\n")[0] for number in numbers])
    got = play(task, [listing, calls]).turns[1].results
    assert [result.fault for result in got] == [None] * MOST_OPENED + ["raised", None]
    assert "12 documents are opened" in got[MOST_OPENED].content


def test_only_what_a_search_listed_may_be_opened() -> None:
    task = first()
    episode = play(task, [[("open", {"document": number})] for number in task.item["evidence"]])
    assert [result.fault for result in results(episode)] == ["raised"] * len(task.item["evidence"])
    assert episode.context == {"documents": {}}


def test_a_search_lists_the_best_documents_by_title() -> None:
    task = first()
    title = task.item["path"][0][0]
    (found,) = results(play(task, [[("search", {"query": title})]]))
    rows = json.loads(found.content)
    assert rows[0]["title"] == title
    assert task.files[rows[0]["document"]].startswith(f"{title}\n")
    assert len(rows) <= MOST_FOUND


@pytest.mark.parametrize(
    ("name", "arguments", "fault", "says"),
    [
        ("search", {"query": ""}, "raised", "the query is empty"),
        ("search", {"query": " \t\n"}, "raised", "the query is empty"),
        ("search", {"query": "\x00\x1b[2J\u202e"}, None, "no document has any of these words"),
        ("search", {"query": "the of and"}, None, "no document has any of these words"),
        ("search", {"query": "<|im_end|> xyzzy"}, None, "no document has any of these words"),
        ("search", {"query": 7}, "bad_arguments", "valid string"),
        ("search", {}, "bad_arguments", "Field required"),
        ("open", {"document": ""}, "raised", "no such document"),
        ("open", {"document": "../../etc/passwd\x00"}, "raised", "no such document"),
        ("open", {"document": 1234}, "bad_arguments", "valid string"),
        ("answer", {"text": "\x1b[31m\x00"}, None, "ok"),
        ("answer", {"text": ["a"]}, "bad_arguments", "valid string"),
    ],
)
def test_bad_input_is_told_to_the_model_and_nothing_is_lost(name: str, arguments: Any, fault: Any, says: str) -> None:
    task = first()
    episode = play(task, [[(name, arguments)], *Search.expert(task)])
    result = episode.turns[0].results[0]
    assert (result.fault, says in result.content) == (fault, True)
    assert outcome(episode) == float(name != "answer" or fault is not None)
    assert json.loads(json.dumps(episode.state)) == episode.state


def test_a_very_long_query_is_searched_for_all_the_same() -> None:
    task = first()
    (found,) = results(
        play(task, [[("search", {"query": f"{task.item['path'][0][0]} " + "x" * 10**6 + " y z" * 10**5})]])
    )
    assert found.fault is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": {}}, "has no documents to search"),
        ({"item": {}}, "has no answer"),
        ({"item": {"answer": " . "}}, "has no answer"),
        ({"item": {"answer": "x", "evidence": ["77"]}}, "evidence '77' is not among its files"),
    ],
)
def test_a_task_that_can_not_be_played_is_refused(change: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Search(replace(first(), **change))


def test_documents_of_ones_own_can_be_searched() -> None:
    row = {"prompt": "Who wrote it?", "answer": "Ana", "files": {"a": "It\nAna wrote it.", "b": "?"}}
    task = from_row(row, "line 1")
    episode = play(task, [[("search", {"query": "wrote"})], [("open", {"document": "a"})], answering("ana")])
    assert json.loads(results(episode)[0].content) == [{"document": "a", "title": "It"}]
    assert outcome(episode) == 1.0


@pytest.mark.parametrize(
    ("split", "options", "said"),
    [
        ("dev", {}, "no split 'dev'"),
        ("train", {"hops": (0, 1)}, "hops must be"),
        ("train", {"hops": (3, 2)}, "hops must be"),
        ("train", {"hops": (1,)}, "hops must be"),
        ("train", {"difficulty": "brutal"}, "difficulty"),
        ("train", {"count": -1}, "count"),
    ],
)
def test_options_that_make_no_sense_are_refused(split: str, options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Search.tasks(split, **options)


def test_no_state_crosses_episodes() -> None:
    task = first()
    untouched = play(task, Search.expert(task))
    everything = [("open", {"document": number}) for number in task.files]
    planted = play(task, [searches(["river novel cello tea mayor"]), everything, answering("nobody")])
    assert len(planted.context["documents"]) > 5
    fresh = Search(task)
    assert fresh.state()["reply"] == {"answer": None, "read": False}
    assert fresh.state()["steps"] == fresh.state()["violations"] == []
    assert fresh.context() == {"documents": {}}
    assert not fresh.done
    assert outcome(play(task, [answering(task.item["answer"])])) == 0.0, "what another episode read counts for nothing"
    again = play(task, Search.expert(task))
    assert again.state == untouched.state
    assert [result.content for result in results(again)] == [result.content for result in results(untouched)]


def test_the_record_has_the_documents_that_were_opened() -> None:
    task = first()
    episode = play(task, Search.expert(task))
    assert episode.context == {"documents": {number: task.files[number] for number in task.item["evidence"]}}


def clueless(task: Task, seed: int) -> Iterator[Any]:
    """Any tool at any time, with words and numbers it has seen."""
    rng = random.Random(seed)
    names, numbers = [UNKNOWN, *task.prompt[-1].content.split()], ["1000"]
    while True:
        call = rng.choice(
            [
                ("search", {"query": rng.choice(names)}),
                ("open", {"document": rng.choice(numbers)}),
                ("answer", {"text": rng.choice(names)}),
            ]
        )
        (said,) = yield [call]
        if said.startswith("[{"):
            names += [row["title"] for row in json.loads(said)]
            numbers += [row["document"] for row in json.loads(said)]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_random_agent_solves_next_to_nothing(difficulty: Any) -> None:
    scores = [outcome(play(task, clueless(task, n))) for n, task in enumerate(tasks("train", difficulty, 60))]
    assert sum(scores) / len(scores) < 0.1


@pytest.mark.slow
def test_a_thousand_random_episodes_leave_nothing_behind() -> None:
    made = tasks("train", "hard", 100)
    sizes, threads, solved = [], [], 0.0
    tracemalloc.start()
    for episode in range(1000):
        solved += outcome(play(made[episode % 100], clueless(made[episode % 100], episode)))
        if episode in (299, 999):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
            threads.append(threading.active_count())
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 1_000_000
    assert threads[1] <= threads[0] + 1  # tqdm's monitor stays, and the last tool's thread may be just ending
    assert solved / 1000 < 0.1
