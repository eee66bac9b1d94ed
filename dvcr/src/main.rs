//! The `dvcr` program: arguments in, exit code out.

use std::process::ExitCode;

/// glibc's allocator keeps what many short-lived buffers of several threads leave behind: a server that took large pushes in
/// parallel never gave the memory back. jemalloc returns it within seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    dvcr::cli::main()
}
