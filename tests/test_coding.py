import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import parameter_cell

import llbook
from llbook.compression import coders
from llbook.compression.codec import Trace, code_length, decode, encode
from llbook.compression.coders import LabelCoder, LanguageCoder, label_inputs
from llbook.compression.config import CompressionConfig
from llbook.compression.stream import CorruptStreamError, pack, read_header
from llbook.compression.text import decode_text, encode_text, join_words, split_words
from llbook.data.grammar import grammar_stories
from llbook.data.stories import SEPARATOR, read_stories, stories

SMALL = LanguageCoder(vocabulary=11, lanes=4, window=6, hidden=8, heads=2)


def _symbols(count: int, vocabulary: int = 11) -> np.ndarray:
    # skewed and predictable, so that there is something to learn
    draw = np.random.default_rng(5).integers(0, vocabulary, count)
    return np.where(np.arange(count) % 3 > 0, draw // 4, draw).astype(np.int32)


def _labels(count: int, dimension: int, seed: int) -> np.ndarray:
    teacher = torch.randn(dimension, generator=torch.Generator().manual_seed(99))
    return (label_inputs(count, dimension, seed) @ teacher > 0).int().numpy()


@pytest.fixture(scope="module")
def text() -> str:
    return "\n\n".join(grammar_stories(24, seed=1))


@pytest.fixture(scope="module")
def coded(text) -> tuple[bytes, Trace]:
    trace = Trace()
    return encode_text(text, seed=3, trace=trace, hidden=32, lanes=4, window=16), trace


# 23, 24, 25: batches that end early, lanes of unequal length; 3: fewer symbols than lanes
@pytest.mark.parametrize("count", [1, 3, 4, 23, 24, 25, 200])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_language_symbols_survive(count, optimiser):
    config = LanguageCoder(
        vocabulary=11, lanes=4, window=6, hidden=8, heads=2, optimiser=optimiser, layers=2
    )
    symbols = _symbols(count)
    stream = encode(symbols, config, seed=7)
    np.testing.assert_array_equal(decode(stream, seed=7), symbols)


@pytest.mark.parametrize("count", [1, 16, 300])
def test_labels_survive(count):
    config, symbols = LabelCoder(dimension=5), _labels(count, 5, seed=2)
    np.testing.assert_array_equal(decode(encode(symbols, config, seed=2), seed=2), symbols)


def test_learned_labels_take_less_than_a_bit():
    symbols = _labels(2000, 8, seed=2)
    trace = code_length(symbols, LabelCoder(dimension=8), seed=2)
    assert trace.total_bits < 0.5 * len(symbols)
    # labels that do not depend on the inputs cannot be compressed
    noise = np.random.default_rng(0).integers(0, 2, 2000)
    assert code_length(noise, LabelCoder(dimension=8), seed=2).total_bits > 0.95 * 2000


def test_a_text_survives_with_its_alphabet(text, coded):
    assert decode_text(coded[0], seed=3) == text
    header = read_header(coded[0])
    assert "seed" not in str(header)
    assert header["vocabulary"] == len(header["alphabet"])


def test_overhead_is_small(coded):
    stream, trace = coded
    assert sum(trace.symbols) == len(split_words(decode_text(stream, seed=3))[0])
    # a range coder's last words are not full: two of them at most
    assert trace.total_bits - 1 < trace.written[-1] < 1.01 * trace.total_bits + 64
    assert np.all(np.diff(trace.written) >= 0)
    running = np.cumsum(trace.bits)
    assert np.max(np.abs(np.array(trace.written) - running)) < 0.01 * running[-1] + 64


def test_learning_pays(coded):
    trace = coded[1]
    assert trace.losses[-5:].mean() < 0.8 * trace.losses[0]
    assert trace.losses[0] == pytest.approx(
        np.log(len(read_header(coded[0])["alphabet"])), rel=0.05
    )


def test_code_length_is_the_codes_length(text, coded):
    """Reading whole windows or one position at a time: the same loss, but for rounding."""
    symbols, alphabet = split_words(text)
    config = LanguageCoder(vocabulary=len(alphabet), hidden=32, lanes=4, window=16)
    ours = code_length(symbols, config, seed=3)
    assert ours.symbols == coded[1].symbols
    assert ours.written == []
    np.testing.assert_allclose(ours.bits, coded[1].bits, rtol=2e-3)
    assert ours.total_bits == pytest.approx(coded[1].total_bits, rel=1e-4)


def test_a_second_process_needs_the_stream_and_the_seed_alone(tmp_path, text, coded):
    (tmp_path / "stream").write_bytes(coded[0])
    program = (
        "import pathlib, sys; from llbook.compression.text import decode_text;"
        "stream = pathlib.Path('stream').read_bytes();"
        "pathlib.Path('text').write_bytes(decode_text(stream, seed=int(sys.argv[1])).encode())"
    )
    # more threads outside the codec than here: it must not matter
    environment = os.environ | {
        "PYTHONPATH": str(Path(llbook.__file__).parents[1]),
        "OMP_NUM_THREADS": "2",
    }
    subprocess.run([sys.executable, "-c", program, "3"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "text").read_bytes() == text.encode()


def test_the_codec_leaves_torch_as_it_was():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            stream = encode(_symbols(50), SMALL)
        decode(stream)
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        state = torch.get_rng_state()
        encode(_symbols(50), SMALL)
        assert torch.equal(state, torch.get_rng_state())
    finally:
        torch.set_num_threads(threads)


def test_one_seed_is_one_stream():
    first, again = (encode(_symbols(100), SMALL, seed=4) for _ in range(2))
    assert first == again
    assert first != encode(_symbols(100), SMALL, seed=5)


def test_a_wrong_seed_is_named():
    for config, symbols in ((SMALL, _symbols(60)), (LabelCoder(5), _labels(60, 5, 1))):
        stream = encode(symbols, config, seed=1)
        with pytest.raises(CorruptStreamError, match="wrong seed: 2"):
            decode(stream, seed=2)


def test_every_truncation_is_found():
    stream = encode(_symbols(60), SMALL)
    for size in range(len(stream)):
        with pytest.raises(CorruptStreamError, match="truncated stream"):
            decode(stream[:size])
    with pytest.raises(CorruptStreamError, match="damaged stream: expected"):
        decode(stream + b"\0")


def test_every_flipped_bit_is_found():
    stream = encode(_symbols(30), SMALL)
    for position in range(len(stream)):
        damaged = bytearray(stream)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(
            CorruptStreamError, match=r"damaged|truncated|not a stream|format version"
        ):
            decode(bytes(damaged))


def test_a_replay_that_drifts_is_found(monkeypatch):
    """Another machine's rounding, played by a change of one unit in the last place."""
    stream = encode(_symbols(400), SMALL)
    honest = coders.logits

    def drifting(*arguments):
        return honest(*arguments) * (1 + 2**-18)

    monkeypatch.setattr(coders, "logits", drifting)
    with pytest.raises(CorruptStreamError, match=r"replay diverged.*PyTorch"):
        decode(stream)


def test_a_header_of_another_coder_is_refused():
    words = np.zeros(1, np.uint32)
    for header in ({}, {"model": "oracle"}, {"model": "language", "config": {"vocabulary": 1}}):
        with pytest.raises(CorruptStreamError, match="does not describe a coder"):
            decode(pack(header, words))
    with pytest.raises(CorruptStreamError, match="without an alphabet"):
        decode_text(encode(_symbols(20), SMALL))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: encode([0, 11], SMALL), ValueError, r"\[0, 11\), got 0..11"),
        (lambda: encode([-1], SMALL), ValueError, "got -1..-1"),
        (lambda: encode([], SMALL), ValueError, "M ≥ 1"),
        (lambda: encode([[1]], SMALL), ValueError, r"shape \(M,\)"),
        (lambda: encode([0.5], SMALL), TypeError, "got float64"),
        (lambda: encode([1], SMALL, seed=-1), ValueError, "at least 0, got -1"),
        (lambda: encode([1], SMALL, alphabet=["a"]), ValueError, "has 1 entries, V is 11"),
        (lambda: encode([1], "zip"), TypeError, "got str"),
        (lambda: code_length([1], None), TypeError, "NoneType"),
        (lambda: decode("text"), TypeError, "as bytes, got str"),
        (lambda: LanguageCoder(1), ValueError, "vocabulary must be at least 2, got 1"),
        (lambda: LanguageCoder(9, lanes=0), ValueError, "lanes must be at least 1, got 0"),
        (lambda: LanguageCoder(9, window=1.5), TypeError, "window must be an integer, got 1.5"),
        (lambda: LanguageCoder(9, optimiser="x"), ValueError, "'sgd' or 'adam', got 'x'"),
        (lambda: LanguageCoder(9, learning_rate=float("nan")), ValueError, "got nan"),
        (lambda: LabelCoder(0), ValueError, "dimension must be at least 1, got 0"),
        (lambda: split_words(""), ValueError, "empty"),
        (lambda: grammar_stories(0), ValueError, "count must be at least 1, got 0"),
        (lambda: grammar_stories(2.0), TypeError, "count must be an integer, got 2.0"),
        (lambda: grammar_stories(2, -1), ValueError, "got -1"),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_divergence_is_named():
    config = LanguageCoder(
        vocabulary=11, lanes=4, window=6, hidden=8, heads=2, optimiser="sgd", learning_rate=1e30
    )
    with pytest.raises(FloatingPointError, match="diverged before batch"):
        encode(_symbols(400), config)
    with pytest.raises(FloatingPointError, match="diverged before batch"):
        code_length(_symbols(400), config)


def test_words_join_to_the_text():
    text = 'A "new-born"  cat,\tsaid\n\nÉmile — 5 times.'
    symbols, alphabet = split_words(text)
    assert join_words(symbols, alphabet) == text
    assert alphabet == sorted(set(alphabet))


def test_grammar_stories_are_seeded_and_varied():
    drawn = grammar_stories(60, seed=2)
    assert drawn == grammar_stories(60, seed=2)
    assert drawn[:10] == grammar_stories(10, seed=2)
    assert len(set(drawn)) == 60
    assert drawn != grammar_stories(60, seed=3)
    words = split_words(" ".join(grammar_stories(300)))[1]
    assert 300 < len(words) < 600
    for story in drawn:
        assert "  " not in story
        assert "{" not in story
        assert story[-1] in '.!"'


@pytest.mark.parametrize("name", ["stories.txt", "stories.txt.gz"])
def test_stories_from_a_file(tmp_path, monkeypatch, name):
    path = tmp_path / name
    content = f"Once.\n\nThe end.\n{SEPARATOR}\n\n{SEPARATOR}\nTwice, été.\n{SEPARATOR}\nThrice."
    data = content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_stories(path) == ["Once.\n\nThe end.", "Twice, été.", "Thrice."]
    assert read_stories(path, 1) == ["Once.\n\nThe end."]
    monkeypatch.setenv("LLBOOK_TINYSTORIES", str(path))
    assert stories(2) == ["Once.\n\nThe end.", "Twice, été."]
    with pytest.raises(ValueError, match="asked for 4 stories"):
        stories(4)
    monkeypatch.delenv("LLBOOK_TINYSTORIES")
    assert stories(2, 5) == grammar_stories(2, 5)


def test_bad_story_files_are_refused(tmp_path):
    path = tmp_path / "stories"
    path.write_text(f"\n{SEPARATOR}\n")
    with pytest.raises(ValueError, match="got none"):
        read_stories(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_stories(path)
    with pytest.raises(ValueError, match="count must be at least 1"):
        read_stories(path, 0)
    with pytest.raises(FileNotFoundError):
        read_stories(tmp_path / "absent")


def test_the_parameters_of_the_pages_are_the_configs():
    defaults = {}
    for page in ("compression", "compressors"):
        defaults |= {name: default for name, (_, default, _) in parameter_cell(page).items()}
    assert defaults == CompressionConfig().flat()
