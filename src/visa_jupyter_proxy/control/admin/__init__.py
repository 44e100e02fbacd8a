"""The admin listener: for operators, on an address and a port of its own.

- `listener` binds it and serves, on a `connection` of ours; `access` says who may ask what.
- `health`, `exposition` (metrics), `board` and `api` answer; `asked` reads what is wanted, and `answers` is
  how all answers look, those that refuse included.
- `seen` is what they look at: the parts of control, and `sums`, what the workers have counted.

It only looks at the parts of control.
"""
