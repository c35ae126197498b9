"""Stories from a grammar written for this project: no download, and one seed is one corpus.

It imitates the plan of a children's story (someone, somewhere, a wish, a problem, help, an
ending), not the richness of TinyStories: a model learns it faster, and every compressor packs
it better.
"""

from __future__ import annotations

import random

__all__ = ["grammar_stories"]


def _list(text: str) -> list[str]:
    return [" ".join(entry.split()) for entry in text.split(",")]


_GIRLS = _list(
    """
    Lily, Mia, Anna, Sue, Rosie, Ella, Nora, Tilda, Ivy, Grace, Wanda, Zoe, Clara, Petra
    """
)
_BOYS = _list("Tom, Ben, Max, Sam, Leo, Finn, Oscar, Jack, Hugo, Theo, Emil, Noah, Pip, Karl")
_ANIMALS = _list(
    """
    cat, dog, fox, rabbit, bear, mouse, duck, frog, owl, hedgehog, squirrel, pony, goat, lamb,
    turtle, beaver, crow, badger
    """
)
_TRAITS = _list(
    """
    little, small, brave, shy, curious, happy, quiet, clever, kind, silly, gentle, careful, merry,
    stubborn, sleepy, patient
    """
)
_COLOURS = _list("red, blue, green, yellow, white, brown, purple, orange, silver, golden")
_THINGS = _list(
    """
    ball, kite, hat, book, drum, boat, lamp, key, bell, cup, blanket, basket, whistle, puzzle,
    ribbon, button, spoon, scarf, bucket, crayon, feather, marble, wagon, flute, mirror, ladder,
    lantern, shell
    """
)
_FOODS = _list(
    """
    apple, cake, pear, carrot, cookie, plum, pancake, berry, bun, peach, honey-pot, pie
    """
)
_PLACES = _list(
    """
    park, garden, forest, kitchen, barn, meadow, beach, school, hill, market, village, attic,
    library, orchard, river, lake, bakery, cave
    """
)
_WEATHER = _list("sunny, rainy, windy, cold, warm, snowy, foggy, bright, cloudy")
_TIMES = _list("day, morning, afternoon, evening")
_HIDING = _list(
    """
    under the bed, behind the door, in the tall grass, on top of the roof, inside an old box, near
    the well, up in a tree, beside the gate, between two big stones, at the bottom of the pond,
    under a pile of leaves
    """
)
_GOOD = _list("happy, glad, proud, pleased, thankful, cheerful")
_BAD = _list("sad, worried, upset, cross, afraid, lonely, tired")
_LESSONS = _list(
    """
    it is good to share, a friend is better than a toy, it helps to ask, small steps can go a long
    way, it is best to tell the truth, even little ones can help, waiting can be worth it, it is
    fine to be afraid, being kind costs nothing, two can do more than one
    """
)
_GAMES = _list("hide and seek, catch, pirates, shop, house, tag")


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


class _Story:
    """One draw of who, where and what, so that sentences agree with each other."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        girl = draw.random() < 0.5
        self.name = draw.choice(_GIRLS if girl else _BOYS)
        self.they, self.them, self.their = ("she", "her", "her") if girl else ("he", "him", "his")
        self.kind = draw.choice(["girl" if girl else "boy"] * 2 + _ANIMALS)
        self.trait = draw.choice(_TRAITS)
        self.colour, self.thing = draw.choice(_COLOURS), draw.choice(_THINGS)
        self.place = draw.choice(_PLACES)
        self.friend = draw.choice([n for n in _GIRLS + _BOYS if n != self.name])
        self.friend_kind = draw.choice(_ANIMALS)
        self.food = draw.choice(_FOODS)
        self.good, self.bad = draw.choice(_GOOD), draw.choice(_BAD)

    def one(self, *sentences: str) -> str:
        return self.draw.choice(sentences)

    def opening(self) -> str:
        weather, time = self.draw.choice(_WEATHER), self.draw.choice(_TIMES)
        beginning = self.one(
            f"Once upon a time, there was a {self.trait} {self.kind} named {self.name}.",
            f"There once was a {self.trait} {self.kind} called {self.name}.",
            f"{self.name} was a {self.trait} {self.kind} who lived near the {self.place}.",
            f"In a house by the {self.place} lived a {self.kind} named {self.name}.",
        )
        liking = self.one(
            f"{self.name} had {_a(self.colour)} {self.thing} and took it everywhere.",
            f"{self.name} loved to play {self.draw.choice(_GAMES)} in the {self.place}.",
            f"Every {time}, {self.they} went to the {self.place}.",
            f"{self.name} liked {self.their} {self.colour} {self.thing} more than anything.",
        )
        scene = self.one(
            f"One {weather} {time}, {self.name} went to the {self.place}.",
            f"It was a {weather} {time} and {self.name} wanted to go out.",
            f"One {weather} {time}, {self.they} woke up very early.",
            "",
        )
        return f"{beginning} {liking} {scene}"

    def problem(self) -> str:
        spot = self.draw.choice(_HIDING)
        return self.one(
            f"But the {self.colour} {self.thing} was gone! {self.name} looked {spot}, but it was "
            f"not there. {self.name} was very {self.bad}.",
            f"{self.name} saw {_a(self.colour)} {self.thing} {spot}. It was too high for "
            f'{self.them}. "Oh no," said {self.name}, "I can not reach it!"',
            f"Then the {self.thing} fell down and broke in two. {self.name} felt {self.bad} and "
            f"began to cry.",
            f"{self.name} wanted {_a(self.food)}, but there was only one left. {self.friend} wanted "
            f"it too. They were both {self.bad}.",
            f"Soon {self.they} did not know the way home. The {self.place} was dark and "
            f"{self.name} was {self.bad}.",
            f"A big wind came and took the {self.thing} away. {self.name} ran and ran, but "
            f"{self.they} could not catch it.",
        )

    def dialogue(self) -> str:
        spot = self.draw.choice(_HIDING)
        meeting = self.one(
            f"Just then, {self.friend} the {self.friend_kind} came by.",
            f"A {self.draw.choice(_TRAITS)} {self.friend_kind} named {self.friend} heard "
            f"{self.them}.",
            f"{self.name} asked {self.friend} the {self.friend_kind} for help.",
            f"On the way {self.they} met {_a(self.friend_kind)} called {self.friend}.",
        )
        question = self.one(
            f'"Why are you so {self.bad}?" asked {self.friend}.',
            f'"What is the matter, {self.name}?" said {self.friend}.',
            f'"Can I help you?" asked the {self.friend_kind}.',
            f'{self.friend} said, "Do not be {self.bad}. I will help you."',
        )
        answer = self.one(
            f'"I need my {self.thing}," said {self.name}.',
            f'"I do not know what to do," {self.they} said.',
            f'"Please stay with me," said {self.name}.',
            f"{self.name} told {self.friend} all about the {self.colour} {self.thing}.",
            "",
        )
        plan = self.one(
            f'"Let us look {spot}," said {self.friend}.',
            f'"I have an idea," said the {self.friend_kind}. "We can use my '
            f'{self.draw.choice(_THINGS)}!"',
            f'"First we eat {_a(self.food)}, and then we try again," said {self.friend}.',
            f"{self.friend} smiled and gave {self.them} {_a(self.food)}.",
        )
        return f"{meeting} {question} {answer} {plan}"

    def ending(self) -> str:
        spot = self.draw.choice(_HIDING)
        solution = self.one(
            f"Together they looked {spot}, and there was the {self.colour} {self.thing}!",
            f"They worked all {self.draw.choice(_TIMES)}, and at last it was done.",
            f"{self.friend} held the {self.draw.choice(_THINGS)} and {self.name} climbed up. "
            f"It worked!",
            f"They walked past the {self.draw.choice(_PLACES)} and the "
            f"{self.draw.choice(_PLACES)}, and soon all was well.",
        )
        feeling = self.one(
            f"{self.name} was so {self.good} that {self.they} danced.",
            f'"Thank you, {self.friend}!" said {self.name}.',
            f"{self.name} gave {self.friend} a big hug.",
            f"They were both very {self.good}.",
        )
        close = self.one(
            f"From that day on, {self.name} and {self.friend} were best friends.",
            f"{self.name} learned that {self.draw.choice(_LESSONS)}.",
            f"And {self.they} knew that {self.draw.choice(_LESSONS)}.",
            f"They shared {_a(self.food)} and went home to the {self.place}.",
            f"That night, {self.name} slept with the {self.thing} beside {self.them}.",
            "The end.",
        )
        return f"{solution} {feeling} {close}"

    def text(self) -> str:
        parts = [self.opening(), self.problem(), self.dialogue()]
        if self.draw.random() < 0.3:
            parts += [self.problem(), self.dialogue()]
        return " ".join(" ".join([*parts, self.ending()]).split())


def grammar_stories(count: int, seed: int = 0) -> list[str]:
    """Draw simple stories of about 100 words each, a few hundred words of vocabulary in all.

    Args:
        count: number of stories.
        seed: seed of the draw; the first stories of a longer draw are those of a
            shorter one.

    Raises:
        TypeError: a count or seed that is not an integer.
        ValueError: a count below 1 or a negative seed.
    """
    for name, value in (("count", count), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    draw = random.Random(seed)
    return [_Story(draw).text() for _ in range(count)]
