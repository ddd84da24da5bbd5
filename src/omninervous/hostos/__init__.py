"""What both daemons ask of their host: state directory, control socket, UDP sockets, clock, logs, process."""
