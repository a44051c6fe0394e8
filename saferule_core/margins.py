"""How far a state is from the bounds that the constraints of a description draw.

    margins = Margins(spec)
    margins.physical(physical, previous, command)     # {"outside_bounds": 1.5}: 1.5 m are left to |x| = 6 m
    margins.shares(physical, previous, command)       # {"outside_bounds": 0.25}: a quarter of the bound

The margin is read off the constraint's expression, which is true where a state is unsafe: `a > b` leaves b - a, `a < b`
leaves a - b; of several ways to be unsafe (`or`, +) the least is left, of conditions that have to meet (`and`, chained
comparisons) the most. It is positive inside the bound and negative outside. Where an expression is no such comparison,
or a constraint is a function, there is no margin: NaN.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping

import numpy as np

from saferule_core.errors import SpecError
from saferule_core.expressions import CONSTANTS, Expression
from saferule_core.spec import Physical, RobotSpec, scope_of

_ABOVE, _BELOW = (ast.Gt, ast.GtE), (ast.Lt, ast.LtE)


class Margins:
    """Margins of all constraints of a description; immutable."""

    def __init__(self, spec: RobotSpec) -> None:
        self.names = tuple(constraint.name for constraint in spec.cost.constraints)
        texts = {constraint.name: constraint.expression for constraint in spec.cost.constraints}
        self._physical = {name: _compiled(text, False, name) for name, text in texts.items()}
        self._shares = {name: _compiled(text, True, name) for name, text in texts.items()}

    @property
    def known(self) -> tuple[str, ...]:
        """Constraints that have a margin."""
        return tuple(name for name in self.names if self._physical[name] is not None)

    def needs(self, name: str) -> frozenset[str]:
        """Return the names that a constraint's margin is computed from: x, previous.x, action.<channel>."""
        rule = self._physical[name]
        return frozenset() if rule is None else rule.names

    def physical(
        self, physical: Physical, previous: Physical | None = None, command: Physical | None = None
    ) -> dict[str, np.ndarray | float]:
        """Return constraint -> margin in the units of its expression, float or (N,); NaN where there is none."""
        return _evaluate(self._physical, scope_of(physical, previous, command))

    def shares(
        self, physical: Physical, previous: Physical | None = None, command: Physical | None = None
    ) -> dict[str, np.ndarray | float]:
        """Return constraint -> margin as a share of the bound, NaN where the bound is 0 or no constant."""
        return _evaluate(self._shares, scope_of(physical, previous, command))


def _compiled(text: str | None, shares: bool, name: str) -> Expression | None:
    if text is None:
        return None
    node = _margin(ast.parse(text.strip(), mode="eval").body, shares)
    return None if node is None else Expression(ast.unparse(node), f"margin of {name}")


def _evaluate(rules: Mapping[str, Expression | None], scope: Physical) -> dict[str, np.ndarray | float]:
    margins = {}
    for name, rule in rules.items():
        try:
            margins[name] = math.nan if rule is None else rule(scope)
        except SpecError:  # the state before is not known yet, or the arithmetic fails here
            margins[name] = math.nan
    return margins


def _margin(node: ast.expr, shares: bool) -> ast.expr | None:
    """Return the expression of what is left until `node` becomes true, None where there is none."""
    if isinstance(node, ast.BoolOp):
        return _joined("minimum" if isinstance(node.op, ast.Or) else "maximum", node.values, shares)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _margin(node.operand, shares)
        return None if inner is None else ast.UnaryOp(ast.USub(), inner)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined("minimum", [node.left, node.right], shares)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        for weight, indicator in ((node.left, node.right), (node.right, node.left)):
            if (_constant(weight) or 0.0) > 0.0:  # a weight changes the price, not the bound
                return _margin(indicator, shares)
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        pairs = zip(operands[:-1], node.ops, operands[1:], strict=True)
        return _folded("maximum", [_left(*pair, shares) for pair in pairs])
    return None


def _joined(function: str, nodes: list[ast.expr], shares: bool) -> ast.expr | None:
    return _folded(function, [_margin(node, shares) for node in nodes])


def _folded(function: str, margins: list[ast.expr | None]) -> ast.expr | None:
    if any(margin is None for margin in margins):
        return None
    folded = margins[0]
    for margin in margins[1:]:
        folded = ast.Call(ast.Name(function), [folded, margin], [])
    return folded


def _left(smaller: ast.expr, comparison: ast.cmpop, larger: ast.expr, shares: bool) -> ast.expr | None:
    """Return what is left until `smaller comparison larger` is true."""
    if isinstance(comparison, _ABOVE):
        difference = ast.BinOp(larger, ast.Sub(), smaller)
    elif isinstance(comparison, _BELOW):
        difference = ast.BinOp(smaller, ast.Sub(), larger)
    else:
        return None
    if not shares:
        return difference
    bound = next((abs(value) for value in map(_constant, (smaller, larger)) if value is not None), 0.0)
    return ast.BinOp(difference, ast.Div(), ast.Constant(bound)) if bound > 0.0 else None


def _constant(node: ast.expr) -> float | None:
    """Return the value of an expression without signals, None where it has some."""
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    calls = any(isinstance(part, ast.Call) for part in ast.walk(node))
    if calls or not names <= set(CONSTANTS):
        return None
    return float(Expression(ast.unparse(node), "bound")({}))
