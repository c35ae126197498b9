"""Stories in simple words: TinyStories, a local file, or a grammar written for this project.

The grammar needs no download and one seed is one corpus, which is what tests
and the pages built on a laptop use. It imitates the plan of a children's story
(someone, somewhere, a wish, a problem, help, an ending), not the richness of
TinyStories: a model learns it faster, and every compressor packs it better.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "SEPARATOR",
    "Corpus",
    "download_tinystories",
    "grammar_stories",
    "load_corpus",
    "read_stories",
    "stories",
    "text_file",
]

SEPARATOR = "<|endoftext|>"

HUB_REPOSITORY = "roneneldan/TinyStories"
HUB_REVISION = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
HUB_FILE = "TinyStories-train.txt"
# As several public repositories give it. It was not checked against the hub by this project.
HUB_SHA256 = "c5cf5e22ff13614e830afbe61a99fbcbe8bcb7dd72252b989fa1117a368d401f"
# All 2 million are far more than any experiment here takes, and minutes of tokenising.
MOST_STORIES = 50_000
_INSTRUCTIONS = (
    "give a text file with the parameter path or the variable LLBOOK_TINYSTORIES, "
    "or use corpus='grammar'"
)

_GIRLS = [
    "Lily",
    "Mia",
    "Anna",
    "Sue",
    "Rosie",
    "Ella",
    "Nora",
    "Tilda",
    "Ivy",
    "Grace",
    "Wanda",
    "Zoe",
    "Clara",
    "Petra",
]
_BOYS = [
    "Tom",
    "Ben",
    "Max",
    "Sam",
    "Leo",
    "Finn",
    "Oscar",
    "Jack",
    "Hugo",
    "Theo",
    "Emil",
    "Noah",
    "Pip",
    "Karl",
]
_ANIMALS = [
    "cat",
    "dog",
    "fox",
    "rabbit",
    "bear",
    "mouse",
    "duck",
    "frog",
    "owl",
    "hedgehog",
    "squirrel",
    "pony",
    "goat",
    "lamb",
    "turtle",
    "beaver",
    "crow",
    "badger",
]
_TRAITS = [
    "little",
    "small",
    "brave",
    "shy",
    "curious",
    "happy",
    "quiet",
    "clever",
    "kind",
    "silly",
    "gentle",
    "careful",
    "merry",
    "stubborn",
    "sleepy",
    "patient",
]
_COLOURS = [
    "red",
    "blue",
    "green",
    "yellow",
    "white",
    "brown",
    "purple",
    "orange",
    "silver",
    "golden",
]
_THINGS = [
    "ball",
    "kite",
    "hat",
    "book",
    "drum",
    "boat",
    "lamp",
    "key",
    "bell",
    "cup",
    "blanket",
    "basket",
    "whistle",
    "puzzle",
    "ribbon",
    "button",
    "spoon",
    "scarf",
    "bucket",
    "crayon",
    "feather",
    "marble",
    "wagon",
    "flute",
    "mirror",
    "ladder",
    "lantern",
    "shell",
]
_FOODS = [
    "apple",
    "cake",
    "pear",
    "carrot",
    "cookie",
    "plum",
    "pancake",
    "berry",
    "bun",
    "peach",
    "honey-pot",
    "pie",
]
_PLACES = [
    "park",
    "garden",
    "forest",
    "kitchen",
    "barn",
    "meadow",
    "beach",
    "school",
    "hill",
    "market",
    "village",
    "attic",
    "library",
    "orchard",
    "river",
    "lake",
    "bakery",
    "cave",
]
_WEATHER = ["sunny", "rainy", "windy", "cold", "warm", "snowy", "foggy", "bright", "cloudy"]
_TIMES = ["day", "morning", "afternoon", "evening"]
_HIDING = [
    "under the bed", "behind the door", "in the tall grass", "on top of the roof",
    "inside an old box", "near the well", "up in a tree", "beside the gate",
    "between two big stones", "at the bottom of the pond", "under a pile of leaves",
]  # fmt: skip
_GOOD = ["happy", "glad", "proud", "pleased", "thankful", "cheerful"]
_BAD = ["sad", "worried", "upset", "cross", "afraid", "lonely", "tired"]
_LESSONS = [
    "it is good to share", "a friend is better than a toy", "it helps to ask",
    "small steps can go a long way", "it is best to tell the truth",
    "even little ones can help", "waiting can be worth it", "it is fine to be afraid",
    "being kind costs nothing", "two can do more than one",
]  # fmt: skip
_GAMES = ["hide and seek", "catch", "pirates", "shop", "house", "tag"]


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


def read_stories(path: str | os.PathLike[str], count: int | None = None) -> list[str]:
    """Read stories from a UTF-8 text file (``.gz`` or plain), a ``<|endoftext|>`` line between two.

    Args:
        count: stop after this many; all of them by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a count below 1, text that is not UTF-8, or no story at all.
    """
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    path = Path(path)
    found: list[str] = []
    lines: list[str] = []

    def close() -> None:
        story = "".join(lines).strip()
        lines.clear()
        if story:
            found.append(story)

    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for line in file:
                if line.strip() == SEPARATOR:
                    close()
                    if count is not None and len(found) == count:
                        return found
                else:
                    lines.append(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    close()
    if not found:
        raise ValueError(f"expected stories separated by {SEPARATOR!r} lines, got none in {path}")
    return found


def stories(count: int, seed: int = 0, path: str = "") -> list[str]:
    """Stories from ``path``, else from the file named by ``LLBOOK_TINYSTORIES``, else the grammar's.

    Raises:
        ValueError: see the two sources; and a file with fewer than ``count`` stories.
    """
    path = path or os.environ.get("LLBOOK_TINYSTORIES", "")
    if not path:
        return grammar_stories(count, seed)
    found = read_stories(path, count)
    if len(found) < count:
        raise ValueError(f"asked for {count} stories, {path} has {len(found)}")
    return found


@dataclass(frozen=True)
class Corpus:
    """Stories, and which they are.

    Attributes:
        name: ``"tinystories"``, from the hub; ``"file"``; or ``"grammar"``.
        texts: the stories.
        sha256: of the stories in UTF-8, joined by lines with the separator.
        notice: one line that says what was used, to be shown.
    """

    name: str
    texts: tuple[str, ...]
    sha256: str
    notice: str


def load_corpus(
    source: str = "auto", path: str = "", *, count: int | None = None, seed: int = 0
) -> Corpus:
    """The stories of an experiment.

    Args:
        source: ``"auto"``: the file at ``path``, else the one that
            ``LLBOOK_TINYSTORIES`` names, else TinyStories where it was downloaded
            before, else the grammar, with a notice that says so. ``"tinystories"``:
            the file named, else the hub's, downloaded where it has to be.
            ``"grammar"``: the grammar.
        path: a UTF-8 text file, plain or ``.gz``.
        count: at most this many stories, from the front; 50,000 unless given. The
            grammar draws so many (2,000 by default).
        seed: of the grammar's draw.

    Raises:
        ValueError: an unknown source, a file without stories; a download that is
            not the file expected.
        FileNotFoundError: no such file.
        ConnectionError: TinyStories was asked for by name and could not be had.
    """
    file = text_file(source, path)
    if file is None:
        notice = "Text: stories drawn from this book's own grammar, NOT TinyStories."
        if source == "auto":
            notice += (
                " TinyStories is neither here nor was it asked for by name; to use real text, "
                "set LLBOOK_TINYSTORIES, the parameter path, or corpus='tinystories'."
            )
        return _corpus("grammar", grammar_stories(count or 2000, seed), notice)
    texts = read_stories(file, count or MOST_STORIES)
    if path or os.environ.get("LLBOOK_TINYSTORIES"):
        return _corpus("file", texts, f"Text: {len(texts):,} stories of {file.name}.")
    notice = f"Text: the first {len(texts):,} stories of TinyStories."
    return _corpus("tinystories", texts, notice)


def text_file(source: str = "auto", path: str = "") -> Path | None:
    """The file that :func:`load_corpus` reads, now; None where it draws from the grammar.

    Raises:
        ValueError, ConnectionError: as there.
    """
    if source not in ("auto", "tinystories", "grammar"):
        raise ValueError(f"corpus must be 'auto', 'tinystories' or 'grammar', got {source!r}")
    if source == "grammar":
        if path:
            raise ValueError(f"corpus='grammar' reads no file, got path={path!r}")
        return None
    if file := path or os.environ.get("LLBOOK_TINYSTORIES", ""):
        return Path(file)
    return download_tinystories(cached_only=source == "auto")


def _corpus(name: str, texts: Sequence[str], notice: str) -> Corpus:
    digest = hashlib.sha256(f"\n{SEPARATOR}\n".join(texts).encode()).hexdigest()
    return Corpus(name, tuple(texts), digest, notice)


def download_tinystories(*, cached_only: bool = False, sha256: str = HUB_SHA256) -> Path | None:
    """TinyStories' training text from the Hugging Face hub, checked before use.

    ``huggingface_hub`` caches it, and goes on with a download that was interrupted.
    The variables HF_ENDPOINT and HF_HOME work as everywhere. A file that was
    checked is not hashed again until its size or time changes.

    Args:
        cached_only: make no request; None where it was not downloaded before.
        sha256: the checksum expected.

    Raises:
        ConnectionError: it cannot be downloaded; says what else to do.
        ValueError: its checksum is another; the file is not used.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        if cached_only:
            return None
        raise ConnectionError(
            f"TinyStories needs huggingface_hub (pip install huggingface_hub); or {_INSTRUCTIONS}"
        ) from error
    try:
        path = Path(
            hf_hub_download(
                HUB_REPOSITORY,
                HUB_FILE,
                repo_type="dataset",
                revision=HUB_REVISION,
                local_files_only=cached_only,
                token=False,
            )
        )
    except LocalEntryNotFoundError as error:
        if cached_only:
            return None
        raise ConnectionError(
            f"no network and no cached TinyStories ({error}); {_INSTRUCTIONS}"
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"TinyStories was not downloaded ({error}); {_INSTRUCTIONS}"
        ) from error
    facts = path.stat()
    mark = path.with_name(f"{path.name}.checked")
    checked = f"{sha256} {facts.st_size} {facts.st_mtime_ns}"
    if mark.is_file() and mark.read_text() == checked:
        return path
    with open(path, "rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        raise ValueError(
            f"{path} has SHA-256 {got}, expected {sha256}; it is not used. Delete it to download "
            f"it again; or {_INSTRUCTIONS}"
        )
    mark.write_text(checked)
    return path
