//! One UDP port, many addresses, a handler for each.
