"""Small matrix products and exponentials for compiled kernels, in vectors of the processor.

Numba leaves it to the compiler's loop vectoriser, which makes little of small matrix
products and nothing of ``exp``. Here both are given in vectors: a tile of the product
is summed in registers, and e^x is 2^k Σ r^i/i!, accurate to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

__all__ = ["COLUMNS", "FLAGS", "apart", "exponential", "padded", "product", "transpose"]

COLUMNS = 16  # widths of the products are multiples of it
FLAGS = {"reassoc", "contract", "nsz"}
_ROWS = 4  # of a tile: 4 by 2 vectors is what sixteen registers hold
_BYTES = 64 if get_host_cpu_features().get("avx512f", False) else 32
# ln 2 in two parts, the first of so few digits that whole numbers times it are exact
_LN_2 = {
    32: (22713 / 2**15, 1.4286068203094173e-06),
    64: (2977044472 / 2**32, -4.2009150726810846e-11),
}
_INT = ir.IntType(64)
_BYTE = ir.IntType(8).as_pointer()


def padded(count: int) -> int:
    """``count`` rounded up to a multiple of :data:`COLUMNS`."""
    return -(-count // COLUMNS) * COLUMNS


def _number(value: int) -> ir.Constant:
    return ir.Constant(_INT, value)


def _fma(builder: Any, kind: ir.Type, name: str, *factors: Any) -> Any:
    declared = ir.FunctionType(kind, [kind] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, declared, f"llvm.fma.{name}"), factors
    )


@intrinsic
def apart(_):
    """Keeps the function that it stands in out of its callers' code: they compile sooner."""

    def codegen(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def _tile(rows: int, vectors: int) -> Callable[..., None]:
    """A tile of c (+)= a b: ``rows`` rows from i, ``vectors`` vectors of columns from j."""

    @intrinsic
    def tile(_, c, a, b, i, j, depth, fresh):
        def codegen(context, builder, signature, args):
            wide = signature.args[0].dtype.bitwidth
            scalar = context.get_data_type(signature.args[0].dtype)
            lanes = _BYTES * 8 // wide
            vector = ir.VectorType(scalar, lanes)
            i, j, depth, fresh = args[3:]
            arrays = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args[:3], args[:3], strict=True)
            ]
            steps = [cgutils.unpack_tuple(builder, array.strides, 2) for array in arrays]

            def place(which: int, row: Any, column: Any) -> Any:
                base = builder.bitcast(arrays[which].data, _BYTE)
                down, right = steps[which]
                return builder.gep(
                    base, [builder.add(builder.mul(row, down), builder.mul(column, right))]
                )

            def at(pointer: Any, n: int) -> Any:
                moved = builder.gep(pointer, [_number(n * _BYTES)])
                return builder.bitcast(moved, vector.as_pointer())

            def load(pointer: Any, n: int) -> Any:
                return builder.load(at(pointer, n), align=wide // 8)

            zero, none = _number(0), ir.Constant(vector, None)
            c_rows = [place(0, builder.add(i, _number(r)), j) for r in range(rows)]
            starts = [place(1, builder.add(i, _number(r)), zero) for r in range(rows)]
            starts.append(place(2, zero, j))
            sums = [load(row, n) for row in c_rows for n in range(vectors)]
            sums = [builder.select(fresh, none, value) for value in sums]
            before, loop = builder.block, builder.append_basic_block("depth")
            after = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            phis = []
            for value in (zero, *starts, *sums):
                phis.append(builder.phi(value.type))
                phis[-1].add_incoming(value, before)
            k, *pointers = phis[: rows + 2]
            b_row = [load(pointers[-1], n) for n in range(vectors)]
            first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
            fresh_sums = []
            for r in range(rows):
                one = builder.load(builder.bitcast(pointers[r], scalar.as_pointer()))
                one = builder.insert_element(none, one, ir.Constant(ir.IntType(32), 0))
                spread = builder.shuffle_vector(one, none, first)
                for n in range(vectors):
                    total = phis[rows + 2 + r * vectors + n]
                    name = f"v{lanes}f{wide}"
                    fresh_sums.append(_fma(builder, vector, name, spread, b_row[n], total))
            following = builder.add(k, _number(1))
            moves = [steps[1][1]] * rows + [steps[2][0]]
            moved = [builder.gep(p, [by]) for p, by in zip(pointers, moves, strict=True)]
            for phi, value in zip(phis, (following, *moved, *fresh_sums), strict=True):
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
            builder.position_at_end(after)
            for r, row in enumerate(c_rows):
                for n in range(vectors):
                    builder.store(fresh_sums[r * vectors + n], at(row, n), align=wide // 8)
            return context.get_dummy_value()

        numbers = (types.int64, types.int64, types.int64)
        return types.void(c, a, b, *numbers, types.boolean), codegen

    return tile


_tile_42, _tile_41 = _tile(_ROWS, 2), _tile(_ROWS, 1)
_tile_12, _tile_11 = _tile(1, 2), _tile(1, 1)


@intrinsic
def _any(_, array):
    """The array with strides that the compiler does not know: one compilation for all."""

    def codegen(context, builder, signature, args):
        return impl_ret_borrowed(context, builder, signature.return_type, args[0])

    return array.copy(layout="A")(array), codegen


@njit(cache=True)
def product(c, a, b, fresh):  # pragma: no cover - compiled
    """c = a b where ``fresh``, else c += a b.

    b and c have rows without gaps and a multiple of COLUMNS columns; a has any strides.
    Sums run over the columns of a in their order.
    """
    _product(_any(c), _any(a), _any(b), fresh)


@njit(cache=True)
def _product(c, a, b, fresh):  # pragma: no cover - compiled
    apart()
    rows, depth = a.shape
    width = b.shape[1]
    lanes = _BYTES // c.itemsize
    most = rows - rows % _ROWS
    j = 0
    while j + 2 * lanes <= width:
        for i in range(0, most, _ROWS):
            _tile_42(c, a, b, i, j, depth, fresh)
        for i in range(most, rows):
            _tile_12(c, a, b, i, j, depth, fresh)
        j += 2 * lanes
    while j < width:
        for i in range(0, most, _ROWS):
            _tile_41(c, a, b, i, j, depth, fresh)
        for i in range(most, rows):
            _tile_11(c, a, b, i, j, depth, fresh)
        j += lanes


@njit(cache=True)
def transpose(a, b):  # pragma: no cover - compiled
    """b = aᵀ; b may have more columns."""
    apart()
    rows, columns = a.shape
    for i in range(0, rows, COLUMNS):
        most = min(COLUMNS, rows - i)
        for j in range(columns):
            row = b[j]
            for k in range(most):
                row[i + k] = a[i + k, j]


@intrinsic
def exponential(_, x):
    """e^x for float32 or float64 x ≤ 88; below the least normal number, that number."""

    def codegen(context, builder, signature, args):
        wide = signature.args[0].bitwidth
        kind, name = context.get_data_type(signature.args[0]), f"f{wide}"
        mantissa, bias, terms = (23, 127, 7) if wide == 32 else (52, 1023, 13)
        high, low = _LN_2[wide]

        def number(value: float) -> ir.Constant:
            return ir.Constant(kind, value)

        least = number(-(bias - 1) * math.log(2))
        x = builder.select(builder.fcmp_ordered("<", args[0], least), least, args[0])
        declared = ir.FunctionType(kind, [kind])
        rint = cgutils.get_or_insert_function(builder.module, declared, f"llvm.rint.{name}")
        k = builder.call(rint, [builder.fmul(x, number(1 / math.log(2)))])
        r = _fma(builder, kind, name, k, number(-high), x)
        r = _fma(builder, kind, name, k, number(-low), r)
        value = number(1 / math.factorial(terms))
        for i in range(terms - 1, -1, -1):
            value = _fma(builder, kind, name, value, r, number(1 / math.factorial(i)))
        whole = ir.IntType(wide)
        power = builder.add(builder.fptosi(k, whole), ir.Constant(whole, bias))
        power = builder.bitcast(builder.shl(power, ir.Constant(whole, mantissa)), kind)
        return builder.fmul(value, power)

    return x(x), codegen
