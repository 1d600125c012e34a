//! Elections, answers and commands, on a host in memory.
