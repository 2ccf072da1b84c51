"""Metrics, against their libraries and against numbers by hand."""

import asyncio
import math
import random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.translate.gleu_score import sentence_gleu
from rapidfuzz import fuzz
from rouge_score.rouge_scorer import RougeScorer

from envs import InputError
from rewards.graders import Settings
from rewards.graders.similarity import cosine, metric

WORDS = ["the", "a", "cat", "dogs", "Dog", "sat", "on", "mat,", "running", "run", "x1", "ü", ".", "it's"]


def texts(count, seed=0):
    dice = random.Random(seed)
    one = lambda: " ".join(dice.choices(WORDS, k=dice.randrange(15)))  # noqa: E731
    return [(one(), one()) for _ in range(count)]


def by_library(name, said, wanted):
    if name == "fuzzy_match":
        return fuzz.ratio(said, wanted) / 100
    if name == "bleu":
        return sentence_bleu([wanted.split()], said.split(), smoothing_function=SmoothingFunction().method1)
    if name == "gleu":
        return sentence_gleu([wanted.split()], said.split())
    kind = "rougeL" if name == "rouge_l" else name.replace("_", "")
    return RougeScorer([kind]).score(wanted, said)[kind].fmeasure


NAMES = ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_its_library(name):
    measure = metric(name, Settings())
    for said, wanted in texts(60):
        assert measure(said, wanted) == pytest.approx(by_library(name, said, wanted), abs=1e-12)


@pytest.mark.parametrize("name", [*NAMES, "meteor"])
def test_every_metric_is_within_0_and_1_and_takes_empty_texts(name):
    measure = metric(name, Settings(meteor_synonyms="none"))
    for said, wanted in [("", ""), ("", "a"), ("a", ""), ("a", "a"), *texts(40, seed=1)]:
        assert 0 <= measure(said, wanted) <= 1
    assert measure("the cat sat on the mat", "the cat sat on the mat") > 0.99


@pytest.mark.parametrize(
    ("name", "said", "wanted", "value"),
    [
        ("fuzzy_match", "kitten", "sitting", 8 / 13),  # 2 * 4 common / 13
        ("rouge_1", "a b c", "a b d e", 4 / 7),  # P 2/3, R 2/4
        ("rouge_2", "a b c", "a b d e", 2 / 5),  # P 1/2, R 1/3
        ("rouge_l", "a x b", "a b", 4 / 5),  # P 2/3, R 1
        ("gleu", "a b", "a b c", 3 / 6),  # 3 of 3 n-grams said, 3 of 6 wanted
        ("meteor", "a cats", "a cat", 0.9375),  # P = R = 1 by stem, one chunk of two: 1 - 0.5 * (1/2)^3
    ],
)
def test_a_metric_by_hand(name, said, wanted, value):
    assert metric(name, Settings(meteor_synonyms="none"))(said, wanted) == pytest.approx(value)


@pytest.mark.parametrize("function", ["partial_ratio", "token_sort_ratio", "token_set_ratio", "WRatio", "QRatio"])
def test_the_function_of_rapidfuzz_is_a_switch(function):
    assert (
        metric("fuzzy_match", Settings(fuzzy_match=function))("b a", "a b c")
        == getattr(fuzz, function)("b a", "a b c") / 100
    )


def test_what_a_word_is_is_a_switch():
    said, wanted = "It is so.", "It is so"
    assert metric("gleu", Settings())(said, wanted) < metric("gleu", Settings(tokens="wordpunct"))(said, wanted)
    assert metric("gleu", Settings(tokens="treebank"))("it's", "it 's") == 1.0


def test_bleu_without_smoothing_is_zero_for_texts_that_share_no_four_words():
    said, wanted = "the cat sat there", "the cat sat here"
    assert metric("bleu", Settings(bleu_smoothing="none"))(said, wanted) == pytest.approx(0, abs=1e-70)
    assert metric("bleu", Settings())(said, wanted) > 0.1


@pytest.mark.parametrize("smoothing", ["none", "method1", "method2", "method3", "method4", "method5", "method7"])
def test_every_smoothing_scores_every_text(smoothing):
    measure = metric("bleu", Settings(bleu_smoothing=smoothing))
    for said, wanted in [("a", "a"), ("a", "b"), ("a b", "a"), *texts(40, seed=2)]:
        assert 0 <= measure(said, wanted) <= 1


def test_rouge_is_a_harmonic_mean_precision_or_recall_by_switch():
    said, wanted = "a b c", "a b d e"
    assert metric("rouge_1", Settings(rouge="precision"))(said, wanted) == pytest.approx(2 / 3)
    assert metric("rouge_1", Settings(rouge="recall"))(said, wanted) == pytest.approx(1 / 2)
    assert metric("rouge_1", Settings())("cats", "cat") == 0.0
    assert metric("rouge_1", Settings(rouge_stemmer=True))("cats", "cat") == 1.0


def test_meteor_without_wordnet_says_how_to_get_it_and_how_to_go_without(monkeypatch, tmp_path):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    from nltk.corpus.reader.wordnet import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, None))
    with pytest.raises(InputError, match=r"python -m nltk\.downloader wordnet.*meteor_synonyms"):
        metric("meteor", Settings())


def test_cosine_is_of_vectors_and_refused_without_them(grade):
    assert cosine([1, 0], [1, 1]) == pytest.approx(1 / math.sqrt(2))
    assert cosine([0, 0], [1, 1]) == 0.0
    tree = {"type": "text_similarity", "name": "c", "input": "{{ sample.output_text }}", "reference": "ab"}
    tree["evaluation_metric"] = "cosine"
    with pytest.raises(InputError, match="cosine needs an embedding function"):
        grade(tree)

    async def letters(texts):
        return [[text.count("a"), text.count("b")] for text in texts]

    assert grade(tree, "b", embed=letters).reward == pytest.approx(1 / math.sqrt(2))


def test_a_long_comparison_does_not_hold_up_the_others(grade):
    from rewards.graders import Grader, parse, sample

    tree = {"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "{{ item.a }}"}
    made = Grader(parse(tree | {"evaluation_metric": "rouge_l"}))
    long = "word " * 700

    async def both():
        ticks = 0
        grading = asyncio.ensure_future(made.grade({"a": long}, sample.of_text(long)))
        while not grading.done():
            await asyncio.sleep(0)
            ticks += 1
        return ticks, grading.result().reward

    ticks, reward = asyncio.run(both())
    assert reward == 1.0
    assert ticks > 3


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["whitespace", "treebank", "wordpunct"]))
@hypothesis_settings(max_examples=300)
def test_no_text_whatever_breaks_a_metric(said, wanted, tokens):
    settings = Settings(meteor_synonyms="none", tokens=tokens, rouge_stemmer=True)
    for name in [*NAMES, "meteor"]:
        assert 0 <= metric(name, settings)(said, wanted) <= 1, name


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_a_text_is_most_alike_to_itself(text):
    for name in ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_l"]:
        measure = metric(name, Settings())
        assert all(measure(other, text) <= measure(text, text) + 1e-9 for other, _ in texts(5, seed=len(text))), name
