"""Which rows are learned from and which are held out, and how long ones are cut."""

from actors.messages import Row
from pipelines.serve.learning.choice import choose, cut, is_held_out

PROMPTS = [(number, 5) for number in range(200)]


def row(prompt: tuple[int, ...], answer: int = 10, temperature: float = 1.0) -> Row:
    tokens = tuple(range(100, 100 + answer))
    return Row(prompt=prompt, tokens=tokens, seed=1, temperature=temperature)


def test_a_prompt_is_learned_from_or_held_out_whatever_comes_beside_it() -> None:
    held = {prompt for prompt in PROMPTS if is_held_out(prompt)}
    assert len(PROMPTS) / 16 < len(held) < len(PROMPTS) / 5
    for rows in (PROMPTS, PROMPTS[::-1], PROMPTS[:50]):
        chosen = choose(map(row, rows), length=20, depth=4, most_learned=999, most_held_out=999)
        assert {text.tokens[:2] for text in chosen.held_out} == held & set(rows)
        assert {text.tokens[:2] for text in chosen.learned} == set(rows) - held


def test_the_newest_are_chosen_and_a_held_out_prompt_counts_once() -> None:
    held = [prompt for prompt in PROMPTS if is_held_out(prompt)]
    other = [prompt for prompt in PROMPTS if not is_held_out(prompt)]
    rows = [row(held[0], temperature=0.0), row(held[0]), row(held[1], answer=3), row(held[2])]
    rows += [row(held[3]), row(other[0]), row(other[0]), row(other[1])]
    chosen = choose(rows, length=20, depth=4, most_learned=2, most_held_out=2)
    assert [text.tokens[:2] for text in chosen.held_out] == [held[0], held[2]]
    assert chosen.temperatures == (0.0, 1.0)
    assert [text.tokens[:2] for text in chosen.learned] == [other[0], other[0]]


def test_long_rows_are_cut_around_the_beginning_of_the_answer() -> None:
    def sizes(prompt: int, answer: int) -> tuple[int, int]:
        text = cut(row(tuple(range(prompt)), answer), 20)
        assert text.tokens[: text.num_prompt] == tuple(range(prompt))[prompt - text.num_prompt :]
        assert text.tokens[text.num_prompt] == 100
        return text.num_prompt, text.num_places

    assert sizes(5, 6) == (5, 6)
    assert sizes(5, 50) == (5, 15)
    assert sizes(50, 5) == (15, 5)
    assert sizes(50, 50) == (10, 10)
    assert sizes(1, 50) == (1, 19)
