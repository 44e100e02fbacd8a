"""What the kernel has to be asked for: sockets, pipes, descriptors, and how many of them there may be.

Here belongs what asyncio leaves out: `sockets` (options, resets, what has arrived), `hangups` (resets that
the loop does not report), `splice` (bytes through the kernel) with its `pipes` and its waiting (`readiness`),
and `admission` (how many clients, in all and from one of the `networks`). Nothing here knows HTTP.
"""
