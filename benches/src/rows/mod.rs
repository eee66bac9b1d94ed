//! The rows, by group. A group runs on one fresh registry and measures its rows one after the other.

pub(crate) mod memory;
pub(crate) mod small;
pub(crate) mod stored;
pub(crate) mod stream;
pub(crate) mod tags;
pub(crate) mod zb;
