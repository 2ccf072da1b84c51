"""Servers that graders talk to, and the ways to run one grader on one sample."""

import asyncio
import json

import pytest

from rewards.graders import Grader, Judge, JudgeConfig, Services, Settings, UnsafeSubprocess, parse, sample
from served import Server, completion


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="session")
def pool():
    return UnsafeSubprocess("the sources are those of the tests", concurrency=2)


@pytest.fixture
def grade(pool):
    """Grades a sample (a text, or a sample object) of an item with grader JSON."""

    def run(tree, said="", item=None, *, judge=None, embed=None, **settings):
        made = Grader(
            parse(tree),
            settings=Settings.read(settings),
            services=Services(pool=pool, judge=judge and Judge(JudgeConfig.read(judge)), embed=embed),
        )
        return asyncio.run(made.grade(item or {}, sample.of_json(said), trace_id="trace_1"))

    return run


@pytest.fixture(scope="session")
def judged():
    """A chat completion in which a judge comes to a result."""

    def make(result, *, finish="stop", refusal=None, content=None):
        steps = [{"description": "looked", "conclusion": "seen"}]
        text = json.dumps({"steps": steps, "result": result}) if content is None else content
        return completion(text, finish=finish, refusal=refusal)

    return make
