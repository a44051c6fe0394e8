"""Writes small ONNX files for tests: actions = tanh(observations @ weight). No ONNX package is needed for that.

    path.write_bytes(linear_policy(weight))

An ONNX file is a protocol buffer (onnx.proto of the ONNX project, IR version 8, operator set 13).
"""

import numpy as np

FLOAT = 1


def _varint(value):
    parts = []
    while value > 127:
        parts.append(value % 128 + 128)
        value //= 128
    return bytes([*parts, value])


def _number(field, value):
    return _varint(8 * field) + _varint(value)


def _part(field, content):
    content = content.encode() if isinstance(content, str) else content
    return _varint(8 * field + 2) + _varint(len(content)) + content


def _node(operator, inputs, output):
    return _part(1, b"".join(_part(1, name) for name in inputs) + _part(2, output) + _part(4, operator))


def _value(field, name, *shape):
    dimensions = b"".join(
        _part(1, _number(1, size) if isinstance(size, int) else _part(2, size)) for size in shape
    )
    return _part(field, _part(1, name) + _part(2, _part(1, _number(1, FLOAT) + _part(2, dimensions))))


def linear_policy(weight, batch="N", external=False):
    """Return the bytes of a model with `weight` (obs_dim, action_dim); `batch` is its first dimension."""
    weight = np.asarray(weight, dtype=np.float32)
    data = _part(13, _part(1, "location") + _part(2, "/etc/hostname")) + _number(14, 1)
    content = data if external else _part(9, weight.tobytes())
    tensor = b"".join(_number(1, size) for size in weight.shape) + _number(2, FLOAT) + _part(8, "weight") + content
    graph = (
        _node("MatMul", ["observations", "weight"], "product")
        + _node("Tanh", ["product"], "actions")
        + _part(2, "policy")
        + _part(5, tensor)
        + _value(11, "observations", batch, len(weight))
        + _value(12, "actions", batch, weight.shape[1])
    )
    return _number(1, 8) + _part(8, _part(1, "") + _number(2, 13)) + _part(7, graph)
