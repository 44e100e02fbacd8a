"""What proxying costs, measured beside nginx, HAProxy and configurable-http-proxy on the same work.

    make bench                                      # everything, about half an hour
    make bench ONLY="small download" ROUNDS=1 PROXIES="ours nginx"
    make bench-check                                # is our ratio to nginx still what is committed?
    make bench-emulated                             # instructions, where perf cannot count them
    make bench-instructions WORK=small              # our user instructions alone, by callgrind

The proxy is pinned to one CPU, everything else to others. Each scenario runs against one proxy after the
other, in rounds, and what the proxy's processes have used meanwhile is divided by what a client got
complete and correct. `python -m benchmarks --help` has the options.

    __main__    options, rounds, what is printed and written
    command     what all command lines here accept and say, and how they end
    scenarios   what is measured: the work, its unit, how a proxy is asked for it
    proxies     the four proxies: configuration, start, end
    world       around them: instance (nginx, and an echo of our own), VISA API stand-in
    load        clients: our own, and wrk where it can do the work
    counters    instructions by perf, else CPU time from the kernel's clocks; memory
    processes   children that do not outlive us
    report      results.json, table, ratios, the check against what is committed
    chart       the README's picture
    emulated    instructions, user and kernel, of all proxies; repeats on a busy machine
    callgrind   instructions of one worker, function by function; repeats on a busy machine

By themselves, each with a docstring that says how:

    control     what a kernel channel costs in control, until the journal has it
    crowd       5 000 notebook sessions opened at once, and what others wait meanwhile
    year        reports on a year of a busy facility: a million sessions
"""
