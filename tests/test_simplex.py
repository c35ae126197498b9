"""The projection against a sort, a library's QP, its own properties, and hostile rows."""

import cvxpy
import numpy as np
import pytest
import torch

from llbook.optimal.simplex import _project_tensor, project


def by_sorting(v: np.ndarray) -> np.ndarray:
    """Projection by the classical sort, row by row, in float64."""
    out = np.empty_like(v, dtype=np.float64)
    for i, row in enumerate(v.astype(np.float64)):
        top = row.max()
        ordered = np.sort(row - top)[::-1]
        thresholds = (np.cumsum(ordered) - 1) / np.arange(1, len(row) + 1)
        tau = thresholds[np.nonzero(ordered > thresholds)[0][-1]]
        out[i] = np.maximum(row - top - tau, 0)
    return out


TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
ROUTES = {"compiled": project, "tensor": lambda v: _project_tensor(v)[0]}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("width", [1, 2, 3, 17, 4096])
@pytest.mark.parametrize("spread", [1e-4, 1.0, 30.0])
def test_agrees_with_a_sort(route, dtype, width, spread):
    generator = torch.Generator().manual_seed(width)
    v = (torch.randn(40, width, generator=generator, dtype=torch.float64) * spread).to(dtype)
    expected = torch.from_numpy(by_sorting(v.numpy()))
    assert (ROUTES[route](v).double() - expected).abs().max() <= TOLERANCE[dtype]


def test_agrees_with_a_quadratic_program():
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    for row, got in zip(v.numpy(), project(v).numpy(), strict=True):
        w = cvxpy.Variable(len(row))
        problem = cvxpy.Problem(
            cvxpy.Minimize(cvxpy.sum_squares(w - row)), [w >= 0, cvxpy.sum(w) == 1]
        )
        problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        assert np.abs(got - w.value).max() < 1e-6


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "row",
    [
        [0.3] * 7,
        [1e9] * 5,
        [1e9, 1.0, -1e9, 0.0],
        [1e30, -1e30, 0.0],
        [-1e9, -1e9, -1e9 + 64],
        [0.0, 0.0, 1.0],
        [-5.0],
        [1e-30, 0.0, -1e-30],
    ],
    ids=str,
)
def test_hostile_rows(dtype, row):
    v = torch.tensor([row], dtype=dtype)
    got = project(v)
    assert (got >= 0).all()
    assert abs(float(got.double().sum()) - 1) <= 2 * TOLERANCE[dtype]
    expected = torch.from_numpy(by_sorting(v.numpy()))
    assert (got.double() - expected).abs().max() <= 2 * TOLERANCE[dtype]


def test_is_a_projection():
    v = torch.randn(30, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    once = project(v)
    assert torch.allclose(project(once), once, atol=1e-14, rtol=0)
    other = project(v + 0.01 * torch.randn(30, 50, generator=torch.Generator().manual_seed(2)))
    assert (
        torch.linalg.norm(once - other, dim=1)
        <= torch.linalg.norm(
            0.01 * torch.randn(30, 50, generator=torch.Generator().manual_seed(2)), dim=1
        )
        + 1e-12
    ).all()


def test_leaves_its_argument_alone_and_takes_one_row():
    v = torch.tensor([0.2, 3.0, -1.0])
    kept = v.clone()
    assert project(v).tolist() == [0.0, 1.0, 0.0]
    assert torch.equal(v, kept)


def test_entries_as_far_apart_as_numbers_can_be():
    v = torch.tensor([[3e38, -3e38, 3e38, 0.0]])
    assert project(v).tolist() == [[0.5, 0.0, 0.5, 0.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_names_the_row_that_is_not_finite(value, dtype):
    v = torch.zeros(4, 33, dtype=dtype)
    v[2, 32] = value
    with pytest.raises(ValueError, match="row 2 of 4"):
        project(v)


def test_refuses_what_is_not_a_matrix_of_floats():
    with pytest.raises(TypeError, match="torch.int64"):
        project(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="ndarray"):
        project(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"\(2, 0\)"):
        project(torch.ones(2, 0))
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        project(torch.ones(1, 2, 3))
