//! The command `socket-el`.

fn main() {}
