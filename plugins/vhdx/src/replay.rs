//! The file as it would be after its log was written back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use instar_core::{Context, Held, Result, Run, RunKind, Storage, read_padded, run_from};
use positioned_io::ReadAt;

use crate::log::{LOG_SECTOR, LOG_SECTOR_SIZE, Pending, Update};

/// A file with the updates of its log laid over it. Nothing is written, and the updates' data
/// stays in the log: only where it is, is kept.
pub(crate) struct Replayed {
    file: Arc<dyn Storage>,
    /// By their first byte, in order; disjoint.
    patches: Box<[(u64, Patch)]>,
    length: u64,
    _held: Held,
}

/// What replaces the bytes up to `end` (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patch {
    end: u64,
    content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Zeros,
    /// The sector at `log_at`, with these first and last bytes.
    Sector {
        log_at: u64,
        leading: [u8; 8],
        trailing: [u8; 4],
    },
}

impl Replayed {
    /// Lays the updates over `file`, in their order.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](instar_core::ErrorKind::Limit) if there are too many to hold.
    pub(crate) fn new(file: Arc<dyn Storage>, pending: Pending, context: &Context) -> Result<Self> {
        // Each update cuts at most one patch in two.
        let most = (pending.updates.len() as u64).saturating_mul(2 * PATCH_BYTES);
        let counted = context.hold(UPDATES, most)?;
        let mut patches = Patches::default();
        let Pending { updates, file_length } = pending;
        for update in updates {
            match update {
                Update::Zero { offset, length } => {
                    patches.put(offset, offset.saturating_add(length), Content::Zeros);
                }
                Update::Data { offset, log_at, leading, trailing } => {
                    let content = Content::Sector { log_at, leading, trailing };
                    patches.put(offset, offset.saturating_add(LOG_SECTOR), content);
                }
            }
        }
        let length = file.len().max(file_length).max(patches.end);
        let patches: Box<[_]> = patches.map.into_iter().collect();
        drop(counted);
        let held = context.hold(UPDATES, (patches.len() as u64).saturating_mul(PATCH_BYTES))?;
        Ok(Self { file, patches, length, _held: held })
    }

    /// The patch that covers byte `at`, or else the next one.
    fn patch_from(&self, at: u64) -> Option<(u64, Patch)> {
        let index = self.patches.partition_point(|(_, patch)| patch.end <= at);
        self.patches.get(index).copied()
    }

    /// Reads the part of a patch, `skip` bytes from its start, that fills `target`.
    fn read_patch(&self, content: Content, skip: u64, target: &mut [u8]) -> io::Result<()> {
        let Content::Sector { log_at, leading, trailing } = content else {
            target.fill(0);
            return Ok(());
        };
        let mut sector = [0; LOG_SECTOR_SIZE];
        read_padded(self.file.as_ref(), log_at, &mut sector)?;
        if let Some(first) = sector.first_chunk_mut() {
            *first = leading;
        }
        if let Some(last) = sector.last_chunk_mut() {
            *last = trailing;
        }
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let part = sector.get(skip..).and_then(|rest| rest.get(..target.len()));
        target.copy_from_slice(part.ok_or(io::ErrorKind::InvalidData)?);
        Ok(())
    }
}

/// What is counted for the updates of a log, and the bytes of memory for one.
const UPDATES: &str = "the list of the log's updates";
const PATCH_BYTES: u64 = size_of::<(u64, Patch)>() as u64;

/// Patches while they are collected.
#[derive(Debug, Default)]
struct Patches {
    /// By their first byte; disjoint.
    map: BTreeMap<u64, Patch>,
    /// The end of the last byte that was replaced.
    end: u64,
}

impl Patches {
    /// Replaces the bytes from `start` up to `end`, whatever replaced them before.
    ///
    /// Both are multiples of a log sector, so a patch that is cut in two is one of zeros, of
    /// which any part is as good as the whole.
    fn put(&mut self, start: u64, end: u64, content: Content) {
        if start >= end {
            return;
        }
        if let Some((_, before)) = self.map.range_mut(..start).next_back() {
            let rest = *before;
            if rest.end > start {
                before.end = start;
                if rest.end > end {
                    self.map.insert(end, rest);
                }
            }
        }
        while let Some((&at, &covered)) = self.map.range(start..end).next() {
            self.map.remove(&at);
            if covered.end > end {
                self.map.insert(end, covered);
            }
        }
        self.map.insert(start, Patch { end, content });
        self.end = self.end.max(end);
    }
}

impl ReadAt for Replayed {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = buffer.len().min(room);
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        read_padded(self.file.as_ref(), at, buffer)?;
        let end = at.saturating_add(count as u64);
        let mut from = at;
        while let Some((start, patch)) = self.patch_from(from).filter(|(start, _)| *start < end) {
            from = from.max(start);
            let until = patch.end.min(end);
            // Both lie in the buffer.
            let index = |offset: u64| usize::try_from(offset - at).unwrap_or(usize::MAX);
            if let Some(target) = buffer.get_mut(index(from)..index(until)) {
                self.read_patch(patch.content, from - start, target)?;
            }
            from = until;
            if from == end {
                break;
            }
        }
        Ok(count)
    }
}

impl Storage for Replayed {
    fn len(&self) -> u64 {
        self.length
    }

    /// A replayed sector is data, a replayed range of zeros is a hole, the rest is the file's.
    fn run_at(&self, at: u64) -> io::Result<Run> {
        match self.patch_from(at) {
            Some((start, patch)) if start <= at => {
                let kind = match patch.content {
                    Content::Zeros => RunKind::Hole,
                    Content::Sector { .. } => RunKind::Data,
                };
                Ok(Run { kind, end: patch.end })
            }
            next => {
                let run = run_from(self.file.as_ref(), at)?;
                let end = next.map_or(run.end, |(start, _)| run.end.min(start));
                Ok(Run { end, ..run })
            }
        }
    }

    fn allocated(&self) -> u64 {
        self.file.allocated()
    }

    fn identity(&self) -> Option<(u64, u64)> {
        self.file.identity()
    }

    fn has_changed(&self) -> io::Result<bool> {
        self.file.has_changed()
    }

    fn read_unit(&self) -> u64 {
        self.file.read_unit()
    }
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::{Random, context};
    use instar_core::{ErrorKind, MemoryStorage};
    use pretty_assertions::assert_eq;

    use super::*;

    const SECTORS: usize = 32;
    const LOG_AT: usize = 24;

    fn file() -> MemoryStorage {
        let bytes = (0..SECTORS * LOG_SECTOR_SIZE).map(|i| (i / 7 % 251).to_le_bytes()[0] | 1);
        MemoryStorage::from_bytes(bytes.collect::<Vec<_>>())
    }

    /// The same done on a copy of the file.
    fn written(updates: &[Update]) -> Vec<u8> {
        let mut bytes = vec![0; SECTORS * LOG_SECTOR_SIZE];
        file().read_at(0, &mut bytes).unwrap();
        let log = bytes.clone();
        let index = |n: u64| usize::try_from(n).unwrap();
        for update in updates {
            let (start, new) = match *update {
                Update::Zero { offset, length } => (index(offset), vec![0; index(length)]),
                Update::Data { offset, log_at, leading, trailing } => {
                    let mut new = log[index(log_at)..index(log_at) + LOG_SECTOR_SIZE].to_vec();
                    new[..8].copy_from_slice(&leading);
                    new[LOG_SECTOR_SIZE - 4..].copy_from_slice(&trailing);
                    (index(offset), new)
                }
            };
            if new.is_empty() {
                continue;
            }
            let end = start + new.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(&new);
        }
        bytes
    }

    fn random_updates(random: &mut Random) -> Vec<Update> {
        let sector = |n: usize| n as u64 * LOG_SECTOR;
        (0..random.below(12))
            .map(|_| match random.below(2) {
                0 => Update::Zero {
                    offset: sector(random.below(40)),
                    length: sector(random.below(9)),
                },
                _ => Update::Data {
                    offset: sector(random.below(40)),
                    log_at: sector(LOG_AT + random.below(8)),
                    leading: random.next().to_le_bytes(),
                    trailing: [7; 4],
                },
            })
            .collect()
    }

    #[test]
    fn overlaying_is_the_same_as_writing() {
        let mut random = Random::new(3);
        for round in 0..300 {
            let updates = random_updates(&mut random);
            let expected = written(&updates);
            let pending = Pending { updates, file_length: 0 };
            let replayed = Replayed::new(Arc::new(file()), pending, &context()).unwrap();
            assert_eq!(replayed.len(), expected.len() as u64, "{round}");
            for _ in 0..20 {
                let at = random.below(expected.len());
                let mut buffer = vec![9; random.below(3 * LOG_SECTOR_SIZE)];
                let count = replayed.read_at(at as u64, &mut buffer).unwrap();
                assert_eq!(count, buffer.len().min(expected.len() - at));
                assert!(buffer[..count] == expected[at..at + count], "{round}: {at}");
            }
        }
    }

    /// Every other sector becomes zeros.
    fn scattered(count: u64) -> Pending {
        let zero = |index| Update::Zero { offset: index * 2 * LOG_SECTOR, length: LOG_SECTOR };
        Pending { updates: (0..count).map(zero).collect(), file_length: 0 }
    }

    #[test]
    fn what_the_logs_of_a_chain_hold_is_bounded() {
        let mut context = Context::default();
        context.limits.held = 10 * PATCH_BYTES;
        let replay = |count| Replayed::new(Arc::new(file()), scattered(count), &context);
        // While it is put together, there may be two patches for an update.
        let first = replay(5).unwrap();
        assert_eq!(first.patches.len(), 5);
        let error = replay(3).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().starts_with("the list of the log's updates would take "));
        let second = replay(2).unwrap();
        drop(first);
        assert!(replay(4).is_ok());
        drop(second);
        assert!(replay(6).is_err());
    }

    #[test]
    fn runs_tell_what_is_replayed() {
        let file = MemoryStorage::new(16 << 12).with_data(4 << 12, vec![1; 4 << 12]);
        let sector = |n: u64| Update::Data {
            offset: n << 12,
            log_at: 4 << 12,
            leading: [0; 8],
            trailing: [0; 4],
        };
        let updates = vec![sector(1), Update::Zero { offset: 5 << 12, length: 1 << 12 }];
        let pending = Pending { updates, file_length: 20 << 12 };
        let replayed = Replayed::new(Arc::new(file), pending, &context()).unwrap();
        let run = |at: u64| {
            let run = replayed.run_at(at << 12).unwrap();
            (run.kind, run.end)
        };
        assert_eq!(run(0), (RunKind::Hole, 1 << 12));
        assert_eq!(run(1), (RunKind::Data, 2 << 12));
        assert_eq!(run(2), (RunKind::Hole, 4 << 12));
        assert_eq!(run(4), (RunKind::Data, 5 << 12));
        assert_eq!(run(5), (RunKind::Hole, 6 << 12));
        assert_eq!(run(6), (RunKind::Data, 8 << 12));
        assert_eq!(run(8), (RunKind::Hole, u64::MAX));
        assert_eq!(replayed.len(), 20 << 12);
    }
}
