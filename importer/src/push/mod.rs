//! From pieces to an image in a registry.
//!
//! A disk that is at hand is read twice and streamed ([`Destination::stream`]). One that comes over a network is read once: its
//! frames wait in a directory ([`FrameSpool`]), and become the same layer ([`Assembled`]).

mod assembled;
mod destination;
mod frames;
mod image;
mod session;
mod writer;

pub use assembled::Assembled;
pub use destination::{Destination, LayerPlan, PushError, Report, Sent};
pub use frames::{FrameSpool, Record, SpoolError};
pub use image::{
    CONFIG_MEDIA_TYPE, Compression, LABEL_FORMAT, LABEL_SOURCE_FORMAT, LABEL_SOURCE_SIZE,
    LABEL_VIRTUAL_SIZE, LAYER_MEDIA_TYPE, LayerFacts, MANIFEST_MEDIA_TYPE, PLAIN_LAYER_MEDIA_TYPE,
    SourceFacts, architecture, config, manifest,
};
