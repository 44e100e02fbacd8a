"""What is recorded, counted and told of requests and tunnels, once they are under way or over.

`records` makes the lines of the log and what control is told of a tunnel's begin and end, `kernels` says
whose notebook session a tunnel carries, `counts` counts for the metrics, and `telling` tells control as time
goes by. Here belongs what looks at an exchange or a tunnel and changes nothing about it.
"""
