//! What people type. One file a command, and what they share.

pub(crate) mod bar;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod origin;
pub(crate) mod outcome;
pub(crate) mod populate;
pub(crate) mod size;
