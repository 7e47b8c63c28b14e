//! The quorate binary: words in, tables and JSON out.

fn main() {}
