//! What the black-box tests share: the program under test as a process, an HTTP client that hides nothing, bounded child
//! processes, and images made from nothing.
//!
//! None of it uses code of the `dvcr` library: a mistake there must not be able to hide itself.

// Each test binary compiles its own copy and uses a part of it.
#![allow(dead_code)]

pub(crate) mod device;
pub(crate) mod digest;
pub(crate) mod disk;
pub(crate) mod distribution;
pub(crate) mod http;
pub(crate) mod layer;
pub(crate) mod namespace;
pub(crate) mod over;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod server;
pub(crate) mod stored;
pub(crate) mod stream;
pub(crate) mod tls;
