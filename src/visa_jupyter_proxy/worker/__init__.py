"""The wing that moves bytes: what a worker process is made of.

The files here are the way of a request and what builds it, from the top down:

- `life`: what control says, from the first message to the last; `worker`: all of it tied together;
- `listening`: where clients come in; `downstream`: a client's connection, which starts the line;
  `ending`: which tunnels are to end;
- `crowds`: how many of those who come or go at once have their turn in one turn of the loop;
- `proxy`: the straight line that every request takes; `tracing`: the same with spans;
- `pool`: connections to instances; `upstream`: one of them;
- machines: `exchange` (one request and its response), `tunnel` (two connections tied together, made of
  `sides`; `farewell` is its end by a close frame); `ports`: what these need of those above them;
- `pages`: what is told to whom, when a request cannot be served.

The folders are what the line stands on. Each says in its docstring what belongs there:

- `accounting`: what is recorded, counted and told of requests and tunnels;
- `forwarding`: what of a message goes on to the other side;
- `access`: who asks, and what they may;
- `http`: bytes to messages and back;
- `sockets`: what the kernel has to be asked for.

Each imports only what stands below it; `http` and `sockets` know nothing of each other.
"""
