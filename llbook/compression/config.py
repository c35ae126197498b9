"""Parameters of the compression chapter."""

from __future__ import annotations

from pydantic import Field

from llbook.parameters import FileName, Parameters

__all__ = ["CompressionConfig"]


class CompressionConfig(Parameters):
    """Parameters of the compression chapter; the defaults are those of `laptop`."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of corpus, labels and θ_0")
    corpus: FileName = Field("", description="a local file of stories; empty: the grammar's")
    story_count: int = Field(350, ge=1, le=10**6, description="stories in the corpus")
    lanes: int = Field(8, ge=1, le=4096, description="stretches of the text read side by side")
    window: int = Field(32, ge=1, le=1024, description="symbols of a lane in a batch")
    hidden: int = Field(64, ge=4, le=1024, multiple_of=4, description="width of the model")
    layers: int = Field(1, ge=1, le=16, description="blocks of the model")
    learning_rate: float = Field(6e-3, gt=0, le=10, description="η of Adam")
    label_count: int = Field(4096, ge=16, le=2**20, description="M, labels coded")
    dimension: int = Field(32, ge=1, le=4096, description="D, inputs of the perceptron")
