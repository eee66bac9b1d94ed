//! A file on a server, read at random: blocks in memory, and reading ahead where the reader goes forward.

use std::{
    collections::HashMap,
    io,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Link, SourceError, until_stopped};
use crate::source::{ReadAt, check_range};

/// Unit of the cache.
const BLOCK_BYTES: u64 = 512 << 10;

/// Blocks in one request. With six connections, 6 MiB are on their way: what an import loses that is killed.
const REQUEST_BLOCKS: u64 = 2;

/// Blocks in memory, those on their way included: images whose clusters are not quite in order go back by that much.
const BLOCKS_MAX: usize = 128;

/// A file on a server that knows ranges. May be read from several threads at once.
pub struct Ranged {
    link: Arc<Link>,
    len: u64,
    shared: Arc<Shared>,
    /// Ends all requests with the last reader.
    _requests: DropGuard,
    cancel: CancellationToken,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    blocks: HashMap<u64, Block>,
    /// Counts uses, to tell which block was not used for longest.
    clock: u64,
    /// The block that was read last.
    last: u64,
    /// Blocks to have ahead of the reader; grows while it goes forward.
    ahead: u64,
}

struct Block {
    content: Content,
    used: u64,
}

enum Content {
    Coming,
    Ready(Arc<[u8]>),
    Failed(SourceError),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one insertion.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, number: u64, content: Content) {
        let mut state = self.lock();
        if let Some(block) = state.blocks.get_mut(&number) {
            block.content = content;
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    /// Notes that a block is read; the blocks to have, that one included.
    fn touch(&mut self, number: u64, blocks: u64, ahead_max: u64) -> Range<u64> {
        if number == self.last + 1 || number == 0 && self.clock == 0 {
            self.ahead = (self.ahead * 2).clamp(1, ahead_max);
        } else if number != self.last {
            // Back to a block that is still there is no change of direction.
            self.ahead = if self.blocks.contains_key(&number) {
                self.ahead
            } else {
                0
            };
        }
        self.last = number;
        number..(number + 1 + self.ahead).min(blocks)
    }

    /// Makes room for one more block; `None` if all are on their way.
    fn evict(&mut self, keep: &Range<u64>) -> Option<()> {
        if self.blocks.len() < BLOCKS_MAX {
            return Some(());
        }
        let idle = self.blocks.iter().filter(|(number, block)| {
            !matches!(block.content, Content::Coming) && !keep.contains(number)
        });
        let oldest = *idle.min_by_key(|(_, block)| block.used)?.0;
        self.blocks.remove(&oldest);
        Some(())
    }

    /// Marks all blocks of `wanted` that are missing as coming; what has to be asked for.
    fn reserve(&mut self, wanted: &Range<u64>) -> Vec<Range<u64>> {
        let mut requests: Vec<Range<u64>> = vec![];
        for number in wanted.clone() {
            if self.blocks.contains_key(&number) {
                continue;
            }
            if self.evict(wanted).is_none() {
                break;
            }
            let block = Block {
                content: Content::Coming,
                used: self.clock,
            };
            self.blocks.insert(number, block);
            match requests.last_mut() {
                Some(last) if last.end == number && last.end - last.start < REQUEST_BLOCKS => {
                    last.end += 1;
                }
                _ => requests.push(number..number + 1),
            }
        }
        requests
    }
}

impl Ranged {
    pub(super) fn new(link: Arc<Link>, len: u64) -> Self {
        let cancel = CancellationToken::new();
        Self {
            link,
            len,
            shared: Arc::default(),
            _requests: cancel.clone().drop_guard(),
            cancel,
        }
    }

    /// Reads nothing ahead any more.
    fn request(&self, numbers: Range<u64>) {
        let (link, shared, cancel) = (self.link.clone(), self.shared.clone(), self.cancel.clone());
        let bytes = numbers.start * BLOCK_BYTES..(numbers.end * BLOCK_BYTES).min(self.len);
        self.link.runtime.spawn(async move {
            let work = until_stopped(&link.options.stop, link.fetch(bytes));
            match until_stopped(&cancel, work).await {
                Ok(bytes) => {
                    for (number, block) in numbers.zip(bytes.chunks(BLOCK_BYTES as usize)) {
                        shared.put(number, Content::Ready(block.into()));
                    }
                }
                Err(error) => {
                    for number in numbers {
                        shared.put(number, Content::Failed(error.clone()));
                    }
                }
            }
        });
    }

    /// Waits for a block.
    fn block(&self, number: u64) -> io::Result<Arc<[u8]>> {
        let blocks = self.len.div_ceil(BLOCK_BYTES);
        let connections = self.link.options.connections.max(1) as u64;
        // Half of the cache at most: the rest is for going back.
        let ahead_max = (connections * REQUEST_BLOCKS).min(BLOCKS_MAX as u64 / 2);
        let mut state = self.shared.lock();
        let wanted = state.touch(number, blocks, ahead_max);
        loop {
            for request in state.reserve(&wanted) {
                self.request(request);
            }
            state.clock += 1;
            let clock = state.clock;
            // Without a block the cache is full of those on their way to other readers.
            if let Some(block) = state.blocks.get_mut(&number) {
                block.used = clock;
                match &block.content {
                    Content::Ready(bytes) => return Ok(bytes.clone()),
                    Content::Failed(error) => {
                        let error = error.clone();
                        // Who tries again gets a new request.
                        state.blocks.remove(&number);
                        return Err(error.into());
                    }
                    Content::Coming => {}
                }
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl ReadAt for Ranged {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(self.len, offset, buf.len())?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let block = self.block(at / BLOCK_BYTES)?;
            let start = (at % BLOCK_BYTES) as usize;
            let len = rest.len().min(block.len().saturating_sub(start));
            let (part, behind) = rest.split_at_mut(len);
            part.copy_from_slice(&block[start..start + len]);
            at += len as u64;
            rest = behind;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Ranged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ranged")
            .field("address", &self.link.fetch.address())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn reading_ahead_grows_and_stops() {
        let mut state = State::default();
        let mut asked = vec![];
        for number in 0..6 {
            let wanted = state.touch(number, 100, 8);
            asked.push(wanted.end);
            state.clock += 1;
            state.reserve(&wanted);
        }
        assert_eq!(asked, [2, 4, 7, 12, 13, 14]);
        // Twice the same is nothing new, elsewhere is a new beginning.
        assert_eq!(state.touch(5, 100, 8), 5..14);
        assert_eq!(state.touch(70, 100, 8), 70..71);
        assert_eq!(state.touch(99, 100, 8), 99..100);
    }

    #[test]
    fn requests_have_few_blocks_and_leave_no_room_unused() {
        let mut state = State::default();
        assert_eq!(state.reserve(&(0..5)), [0..2, 2..4, 4..5]);
        assert_eq!(state.reserve(&(2..7)), slice::from_ref(&(5..7)));
        assert_eq!(state.reserve(&(7..200)).last(), Some(&(127..128)));
        assert_eq!(state.reserve(&(300..301)), []);
        for number in 0..10 {
            let block = state.blocks.get_mut(&number).unwrap();
            block.content = Content::Ready(Arc::from([]));
            block.used = 100 - number;
        }
        assert_eq!(state.reserve(&(300..301)), slice::from_ref(&(300..301)));
        assert!(!state.blocks.contains_key(&9));
    }
}
