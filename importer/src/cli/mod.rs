//! What people type. One file a command, and what they share.

pub(crate) mod bar;
pub(crate) mod disk;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod keep;
pub(crate) mod log;
pub(crate) mod outcome;
pub(crate) mod pod;
pub(crate) mod populate;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod size;
pub(crate) mod source;
pub(crate) mod work;
