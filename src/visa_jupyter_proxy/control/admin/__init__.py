"""The admin listener: for operators, on an address and a port of its own.

- `listener` binds it and serves; `access` says who may ask what.
- `health`, `exposition` (metrics) and `api` answer.
- `seen` is what they look at: the parts of control, and `sums`, what the workers have counted.

It only looks at the parts of control.
"""
