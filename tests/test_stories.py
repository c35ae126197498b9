"""Text, tokens, windows and perturbation."""

import gzip
import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from llbook.data import stories as corpora
from llbook.data.grammar import grammar_stories
from llbook.data.perturb import edit_distance, perturb
from llbook.data.stories import (
    HUB_FILE,
    HUB_REVISION,
    HUB_SHA256,
    SEPARATOR,
    download_tinystories,
    load_corpus,
    read_stories,
    text_at_hand,
)
from llbook.data.tokens import build_vocabulary, encode_texts
from llbook.data.windows import story_examples
from llbook.tasks.transformer import PAD

SAMPLE = os.environ.get("LLBOOK_TINYSTORIES", "")
real_text = pytest.mark.skipif(not SAMPLE, reason="LLBOOK_TINYSTORIES names no file")


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch, tmp_path):
    monkeypatch.delenv("LLBOOK_TINYSTORIES", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def grammar():
    return load_corpus("grammar", count=300)


def test_the_grammar_says_that_it_is_not_tinystories(grammar):
    assert grammar.name == "grammar"
    assert "NOT TinyStories" in grammar.notice
    fallback = load_corpus("auto", count=300)
    assert fallback.sha256 == grammar.sha256
    assert "LLBOOK_TINYSTORIES" in fallback.notice


def test_a_file_and_the_variable(tmp_path, monkeypatch):
    file = tmp_path / "text.txt"
    file.write_text(f"One.\n{SEPARATOR}\nTwo.\n", encoding="utf-8")
    named = load_corpus(path=str(file))
    assert (named.name, list(named.texts)) == ("file", ["One.", "Two."])
    assert named.sha256 == hashlib.sha256(f"One.\n{SEPARATOR}\nTwo.".encode()).hexdigest()
    monkeypatch.setenv("LLBOOK_TINYSTORIES", str(file))
    assert load_corpus("tinystories").sha256 == named.sha256


def test_the_text_at_hand_is_named_by_its_content(tmp_path, monkeypatch):
    assert text_at_hand() == "grammar"
    file = tmp_path / "text.txt"
    with monkeypatch.context() as downloaded:
        downloaded.setattr(corpora, "download_tinystories", lambda **_: file)
        assert text_at_hand() == HUB_SHA256
    file.write_text("One.")
    monkeypatch.setenv("LLBOOK_TINYSTORIES", str(file))
    assert text_at_hand() == hashlib.sha256(b"One.").hexdigest()
    file.unlink()
    with pytest.raises(FileNotFoundError, match="LLBOOK_TINYSTORIES: got '.*text.txt'; expected"):
        text_at_hand()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"source": "wiki"}, "'wiki'"), ({"source": "grammar", "path": "x.txt"}, "x.txt")],
)
def test_bad_sources(arguments, words):
    with pytest.raises(ValueError, match=words):
        load_corpus(**arguments)


def test_tinystories_by_name_without_a_network_fails_with_instructions(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two attempts
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(ConnectionError, match="LLBOOK_TINYSTORIES.*corpus='grammar'"):
        load_corpus("tinystories")


TEXT = f"Once.\n{SEPARATOR}\nTwice.\n".encode() * 1000


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub with one file; notes what is fetched of it, hangs up when told to."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self, body):
            if not self.path.endswith(HUB_FILE):  # what else the library asks for
                self.send_error(404)
                return
            asked = self.headers.get("Range", "")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(TEXT) - 1}/{len(TEXT)}")
            digest = hashlib.sha256(TEXT).hexdigest()
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", HUB_REVISION)
            self.send_header("Content-Length", str(len(TEXT) - start))
            self.end_headers()
            if body:
                sent = TEXT[start : self.server.hang_up_after]
                self.server.hang_up_after = None
                self.server.fetched.append((start, len(sent)))
                self.wfile.write(sent)

        def do_HEAD(self):
            self._answer(False)

        def do_GET(self):
            self._answer(True)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.hang_up_after, server.fetched = None, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", root)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            root + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield server
        server.shutdown()


def test_a_download_is_checked_cached_and_found_again(hub):
    digest = hashlib.sha256(TEXT).hexdigest()
    path = download_tinystories(sha256=digest)
    assert path.read_bytes() == TEXT
    assert download_tinystories(sha256=digest) == path
    assert hub.fetched == [(0, len(TEXT))]
    hub.shutdown()
    assert download_tinystories(cached_only=True, sha256=digest) == path
    # a cache that cannot be written to serves too, though nothing is noted in it
    mark = path.with_name(f"{path.name}.checked")
    mark.unlink()
    mark.mkdir()
    assert download_tinystories(cached_only=True, sha256=digest) == path


def test_an_interrupted_download_goes_on_where_it_was(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two attempts
    # what a whole chunk did not arrive of is fetched again
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.hang_up_after = len(TEXT) // 2
    path = download_tinystories(sha256=hashlib.sha256(TEXT).hexdigest())
    assert path.read_bytes() == TEXT
    first, *others = hub.fetched
    assert first == (0, len(TEXT) // 2)
    assert others and all(start > 0 for start, _ in others)


def test_a_file_of_another_content_is_not_used(hub):
    with pytest.raises(ValueError, match="expected 0000.*not used"):
        download_tinystories(sha256="0" * 64)


@pytest.fixture(scope="module")
def encoded_sample():
    return encode_texts(load_corpus(path=SAMPLE).texts)


@real_text
@pytest.mark.parametrize(("size", "share"), [(4000, 0.54), (4500, 0.33), (5000, 0.2), (6000, 0.06)])
def test_unknown_tokens_of_real_text(encoded_sample, size, share):
    """Shares in per cent, as counted outside this project on the same text."""
    vocabulary = build_vocabulary(encoded_sample, size)
    known = set(vocabulary.ids)
    tokens = sum(len(ids) for ids in encoded_sample)
    unknown = sum(piece not in known for ids in encoded_sample for piece in ids)
    assert 100 * unknown / tokens == pytest.approx(share, abs=0.01)


def test_tokens_there_and_back(grammar):
    vocabulary = build_vocabulary(encode_texts(grammar.texts), 300)
    assert vocabulary.size == 300
    ids = vocabulary.encode("Once upon a time, there was a zeppelin.")
    assert vocabulary.unknown in ids and max(ids) == vocabulary.unknown
    text = vocabulary.decode([*ids, PAD])
    assert text.startswith("Once upon a time, there was a") and "[UNK]" in text
    with pytest.raises(ValueError, match="got 300"):
        vocabulary.decode([300])


def test_more_types_than_there_are(grammar):
    with pytest.raises(ValueError, match=r"got 5000, but .* only \d+ types"):
        build_vocabulary(encode_texts(grammar.texts), 5000)


def examples(corpus, **changes):
    settings = {"size": 40, "desired_size": 20, "length": 16, "vocabulary": 200}
    return story_examples(corpus, **(settings | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perturbed_share": -0.25}, "perturbed_share must be from 0 to 1, got -0.25"),
        ({"perturbed_share": float("nan")}, "perturbed_share must be from 0 to 1, got nan"),
        ({"desired_size": 0}, "desired_size must be at least 1, got 0"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"perturbations": -1}, "perturbations must be at least 0, got -1"),
    ],
)
def test_sizes_and_shares_out_of_range(grammar, changes, message):
    with pytest.raises(ValueError, match=message):
        examples(grammar, **changes)


def test_no_stories_are_not_the_usual_number():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        load_corpus("grammar", count=0)


def test_no_story_is_in_two_sets(grammar):
    found = examples(grammar, perturbed_share=0.0)
    assert found.training.shape == (40, 17) and found.desired.shape == found.test.shape == (20, 17)
    texts = [
        [found.vocabulary.encode(text) for text in dict.fromkeys(grammar.texts)],
        (found.training, found.desired, found.test),
    ]

    def origin(window):
        row = window.tolist()
        return {
            i
            for i, ids in enumerate(texts[0])
            if any(ids[s : s + 17] == row for s in range(0, len(ids) - 16, 17))
        }

    held = [set.union(*(origin(w) for w in part)) for part in texts[1]]
    assert all(held)
    # an opening can occur in two stories: none may be explained by the same one alone
    train = set(found.story.tolist())
    assert len(train) > 1 and all(grammar.texts[s] for s in train)
    only = [set.union(*(o for w in p if len(o := origin(w)) == 1)) for p in texts[1]]
    assert not (only[0] & only[1] or only[0] & only[2] or only[1] & only[2])


def test_a_larger_training_set_extends_a_smaller_one(grammar):
    small, large = examples(grammar, size=20), examples(grammar, size=60)
    assert (small.clean == large.clean[:20]).all()
    assert (small.test == large.test).all() and (small.desired == large.desired).all()


def test_perturbation_is_of_the_share_asked_and_of_nothing_else(grammar):
    found = examples(grammar, perturbed_share=0.3)
    assert found.perturbed.sum() == 12
    clean = ~found.perturbed
    assert (found.training[clean] == found.clean[clean]).all()
    assert (found.edits[clean] == 0).all() and (found.edits[found.perturbed] > 0).all()
    again = examples(grammar, perturbed_share=0.3)
    assert (again.training == found.training).all()
    other = examples(grammar, perturbed_share=0.3, seed=1)
    assert not (other.training == found.training).all()


def test_too_few_examples(grammar):
    with pytest.raises(ValueError, match=r"asked for 100000 training examples of 17 .* in all"):
        examples(grammar, size=100000)


def test_edits_keep_two_tokens_and_the_length():
    draw = np.random.default_rng(0)
    lengths = [len(perturb(np.arange(10), 50, 30, draw)) for _ in range(200)]
    assert min(lengths) >= 2 and max(lengths) <= 10 and len(set(lengths)) > 2


def slow_distance(a, b):
    if not len(a) or not len(b):
        return len(a) + len(b)
    table = [[i + j for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
    return table[-1][-1]


def test_edit_distance_against_the_textbook():
    draw = np.random.default_rng(1)
    for _ in range(200):
        a, b = (draw.integers(4, size=draw.integers(1, 12)) for _ in range(2))
        assert edit_distance(a, b) == slow_distance(a, b)


def test_paths_are_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_corpus(path=str(Path(tmp_path, "nothing.txt")))


@pytest.mark.parametrize("damage", ["truncated", "not gzip"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = tmp_path / "stories.txt.gz"
    content = gzip.compress("\n".join(grammar_stories(50)).encode())
    path.write_bytes(content[:-200] if damage == "truncated" else b"plain text")
    with pytest.raises(ValueError, match=r"stories\.txt\.gz is not a whole gzip file"):
        read_stories(path)
