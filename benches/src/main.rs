//! Load driver and comparison with other registries.

fn main() {}
