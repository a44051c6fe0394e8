"""Safe arithmetic over named signals, for costs, rewards and derived features of a robot description.

    outside = Expression("abs(x) > 6.0")
    outside.names                       # {"x"}
    outside({"x": np.array([5.0, 7.0])})  # array([0., 1.])

The text is parsed, checked against a short list of allowed syntax, and compiled once. There is no attribute access
on values, no indexing, no keyword argument and no builtin, so a description can compute and nothing else.
A dotted name (`previous.x`, `action.force_x`) is one name.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

import numpy as np

from saferule_core.errors import SpecError

FUNCTIONS = {
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "atan2": np.arctan2, "hypot": np.hypot, "minimum": np.minimum, "maximum": np.maximum, "clip": np.clip,
    "sign": np.sign, "floor": np.floor, "where": np.where, "tanh": np.tanh,
}  # fmt: skip
CONSTANTS = {"pi": np.pi}
_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Mod)
_COMPARE = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)


class Expression:
    """An arithmetic expression over named signals, evaluated elementwise on floats or arrays.

    `and`, `or`, `not` and comparisons give 0.0 or 1.0.
    """

    def __init__(self, text: str, source: str = "expression") -> None:
        """Parse `text`; `source` names its place (file and field) in error messages.

        Raises:
            SpecError: the text is no expression, or uses something that is not allowed.
        """
        self.text = text
        self.source = source
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except SyntaxError as error:
            raise SpecError(f"{source}: expected an arithmetic expression, found {text!r} ({error.msg})") from error
        names: set[str] = set()
        body = self._translate(tree.body, names)
        self.names = frozenset(names)
        code = ast.fix_missing_locations(ast.Expression(body))
        self._code = compile(code, f"<{source}>", "eval")
        logic = {"_and": np.logical_and, "_or": np.logical_or, "_not": np.logical_not, "_number": np.float64}
        self._globals = {"__builtins__": {}, **logic, **{f"_f_{name}": f for name, f in FUNCTIONS.items()}}

    def __call__(self, signals: Mapping[str, object]) -> np.ndarray | np.floating:
        """Evaluate over `signals` (name -> float or array (N,)) and return float64 of the same shape.

        Raises:
            SpecError: the arithmetic fails (division by zero, overflow), or a signal is missing.
        """
        try:
            return np.asarray(eval(self._code, self._globals, {"_s": signals}), dtype=np.float64)[()]
        except (ArithmeticError, KeyError) as error:
            reason = f"{type(error).__name__} {error}"
            raise SpecError(f"{self.source}: {self.text!r} cannot be computed: {reason}") from error

    def _refuse(self, node: ast.AST) -> SpecError:
        found = ast.unparse(node)
        return SpecError(
            f"{self.source}: {self.text!r}: {found!r} is not allowed; expected numbers, signal names, + - * / % **, "
            f"comparisons, and/or/not, and the functions {', '.join(sorted(FUNCTIONS))}"
        )

    def _translate(self, node: ast.expr, names: set[str]) -> ast.expr:
        """Rebuild `node` from allowed parts only; signal names become lookups in the mapping `_s`."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return ast.Constant(float(node.value))
        if isinstance(node, ast.Name) and node.id in CONSTANTS:
            return ast.Constant(CONSTANTS[node.id])
        if isinstance(node, ast.Name):
            return self._lookup(node.id, names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return self._lookup(f"{node.value.id}.{node.attr}", names)
        if isinstance(node, ast.BinOp) and isinstance(node.op, _BINARY):
            return ast.BinOp(self._translate(node.left, names), node.op, self._translate(node.right, names))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return ast.UnaryOp(node.op, self._translate(node.operand, names))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return _number(_call("_not", [self._translate(node.operand, names)]))
        if isinstance(node, ast.BoolOp):
            function = "_and" if isinstance(node.op, ast.And) else "_or"
            return self._fold(function, [self._translate(value, names) for value in node.values])
        if isinstance(node, ast.Compare) and all(isinstance(op, _COMPARE) for op in node.ops):
            operands = [self._translate(value, names) for value in (node.left, *node.comparators)]
            pairs = [
                ast.Compare(left, [op], [right])
                for left, op, right in zip(operands[:-1], node.ops, operands[1:], strict=True)
            ]
            return self._fold("_and", pairs)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            if node.func.id not in FUNCTIONS or any(isinstance(argument, ast.Starred) for argument in node.args):
                raise self._refuse(node)
            return _call(f"_f_{node.func.id}", [self._translate(argument, names) for argument in node.args])
        raise self._refuse(node)

    @staticmethod
    def _lookup(name: str, names: set[str]) -> ast.expr:
        names.add(name)
        return ast.Subscript(ast.Name("_s", ast.Load()), ast.Constant(name), ast.Load())

    @staticmethod
    def _fold(function: str, values: list[ast.expr]) -> ast.expr:
        folded = values[0]
        for value in values[1:]:
            folded = _call(function, [folded, value])
        return _number(folded)


def _call(function: str, arguments: list[ast.expr]) -> ast.expr:
    return ast.Call(ast.Name(function, ast.Load()), arguments, [])


def _number(node: ast.expr) -> ast.expr:
    """Turn truth into 0.0 or 1.0, so that the sum of two indicators is 2 and not True."""
    return _call("_number", [node])
