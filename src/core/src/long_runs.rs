//! Long runs of table entries, remembered by where in the file the entries are.

use std::collections::BTreeMap;

use crate::Status;

/// Runs that one source remembers, at most 4 MiB (instar's own limit). When there are more, it starts
/// again from none.
const MAX_RUNS: usize = 64 << 10;

/// Entries of the shortest run that is remembered: to look up a run takes as long as to walk so many.
pub(crate) const LONG: u64 = 64;

/// Bytes of memory that one run takes, with its part of the map's nodes.
const RUN_BYTES: u64 = 64;

/// Runs of entries in a file that come to one extent.
///
/// They are found by file offset and not by table, so that tables that overlap share them.
#[derive(Debug, Default)]
pub(crate) struct LongRuns {
    /// By class and file offset of the first entry. Runs of one class do not overlap.
    runs: BTreeMap<(u64, u64), Run>,
}

/// One run, without its start.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// File offset of the end of its last entry.
    end: u64,
    /// The status of what the first entry describes.
    status: Status,
}

/// How entries lie in the file, and what else decides about what they say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class {
    /// Bytes of an entry.
    pub(crate) width: u64,
    /// Guest bytes that an entry describes.
    pub(crate) unit: u64,
    /// Entries of different variants have different meanings.
    pub(crate) variant: u32,
}

impl Class {
    /// Only entries whose distance is a multiple of their width belong together.
    fn key(self, at: u64) -> u64 {
        (u64::from(self.variant) << 8) | (at & (self.width - 1))
    }

    /// What `status` becomes as many entries further on as there are in `bytes`.
    fn advanced(self, status: Status, bytes: u64) -> Status {
        status.advanced((bytes / self.width).wrapping_mul(self.unit))
    }
}

/// What is known of the entry at a file offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It says this, and a run goes on to this file offset.
    Run(Status, u64),
    /// Nothing is known from there to this file offset, at which an entry of a known run starts.
    Unknown(u64),
}

impl LongRuns {
    /// Bytes of memory.
    pub(crate) fn buffered(&self) -> u64 {
        self.runs.len() as u64 * RUN_BYTES
    }

    /// Forgets all runs.
    pub(crate) fn release(&mut self) {
        self.runs = BTreeMap::new();
    }

    /// What is known of the entry at file offset `at`.
    pub(crate) fn find(&self, class: Class, at: u64) -> Known {
        let key = class.key(at);
        if let Some(((_, start), run)) = self.runs.range((key, 0)..=(key, at)).next_back() {
            if at < run.end {
                return Known::Run(class.advanced(run.status, at - start), run.end);
            }
        }
        let next = self.runs.range((key, at)..=(key, u64::MAX)).next();
        Known::Unknown(next.map_or(u64::MAX, |((_, start), _)| *start))
    }

    /// Remembers that the entries from file offset `start` up to `end` come to one extent, which
    /// starts as `status`: if they are many, or continue a run that is known.
    pub(crate) fn learn(&mut self, class: Class, start: u64, end: u64, status: Status) {
        let key = class.key(start);
        let (mut first, mut last, mut found) = (start, end, status);
        let mut continues = false;
        let before = self.runs.range((key, 0)..=(key, start)).next_back();
        if let Some(((_, from), run)) = before.filter(|(_, run)| run.end >= start) {
            if class.advanced(run.status, start - from) != status {
                // Not the same bytes as before, or another run begins here.
                if run.end > start {
                    return;
                }
            } else {
                (first, last, found) = (*from, last.max(run.end), run.status);
                continues = true;
            }
        }
        let after =
            self.runs.range((key, start)..=(key, last)).find(|((_, from), _)| *from > first);
        if let Some(((_, from), run)) = after.map(|(at, run)| (*at, *run)) {
            if class.advanced(found, from - first) == run.status {
                last = last.max(run.end);
                self.runs.remove(&(key, from));
                continues = true;
            } else {
                last = last.min(from);
            }
        }
        if !continues && (last - first) / class.width < LONG {
            return;
        }
        if self.runs.len() >= MAX_RUNS {
            self.release();
        }
        self.runs.insert((key, first), Run { end: last, status: found });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;
    use pretty_assertions::assert_eq;

    const CLASS: Class = Class { width: 8, unit: 4096, variant: 0 };

    fn data(offset: u64) -> Status {
        Status::Data(Place::at(offset))
    }

    #[test]
    fn long_runs_are_found_from_any_of_their_entries() {
        let mut runs = LongRuns::default();
        runs.learn(CLASS, 800, 800 + 63 * 8, Status::Zero);
        assert_eq!(runs.find(CLASS, 800), Known::Unknown(u64::MAX), "too short");
        runs.learn(CLASS, 800, 800 + 64 * 8, data(1 << 20));
        let end = 800 + 64 * 8;
        assert_eq!(runs.find(CLASS, 800), Known::Run(data(1 << 20), end));
        assert_eq!(runs.find(CLASS, end - 8), Known::Run(data((1 << 20) + 63 * 4096), end));
        assert_eq!(runs.find(CLASS, end), Known::Unknown(u64::MAX));
        assert_eq!(runs.find(CLASS, 792), Known::Unknown(800));
        // Entries between those, and entries with another meaning.
        assert_eq!(runs.find(CLASS, 804), Known::Unknown(u64::MAX));
        assert_eq!(runs.find(Class { variant: 1, ..CLASS }, 800), Known::Unknown(u64::MAX));
        assert_eq!(runs.buffered(), 64);
        runs.release();
        assert_eq!((runs.find(CLASS, 800), runs.buffered()), (Known::Unknown(u64::MAX), 0));
    }

    #[test]
    fn runs_that_touch_become_one_if_one_continues_the_other() {
        let mut runs = LongRuns::default();
        runs.learn(CLASS, 8000, 16_000, data(4096 * 1000));
        // A single entry behind it, in front of it, and one that is something else.
        runs.learn(CLASS, 16_000, 16_008, data(4096 * 2000));
        runs.learn(CLASS, 7992, 8000, data(4096 * 999));
        runs.learn(CLASS, 7984, 7992, Status::Zero);
        runs.learn(CLASS, 16_008, 16_016, data(0));
        assert_eq!(runs.find(CLASS, 7992), Known::Run(data(4096 * 999), 16_008));
        assert_eq!(runs.find(CLASS, 7984), Known::Unknown(7992));
        assert_eq!(runs.find(CLASS, 16_008), Known::Unknown(u64::MAX));
        // What bridges two runs makes them one.
        runs.learn(CLASS, 24_000, 32_000, data(4096 * 3000));
        assert_eq!(runs.runs.len(), 2);
        runs.learn(CLASS, 16_008, 24_000, data(4096 * 2001));
        assert_eq!(runs.find(CLASS, 7992), Known::Run(data(4096 * 999), 32_000));
        assert_eq!(runs.runs.len(), 1);
        // Another run next to it stays one of its own.
        runs.learn(CLASS, 32_000, 40_000, Status::Zero);
        assert_eq!(runs.find(CLASS, 32_000), Known::Run(Status::Zero, 40_000));
        assert_eq!(runs.runs.len(), 2);
    }

    #[test]
    fn there_are_never_too_many() {
        let mut runs = LongRuns::default();
        for index in 0..=MAX_RUNS as u64 {
            let start = index * 2 * LONG * 8;
            runs.learn(CLASS, start, start + LONG * 8, Status::Zero);
            assert!(runs.runs.len() <= MAX_RUNS);
        }
        assert_eq!(runs.runs.len(), 1);
    }
}
