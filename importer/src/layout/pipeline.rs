//! Frames made of pieces on several threads, in order.

use std::{
    io,
    sync::{
        Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::{Encoder, LayoutError};

/// Pieces on their way from the disk to the layer: with their frames, at most 12 MiB.
const PIECES_IN_FLIGHT: usize = 64;

/// One piece, and where its frame is waited for.
type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// A frame to come, what its piece was called, and how long it was. In the order of the pieces.
type Pending<T> = (Receiver<io::Result<Vec<u8>>>, T, usize);

/// Gives each piece's name, length and frame to `sink`, compressing on `threads` threads beside the caller's own and the one
/// that pulls `pieces`. A piece of no bytes has a frame of none. Ends with the first error of either side.
pub fn encode<T: Send>(
    pieces: impl Iterator<Item = Result<(T, Vec<u8>), LayoutError>> + Send,
    threads: usize,
    mut sink: impl FnMut(T, usize, &[u8]) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let (job_sender, jobs) = sync_channel::<Job>(PIECES_IN_FLIGHT);
    let (pending_sender, pending) = sync_channel::<Pending<T>>(PIECES_IN_FLIGHT);
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        let jobs = &jobs;
        for _ in 0..threads.max(1) {
            scope.spawn(move || work(jobs));
        }
        let reader = scope.spawn(move || read(pieces, &job_sender, &pending_sender));
        let written = (|| {
            for (frame, name, raw_len) in pending {
                let frame = frame
                    .recv()
                    .map_err(|_| io::Error::other("a compressing thread ended"))??;
                sink(name, raw_len, &frame)?;
            }
            Ok(())
        })();
        // Why writing stopped early is known to the reader if reading failed.
        reader
            .join()
            .map_err(|_| io::Error::other("the reading thread panicked"))??;
        written
    })
}

/// Compresses pieces until there are no more.
fn work(jobs: &Mutex<Receiver<Job>>) {
    let mut encoder = Encoder::new();
    loop {
        let job = jobs.lock().map(|jobs| jobs.recv());
        let Ok(Ok((piece, frame))) = job else {
            return;
        };
        let result = match &mut encoder {
            _ if piece.is_empty() => Ok(vec![]),
            Ok(encoder) => encoder.encode(&piece),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // Nobody waits for it any more if writing failed.
        let _ = frame.send(result);
    }
}

/// Hands out all pieces. Stops early if nobody takes them any more.
fn read<T>(
    pieces: impl Iterator<Item = Result<(T, Vec<u8>), LayoutError>>,
    jobs: &SyncSender<Job>,
    pending: &SyncSender<Pending<T>>,
) -> Result<(), LayoutError> {
    for piece in pieces {
        let (name, piece) = piece?;
        let (sender, receiver) = sync_channel(1);
        let taken = pending.send((receiver, name, piece.len())).is_ok()
            && jobs.send((piece, sender)).is_ok();
        if !taken {
            break;
        }
    }
    Ok(())
}
