"""Functions of lists of numbers."""

from __future__ import annotations

import random
from typing import Any

from envs.functions.function import Function


def _numbers(rng: random.Random, most: int = 9, low: int = -20, high: int = 40) -> list[int]:
    return [rng.randint(low, high) for _ in range(rng.randint(0, most))]


def _combine(rng: random.Random) -> Function:
    k, m, n = rng.randint(2, 6), rng.randint(2, 9), rng.randint(2, 4)
    kept, test = rng.choice(
        [
            (f"divisible by {k}", f"n % {k} == 0"),
            (f"not divisible by {k}", f"n % {k} != 0"),
            (f"greater than {m}", f"n > {m}"),
            (f"less than {m}", f"n < {m}"),
            (f"at least {-k}", f"n >= {-k}"),
        ]
    )
    changed, value = rng.choice(
        [
            (f"{m} times itself plus {k}", f"n * {m} + {k}"),
            ("its square", "n * n"),
            (f"its distance from {m}", f"abs(n - {m})"),
            (f"its remainder when divided by {m}", f"n % {m}"),
        ]
    )
    result, fold = rng.choice(
        [
            ("their sum", "sum(found)"),
            ("how many different values there are", "len(set(found))"),
            ("the largest value, or 0 if there is none", "max(found, default=0)"),
            ("the values, largest first", "sorted(found, reverse=True)"),
            (f"the last {n} values, in their order", f"found[-{n}:]"),
        ]
    )
    text = f"Of the integers in the list `numbers`, take those that are {kept}, replace each by {changed}, and return"
    source = f"""def combine(numbers):
    found = []
    for n in numbers:
        if {test}:
            found.append({value})
    return {fold}"""
    return Function(text=f"{text} {result}.", source=source, draw=lambda rng: [_numbers(rng)])


def _streak(rng: random.Random) -> Function:
    k, least = rng.randint(-5, 15), rng.randint(1, 3)
    side, sign = rng.choice([("greater than", ">"), ("less than", "<"), ("at least", ">="), ("at most", "<=")])
    source = f"""def streak(numbers):
    best, current = 0, 0
    for n in numbers:
        current = current + 1 if n {sign} {k} else 0
        best = max(best, current)
    return best if best >= {least} else 0"""
    text = f"Return the length of the longest run of neighbours in the list `numbers` that are all {side} {k}"
    short = f"; runs shorter than {least} count as 0." if least > 1 else "."
    return Function(text=text + short, source=source, draw=lambda rng: [_numbers(rng, 14, k - 4, k + 7)])


def _windows(rng: random.Random) -> Function:
    k, step = rng.randint(2, 5), rng.randint(1, 3)
    what, value = rng.choice(
        [
            ("sum", "sum(w)"),
            ("largest", "max(w)"),
            ("smallest", "min(w)"),
            ("largest minus smallest", "max(w) - min(w)"),
        ]
    )
    source = f"""def windows(numbers):
    found = []
    for start in range(0, len(numbers) - {k} + 1, {step}):
        w = numbers[start:start + {k}]
        found.append({value})
    return found"""
    text = (
        f"For every stretch of {k} neighbours in the list `numbers`, starting at index 0, {step}, {2 * step} and so on"
    )
    text += f", return the {what}, as a list. Stretches that would go beyond the end are left out."
    return Function(text=text, source=source, draw=lambda rng: [_numbers(rng, 12)])


def _recent(rng: random.Random) -> Function:
    k, most = rng.randint(1, 5), rng.randint(4, 9)
    source = f"""def recent(items):
    kept = []
    for item in items:
        if item not in kept[-{k}:]:
            kept.append(item)
    return kept[:{most}]"""
    text = (
        f"Go through the list `items` and keep each item that is not among the {k} kept last. Return at most the first"
    )
    draw = rng.choice(
        [lambda rng: [_numbers(rng, 16, 0, 6)], lambda rng: [rng.choices("abcdef", k=rng.randint(0, 16))]]
    )
    return Function(text=f"{text} {most} that were kept.", source=source, draw=draw)


def _chunks(rng: random.Random) -> Function:
    k, fill, turn = rng.randint(2, 5), rng.choice([0, -1, 9, 99]), rng.choice([2, 3])
    source = f"""def chunks(items):
    rows = []
    for start in range(0, len(items), {k}):
        row = items[start:start + {k}]
        row = row + [{fill}] * ({k} - len(row))
        if len(rows) % {turn} == {turn - 1}:
            row = row[::-1]
        rows.append(row)
    return rows"""
    which = "second" if turn == 2 else "third"
    text = (
        f"Cut the list `items` into rows of {k}, fill the last one up with {fill}, and turn every {which} row around."
    )
    return Function(text=text, source=source, draw=lambda rng: [_numbers(rng, 16, 0, 30)])


def _settle(rng: random.Random) -> Function:
    start, limit, fee = rng.randint(0, 30), rng.randint(0, 20), rng.randint(0, 3)
    source = f"""def settle(changes):
    balance, refused = {start}, 0
    for change in changes:
        if balance + change < {-limit}:
            refused += 1
            balance -= {fee}
        else:
            balance += change
    return [balance, refused]"""
    text = (
        f"An account starts at {start}. Apply the integers in the list `changes` in order; one that would take it below"
    )
    text += f" {-limit} is refused and costs a fee of {fee}. Return the balance and how many were refused, as a list."
    return Function(text=text, source=source, draw=lambda rng: [_numbers(rng, 9, -25, 15)])


def _near(rng: random.Random) -> Function:
    value, k = rng.randint(0, 1), rng.randint(1, 3)
    straight = ((0, 1), (1, 0), (0, -1), (-1, 0))
    which, offsets = rng.choice(
        [
            ("four neighbours", straight),
            ("eight neighbours", (*straight, (1, 1), (1, -1), (-1, 1), (-1, -1))),
            ("four diagonal neighbours", ((1, 1), (1, -1), (-1, 1), (-1, -1))),
        ]
    )
    source = f"""def near(grid):
    total = 0
    for r in range(len(grid)):
        for c in range(len(grid[r])):
            ones = 0
            for down, right in {offsets}:
                if 0 <= r + down < len(grid) and 0 <= c + right < len(grid[r]):
                    ones += grid[r + down][c + right]
            if grid[r][c] == {value} and ones >= {k}:
                total += 1
    return total"""
    text = f"`grid` is a list of rows of 0 and 1, all as long. Count the cells that are {value} and of"
    text += f" whose {which} at least {k}"

    def draw(rng: random.Random) -> list[Any]:
        width = rng.randint(1, 5)
        return [[rng.choices((0, 1), k=width) for _ in range(rng.randint(0, 5))]]

    text += f" {'is' if k == 1 else 'are'} 1."
    return Function(text=text, source=source, draw=draw)


def _base(rng: random.Random) -> Function:
    base, start = rng.randint(3, 9), rng.choice("abcdefghijklmnop")
    digits = "".join(chr(ord(start) + n) for n in range(base))
    source = f"""def base(number):
    out, left = "", abs(number)
    for _ in range(64):
        if left == 0:
            break
        out = "{digits}"[left % {base}] + out
        left //= {base}
    return ("-" if number < 0 else "") + (out or "{digits[0]}")"""
    text = f"Return the integer `number` in base {base} as a string, with the letters {digits} for the"
    text += f" digits 0 to {base - 1}, and"
    text += " a minus sign before negative ones."
    return Function(
        text=text, source=source, draw=lambda rng: [rng.choice([0, rng.randint(-99, 99), rng.randint(0, 5000)])]
    )


def _price(rng: random.Random) -> Function:
    sizes = sorted(rng.sample(range(5, 30), 2))
    prices = sorted(rng.sample(range(2, 20), 3), reverse=True)
    over = rng.randint(30, 60)
    source = f"""def price(units):
    total, left = 0, units
    for size, each in (({sizes[0]}, {prices[0]}), ({sizes[1]}, {prices[1]})):
        taken = min(left, size)
        total += taken * each
        left -= taken
    total += left * {prices[2]}
    return total - {prices[2]} if units > {over} else total"""
    text = f"The first {sizes[0]} units cost {prices[0]} each, the next {sizes[1]} cost {prices[1]}"
    text += f" each, all further {prices[2]}"
    text += f" each. Who takes more than {over} gets {prices[2]} off the whole. Return the price of `units`."
    return Function(text=text, source=source, draw=lambda rng: [rng.randint(0, 90)])


LISTS = (_combine, _streak, _windows, _recent, _chunks, _settle, _near, _base, _price)
