"""Functions of texts."""

from __future__ import annotations

import random
from typing import Any

from envs.functions.function import Function

WORDS = (
    "ant", "Bee", "cat", "dog", "Elk", "fox", "goat", "hen", "ibis", "Jay", "koi", "lark", "mole", "newt", "Owl", "pig",
    "quail", "ram", "Seal", "toad",
)  # fmt: skip


def _sentence(rng: random.Random, most: int = 10) -> str:
    return " ".join(rng.choice(WORDS) + rng.choice(["", "", "", ",", "."]) for _ in range(rng.randint(0, most)))


def _runs(rng: random.Random) -> Function:
    k, joint = rng.randint(2, 4), rng.choice(["", "-", ",", "|", "."])
    form, part = rng.choice([("the letter and its count", "c + str(n)"), ("the count and the letter", "str(n) + c")])
    source = f"""def runs(text):
    parts, start = [], 0
    for i in range(1, len(text) + 1):
        if i == len(text) or text[i] != text[start]:
            c, n = text[start], i - start
            parts.append({part} if n >= {k} else c * n)
            start = i
    return "{joint}".join(parts)"""
    text = f"Shorten the string `text`: each run of at least {k} equal letters becomes {form}, shorter"
    text += " runs stay. The parts"
    text += f" are joined by {joint!r}." if joint else " are joined without anything between them."

    def draw(rng: random.Random) -> list[Any]:
        return ["".join(rng.choice("abxy") * rng.randint(1, 5) for _ in range(rng.randint(0, 6)))]

    return Function(text=text, source=source, draw=draw)


def _shift(rng: random.Random) -> Function:
    k, d = rng.randint(1, 25), rng.randint(1, 9)
    source = f"""def shift(text):
    out = ""
    for c in text:
        if "a" <= c <= "z":
            out += chr((ord(c) - 97 + {k}) % 26 + 97)
        elif "0" <= c <= "9":
            out += str((int(c) + {d}) % 10)
        else:
            out += c
    return out"""
    text = f"Move each small letter of the string `text` {k} places on in the alphabet and each digit"
    text += f" {d} on, from the end back"
    text += " to the beginning; all else stays."

    def draw(rng: random.Random) -> list[Any]:
        return ["".join(rng.choice("abcmnxyzKQ0189 -") for _ in range(rng.randint(0, 12)))]

    return Function(text=text, source=source, draw=draw)


def _words(rng: random.Random) -> Function:
    k, m = rng.randint(2, 4), rng.randint(1, 2)
    what, result = rng.choice(
        [
            ("their counts by word", "{w: counts[w] for w in counts if counts[w] >= %d}"),
            ("them in alphabetical order", "sorted(w for w in counts if counts[w] >= %d)"),
            ("how many there are", "sum(1 for w in counts if counts[w] >= %d)"),
            ("them, longest first, and in alphabetical order where they are as long",
             "sorted((w for w in counts if counts[w] >= %d), key=lambda w: (-len(w), w))"),
        ]
    )  # fmt: skip
    source = f"""def words(text):
    counts = {{}}
    for word in text.lower().split():
        word = word.strip(".,")
        if len(word) >= {k}:
            counts[word] = counts.get(word, 0) + 1
    return {result % m}"""
    text = f"Find the words of at least {k} letters in the string `text`, in small letters and without"
    text += " dots and commas around"
    text += f" them, that occur {'at least twice' if m == 2 else 'at all'}, and return {what}."
    return Function(text=text, source=source, draw=lambda rng: [_sentence(rng, 14)])


def _wrap(rng: random.Random) -> Function:
    width, mark = rng.randint(6, 18), rng.choice(["", "> ", "- ", "# "])
    source = f"""def wrap(text):
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > {width}:
            lines.append("{mark}" + line)
            line = word
        else:
            line = line + " " + word if line else word
    if line:
        lines.append("{mark}" + line)
    return lines"""
    text = "Break the string `text` into lines of whole words, as many words in a line as fit into"
    text += f" {width} characters"
    text += f", each line begun with {mark!r}, which does not count." if mark else "."
    return Function(text=text, source=source, draw=lambda rng: [_sentence(rng)])


def _brackets(rng: random.Random) -> Function:
    pairs, most = rng.sample(["()", "[]", "{}", "<>"], rng.randint(2, 3)), rng.randint(2, 5)
    opens, closes = "".join(p[0] for p in pairs), "".join(p[1] for p in pairs)
    source = f"""def brackets(text):
    open = []
    for i, c in enumerate(text):
        if c in "{opens}":
            open.append(c)
            if len(open) > {most}:
                return i
        elif c in "{closes}":
            if not open or open.pop() != "{opens}"["{closes}".index(c)]:
                return i
    return len(text) if open else -1"""
    text = f"Return the index of the first wrong bracket in the string `text`: {' '.join(pairs)} must"
    text += " close what was opened"
    text += f" last, and no more than {most} may be open. Its length if some stay open, -1 if all is right."

    def draw(rng: random.Random) -> list[Any]:
        made, depth = "", list[str]()
        for _ in range(rng.randint(0, 12)):
            if depth and rng.random() < 0.45:
                made += closes[opens.index(depth.pop())] if rng.random() < 0.85 else rng.choice(closes)
            else:
                depth.append(rng.choice(opens))
                made += depth[-1] + rng.choice(["", "", "x"])
        return [made + "".join(closes[opens.index(c)] for c in reversed(depth)) if rng.random() < 0.6 else made]

    return Function(text=text, source=source, draw=draw)


def _check(rng: random.Random) -> Function:
    a, b, m, most = rng.randint(1, 3), rng.randint(2, 7), rng.randint(7, 13), rng.randint(9, 15)
    source = f"""def check(code):
    total = 0
    for i, c in enumerate(reversed(code)):
        part = int(c) * ({b} if i % 2 == 0 else {a})
        total += part - {most} if part > {most} else part
    return ({m} - total % {m}) % {m}"""
    text = f"`code` is a string of digits. From the right, multiply the first, third and so on by {b}"
    text += f" and the others by {a}, subtract"
    text += (
        f" {most} from each product above {most}, add them up, and return what is lacking to the next multiple of {m}."
    )

    def draw(rng: random.Random) -> list[Any]:
        return ["".join(rng.choice("0123456789") for _ in range(rng.randint(1, 8)))]

    return Function(text=text, source=source, draw=draw)


def _later(rng: random.Random) -> Function:
    k, first = rng.randint(5, 300), rng.randint(5, 11)
    source = f"""def later(times):
    out = []
    for time in times:
        hours, minutes = time.split(":")
        total = (int(hours) * 60 + int(minutes) + {k}) % 1440
        if total // 60 >= {first}:
            out.append(f"{{total // 60:02d}}:{{total % 60:02d}}")
    return out"""
    text = f"`times` are texts such as 09:30. Return, in the same form, what the clock shows {k} minutes"
    text += " later, leaving out what is"

    def draw(rng: random.Random) -> list[Any]:
        return [[f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}" for _ in range(rng.randint(0, 4))]]

    return Function(text=f"{text} before {first:02d}:00.", source=source, draw=draw)


TEXTS = (_runs, _shift, _words, _wrap, _brackets, _check, _later)
