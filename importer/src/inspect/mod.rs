//! What is on a disk, as far as its first bytes tell, and how much of it is stored elsewhere already.

mod filesystem;
mod gpt;
mod mbr;
mod report;
mod share;
mod table;

pub use filesystem::filesystem;
pub use report::{Report, inspect};
pub use share::{Share, StoredFrames, share_of_disk, share_of_layer};
pub use table::{Partition, PartitionTable, partition_table};
