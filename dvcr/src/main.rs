//! The `dvcr` program: arguments in, exit code out.

use std::process::ExitCode;

/// glibc's allocator keeps what many short-lived buffers of several threads leave behind: a server that took large pushes in
/// parallel never gave the memory back. jemalloc returns it within seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Freed memory goes back to the system after a second rather than ten: between two large pushes it is of no use to anybody.
/// Four arenas: threads that block come and go, and each arena keeps what its threads freed.
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 70] =
    b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:4\0";

fn main() -> ExitCode {
    dvcr::cli::main()
}
