//! The state machine that decides where chunks end.

use super::{
    bytes::{self, CUT_BYTES_MAX},
    frames::{self, Walk},
    zero,
};

/// The longest piece that a cutter returns, zero runs excepted: 1 MiB. A zstd frame up to this long is one chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Fewest zeros at the start of a chunk that are cut off as a run. Shorter runs stay inside chunks: a recipe entry for
/// each hole of a few KiB would cost more than the chunk's own compression does.
pub const ZERO_RUN_BYTES_MIN: usize = 16 << 10;

/// Frames after which their mean length counts.
pub const FRAMES_BEFORE_MEAN: u64 = 256;

/// Least mean length of frames that are chunks. A zstd:chunked layer has one frame a file, and rows for files of a few
/// hundred bytes would outweigh what they say.
pub const FRAME_MEAN_BYTES_MIN: u64 = 4 << 10;

/// A frame counts for at least this part of its content, if its header says how much that is: disks may begin with much that
/// compresses better than 16 to 1, and would be cut by content from there on. Pieces of a disk have 32 KiB or more.
const FRAME_CONTENT_SHARE: u64 = 8;

/// Frames shorter than this count as they are: headers may lie, and rows must stay below what was sent for them. It is also the
/// least mean length of frames that are chunks, whatever they say of their content: a chunk costs about 200 bytes of pack and rows.
pub const FRAME_SHARE_BYTES_MIN: usize = 256;

/// Length of [`Cutter::state`] in bytes.
pub const CUTTER_STATE_LEN: usize = 18;

/// First byte of a state, and the version of all cut rules together: a change of any cut point is a new version.
const STATE_VERSION: u8 = 1;

/// Where a chunk ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Length of the chunk in bytes, at least 1. At most [`CHUNK_BYTES_MAX`], or as long as the data given if `zero`.
    pub len: usize,
    /// Whether all its bytes are zero. Adjacent zero cuts are pieces of one run; where they meet depends on the
    /// buffering, where the run begins and ends does not.
    pub zero: bool,
}

/// Decides where the chunks of one blob end.
///
/// - A blob that begins with a zstd frame of at most [`CHUNK_BYTES_MAX`] is cut into its frames, skippable frames
///   included, for as long as they are frames of that length and not too small ([`FRAME_MEAN_BYTES_MIN`]).
/// - Everything else, and from the first misfit on the rest of such a blob, is cut by content: at least
///   [`CUT_BYTES_MIN`](super::CUT_BYTES_MIN) and at most [`CUT_BYTES_MAX`], 64 KiB on average.
/// - There, [`ZERO_RUN_BYTES_MIN`] or more zeros at the start of a chunk are a run of their own.
///
/// `examples/cutter_speed.rs` measures it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cutter {
    mode: Mode,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Mode {
    /// Nothing was cut yet.
    Start,
    /// All chunks were frames: how many, for how many bytes they count, and how many they have.
    Frames { count: u64, bytes: u64, len: u64 },
    /// Not frames, or not any more: by content.
    Bytes,
    /// By content, and the last cut was a zero run that reached the end of its data.
    Zeros,
}

impl Default for Cutter {
    fn default() -> Self {
        Self::new()
    }
}

impl Cutter {
    /// A cutter for the first byte of a blob.
    pub fn new() -> Self {
        Self { mode: Mode::Start }
    }

    /// The first chunk of `data`, which starts where the last chunk ended; `end` says that the blob ends with it.
    ///
    /// `None` if more bytes are needed: never when there are [`CHUNK_BYTES_MAX`], never at the end unless `data` is empty.
    /// After `None`, give the same bytes and more. The chunks do not depend on how much is given at a time, except for
    /// the pieces of a zero run ([`Cut::zero`]).
    pub fn next(&mut self, data: &[u8], end: bool) -> Option<Cut> {
        if data.is_empty() {
            return None;
        }
        if matches!(self.mode, Mode::Start | Mode::Frames { .. }) {
            match self.walk(data) {
                Walk::Frame(len) => {
                    self.count_frame(&data[..len]);
                    return Some(Cut { len, zero: false });
                }
                Walk::More if !end => return None,
                Walk::More | Walk::Not => self.mode = Mode::Bytes,
            }
        }
        self.cut_bytes(data, end)
    }

    fn walk(&self, data: &[u8]) -> Walk {
        // A blob that begins with a skippable frame is something else that zstd wraps, of no known use as chunks.
        if self.mode == Mode::Start && !frames::is_zstd(data) {
            return Walk::Not;
        }
        frames::walk(data, CHUNK_BYTES_MAX)
    }

    /// Notes a frame, and whether the next one may be a chunk too. The mean is taken over all frames so far: that bounds
    /// rows by bytes, and a stretch of well compressible data in the middle of a disk does no harm.
    fn count_frame(&mut self, frame: &[u8]) {
        let content = frames::content_len(frame)
            .filter(|_| frame.len() >= FRAME_SHARE_BYTES_MIN)
            .map_or(0, |len| {
                len.min(CHUNK_BYTES_MAX as u64) / FRAME_CONTENT_SHARE
            });
        let (count, bytes, len) = if let Mode::Frames { count, bytes, len } = self.mode {
            (count, bytes, len)
        } else {
            (0, 0, 0)
        };
        let count = count.saturating_add(1);
        let bytes = bytes.saturating_add(content.max(frame.len() as u64));
        let len = len.saturating_add(frame.len() as u64);
        // What one frame says must not pay for others: they would cost more than all of them bring.
        let too_small = count >= FRAMES_BEFORE_MEAN
            && (bytes < count.saturating_mul(FRAME_MEAN_BYTES_MIN)
                || len < count.saturating_mul(FRAME_SHARE_BYTES_MIN as u64));
        self.mode = if too_small {
            Mode::Bytes
        } else {
            Mode::Frames { count, bytes, len }
        };
    }

    fn cut_bytes(&mut self, data: &[u8], end: bool) -> Option<Cut> {
        let zeros = zero::zero_prefix_len(data);
        let all = zeros == data.len();
        let in_run = self.mode == Mode::Zeros && zeros > 0;
        // What is left at the end is a run of any length: a chunk of zeros takes space, a run does not.
        if in_run || zeros >= ZERO_RUN_BYTES_MIN || (all && end) {
            self.mode = if all { Mode::Zeros } else { Mode::Bytes };
            return Some(Cut {
                len: zeros,
                zero: true,
            });
        }
        self.mode = Mode::Bytes;
        if data.len() < CUT_BYTES_MAX && !end {
            return None;
        }
        Some(Cut {
            len: bytes::cut(data),
            zero: false,
        })
    }

    /// The state between two cuts. Byte 0 is the version, byte 1 the mode; then, little-endian, the number of frames and
    /// the bytes that they count for, both 8 bytes long.
    pub fn state(&self) -> [u8; CUTTER_STATE_LEN] {
        let (mode, count, bytes) = match self.mode {
            Mode::Start => (0, 0, 0),
            // How long they are is the caller's to know: as much as was cut.
            Mode::Frames { count, bytes, .. } => (1, count, bytes),
            Mode::Bytes => (2, 0, 0),
            Mode::Zeros => (3, 0, 0),
        };
        let mut state = [0; CUTTER_STATE_LEN];
        state[0] = STATE_VERSION;
        state[1] = mode;
        state[2..10].copy_from_slice(&count.to_le_bytes());
        state[10..].copy_from_slice(&bytes.to_le_bytes());
        state
    }

    /// The cutter whose [`Cutter::state`] this is, after it cut `len` bytes; `None` if it is none, or of another version.
    pub fn restore(state: &[u8], len: u64) -> Option<Self> {
        let state: &[u8; CUTTER_STATE_LEN] = state.try_into().ok()?;
        let (head, numbers) = state.split_first_chunk::<2>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let &[count, bytes] = numbers else {
            return None;
        };
        let mode = match (head, u64::from_le_bytes(count), u64::from_le_bytes(bytes)) {
            ([STATE_VERSION, 0], 0, 0) => Mode::Start,
            ([STATE_VERSION, 1], count @ 1.., bytes @ 1..) => Mode::Frames { count, bytes, len },
            ([STATE_VERSION, 2], 0, 0) => Mode::Bytes,
            ([STATE_VERSION, 3], 0, 0) => Mode::Zeros,
            _ => return None,
        };
        Some(Self { mode })
    }
}
