mod data;
mod http;
mod stats;
fn main() {}
