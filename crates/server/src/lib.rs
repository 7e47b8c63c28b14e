//! One node as a process: sockets, threads, clocks and files around the node state machine.
