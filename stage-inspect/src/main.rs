//! The command `stage-inspect`.

fn main() {}
