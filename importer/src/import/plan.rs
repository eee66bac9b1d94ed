//! Which way a source goes: decided from what is known of it, before anything is done. What is at hand is read twice, and what
//! comes out of a pipe once: only elsewhere there is a choice.

/// What is known of a source on the network before its bytes are read.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Nature {
    /// A file on a server, which knows ranges or not.
    Server {
        /// Whether it does.
        ranges: bool,
    },
    /// An image in a registry.
    Image {
        /// Whether it is of our layout.
        ours: bool,
    },
}

/// What somebody wants of it.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    /// Checksums are to be compared, for which all bytes have to be seen in order.
    pub(super) checksums: bool,
    /// It is to be kept as it is.
    pub(super) verbatim: bool,
    /// The layer is not to be compressed.
    pub(super) plain: bool,
    /// One file of the image is meant, not the usual one.
    pub(super) file: bool,
}

/// Which way it goes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Blob by blob, as it is.
    Copy,
    /// Read once, at random, while frames are kept; received as by [`Way::Receive`] if the disk does not lie there as it is.
    AtRandom,
    /// Received from start to end.
    Receive {
        /// Whether what is received is kept, because it can be asked for from any byte on.
        kept: bool,
    },
}

impl Way {
    pub(super) fn of(nature: Nature, wish: Wish) -> Self {
        match nature {
            Nature::Server { ranges: true } if !wish.checksums && !wish.verbatim => Self::AtRandom,
            Nature::Server { ranges } => Self::Receive { kept: ranges },
            Nature::Image { ours: true } if !wish.plain && !wish.file => Self::Copy,
            Nature::Image { .. } => Self::Receive { kept: true },
        }
    }
}

/// What becomes of bytes that are received from start to end, once the first of them show what they are.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Unpacking {
    /// They stay as they are: received, then read twice.
    Verbatim,
    /// A disk from start to end: frames are kept while it comes.
    Frames,
    /// An image that lies there as it is, in a file that is kept: received, then read twice.
    InPlace,
    /// An image that comes out of a decoder and needs random access: to a temporary file, then read twice.
    Spool,
}

impl Unpacking {
    /// `sequential`: the format can be read from start to end. `wrapped`: it comes out of a decoder or an archive. `kept`: there
    /// is a file of what was received.
    pub(super) fn of(wish: Wish, sequential: bool, wrapped: bool, kept: bool) -> Self {
        match (wish.verbatim, sequential, wrapped, kept) {
            (true, ..) => Self::Verbatim,
            (_, true, ..) => Self::Frames,
            (_, _, false, true) => Self::InPlace,
            _ => Self::Spool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN_DISK: Wish = Wish {
        checksums: false,
        verbatim: false,
        plain: false,
        file: false,
    };

    #[test]
    fn ways() {
        let checksums = Wish {
            checksums: true,
            ..PLAIN_DISK
        };
        let verbatim = Wish {
            verbatim: true,
            ..PLAIN_DISK
        };
        let plain = Wish {
            plain: true,
            ..PLAIN_DISK
        };
        let file = Wish {
            file: true,
            ..PLAIN_DISK
        };
        let (kept, once) = (Way::Receive { kept: true }, Way::Receive { kept: false });
        let server = |ranges| Nature::Server { ranges };
        let image = |ours| Nature::Image { ours };
        for (nature, wish, expected) in [
            (server(true), PLAIN_DISK, Way::AtRandom),
            (server(true), plain, Way::AtRandom),
            (server(true), checksums, kept),
            (server(true), verbatim, kept),
            (server(false), PLAIN_DISK, once),
            (image(true), PLAIN_DISK, Way::Copy),
            (image(true), plain, kept),
            (image(true), file, kept),
            (image(false), PLAIN_DISK, kept),
        ] {
            assert_eq!(Way::of(nature, wish), expected, "{nature:?} {wish:?}");
        }
    }

    #[test]
    fn unpackings() {
        let verbatim = Wish {
            verbatim: true,
            ..PLAIN_DISK
        };
        for (wish, sequential, wrapped, kept, expected) in [
            (verbatim, true, false, true, Unpacking::Verbatim),
            (PLAIN_DISK, true, true, false, Unpacking::Frames),
            (PLAIN_DISK, true, false, true, Unpacking::Frames),
            (PLAIN_DISK, false, false, true, Unpacking::InPlace),
            (PLAIN_DISK, false, false, false, Unpacking::Spool),
            (PLAIN_DISK, false, true, true, Unpacking::Spool),
        ] {
            let found = Unpacking::of(wish, sequential, wrapped, kept);
            assert_eq!(found, expected, "{wish:?} {sequential} {wrapped} {kept}");
        }
    }
}
